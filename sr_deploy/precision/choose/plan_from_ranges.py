"""A plan from what was measured: types from the islands, scales from the ranges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence, Set, Tuple

import numpy as np
import onnx
from onnx import numpy_helper

from sr_deploy.core.deployment.plan import INT8_MAX, Plan
from sr_deploy.core.number_formats import FloatName, FormatName, PlanPrecision
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
    nodes: Dict[str, FormatName] = {n: "float32" if n in reasons else "float16" for n in kinds.computing}
    return Plan("fp16", graph_sha256, nodes, "float16", {n: r for n, r in reasons.items() if n in nodes})


@dataclass(frozen=True)
class Int8Choice:
    """What runs in INT8, and what the rest is.

    Attributes:
        narrow: the candidates that run in INT8; None takes those that the islands leave.
        raised: candidate → why it does not run in INT8, where the islands give no reason.
        wide: nodes that must stay float32, with the reason (from the range scan).
        strict: keep INT8 from the nodes in ``wide`` too. Mostly it need not be kept: an 8-bit input is cut off at its
            calibrated range, so what overflows in float16 on an extreme picture does not get that far.
        skips: quantise the skips of Adds that fuse with an INT8 convolution.
        rest: "float16" or "float32": of what is neither INT8 nor pinned.
        precision: what was asked for.
        calibration: what the scales follow from.
    """

    narrow: Optional[Sequence[str]] = None
    raised: Mapping[str, str] = field(default_factory=dict)
    wide: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    skips: bool = True
    rest: FloatName = "float16"
    precision: PlanPrecision = "int8"
    calibration: Mapping[str, Any] = field(default_factory=dict)


def int8_plan(
    model: onnx.ModelProto,
    kinds: Kinds,
    graph_sha256: str,
    activation_scales: Mapping[str, float],
    choice: Int8Choice = Int8Choice(),
    weights: Optional[Mapping[str, np.ndarray]] = None,
) -> Plan:
    """Candidates in INT8, the rest in ``choice.rest``, pinned nodes in float32.

    Args:
        model: the float32 graph.
        kinds: from ``kinds_of``.
        graph_sha256: of the graph.
        activation_scales: tensor → scale, at least of every tensor that a candidate or a fusing Add reads.
        choice: what runs in INT8.
        weights: constants that replace the graph's own.
    """
    by_name = {node.name: node for node in model.graph.node}
    rest, chosen = choice.rest, _chosen(kinds, choice)
    reasons = {name: why for name, why in {**kinds.pinned, **choice.wide}.items() if name not in chosen}
    nodes: Dict[str, FormatName] = {}
    scales: Dict[str, float] = {}
    for name in kinds.computing:
        nodes[name] = "float32" if name in reasons else rest
        if name in chosen:
            nodes[name] = "int8"
            read = by_name[name].input[0]
            scales[read] = rounded_scale(activation_scales[read], rest)
        elif name in kinds.candidates and name not in reasons:
            reasons[name] = choice.raised.get(name) or kinds.wide.get(name, "raised")
    if choice.skips:
        for name, skip in kinds.fusing_adds.items():
            feeding = {n for n in chosen if set(by_name[n].output) & set(by_name[name].input)}
            if feeding and name not in reasons:
                nodes[name] = "int8"
                scales.setdefault(skip, rounded_scale(activation_scales[skip], rest))
    ordered = [by_name[name] for name in kinds.computing if name in chosen]
    return Plan(
        choice.precision, graph_sha256, nodes, rest, {n: r for n, r in reasons.items() if n in nodes}, scales,
        _weight_scales(model, ordered, weights or {}, rest), dict(choice.calibration),
    )  # fmt: skip


def _chosen(kinds: Kinds, choice: Int8Choice) -> Set[str]:
    """The candidates that run in INT8."""
    kept = {**kinds.pinned, **choice.wide} if choice.strict else kinds.pinned
    if choice.narrow is None:
        return {name for name in kinds.candidates if name not in kept and name not in kinds.wide}
    return {name for name in choice.narrow if name not in kept}


def _weight_scales(
    model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], weights: Mapping[str, np.ndarray], rest: str
) -> Dict[str, Tuple[float, ...]]:
    """Weight → scales of its output channels; a weight that many nodes use is taken as the first uses it."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found: Dict[str, Tuple[float, ...]] = {}
    for node in nodes:
        name = node.input[1]
        if name not in found:
            values = weights[name] if name in weights else numpy_helper.to_array(constants[name])
            found[name] = channel_scales(values, CHANNEL_AXIS[node.op_type], rest)
    return found


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
