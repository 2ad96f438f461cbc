"""One plan, its forms: the typed graph, one for ONNX Runtime where that has no kernels for a type, TensorRT 8's Q/DQ
graph with layer types, and the calibration cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Dict, Mapping, Optional, Tuple

import numpy as np

from sr_deploy.core.artifact import write_json
from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.errors import BadInput, CheckFailed
from sr_deploy.core.number_formats import BFLOAT16
from sr_deploy.pipeline.precision.deployed_plan import (
    CACHE_NAME,
    IMPLICIT_NAME,
    LEGACY_NAME,
    LEGACY_TYPES_NAME,
    SIMULATED_NAME,
    TYPED_NAME,
)

if TYPE_CHECKING:
    import onnx

    from sr_deploy.precision.calibrate.ranges import Ranges

#: The TensorRT whose name stands in the cache: JetPack 5's.
CACHE_VERSION: Tuple[int, int, int] = (8, 5, 2)


def write_lowered(
    folder: Path,
    model: onnx.ModelProto,
    plan: Plan,
    weights: Mapping[str, np.ndarray],
    ranges: Optional[Ranges] = None,
) -> Dict[str, object]:
    """Write every form that the plan has into ``folder``.

    Args:
        folder: exists; it is part of an atomic write.
        model: the float32 graph of the plan.
        plan, weights: see core/deployment/plan.py.
        ranges: of all tensors, for the calibration cache; without them none is written.

    Returns:
        For the report: what the lint found in the typed graph, and why a form is missing.

    Raises:
        BadDeployment, CheckFailed: the plan does not fit the graph, or float16 cannot hold a constant.
    """
    import onnx

    from sr_deploy.precision.float16_rounding import bfloat16_simulated
    from sr_deploy.precision.lower.calibration_cache import cache_of, write_cache
    from sr_deploy.precision.lower.channel_factors import factored_floats
    from sr_deploy.precision.lower.lint import lint
    from sr_deploy.precision.lower.tensorrt8 import layer_types, legacy_graph
    from sr_deploy.precision.lower.typed_graph import typed_graph

    typed = typed_graph(model, plan, weights)
    onnx.save(typed, str(folder / TYPED_NAME))
    if BFLOAT16.name in plan.formats:
        onnx.save(bfloat16_simulated(typed), str(folder / SIMULATED_NAME))
    found = lint(typed)
    facts: Dict[str, object] = {
        "lint": {
            "not_fusing": [f"{one.rule}: {one.node}" for one in found.findings],
            "narrow_products": found.narrow_products,
            "reformats": found.reformats,
            "casts": found.casts,
        }
    }
    try:
        onnx.save(legacy_graph(model, plan, weights), str(folder / LEGACY_NAME))
        types = {"explicit": layer_types(model, plan), "implicit": layer_types(model, plan, implicit=True)}
        write_json(folder / LEGACY_TYPES_NAME, types)
    except CheckFailed as error:
        # Not every graph is for TensorRT 8; who builds for it is told why.
        facts["legacy"] = " ".join(str(error).split())
    if plan.nodes_of("int8") and not plan.nodes_of("float8") and ranges is not None:
        try:
            write_cache(folder / CACHE_NAME, cache_of(model, plan, CACHE_VERSION, ranges))
            if plan.channel_factors:
                onnx.save(factored_floats(model, plan, absorb=False), str(folder / IMPLICIT_NAME))
        except BadInput as error:
            facts["calibration_cache"] = error.found
    return facts
