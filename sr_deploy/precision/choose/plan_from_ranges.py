"""A plan from what was measured: types from the islands, scales from the ranges."""

from __future__ import annotations

from typing import Any, Dict, Iterable, Mapping, Optional, Tuple

import numpy as np
import onnx
from onnx import numpy_helper

from sr_deploy.core.deployment.plan import INT8_MAX, AskedPrecision, NodeType, Plan, RestType
from sr_deploy.precision.choose.islands import Kinds
from sr_deploy.precision.lower.quantize import CHANNEL_AXIS, LEAST_HALF_SCALE


def half_plan(kinds: Kinds, graph_sha256: str, wide: Mapping[str, str]) -> Plan:
    """Everything in float16 but the pinned nodes.

    Args:
        kinds: from ``kinds_of``.
        graph_sha256: of the float32 graph.
        wide: further nodes that must stay float32, with the reason (from the range scan).
    """
    reasons = {**kinds.pinned, **wide}
    nodes: Dict[str, NodeType] = {n: "float32" if n in reasons else "float16" for n in kinds.computing}
    return Plan("fp16", graph_sha256, nodes, "float16", {n: r for n, r in reasons.items() if n in nodes})


def int8_plan(
    model: onnx.ModelProto,
    kinds: Kinds,
    graph_sha256: str,
    activation_scales: Mapping[str, float],
    wide: Mapping[str, str],
    narrow: Optional[Iterable[str]] = None,
    raised: Optional[Mapping[str, str]] = None,
    skips: bool = True,
    rest: RestType = "float16",
    calibration: Optional[Dict[str, Any]] = None,
    precision: AskedPrecision = "int8",
    weights: Optional[Mapping[str, np.ndarray]] = None,
    strict: bool = False,
) -> Plan:
    """Candidates in INT8, the rest in ``rest``, pinned nodes in float32.

    Args:
        model: the float32 graph.
        kinds: from ``kinds_of``.
        graph_sha256: of the graph.
        activation_scales: tensor → scale, at least of every tensor that a candidate or a fusing Add reads.
        wide: nodes that must stay float32, with the reason (from the range scan).
        narrow: the candidates that run in INT8; None takes those that the islands leave.
        raised: candidate → why it does not run in INT8, where the islands give no reason.
        skips: quantise the skips of Adds that fuse with an INT8 convolution.
        rest: "float16" or "float32".
        calibration: what the scales follow from.
        precision: what was asked for.
        weights: constants that replace the graph's own.
        strict: keep INT8 from the nodes in ``wide`` too. Mostly it need not be kept: an 8-bit input is cut off at its
            calibrated range, so what overflows in float16 on an extreme picture does not get that far.
    """
    constants = {t.name: t for t in model.graph.initializer}
    by_name = {node.name: node for node in model.graph.node}
    reasons = {**kinds.pinned, **wide}
    kept = reasons if strict else kinds.pinned
    chosen = {n for n in (kinds.candidates if narrow is None else narrow) if n not in kept}
    if narrow is None:
        chosen -= set(kinds.wide)
    reasons = {name: why for name, why in reasons.items() if name not in chosen}
    nodes: Dict[str, NodeType] = {}
    scales: Dict[str, float] = {}
    weight_scales: Dict[str, Tuple[float, ...]] = {}
    for name in kinds.computing:
        node = by_name[name]
        nodes[name] = "float32" if name in reasons else rest
        if name in chosen:
            nodes[name] = "int8"
            scales[node.input[0]] = rounded_scale(activation_scales[node.input[0]], rest)
            weight = node.input[1]
            if weight not in weight_scales:
                values = (weights or {}).get(weight)
                values = numpy_helper.to_array(constants[weight]) if values is None else values
                weight_scales[weight] = channel_scales(values, CHANNEL_AXIS[node.op_type], rest)
        elif name in kinds.candidates and name not in reasons:
            reasons[name] = (raised or {}).get(name) or kinds.wide.get(name, "raised")
    if skips:
        for name, skip in kinds.fusing_adds.items():
            feeding = {n for n in chosen if set(by_name[n].output) & set(by_name[name].input)}
            if feeding and name not in reasons:
                nodes[name] = "int8"
                scales.setdefault(skip, rounded_scale(activation_scales[skip], rest))
    return Plan(
        precision, graph_sha256, nodes, rest, {n: r for n, r in reasons.items() if n in nodes}, scales, weight_scales,
        calibration or {},
    )  # fmt: skip


def channel_scales(values: np.ndarray, axis: int, rest: str) -> Tuple[float, ...]:
    """One scale for each output channel: its largest weight becomes ±127.

    Args:
        values: float32 weights.
        axis: of the output channels.
        rest: the type that the scales will be stored in.
    """
    others = tuple(index for index in range(values.ndim) if index != axis)
    largest = np.abs(values).max(axis=others)
    return tuple(rounded_scale(float(value) / INT8_MAX, rest) for value in largest)


def rounded_scale(scale: float, rest: str) -> float:
    """The scale as its type stores it, rounded up so that the largest value still fits; for a dead channel a small one.

    Args:
        scale: above or equal to 0.
        rest: "float16" or "float32".
    """
    kind = np.float16 if rest == "float16" else np.float32
    value = kind(max(scale, LEAST_HALF_SCALE if rest == "float16" else float(np.finfo(np.float32).tiny)))
    if float(value) < scale:
        value = np.nextafter(value, kind(np.inf))
    return float(value)


def int8_share(plan: Plan, macs: Mapping[str, int], kinds: Kinds) -> float:
    """Share of the multiply-accumulates outside the pinned islands that the plan runs in INT8, 0…1."""
    narrow = sum(macs.get(name, 0) for name in plan.nodes_of("int8"))
    return narrow / max(kinds.macs, 1)
