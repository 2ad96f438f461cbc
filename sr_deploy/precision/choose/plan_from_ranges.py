"""A plan from what was measured: types from the islands, scales from the ranges."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence, Set, Tuple

import numpy as np
import onnx
from onnx import numpy_helper

from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.number_formats import (
    BFLOAT16,
    FLOAT8,
    FLOAT16,
    FLOAT32,
    FORMAT,
    INT8,
    QUANTISED,
    FloatName,
    FormatName,
    NumberFormat,
    PlanPrecision,
)
from sr_deploy.precision.choose.islands import Kinds
from sr_deploy.precision.grid import LEAST_HALF_SCALE
from sr_deploy.precision.lower.channel_factors import weight_factors
from sr_deploy.precision.tensors import CHANNEL_AXIS


def floating_plan(kinds: Kinds, graph_sha256: str, wide: Mapping[str, str], one: NumberFormat = FLOAT16) -> Plan:
    """Everything in one float of 16 bits but the pinned nodes.

    Args:
        kinds: from ``kinds_of``.
        graph_sha256: of the float32 graph.
        wide: further nodes that must stay float32, with the reason (from the range scan).
        one: FLOAT16 or BFLOAT16.
    """
    reasons = {**kinds.pinned, **wide}
    nodes: Dict[str, FormatName] = {n: FLOAT32.name if n in reasons else one.name for n in kinds.computing}
    return Plan(one.precision, graph_sha256, nodes, one.name, {n: r for n, r in reasons.items() if n in nodes})


@dataclass(frozen=True)
class Divided:
    """How INT8 convolutions should read a tensor: its channels divided by factors, and the scale of what is left."""

    factors: Tuple[float, ...]
    scale: float


@dataclass(frozen=True)
class Scales:
    """Tensor → scale in each 8-bit format, at least of every tensor that a candidate in it or a fusing Add reads.

    Attributes:
        int8, float8: the scales.
        divided: of some tensors how INT8 convolutions should rather read them. FP8's steps grow with the values, so
            factors bring it nothing.
    """

    int8: Mapping[str, float]
    float8: Mapping[str, float] = field(default_factory=dict)
    divided: Mapping[str, Divided] = field(default_factory=dict)

    def coarser(self, times: float) -> Scales:
        """INT8 scales so many times as large."""
        divided = {name: replace(one, scale=one.scale * times) for name, one in self.divided.items()}
        return replace(self, int8={name: scale * times for name, scale in self.int8.items()}, divided=divided)


@dataclass(frozen=True)
class NarrowChoice:
    """What runs in 8 bits, and what the rest is.

    Attributes:
        narrow: the candidates that run in 8 bits; None takes those that the islands leave.
        formats: candidate → its 8-bit format; INT8 where it is not named.
        raised: candidate → why it does not run in 8 bits, where the islands give no reason.
        wide: nodes that must stay float32, with the reason (from the range scan).
        strict: keep 8 bits from the nodes in ``wide`` too. Mostly it need not be kept: an 8-bit input is cut off at its
            calibrated range, so what overflows in float16 on an extreme picture does not get that far.
        skips: quantise the skips of Adds that fuse with an INT8 convolution.
        rest: "float16", "bfloat16" or "float32": of what is neither of 8 bits nor pinned.
        precision: what was asked for.
        calibration: what the scales follow from.
    """

    narrow: Optional[Sequence[str]] = None
    formats: Mapping[str, str] = field(default_factory=dict)
    raised: Mapping[str, str] = field(default_factory=dict)
    wide: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    skips: bool = True
    rest: FloatName = "float16"
    precision: PlanPrecision = "int8"
    calibration: Mapping[str, Any] = field(default_factory=dict)


def narrow_plan(
    model: onnx.ModelProto,
    kinds: Kinds,
    graph_sha256: str,
    scales: Scales,
    choice: NarrowChoice = NarrowChoice(),
    weights: Optional[Mapping[str, np.ndarray]] = None,
) -> Plan:
    """Candidates in 8 bits, the rest in ``choice.rest``, pinned nodes in float32.

    Args:
        model: the float32 graph.
        kinds: from ``kinds_of``.
        graph_sha256: of the graph.
        scales: of the tensors that are read in 8 bits.
        choice: what runs in 8 bits.
        weights: constants that replace the graph's own.
    """
    by_name = {node.name: node for node in model.graph.node}
    rest, chosen = choice.rest, _chosen(kinds, choice)
    reasons = {name: why for name, why in {**kinds.pinned, **choice.wide}.items() if name not in chosen}
    known = {INT8.name: scales.int8, FLOAT8.name: scales.float8}
    nodes: Dict[str, FormatName] = {}
    used: Dict[str, Dict[str, float]] = {one.name: {} for one in QUANTISED}
    for name in kinds.computing:
        nodes[name] = "float32" if name in reasons else rest
        if name in chosen:
            own = nodes[name] = choice.formats.get(name, INT8.name)
            read = by_name[name].input[0]
            used[own][read] = rounded_scale(known[own][read], rest)
        elif name in kinds.candidates and name not in reasons:
            reasons[name] = choice.raised.get(name) or kinds.wide.get(name, "raised")
    if choice.skips:
        for name, skip in kinds.fusing_adds.items():
            # What fuses is an INT8 convolution with the sum behind it; of FP8 no such kernel is known.
            feeding = {n for n in chosen if nodes[n] == INT8.name and set(by_name[n].output) & set(by_name[name].input)}
            if feeding and name not in reasons:
                nodes[name] = INT8.name
                used[INT8.name].setdefault(skip, rounded_scale(scales.int8[skip], rest))
    plan = Plan(
        choice.precision, graph_sha256, nodes, rest, {n: r for n, r in reasons.items() if n in nodes},
        used[INT8.name], {}, dict(choice.calibration), float8_scales=used[FLOAT8.name],
    )  # fmt: skip
    plan = _divided(plan, {skip for name, skip in kinds.fusing_adds.items() if nodes.get(name) == INT8.name}, scales)
    ordered = [by_name[name] for name in kinds.computing if name in chosen]
    return replace(plan, weight_scales=_weight_scales(model, ordered, weights or {}, plan))


def _divided(plan: Plan, skips: Set[str], scales: Scales) -> Plan:
    """The plan with factors for the channels of what INT8 convolutions read, but for skips, which Adds read too."""
    chosen = {name: one for name, one in scales.divided.items() if name in plan.activation_scales and name not in skips}
    left = {name: rounded_scale(one.scale, plan.rest) for name, one in chosen.items()}
    return replace(
        plan,
        activation_scales={**plan.activation_scales, **left},
        channel_factors={name: one.factors for name, one in chosen.items()},
    )


def _chosen(kinds: Kinds, choice: NarrowChoice) -> Set[str]:
    """The candidates that run in 8 bits."""
    kept = {**kinds.pinned, **choice.wide} if choice.strict else kinds.pinned
    if choice.narrow is None:
        return {name for name in kinds.candidates if name not in kept and name not in kinds.wide}
    return {name for name in choice.narrow if name not in kept}


def _weight_scales(
    model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], weights: Mapping[str, np.ndarray], plan: Plan
) -> Dict[str, Tuple[float, ...]]:
    """Weight → scales of its output channels; a weight that many nodes use is taken as the first uses it."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    factors = weight_factors(model, plan)
    found: Dict[str, Tuple[float, ...]] = {}
    for node in nodes:
        name = node.input[1]
        if name not in found:
            values = weights[name] if name in weights else numpy_helper.to_array(constants[name])
            values = values * factors.get(name, np.float32(1.0))
            found[name] = channel_scales(values, CHANNEL_AXIS[node.op_type], plan.rest, FORMAT[plan.nodes[node.name]])
    return found


