"""The form of a plan for implicit quantisation: a calibration cache for the graph without Q/DQ.

TensorRT 8 and 10.0 … 10.16 (weakly typed) read it in place of pictures, and so does ``trtexec --calib``. The text and
its reader are in core/deployment/calibration_cache.py, because the board reads it too.

A layer can run in INT8 only when its inputs and outputs have scales. A tensor that only nodes of higher precision touch
gets none: TensorRT then says "Missing scale and zero-point for tensor …, expect fall back to non-int8 implementation
for any layer consuming or producing given tensor", which is what the plan wants. A tensor at the border of an island
needs its scale for the INT8 node on its other side, so a scale left out cannot protect an island of one node: hold the
layers with ``layer_types(…, implicit=True)`` as well. Weights need no line; TensorRT takes their largest magnitude, for
each output channel, so learned or trained weight scales have no effect on this path and Q/DQ is the better one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Optional, Set

import onnx

from sr_deploy.core.artifact import atomic_file
from sr_deploy.core.deployment.calibration_cache import CalibrationCache, Version, cache_text
from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.errors import BadInput
from sr_deploy.precision.calibrate.ranges import Ranges, scale_of
from sr_deploy.precision.lower.channel_factors import with_factors
from sr_deploy.precision.tensors import floating_nodes

#: What trtexec and the DLA take; the name says how TensorRT would have chosen the scales, not how these were chosen.
DEFAULT_ALGORITHM = "EntropyCalibration2"


def cache_of(
    model: onnx.ModelProto,
    plan: Plan,
    version: Version,
    ranges: Optional[Ranges] = None,
    algorithm: str = DEFAULT_ALGORITHM,
    method: Optional[str] = None,
) -> CalibrationCache:
    """The cache of a plan, for its float32 graph; of one with channel factors for
    ``factored_floats(…, absorb=False)``.

    Args:
        model: the float32 graph of the plan.
        plan: its activation scales are taken as they are.
        version: of the TensorRT that will read it: major, minor, patch.
        ranges: for the tensors that the plan has no scale for, such as what an INT8 convolution writes.
        algorithm: "EntropyCalibration2", or "MinMaxCalibration".
        method: how scales follow from ``ranges``; None takes the plan's own, "minmax" where it names none.

    Raises:
        BadInput: a tensor beside an INT8 node has neither a scale nor a range; the message names it. Or what
            ``cache_text`` refuses.
        UsageError, CheckFailed: see ``ranges.scale_of``.
    """
    chosen = method or str(plan.calibration.get("method", "minmax"))
    scales: Dict[str, float] = {}
    missing: List[str] = []
    made = with_factors(model, plan, {}, absorb=False)
    plan = made.plan
    for name in int8_tensors(made.model, plan):
        if name in plan.activation_scales:
            scales[name] = plan.activation_scales[name]
        elif ranges is not None and name in ranges.tensors:
            scales[name] = scale_of(ranges.tensors[name], chosen)
        else:
            missing.append(name)
    if missing:
        raise BadInput(
            f"{len(missing)} tensors beside INT8 nodes have no scale, such as {missing[0]!r}",
            "a scale for every tensor that such a node reads or writes",
            "srdeploy calibrate DIR --images D finds the ranges of all of them",
        )
    cache = CalibrationCache(version, algorithm, scales)
    cache_text(cache)
    return cache


def int8_tensors(model: onnx.ModelProto, plan: Plan) -> List[str]:
    """The activations that a calibration cache must name: what INT8 nodes read and write, and what lies between them.

    A node that multiplies or adds in a wider type is an island. Activations and other nodes that the plan leaves in
    ``plan.rest`` without a reason are no islands: TensorRT fuses them into the INT8 node before them, which it can only
    where they have scales.

    Args:
        model: the float32 graph of the plan.
        plan: see core/deployment/plan.py.

    Returns:
        Tensor names, the graph's input first, in the graph's order.
    """
    floating = set(floating_nodes(model))
    inputs = [value.name for value in model.graph.input]
    made = set(inputs) | {name for node in model.graph.node if node.name in floating for name in node.output}
    wanted: Set[str] = set()
    for node in model.graph.node:
        kind = plan.nodes.get(node.name)
        narrow = kind == "int8" or kind == plan.rest and node.name not in plan.reasons
        if node.name in floating and narrow:
            wanted.update(name for name in (*node.input, *node.output) if name in made)
    ordered = [*inputs, *(name for node in model.graph.node for name in node.output)]
    return [name for name in dict.fromkeys(ordered) if name in wanted]


def write_cache(path: Path, cache: CalibrationCache) -> None:
    """Write a calibration cache, whole or not at all.

    Raises:
        BadInput: as ``cache_text``.
        DiskFull, EnvironmentFault: it cannot be written.
    """
    text = cache_text(cache)
    with atomic_file(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")
