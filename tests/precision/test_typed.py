"""A plan as a typed graph: the types are where the plan says, casts are at borders only, and real runtimes take it."""

from __future__ import annotations

import dataclasses
import importlib.util

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from sr_deploy.core.errors import CheckFailed
from sr_deploy.precision.choose.plan_from_ranges import rounded_scale
from sr_deploy.precision.evaluate import computing
from sr_deploy.precision.lower.typed_graph import typed_graph
from tests.precision import small_plans
from tests.precision.small_graphs import graph, node, residual, residual_plan

HALF, FULL = TensorProto.FLOAT16, TensorProto.FLOAT


def types_of(model: onnx.ModelProto):
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types.update({t.name: t.data_type for t in model.graph.initializer})
    return types


def by_name(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(one for one in model.graph.node if one.name == name)


def mixed_plan(model, **changes):
    """INT8 with a float16 rest and scales that float16 holds."""
    plan = residual_plan(model, rest="float16", **changes)
    return dataclasses.replace(
        plan,
        activation_scales={n: rounded_scale(s, "float16") for n, s in plan.activation_scales.items()},
        weight_scales={n: tuple(rounded_scale(s, "float16") for s in v) for n, v in plan.weight_scales.items()},
    )


def opset_of(model):
    return next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))


def runs(model: onnx.ModelProto, lr: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"lr": lr})[0]


def test_a_float16_base_with_scales_of_its_type():
    model = residual()
    typed = typed_graph(model, mixed_plan(model), {})
    types = types_of(typed)
    assert opset_of(typed) == 19 and typed.ir_version >= 9
    assert types["lr"] == types["sr"] == FULL
    assert {types[name] for name in ("head", "a", "b", "c", "d", "up", "b1/float16")} == {HALF}
    for one in typed.graph.node:
        if one.op_type.endswith("izeLinear"):
            assert types[one.input[1]] == HALF, one.name
    assert [(n.input[0], n.output[0]) for n in typed.graph.node if n.op_type == "Cast"] == [
        ("lr", "lr/as_float16"), ("sr/float16", "sr"),
    ]  # fmt: skip


def test_a_float32_rest_keeps_its_operator_set_and_has_no_casts():
    model = residual()
    typed = typed_graph(model, residual_plan(model), {})
    assert opset_of(typed) == 17 and not any(n.op_type == "Cast" for n in typed.graph.node)
    assert HALF not in set(types_of(typed).values())


def test_a_float32_node_has_casts_at_its_borders_only():
    model = residual()
    nodes = dict(mixed_plan(model).nodes, b_node="float32")
    typed = typed_graph(model, mixed_plan(model, nodes=nodes), {})
    types = types_of(typed)
    assert types["b"] == FULL and types["a"] == types["c"] == HALF
    assert by_name(typed, "b_node").input[0] == "a/as_float32"
    quantize = next(n for n in typed.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "b")
    assert types[quantize.input[1]] == FULL, "a float32 tensor is quantised as it is, without a cast"
    dequantize = next(n for n in typed.graph.node if n.input[0] == quantize.output[0])
    assert types[dequantize.input[1]] == HALF and types[dequantize.output[0]] == HALF
    casts = sorted(n.input[0] for n in typed.graph.node if n.op_type == "Cast")
    assert casts == ["a", "lr", "sr/float16"]


def test_int8_changed_by_hand_to_float16_is_float16():
    model = residual()
    plan = mixed_plan(model)
    edited = dataclasses.replace(plan, nodes={**plan.nodes, "a_node": "float16"})
    typed = typed_graph(model, edited, {})
    assert list(by_name(typed, "a_node").input) == ["head", "w1/float16", "b1/float16"]
    assert {t.name for t in typed.graph.initializer if t.name.startswith("w1")} == {"w1/float16"}


def test_numbers_are_those_of_the_float32_lowering_but_for_float16():
    model = small_plans.network()
    lr = small_plans.pictures()[0]
    plain = computing(model, 1)(lr)
    wide = computing(typed_graph(model, small_plans.plan_of(model, "float32"), {}), 1)(lr)
    half = computing(typed_graph(model, small_plans.plan_of(model, "float16"), {}), 1)(lr)
    rms = lambda a, b: float(np.sqrt(np.mean((a - b) ** 2)))  # noqa: E731
    assert 0 < rms(half, wide) < rms(wide, plain) < 0.1 * plain.std()
    assert np.abs(runs(typed_graph(model, small_plans.plan_of(model, "float32"), {}), lr) - wide).max() < 0.1


def test_reductions_and_split_are_rewritten_for_the_later_operator_set():
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.3, (4, 4, 3, 3))
    nodes = [
        node("Conv", "lr w", "x", pads=[1, 1, 1, 1]),
        node("ReduceMean", "x", "mean", axes=[2, 3], keepdims=1),
        node("ReduceMax", "x", "most", axes=[1], keepdims=1),
        node("Split", "x", "one two", axis=1),
        node("Concat", "one two", "both", axis=1),
        node("Sub", "both mean", "less"),
        node("Add", "less most", "sr"),
    ]
    model = graph(nodes, {"w": weights}, opset=17)
    scales = tuple(rounded_scale(float(s), "float16") for s in np.abs(weights).max((1, 2, 3)) / 127)
    names = {n.name: "float16" for n in model.graph.node}
    plan = residual_plan(
        residual(), "float16", nodes={**names, "x_node": "int8"}, weight_scales={"w": scales}, reasons={},
        activation_scales={"lr": rounded_scale(0.01, "float16")},
    )  # fmt: skip
    typed = typed_graph(model, plan, {})
    onnx.checker.check_model(typed, full_check=True)
    axes = {t.name: numpy_helper.to_array(t).tolist() for t in typed.graph.initializer if t.name.endswith("/axes")}
    assert list(axes.values()) == [[2, 3], [1]]
    assert [a.i for a in by_name(typed, "one_node").attribute if a.name == "num_outputs"] == [2]
    lr = rng.random((1, 4, 9, 8), dtype=np.float32)
    assert np.abs(runs(typed, lr) - runs(model, lr)).max() < 0.05


def test_a_constant_that_float16_cannot_hold_is_named():
    model = residual()
    bias = np.full(8, 1e6, np.float32)
    with pytest.raises(CheckFailed, match="b1"):
        typed_graph(model, mixed_plan(model), {"b1": bias})
    nodes = dict(mixed_plan(model).nodes, a_node="float32")
    assert "b1" in {t.name for t in typed_graph(model, mixed_plan(model, nodes=nodes), {"b1": bias}).graph.initializer}


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")
@pytest.mark.parametrize("rest", ["float16", "float32"])
def test_the_builder_takes_it(tmp_path, rest):
    from sr_deploy.engine.options import EngineOptions
    from sr_deploy.engine.tensorrt import engine_from_graph

    model = small_plans.network()
    plan = small_plans.plan_of(model, rest)
    plan = dataclasses.replace(plan, nodes={**plan.nodes, "tail/Conv": "float32"})
    onnx.save(typed_graph(model, plan, {}), str(tmp_path / "typed.onnx"))
    built = engine_from_graph(
        "tensorrt-rtx", tmp_path / "typed.onnx", ((16, 16),) * 3, ("8.6",), EngineOptions(precision="int8", rest=rest,
        planned=plan.nodes),
    )  # fmt: skip
    assert len(built.plan) > 1000 and built.precision == "int8"
