"""Y′CbCr planes of a video ↔ RGB: matrix, range and chroma siting, by the standards' formulas.

Sources: ITU-T H.273 (equations 38 to 43 for luma and colour differences, 20 to 31 for ranges; table 4 for the
coefficients of ITU-R BT.601-7, BT.709-6, BT.2020-2, FCC and SMPTE 240M) and its figure of chroma sample locations.

Chroma is resampled linearly: enlarged by interpolation between the two nearest samples, reduced by the triangle of
twice that width, which is what FFmpeg's swscale does with its bilinear filter. At borders the edge sample is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

import cv2
import numpy as np

from sr_deploy.core.contract import Size
from sr_deploy.core.yuv import Matrix, Siting, YuvColour

#: Weights of red and blue in luma; green's is what is left to 1.
COEFFICIENTS: Dict[Matrix, Tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
    "fcc": (0.30, 0.11),
    "smpte240m": (0.212, 0.087),
}
#: (vertical, horizontal): a chroma sample lies on the first of its two luma samples (True), or between both.
COSITED: Dict[Siting, Tuple[bool, bool]] = {
    "left": (False, True),
    "center": (False, False),
    "topleft": (True, True),
}


@dataclass(frozen=True)
class Planes:
    """One picture of a video.

    Attributes:
        luma: (H, W), uint8 for 8 bits, uint16 for more.
        chroma: Cb and Cr, each (⌈H/v⌉, ⌈W/h⌉) of the same type; None: a grey video.
        depth: bits of a sample, 8 to 16; the value 0 is 0 and white of full range is 2^depth − 1.
        subsampling: (v, h): luma rows and columns to one of chroma; (2, 2) is 4:2:0, (1, 2) 4:2:2, (1, 1) 4:4:4.
    """

    luma: np.ndarray
    chroma: Optional[Tuple[np.ndarray, np.ndarray]]
    depth: int = 8
    subsampling: Tuple[int, int] = (2, 2)

    @property
    def size(self) -> Size:
        """(height, width) in pixels."""
        return int(self.luma.shape[0]), int(self.luma.shape[1])


def scale_of(colour: YuvColour, depth: int) -> Tuple[float, float, float, float]:
    """How samples are made of E′Y in 0…1 and of colour differences in −½…½.

    Returns:
        (factor, offset) of luma, then (factor, offset) of chroma.
    """
    if colour.range == "full":
        white = float((1 << depth) - 1)
        return white, 0.0, white, float(1 << (depth - 1))
    step = float(1 << (depth - 8))
    return 219 * step, 16 * step, 224 * step, 128 * step


def rgb_matrix(matrix: Matrix) -> np.ndarray:
    """(3, 3) float64 that makes (E′Y, Pb, Pr) of R′G′B′ in 0…1."""
    red, blue = COEFFICIENTS[matrix]
    luma = np.array([red, 1.0 - red - blue, blue])
    return np.stack([
        luma,
        (np.array([0.0, 0.0, 1.0]) - luma) / (2.0 * (1.0 - blue)),
        (np.array([1.0, 0.0, 0.0]) - luma) / (2.0 * (1.0 - red)),
    ])  # fmt: skip


def to_samples(colour: YuvColour, depth: int) -> Tuple[np.ndarray, np.ndarray]:
    """(3, 3) and (3,), float64: samples (Y, Cb, Cr) = first · R′G′B′ + second."""
    factor, offset, chroma_factor, chroma_offset = scale_of(colour, depth)
    rows = np.array([[factor], [chroma_factor], [chroma_factor]]) * rgb_matrix(colour.matrix)
    return rows, np.array([offset, chroma_offset, chroma_offset])


def from_samples(colour: YuvColour, depth: int) -> Tuple[np.ndarray, np.ndarray]:
    """(3, 3) and (3,), float64: R′G′B′ = first · (Y, Cb, Cr) + second; the inverse of ``to_samples``."""
    rows, offset = to_samples(colour, depth)
    inverse = np.linalg.inv(rows)
    return inverse, -inverse @ offset


def rgb_of_planes(planes: Planes, colour: YuvColour) -> np.ndarray:
    """The picture in RGB.

    Returns:
        float32 (H, W, 3), not rounded, limited to 0…1; a grey video gives three equal channels.
    """
    height, width = planes.size
    if planes.chroma is None:
        factor, offset, _, _ = scale_of(colour, planes.depth)
        grey = np.clip((planes.luma.astype(np.float32) - np.float32(offset)) / np.float32(factor), 0, 1)
        return np.repeat(grey[:, :, None], 3, axis=2)
    channels = [planes.luma.astype(np.float32)]
    for plane in planes.chroma:
        full = plane.astype(np.float32)
        for axis, (times, cosited) in enumerate(zip(planes.subsampling, COSITED[colour.siting])):
            full = _doubled(full, axis, cosited) if times == 2 else full
        channels.append(full[:height, :width])
    return np.asarray(np.clip(_transformed(channels, *from_samples(colour, planes.depth)), 0, 1), np.float32)


def planes_of_rgb(rgb: np.ndarray, colour: YuvColour, depth: int, subsampling: Tuple[int, int], grey: bool) -> Planes:
    """The picture as a video stores it; rounded, halves to even.

    Args:
        rgb: floats (H, W, 3) in 0…1; values outside are limited first.
        colour: what the numbers shall mean.
        depth, subsampling: see ``Planes``.
        grey: luma alone.
    """
    samples = [_rounded(plane, depth) for plane in from_rgb(rgb, colour, depth, subsampling, 1 if grey else 3)]
    return Planes(samples[0], None if grey else (samples[1], samples[2]), depth, subsampling)


def from_rgb(rgb: np.ndarray, colour: YuvColour, depth: int, subsampling: Tuple[int, int],
             channels: int = 3) -> List[np.ndarray]:  # fmt: skip
    """``planes_of_rgb`` before it is rounded: the first ``channels`` of luma, Cb and Cr, float32."""
    rows, offset = to_samples(colour, depth)
    samples = _transformed([np.clip(rgb, 0, 1).astype(np.float32, copy=False)], rows, offset)
    planes = [samples[:, :, 0]]
    for channel in range(1, channels):
        plane = samples[:, :, channel]
        for axis, (times, cosited) in enumerate(zip(subsampling, COSITED[colour.siting])):
            plane = _halved(plane, axis, cosited) if times == 2 else plane
        planes.append(plane)
    return planes


def _transformed(channels: List[np.ndarray], rows: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Each pixel's three values times a matrix, plus an offset; float32 (H, W, 3)."""
    stacked = channels[0] if len(channels) == 1 else cv2.merge(channels)
    affine = np.concatenate([rows, offset[:, None]], axis=1)
    return np.asarray(cv2.transform(np.ascontiguousarray(stacked), affine), np.float32).reshape(stacked.shape)


