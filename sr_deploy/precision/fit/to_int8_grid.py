"""Trained weights and scales as a plan stores them: scales in the type they will have, weights as exact multiples."""

from __future__ import annotations

import dataclasses
from typing import Dict, Sequence, Tuple

import numpy as np

from sr_deploy.core.deployment.plan import Plan
from sr_deploy.precision.interpreter import GraphModule
from sr_deploy.precision.lower.quantize import LEAST_HALF_SCALE, quantized_weights


def snapped(module: GraphModule, plan: Plan) -> Tuple[Plan, Dict[str, np.ndarray]]:
    """Plan and weights of a trained module.

    Args:
        module: made with this plan.
        plan: gives the type that scales are stored in.

    Returns:
        The plan with the module's scales, rounded to that type; and every constant that training may change, those of
        INT8 nodes as float32 multiples of their scales, so that ``rint(weight / scale)`` is exact.
    """
    scales = {name: module.scale(name).detach().cpu().numpy() for name in module.scales}
    activation_scales = {
        name: float(stored_scales(scales[name], plan.rest)) if name in scales else value
        for name, value in plan.activation_scales.items()
    }
    weight_scales = {
        name: tuple(float(v) for v in stored_scales(scales[name], plan.rest)) if name in scales else values
        for name, values in plan.weight_scales.items()
    }
    axes = module.weight_axes()
    weights = module.arrays()
    for name, axis in axes.items():
        if name in weights:
            weights[name] = multiples_of(weights[name], weight_scales[name], axis)
    changed = dataclasses.replace(plan, activation_scales=activation_scales, weight_scales=weight_scales)
    return changed, weights


def stored_scales(scales: np.ndarray, rest: str) -> np.ndarray:
    """Scales as float16 or float32 holds them, as float64."""
    if rest == "float16":
        return np.maximum(np.asarray(scales, np.float64), LEAST_HALF_SCALE).astype(np.float16).astype(np.float64)
    return np.asarray(scales, np.float32).astype(np.float64)


def multiples_of(values: np.ndarray, scales: Sequence[float], axis: int) -> np.ndarray:
    """Weights rounded to what INT8 holds, as float32."""
    shape = [1] * values.ndim
    shape[axis] = -1
    steps = quantized_weights(values, scales, axis)
    return (steps.astype(np.float64) * np.asarray(scales, np.float64).reshape(shape)).astype(np.float32)
