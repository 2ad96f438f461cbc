"""The lint finds each thing that would not fuse, and nothing in a graph where all does."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto

from sr_deploy.precision.lower.lint import RULES, lint
from sr_deploy.precision.lower.tensorrt8 import legacy_graph
from sr_deploy.precision.lower.typed_graph import typed_graph
from tests.precision.small_graphs import graph, node, qdq, residual, residual_plan

CONSTANTS = {
    "scale": 0.1, "zero": np.int8(0), "w_scale": np.full(4, 0.1), "w_zero": np.zeros(4, np.int8),
    "w": np.ones((4, 4, 3, 3)), "g": np.ones((4, 1, 3, 3)), "slope": np.ones((4, 1, 1)),
}  # fmt: skip


def conv(reads: str, writes: str, weight: str = "w", operator: str = "Conv", **attributes):
    """A convolution with INT8 weights; its input must be dequantised already."""
    axis = int(operator == "ConvTranspose")
    q = f"{writes}_{weight}"
    return [
        *qdq(weight, q, "w_scale", "w_zero", axis=axis),
        node(operator, f"{reads} {q}", writes, pads=[1, 1, 1, 1], **attributes),
    ]


FIRST = qdq("lr", "x")
BROKEN = {
    "activation": [*conv("x", "a"), *qdq("a", "b"), node("Relu", "b", "c"), *qdq("c", "d"), *conv("d", "sr")],
    "skip": [*conv("x", "a"), node("Relu", "lr", "r"), node("Add", "a r", "b"), *qdq("b", "c"), *conv("c", "sr")],
    "shuffle": [*conv("x", "a"), *qdq("a", "b"), node("DepthToSpace", "b", "sr", blocksize=2)],
    "concat": [*conv("x", "a"), *qdq("a", "b"), node("Concat", "b x", "sr", axis=1)],
    "depthwise": conv("x", "sr", "g", group=4),
    "silu": [*conv("x", "a"), node("Sigmoid", "a", "s"), node("Mul", "a s", "m"), node("Add", "m lr", "sr")],
    "leaky": [*conv("x", "a"), node("LeakyRelu", "a", "b"), *qdq("b", "c"), *conv("c", "sr")],
    "transposed": [*conv("x", "a", operator="ConvTranspose"), node("Relu", "a", "sr")],
    "pad": [node("Pad", "lr p", "a"), *qdq("a", "b"), *conv("b", "sr")],
}


def rules(nodes, **constants):
    return [found.rule for found in lint(graph(nodes, {**CONSTANTS, "p": np.zeros(8, np.int64), **constants})).findings]


@pytest.mark.parametrize("rule", RULES)
def test_each_finding(rule):
    nodes = BROKEN[rule] if rule == "pad" else [*FIRST, *BROKEN[rule]]
    assert rules(nodes) == [rule]


CLEAN = [
    *FIRST,
    *conv("x", "a"),
    node("PRelu", "a slope", "b"),
    *qdq("b", "c"),
    *conv("c", "d"),
    node("Add", "d x", "e"),
    node("Relu", "e", "f"),
    *qdq("f", "h"),
    *conv("h", "i"),
    node("DepthToSpace", "i", "sr", blocksize=2),
]


def test_a_clean_graph_gives_none():
    report = lint(graph(CLEAN, CONSTANTS))
    assert report.findings == ()
    # Only the picture itself is quantised by a kernel of its own.
    assert (report.narrow_products, report.quantises, report.dequantises, report.casts) == (3, 1, 0, 0)


def test_a_silu_that_is_only_read_in_8_bits_is_none():
    nodes = [
        *FIRST,
        *conv("x", "a"),
        node("Sigmoid", "a", "s"),
        node("Mul", "s a", "m"),
        *qdq("m", "n"),
        *conv("n", "sr"),
    ]
    assert rules(nodes) == []


def test_a_skip_in_8_bits_and_a_sum_nobody_quantises_are_none():
    quantised = [*FIRST, *conv("x", "a"), node("Add", "x a", "b"), *qdq("b", "c"), *conv("c", "sr")]
    assert rules(quantised) == []
    assert rules([*FIRST, *conv("x", "a"), node("Add", "a lr", "sr")]) == []


def test_what_a_second_reader_costs():
    """A float reader of the convolution's result keeps it from writing 8 bits."""
    shared = [*FIRST, *conv("x", "a"), *qdq("a", "b"), *conv("b", "c"), node("Add", "c a", "sr")]
    alone = [*FIRST, *conv("x", "a"), *qdq("a", "b"), *conv("b", "sr")]
    assert lint(graph(shared, CONSTANTS)).quantises == 2
    assert lint(graph(alone, CONSTANTS)).quantises == 1


def test_8_bits_read_as_floats_are_counted():
    report = lint(graph([*FIRST, *conv("x", "a"), node("Mul", "a x", "sr")], CONSTANTS))
    assert (report.dequantises, report.reformats) == (1, 2)


def test_casts_between_float_types_are_counted():
    nodes = [
        node("Cast", "lr", "half", to=TensorProto.FLOAT16),
        node("Relu", "half", "a"),
        node("Cast", "a", "sr", to=TensorProto.FLOAT),
        node("Shape", "lr", "shape"),
        node("Cast", "shape", "unused", to=TensorProto.FLOAT),
    ]
    assert lint(graph(nodes, {})).casts == 2


@pytest.mark.parametrize("rest", ["float32", "float16"])
def test_both_lowerings_look_the_same(rest):
    """Typed and legacy form of one plan: the same findings, though one holds casts and stored 8-bit weights."""
    model = residual()
    plan = residual_plan(model, rest)
    typed, legacy = lint(typed_graph(model, plan, {})), lint(legacy_graph(model, plan, {}))
    assert typed.findings == legacy.findings == ()
    assert typed.narrow_products == legacy.narrow_products == 3
    assert typed.reformats == legacy.reformats
    assert (typed.casts > 0) == (rest == "float16") and legacy.casts == 0


def test_json():
    report = lint(graph([*FIRST, *BROKEN["concat"]], CONSTANTS))
    raw = json.loads(json.dumps(report.to_dict()))
    assert raw["findings"] == [
        {"rule": "concat", "node": "sr_node", "operator": "Concat", "why": RULES["concat"][0],
         "cost": RULES["concat"][1], "source": "#4366"}
    ]  # fmt: skip
    assert raw["reformats"] == report.quantises + report.dequantises
