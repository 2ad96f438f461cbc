"""Quantisation that gradients pass through: what Q/DQ of a plan does to values, in float32."""

from __future__ import annotations

from typing import Any, Tuple

import torch
from torch import Tensor

#: What QuantizeLinear holds: activations may reach -128; weights do not (core/deployment/plan.py).
ACTIVATION_RANGE = (-128.0, 127.0)
WEIGHT_RANGE = (-127.0, 127.0)


class _Rounded(torch.autograd.Function):
    """``clip(round(x / scale), low, high) * scale`` with the gradients of Esser et al., "Learned Step Size
    Quantization", ICLR 2020, equations 1 to 3: straight through where nothing is clipped, and for the scale the
    rounding error in steps there and the bound where it is clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
        steps = x / scale
        rounded = torch.round(steps).clamp_(low, high)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            # Inside the range this is the rounding error, outside the bound: what the scale's gradient is made of.
            inside = (steps >= low) & (steps <= high)
            slope = torch.where(inside, rounded - steps, rounded) if ctx.needs_input_grad[1] else None
            ctx.save_for_backward(inside, slope)
            ctx.scale_shape = scale.shape
        return rounded.mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tuple[Any, ...]:
        inside, slope = ctx.saved_tensors
        to_scale = None
        if slope is not None:
            to_scale = (gradient * slope).sum_to_size(ctx.scale_shape) if ctx.scale_shape else (gradient * slope).sum()
        return (gradient * inside if ctx.needs_input_grad[0] else None), to_scale, None, None


def quantised_activation(x: Tensor, scale: Tensor) -> Tensor:
    """``x`` as one INT8 tensor holds it, float32 of the same shape.

    Args:
        x: any shape.
        scale: one positive number, shape ().
    """
    return _Rounded.apply(x, scale, *ACTIVATION_RANGE)


def quantised_weight(weight: Tensor, scales: Tensor, axis: int) -> Tensor:
    """Weights as INT8 holds them with one scale for each index of ``axis``; float32 of the same shape."""
    shape = [1] * weight.dim()
    shape[axis] = -1
    return _Rounded.apply(weight, scales.reshape(shape), *WEIGHT_RANGE)
