"""Values as a number format holds them, in numpy: what a table entry says, exactly, and the bytes of it."""

from __future__ import annotations

import numpy as np

from sr_deploy.core.number_formats import FLOAT8, NumberFormat

#: The least scale in float16: subnormal, yet still with 4 bits, so that rounding it up costs little range.
LEAST_HALF_SCALE = 2.0**-20


def on_grid(values: np.ndarray, one: NumberFormat) -> np.ndarray:
    """The nearest values that a format holds, ties to even, cut off at ±``one.largest``; NaN stays NaN.

    Of a float with m stored bits of mantissa the step at x is 2^(max(floor(log2 |x|), least exponent) - m).

    Args:
        values: any shape; of a format that is read through Q/DQ in units of its scale.
        one: a row of core/number_formats.py.

    Returns:
        float64 of the same shape.
    """
    wide = np.asarray(values, np.float64)
    with np.errstate(invalid="ignore"):
        kept = np.clip(wide, -one.largest, one.largest)
        if one.mantissa is None:
            return np.rint(kept)
        # frexp gives a mantissa from 0.5 to 1, so its exponent is one more than the number's.
        step = np.exp2(np.maximum(np.frexp(kept)[1] - 1, one.least_exponent) - one.mantissa)
        return np.rint(kept / step) * step


def float8_bytes(values: np.ndarray) -> bytes:
    """Values of FP8's grid as ONNX stores them: one byte each, sign, 4 bits of exponent (bias 7), 3 of mantissa."""
    codes = np.searchsorted(_FLOAT8, np.abs(values).ravel()).astype(np.uint8)
    return (codes | np.where(np.signbit(values).ravel(), 128, 0).astype(np.uint8)).tobytes()


def bfloat16_bytes(values: np.ndarray) -> bytes:
    """float32 values as ONNX stores bfloat16: the upper half of each, rounded half to even, little-endian."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def _positive_values(one: NumberFormat) -> np.ndarray:
    """What an 8-bit float holds from 0 on, in the order of its codes."""
    codes = np.arange(127)
    exponent, mantissa = codes >> 3, codes & 7
    normal = np.exp2(exponent - 7.0) * (1 + mantissa / 8)
    return np.where(exponent == 0, np.exp2(float(one.least_exponent)) * mantissa / 8, normal)


_FLOAT8 = _positive_values(FLOAT8)
