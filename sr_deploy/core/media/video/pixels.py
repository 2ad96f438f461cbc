"""The pixel formats of clips that are read and written here: names as FFmpeg has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

import numpy as np

from sr_deploy.core.errors import BadInput
from sr_deploy.core.media.colour import Planes


@dataclass(frozen=True)
class PixelFormat:
    """A row of the table.

    Attributes:
        depth: bits of a sample.
        subsampling: (v, h), see ``Planes``.
        grey: no chroma.
        shift: bits that a sample is shifted up in its 16.
        interleaved: Cb and Cr lie in one plane in turn.
        full: the name itself says full range.
    """

    depth: int
    subsampling: Tuple[int, int]
    grey: bool = False
    shift: int = 0
    interleaved: bool = False
    full: bool = False


def _table() -> Dict[str, PixelFormat]:
    rows: Dict[str, PixelFormat] = {"gray": PixelFormat(8, (1, 1), grey=True)}
    for name, subsampling in (("yuv420p", (2, 2)), ("yuv422p", (1, 2)), ("yuv444p", (1, 1))):
        rows[name] = PixelFormat(8, subsampling)
        rows[name.replace("yuv", "yuvj")] = PixelFormat(8, subsampling, full=True)
    for depth in (10, 12):
        rows[f"gray{depth}le"] = PixelFormat(depth, (1, 1), grey=True)
        for name, subsampling in (("yuv420p", (2, 2)), ("yuv422p", (1, 2)), ("yuv444p", (1, 1))):
            rows[f"{name}{depth}le"] = PixelFormat(depth, subsampling)
    rows["nv12"] = PixelFormat(8, (2, 2), interleaved=True)
    rows["p010le"] = PixelFormat(10, (2, 2), shift=6, interleaved=True)
    return rows


#: Name → what it is.
PIXEL_FORMATS = _table()


def format_named(name: str, origin: str) -> PixelFormat:
    """The row of a name.

    Raises:
        BadInput: it is not in the table.
    """
    if name not in PIXEL_FORMATS:
        raise BadInput(
            f"{origin} has pixels of the form {name}",
            "Y'CbCr of 8, 10 or 12 bits in 4:2:0, 4:2:2 or 4:4:4 without alpha, or grey",
            "convert it first, for example: ffmpeg -i CLIP -pix_fmt yuv444p10le -c:v ffv1 converted.mkv",
        )
    return PIXEL_FORMATS[name]


def planes_of_frame(frame: Any, form: PixelFormat) -> Planes:
    """The samples of a decoded frame (av.VideoFrame), copied out of it."""
    # Of two interleaved channels PyAV counts the pairs.
    arrays = [_samples(plane, form, 2 if form.interleaved and index else 1) for index, plane in enumerate(frame.planes)]
    chroma = None
    if form.interleaved:
        chroma = (arrays[1][:, 0::2].copy(), arrays[1][:, 1::2].copy())
    elif not form.grey:
        chroma = (arrays[1], arrays[2])
    return Planes(arrays[0], chroma, form.depth, form.subsampling)


def _samples(plane: Any, form: PixelFormat, channels: int) -> np.ndarray:
    """One plane without the padding of its rows."""
    kind = np.dtype(np.uint8) if form.depth == 8 else np.dtype("<u2")
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height]
    used = np.ascontiguousarray(rows[:, : plane.width * channels * kind.itemsize]).view(kind)
    return used >> form.shift if form.shift else used.copy()


def fill_frame(frame: Any, planes: Planes, form: PixelFormat) -> None:
    """Write samples into a new frame (av.VideoFrame) of that form and size."""
    arrays: List[np.ndarray] = [planes.luma]
    if form.interleaved and planes.chroma is not None:
        arrays.append(np.dstack(planes.chroma).reshape(planes.chroma[0].shape[0], -1))
    else:
        arrays += list(planes.chroma or ())
    for plane, array in zip(frame.planes, arrays):
        shifted = np.ascontiguousarray(array << form.shift if form.shift else array)
        raw = shifted.view(np.uint8).reshape(shifted.shape[0], -1)
        rows = np.zeros((plane.buffer_size // plane.line_size, plane.line_size), np.uint8)
        rows[: raw.shape[0], : raw.shape[1]] = raw
        plane.update(rows)