def _rounded(plane: np.ndarray, depth: int) -> np.ndarray:
    limited = np.clip(np.rint(plane), 0, (1 << depth) - 1)
    return np.ascontiguousarray(limited.astype(np.uint8 if depth == 8 else np.uint16))


def _padded(plane: np.ndarray, axis: int, before: int, after: int) -> np.ndarray:
    widths = [(0, 0), (0, 0)]
    widths[axis] = (before, after)
    return np.pad(plane, widths, mode="edge")


def _cut(plane: np.ndarray, axis: int, start: int, count: int, step: int = 1) -> np.ndarray:
    places = slice(start, start + (count - 1) * step + 1, step)
    return plane[places] if axis == 0 else plane[:, places]


def _doubled(plane: np.ndarray, axis: int, cosited: bool) -> np.ndarray:
    """Twice as many samples along an axis, interpolated where luma lies."""
    count = plane.shape[axis]
    padded = _padded(plane, axis, 1, 1)
    before, here, after = (_cut(padded, axis, start, count) for start in (0, 1, 2))
    first, second = (here, (here + after) / 2) if cosited else ((before + 3 * here) / 4, (3 * here + after) / 4)
    shape = list(plane.shape)
    shape[axis] *= 2
    return np.stack([first, second], axis=axis + 1).reshape(shape)


def _halved(plane: np.ndarray, axis: int, cosited: bool) -> np.ndarray:
    """Half as many samples along an axis (⌈n/2⌉), weighed by the triangle around where chroma lies."""
    count = -(-plane.shape[axis] // 2)
    padded = _padded(plane, axis, 1, 2)
    taps = (1, 2, 1) if cosited else (1, 3, 3, 1)
    total = sum(weight * _cut(padded, axis, start, count, 2) for start, weight in enumerate(taps))
    return np.asarray(total / np.float32(sum(taps)), np.float32)
