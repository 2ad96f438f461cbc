"""Bicubic resizing as MATLAB's imresize does it: the convention by which super-resolution pairs are made and judged.

Keys' cubic kernel with a = -0.5, widened by the factor when shrinking (antialiasing), pixels mirrored at the border
with the edge pixel repeated. Sources: R. Keys, "Cubic convolution interpolation for digital image processing", IEEE
TASSP 29(6), 1981, for the kernel; the documentation of MATLAB's imresize for antialiasing and pixel positions.
"""

from __future__ import annotations

import math
from typing import Tuple

import numpy as np

from sr_deploy.core.errors import UsageError


def upscale_bicubic(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Enlarge a picture ``factor`` times in height and width.

    Args:
        pixels: (H, W) or (H, W, C); uint8, uint16, or float of any range.
        factor: positive whole number.

    Returns:
        (factor·H, factor·W[, C]) of the same dtype. Integers are rounded and limited to their range; floats may
        overshoot by a few per cent beside sharp edges, as the kernel has negative lobes.

    Raises:
        UsageError: the factor is not a positive whole number.
    """
    _check_factor(factor)
    return _resize(pixels, (pixels.shape[0] * factor, pixels.shape[1] * factor), float(factor))


def downscale_bicubic(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Shrink a picture ``factor`` times in height and width, antialiased.

    Args:
        pixels: (H, W) or (H, W, C); uint8, uint16, or float of any range.
        factor: positive whole number.

    Returns:
        (ceil(H/factor), ceil(W/factor)[, C]) of the same dtype. Crop to a multiple of the factor first (see
        ``crop_to_multiple``) where the result shall fit its original exactly.

    Raises:
        UsageError: the factor is not a positive whole number.
    """
    _check_factor(factor)
    height, width = -(-pixels.shape[0] // factor), -(-pixels.shape[1] // factor)
    return _resize(pixels, (height, width), 1.0 / factor)


def crop_to_multiple(pixels: np.ndarray, factor: int) -> np.ndarray:
    """The largest top-left part of (H, W[, C]) whose height and width are multiples of ``factor``."""
    _check_factor(factor)
    height, width = pixels.shape[:2]
    return pixels[: height - height % factor, : width - width % factor]


def _check_factor(factor: int) -> None:
    if isinstance(factor, bool) or int(factor) != factor or factor < 1:
        raise UsageError(f"cannot resize by {factor!r}", "a positive whole number", "use 2, 3 or 4")


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5, support [-2, 2]."""
    near = np.abs(x)
    inner = (1.5 * near - 2.5) * near * near + 1.0
    outer = ((-0.5 * near + 2.5) * near - 4.0) * near + 2.0
    return np.where(near <= 1.0, inner, np.where(near <= 2.0, outer, 0.0))


def _taps(length: int, target: int, factor: float) -> Tuple[np.ndarray, np.ndarray]:
    """For each output position, the input indices it reads and their weights: two arrays (target, taps).

    Output pixel i has its centre at (i + 0.5) / factor - 0.5 of the input grid.
    """
    shrink = min(factor, 1.0)
    support = 4.0 / shrink
    centre = (np.arange(target) + 0.5) / factor - 0.5
    first = np.floor(centre - support / 2).astype(np.int64)
    index = first[:, None] + np.arange(math.ceil(support) + 2)[None, :]
    weight = shrink * _cubic(shrink * (centre[:, None] - index))
    weight /= weight.sum(axis=1, keepdims=True)
    folded = np.mod(index, 2 * length)
    index = np.where(folded < length, folded, 2 * length - 1 - folded)
    used = np.any(weight != 0.0, axis=0)
    return index[:, used], weight[:, used]


def _resize(pixels: np.ndarray, size: Tuple[int, int], factor: float) -> np.ndarray:
    """Rows first, then columns, each in float64.

    Integers are rounded, half up, and limited to their range after *each* of the two passes: MATLAB keeps the
    picture in its own type between them, and only so are published low-resolution pictures reproduced bit for bit.
    """
    whole = np.issubdtype(pixels.dtype, np.integer)
    result = pixels
    for axis in (0, 1):
        index, weight = _taps(pixels.shape[axis], size[axis], factor)
        lines = np.moveaxis(result, axis, 0)
        flat = np.asarray(lines, np.float64).reshape(lines.shape[0], -1)
        out = np.zeros((size[axis], flat.shape[1]))
        for tap in range(index.shape[1]):
            out += weight[:, tap, None] * flat[index[:, tap]]
        if whole:
            out = np.clip(np.floor(out + 0.5), 0, np.iinfo(pixels.dtype).max)
        result = np.moveaxis(out.reshape((size[axis],) + lines.shape[1:]), 0, axis)
    return np.ascontiguousarray(result.astype(pixels.dtype))
