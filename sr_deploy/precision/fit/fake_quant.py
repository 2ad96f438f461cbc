"""Quantisation that gradients pass through: what Q/DQ of a plan does to values, in float32."""

from __future__ import annotations

from typing import Any, Tuple

import torch
from torch import Tensor

from sr_deploy.core.number_formats import INT8, NumberFormat

#: What QuantizeLinear holds of INT8: activations may reach -128; weights do not (core/deployment/plan.py).
INT8_LOWEST = -128.0


def on_grid(values: Tensor, one: NumberFormat, lowest: float) -> Tensor:
    """The nearest values that a format holds, ties to even, from ``lowest`` to its largest; as precision/grid.py."""
    kept = values.clamp(lowest, one.largest)
    if one.mantissa is None:
        return kept.round_()
    # frexp gives a mantissa from 0.5 to 1, so its exponent is one more than the number's.
    exponent = (torch.frexp(kept).exponent - 1).clamp_(min=one.least_exponent).sub_(one.mantissa)
    # Powers of two: dividing and multiplying by them is exact.
    return torch.ldexp(torch.ldexp(kept, -exponent).round_(), exponent)


class _Rounded(torch.autograd.Function):
    """``on_grid(x / scale) * scale`` with the gradients of Esser et al., "Learned Step Size Quantization", ICLR 2020,
    equations 1 to 3: straight through where nothing is clipped, and for the scale the rounding error in steps there and
    the bound where it is clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, one: NumberFormat, lowest: float) -> Tensor:
        steps = x / scale
        rounded = on_grid(steps, one, lowest)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            # Inside the range this is the rounding error, outside the bound: what the scale's gradient is made of.
            inside = (steps >= lowest) & (steps <= one.largest)
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


def quantised_activation(x: Tensor, scale: Tensor, one: NumberFormat = INT8) -> Tensor:
    """``x`` as one tensor of 8 bits holds it, float32 of the same shape.

    Args:
        x: any shape.
        scale: one positive number, shape ().
        one: INT8 or FLOAT8.
    """
    return _Rounded.apply(x, scale, one, INT8_LOWEST if one is INT8 else -one.largest)


def quantised_weight(weight: Tensor, scales: Tensor, axis: int, one: NumberFormat = INT8) -> Tensor:
    """Weights as 8 bits hold them with one scale for each index of ``axis``; float32 of the same shape."""
    shape = [1] * weight.dim()
    shape[axis] = -1
    return _Rounded.apply(weight, scales.reshape(shape), one, -one.largest)
