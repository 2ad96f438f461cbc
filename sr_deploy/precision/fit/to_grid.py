"""Trained weights and scales as a plan stores them: scales in the type they will have, weights on their grids."""

from __future__ import annotations

import dataclasses
from typing import Dict, Sequence, Tuple

import numpy as np

from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.number_formats import BFLOAT16, FLOAT8, FORMAT, INT8, QUANTISED, NumberFormat
from sr_deploy.precision.grid import LEAST_HALF_SCALE, on_grid
from sr_deploy.precision.interpreter import GraphModule
from sr_deploy.precision.lower.quantize import quantized_weights


def snapped(module: GraphModule, plan: Plan) -> Tuple[Plan, Dict[str, np.ndarray]]:
    """Plan and weights of a trained module.

    Args:
        module: made with this plan.
        plan: gives the type that scales are stored in.

    Returns:
        The plan with the module's scales, rounded to that type; and every constant that training may change, those of
        nodes of 8 bits as float32 values of their grids, so that quantising them again is exact.
    """
    scales = {key: stored_scales(module.scale(key).detach().cpu().numpy(), plan.rest) for key in module.scales}
    activations = {
        one.name: {
            name: float(scales[name, one.name]) if (name, one.name) in scales else value
            for name, value in plan.scales_of(one.name).items()
        }
        for one in QUANTISED
    }
    weight_scales = dict(plan.weight_scales)
    weights = module.arrays()
    for (name, dtype), axis in module.weight_axes().items():
        weight_scales[name] = tuple(float(value) for value in scales[name, dtype])
        if name in weights:
            factors = module.factors.get(name, np.float32(1.0))
            # Factors are powers of two: there and back is exact.
            weights[name] = on_scaled_grid(weights[name] * factors, weight_scales[name], axis, FORMAT[dtype]) / factors
    changed = dataclasses.replace(
        plan,
        activation_scales=activations[INT8.name],
        float8_scales=activations[FLOAT8.name],
        weight_scales=weight_scales,
    )
    return changed, weights


def stored_scales(scales: np.ndarray, rest: str) -> np.ndarray:
    """Scales as the plan's float type holds them, as float64."""
    if rest == "float16":
        return np.maximum(np.asarray(scales, np.float64), LEAST_HALF_SCALE).astype(np.float16).astype(np.float64)
    if rest == BFLOAT16.name:
        return on_grid(scales, BFLOAT16)
    return np.asarray(scales, np.float32).astype(np.float64)


def on_scaled_grid(values: np.ndarray, scales: Sequence[float], axis: int, one: NumberFormat = INT8) -> np.ndarray:
    """Weights rounded to what an 8-bit format holds with these scales, as float32."""
    shape = [1] * values.ndim
    shape[axis] = -1
    steps = quantized_weights(values, scales, axis, one)
    return (steps * np.asarray(scales, np.float64).reshape(shape)).astype(np.float32)
