"""The planes of a video decoder as one tensor of bytes, as graphs with ``--io nv12`` and ``p010`` take and give them.

See ``shape_in`` of core/contract.py for the layouts. Sources: what FFmpeg's pixfmt.h says of NV12 and P010, and
Microsoft's "10-bit and 16-bit YUV video formats".
"""

from __future__ import annotations

import numpy as np

from sr_deploy.core.contract import IOContract, Size, layout_of_shape
from sr_deploy.core.media.colour import Planes, from_rgb, planes_of_rgb, rgb_of_planes
from sr_deploy.core.yuv import YuvColour

_SUBSAMPLING = (2, 2)
#: P010 keeps its 10 bits in the upper ones of 16.
_SHIFT = 6


def yuv_of(contract: IOContract) -> YuvColour:
    """What the planes mean; raises ValueError for a contract of RGB."""
    if contract.yuv is None:
        raise ValueError(f"a graph of {contract.layout} takes no planes")
    return contract.yuv


def surface_of_planes(planes: Planes) -> np.ndarray:
    """Planes of 4:2:0 as a graph takes them: uint8 (1, 3·H/2, W, 1) for 8 bits, (1, 3·H/2, W, 2) for 10."""
    if planes.chroma is None or planes.subsampling != _SUBSAMPLING or planes.depth not in (8, 10):
        raise ValueError("a surface holds 4:2:0 of 8 or 10 bits")
    height, width = planes.size
    pairs = np.dstack(planes.chroma).reshape(planes.chroma[0].shape[0], -1)
    samples = np.concatenate([planes.luma, pairs[:, :width]])
    if planes.depth > 8:
        samples = (samples << _SHIFT).astype("<u2")
    return np.ascontiguousarray(samples).view(np.uint8).reshape(1, samples.shape[0], width, -1)


def planes_of_surface(array: np.ndarray, contract: IOContract) -> Planes:
    """What a graph gave, uint8 of the contract's shape, as planes."""
    _, rows, width, last = array.shape
    kind = np.dtype(np.uint8) if last == 1 else np.dtype("<u2")
    samples = np.ascontiguousarray(array).view(kind).reshape(rows, width)
    if last == 2:
        samples = samples >> _SHIFT
    height = rows * 2 // 3
    pairs = samples[height:]
    return Planes(samples[:height], (pairs[:, 0::2].copy(), pairs[:, 1::2].copy()), contract.depth, _SUBSAMPLING)


def cut_picture(array: np.ndarray, start: Size, size: Size) -> np.ndarray:
    """Part of a picture as a graph takes it, in any form of core/contract.py.

    Args:
        array: one picture.
        start: (row, column); of planes the even one before it is taken.
        size: (height, width); of planes both even.
    """
    (top, left), (height, width) = start, size
    if array.dtype != np.uint8:
        return np.ascontiguousarray(array[:, :, top : top + height, left : left + width])
    if layout_of_shape(array.shape) == "NHWC":
        return np.ascontiguousarray(array[:, top : top + height, left : left + width])
    top, left, rows = top // 2 * 2, left // 2 * 2, array.shape[1] * 2 // 3
    chroma = array[:, rows + top // 2 : rows + (top + height) // 2, left : left + width]
    return np.concatenate([array[:, top : top + height, left : left + width], chroma], axis=1)


def surface_of_rgb(rgb: np.ndarray, contract: IOContract) -> np.ndarray:
    """float32 (H, W, 3) in 0…1, even sides, as a graph of planes takes it; rounded."""
    return surface_of_planes(planes_of_rgb(rgb, yuv_of(contract), contract.depth, _SUBSAMPLING, False))


def rgb_of_surface(array: np.ndarray, contract: IOContract) -> np.ndarray:
    """What a graph of planes takes or gives as float32 (H, W, 3) in 0…1, not rounded."""
    return rgb_of_planes(planes_of_surface(array, contract), yuv_of(contract))


def surface_difference(actual: np.ndarray, rgb: np.ndarray, contract: IOContract) -> float:
    """How far a graph's samples were from those of a picture before they were rounded, in 8-bit steps.

    Args:
        actual: what the graph gave.
        rgb: float32 (H, W, 3) in 0…1 that it should have given.
        contract: of the graph.

    Returns:
        The largest difference of all samples beyond the half step that rounding explains; infinity for another size.
    """
    if actual.shape != contract.shape((rgb.shape[0], rgb.shape[1])):
        return float("inf")
    found, colour = planes_of_surface(actual, contract), yuv_of(contract)
    wanted = from_rgb(rgb, colour, contract.depth, _SUBSAMPLING)
    largest = 0.0
    for have, exact in zip((found.luma, *(found.chroma or ())), wanted):
        limited = np.clip(exact, 0, (1 << contract.depth) - 1)
        largest = max(largest, float(np.abs(have.astype(np.float32) - limited).max()))
    return max(largest - 0.5, 0.0) / float(1 << (contract.depth - 8))