def channel_scales(values: np.ndarray, axis: int, rest: str, one: NumberFormat = INT8) -> Tuple[float, ...]:
    """One scale for each output channel: its largest weight becomes the largest that the format holds.

    Args:
        values: float32 weights.
        axis: of the output channels.
        rest: the type that the scales will be stored in.
        one: INT8 or FLOAT8.
    """
    others = tuple(index for index in range(values.ndim) if index != axis)
    largest = np.abs(values).max(axis=others)
    return tuple(rounded_scale(float(value) / one.largest, rest) for value in largest)


def rounded_scale(scale: float, rest: str) -> float:
    """The scale as its type stores it, rounded up so that the largest value still fits; for a dead channel a small one.

    Args:
        scale: above or equal to 0.
        rest: "float16", "bfloat16" or "float32".
    """
    if rest == BFLOAT16.name:
        # numpy has no such type; both ends are normal numbers.
        scale = max(scale, float(np.finfo(np.float32).tiny))
        step = 2.0 ** (int(np.frexp(scale)[1]) - 1 - 7)
        return float(np.ceil(scale / step) * step)
    kind = np.float16 if rest == "float16" else np.float32
    value = kind(max(scale, LEAST_HALF_SCALE if rest == "float16" else float(np.finfo(np.float32).tiny)))
    if float(value) < scale:
        value = np.nextafter(value, kind(np.inf))
    return float(value)


def narrow_share(plan: Plan, macs: Mapping[str, int], kinds: Kinds) -> float:
    """Share of the multiply-accumulates outside the pinned islands that the plan runs in 8 bits, 0…1."""
    return sum(macs.get(name, 0) for name in plan.quantised) / max(kinds.macs, 1)
