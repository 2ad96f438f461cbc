"""Bicubic resizing as MATLAB's imresize does it: the convention by which super-resolution pairs are made and judged.

Keys' cubic kernel with a = -0.5, widened by the factor when shrinking (antialiasing), pixels mirrored at the border
with the edge pixel repeated. Sources: R. Keys, "Cubic convolution interpolation for digital image processing", IEEE
TASSP 29(6), 1981, for the kernel; the documentation of MATLAB's imresize for antialiasing and pixel positions.
"""

from __future__ import annotations

import math
from typing import Tuple

import numpy as np

from sr_deploy.core.contract import Size
from sr_deploy.core.errors import UsageError


def resize(pixels: np.ndarray, size: Size) -> np.ndarray:
    """Enlarge or shrink a picture to ``size``.

    Integers are rounded, half up, and limited to their range after *each* of the two passes: MATLAB keeps the
    picture in its own type between them, and only so are published low-resolution pictures reproduced bit for bit.
    The axis that shrinks most is done first, as there; both alike: height first.

    Args:
        pixels: (H, W) or (H, W, C); uint8, uint16, or float of any range.
        size: (height, width) of the result. Crop to a multiple (``crop_to_multiple``) before shrinking to a fraction.

    Returns:
        (height, width[, C]) of the same dtype. Floats may overshoot by a few per cent beside sharp edges, as the
        kernel has negative lobes.

    Raises:
        UsageError: a side of ``size`` is not positive.
    """
    if min(size) < 1:
        raise UsageError(f"cannot resize a picture to {size[0]}x{size[1]}", "at least 1x1")
    whole = np.issubdtype(pixels.dtype, np.integer)
    factors = (size[0] / pixels.shape[0], size[1] / pixels.shape[1])
    result = pixels
    for axis in (0, 1) if factors[0] <= factors[1] else (1, 0):
        index, weight = _taps(pixels.shape[axis], size[axis], factors[axis])
        lines = np.moveaxis(result, axis, 0)
        flat = np.asarray(lines, np.float64).reshape(lines.shape[0], -1)
        out = np.zeros((size[axis], flat.shape[1]))
        for tap in range(index.shape[1]):
            out += weight[:, tap, None] * flat[index[:, tap]]
        if whole:
            out = np.clip(np.floor(out + 0.5), 0, np.iinfo(pixels.dtype).max)
        result = np.moveaxis(out.reshape((size[axis],) + lines.shape[1:]), 0, axis)
    return np.ascontiguousarray(result.astype(pixels.dtype))


def crop_to_multiple(pixels: np.ndarray, factor: int) -> np.ndarray:
    """The largest top-left part of (H, W[, C]) whose height and width are multiples of ``factor``."""
    height, width = pixels.shape[:2]
    return pixels[: height - height % factor, : width - width % factor]


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
    weight = _cubic(shrink * (centre[:, None] - index))
    weight /= weight.sum(axis=1, keepdims=True)
    folded = np.mod(index, 2 * length)
    index = np.where(folded < length, folded, 2 * length - 1 - folded)
    used = np.any(weight != 0.0, axis=0)
    return index[:, used], weight[:, used]
