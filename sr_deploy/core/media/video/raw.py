"""Raw frames through a pipe: packed RGB or planes without a header, and YUV4MPEG2, which ffmpeg and vspipe write.

It needs no package: a board without PyAV upscales what ffmpeg or GStreamer decodes and encodes beside it.
Source of YUV4MPEG2: the manual page yuv4mpeg(5) of mjpegtools; for depths and COLORRANGE, what FFmpeg's muxer writes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import BinaryIO, Dict, Iterator, List, Optional, Tuple

import numpy as np

from sr_deploy.core.contract import IOContract, Size
from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.core.media.colour import Planes
from sr_deploy.core.media.video.clip import HIGH_DEFINITION, Assumed
from sr_deploy.core.media.video.pixels import PIXEL_FORMATS, PixelFormat
from sr_deploy.core.media.video.tensor import planes_of_tensor, rgb_of_tensor, tensor_of_planes, tensor_of_rgb
from sr_deploy.core.yuv import Range, Siting, YuvColour

#: Packed forms: bits of a sample, and the places of red, green and blue.
PACKED: Dict[str, Tuple[int, Tuple[int, int, int]]] = {
    "rgb24": (8, (0, 1, 2)),
    "bgr24": (8, (2, 1, 0)),
    "rgb48le": (16, (0, 1, 2)),
}
#: Colour spaces of YUV4MPEG2: pixel format and siting.
_Y4M: Dict[str, Tuple[str, Siting]] = {
    "420": ("yuv420p", "center"),
    "420jpeg": ("yuv420p", "center"),
    "420mpeg2": ("yuv420p", "left"),
    "420paldv": ("yuv420p", "topleft"),
    "420p10": ("yuv420p10le", "left"),
    "420p12": ("yuv420p12le", "left"),
    "422": ("yuv422p", "left"),
    "422p10": ("yuv422p10le", "left"),
    "422p12": ("yuv422p12le", "left"),
    "444": ("yuv444p", "left"),
    "444p10": ("yuv444p10le", "left"),
    "444p12": ("yuv444p12le", "left"),
    "mono": ("gray", "left"),
    "mono10": ("gray10le", "left"),
    "mono12": ("gray12le", "left"),
}
_MAGIC = b"YUV4MPEG2"
#: Bytes of a header, or of a frame's, at most.
_LONGEST_LINE = 1024
#: Edges of a frame at most, pixels.
_LONGEST_EDGE = 1 << 16


@dataclass(frozen=True)
class RawForm:
    """How the frames of a pipe lie in its bytes.

    Attributes:
        name: a key of PACKED or PIXEL_FORMATS.
        size: (height, width).
        colour: what Y'CbCr means; None for packed RGB.
        header: the words of a YUV4MPEG2 header, or none for frames without any.
    """

    name: str
    size: Size
    colour: Optional[YuvColour] = None
    header: Tuple[str, ...] = ()

    @property
    def depth(self) -> int:
        """Bits of a sample."""
        return PACKED[self.name][0] if self.name in PACKED else PIXEL_FORMATS[self.name].depth

    @property
    def pixels(self) -> Optional[PixelFormat]:
        """The row of its name; None for packed RGB."""
        return PIXEL_FORMATS.get(self.name)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return sum(height * width for height, width in _shapes(self)) * (1 if self.depth == 8 else 2)

    def enlarged(self, scale: int) -> RawForm:
        """The form of the results."""
        height, width = self.size[0] * scale, self.size[1] * scale
        changed = {"W": f"W{width}", "H": f"H{height}"}
        return RawForm(self.name, (height, width), self.colour, tuple(changed.get(w[0], w) for w in self.header))

    def stream_header(self) -> bytes:
        """What comes before the first frame."""
        return b" ".join([_MAGIC, *(word.encode() for word in self.header)]) + b"\n" if self.header else b""

    def frame_header(self) -> bytes:
        """What comes before every frame."""
        return b"FRAME\n" if self.header else b""


def raw_form(name: str, size: str, assumed: Assumed, full: bool) -> RawForm:
    """The form that ``--raw NAME WIDTHxHEIGHT`` names.

    Args:
        name: a key of PACKED or PIXEL_FORMATS.
        size: width first, as ffmpeg has it.
        assumed: matrix and siting of Y'CbCr.
        full: its range.

    Raises:
        UsageError: an unknown name, no size, or no matrix where one is needed or one where none is.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", size)
    if found is None:
        raise UsageError(f"{size!r} is no size of a frame", "WIDTHxHEIGHT, width first, such as 1280x720")
    height, width = int(found.group(2)), int(found.group(1))
    if name in PACKED:
        if assumed != Assumed() or full:
            raise UsageError(f"--raw {name} has no matrix, siting or range", "it without --matrix, --siting and --full")
        return RawForm(name, (height, width))
    if name not in PIXEL_FORMATS or PIXEL_FORMATS[name].full:
        known = [*PACKED, *(key for key, form in PIXEL_FORMATS.items() if not form.full)]
        raise UsageError(f"--raw {name} is not read here", "one of " + ", ".join(known))
    if assumed.matrix is None and not PIXEL_FORMATS[name].grey:
        raise UsageError(f"--raw {name} does not say its matrix", "--matrix bt601, bt709 or bt2020", "name it")
    colour = YuvColour(assumed.matrix or "bt709", "full" if full else "limited", assumed.siting or "left")
    return RawForm(name, (height, width), colour)


def y4m_form(stream: BinaryIO, assumed: Assumed) -> Tuple[RawForm, Tuple[str, ...]]:
    """The form that a YUV4MPEG2 header names, and what had to be assumed.

    Raises:
        BadInput: no such header, interlaced, or a colour space that is not known here.
    """
    begin = stream.read(len(_MAGIC))
    if begin != _MAGIC:
        raise BadInput(
            f"the pipe begins with {begin.hex(' ') or 'nothing'}",
            "a YUV4MPEG2 header",
            "ffmpeg -i CLIP -f yuv4mpegpipe -",
        )
    words = _line(stream, "the pipe").decode("ascii", "replace").split()
    known = {word[0]: word[1:] for word in words if word[0] != "X"}
    try:
        size = (int(known["H"]), int(known["W"]))
    except (KeyError, ValueError):
        size = (0, 0)
    if not all(0 < edge <= _LONGEST_EDGE for edge in size):
        raise BadInput(
            "the YUV4MPEG2 header names no size",
            f"W and H, 1 to {_LONGEST_EDGE}",
            "write it with ffmpeg -i CLIP -f yuv4mpegpipe -",
        )
    if known.get("I", "p") not in ("p", "?"):
        raise BadInput("the frames of the pipe are interlaced", "progressive ones", "ffmpeg -vf bwdif")
    space = known.get("C", "420")
    if space not in _Y4M:
        raise BadInput(
            f"the pipe has the colour space {space[:40]!r}",
            "one of " + ", ".join(_Y4M),
            "convert it: ffmpeg -i CLIP -pix_fmt yuv420p -f yuv4mpegpipe -",
        )
    name, siting = _Y4M[space]
    full: Range = "full" if "XCOLORRANGE=FULL" in words else "limited"
    notes = []
    matrix = assumed.matrix or ("bt709" if size[0] >= HIGH_DEFINITION else "bt601")
    if assumed.matrix is None and not PIXEL_FORMATS[name].grey:
        notes.append(f"YUV4MPEG2 says no colour matrix: {matrix} is assumed for {size[0]} rows; --matrix says another")
    colour = YuvColour(matrix, full, assumed.siting or siting)
    return RawForm(name, size, colour, tuple(words)), tuple(notes)


def _line(stream: BinaryIO, origin: str) -> bytes:
    line = stream.readline(_LONGEST_LINE)
    if line and not line.endswith(b"\n"):
        raise BadInput(
            f"{origin} has a header without an end",
            f"a line of at most {_LONGEST_LINE} bytes",
            "write it with ffmpeg -i CLIP -f yuv4mpegpipe -, or say with --raw what frames it has",
        )
    return line.rstrip(b"\n")


def read_raw(stream: BinaryIO, form: RawForm) -> Iterator[bytes]:
    """The frames of a pipe, until it is closed.

    Raises:
        BadInput: it ends within a frame, or a frame has no header where it should.
    """
    count = 0
    while True:
        if form.header:
            line = _line(stream, f"frame {count} of the pipe")
            if line and line.split()[0] != b"FRAME":
                raise BadInput(
                    f"frame {count} of the pipe begins with {line[:16].hex(' ')}",
                    "the word FRAME",
                    "look at what writes the pipe: a frame before it is too long or too short",
                )
            if not line:
                return
        data = stream.read(form.frame_bytes)
        if not data and not form.header:
            return
        if len(data) < form.frame_bytes:
            raise BadInput(
                f"the pipe ends within frame {count}: {len(data)} of {form.frame_bytes} bytes",
                "whole frames",
                "compare the size and form that were given with what is sent",
            )
        yield data
        count += 1


def tensor_of_raw(data: bytes, form: RawForm, contract: IOContract) -> np.ndarray:
    """A frame as a graph takes it; ``check_frames`` has let it pass."""
    kind = np.dtype(np.uint8) if form.depth == 8 else np.dtype("<u2")
    flat = np.frombuffer(data, kind)
    if form.colour is not None:
        return tensor_of_planes(_planes(flat, form), form.colour, contract)
    pixels = flat.reshape(*form.size, 3)[:, :, list(PACKED[form.name][1])]
    return tensor_of_rgb(pixels.astype(np.float32) * np.float32(1.0 / ((1 << form.depth) - 1)), contract)


def raw_of_tensor(array: np.ndarray, form: RawForm, contract: IOContract) -> bytes:
    """A frame's bytes of what a graph gave, limited and rounded; raises CheckFailed as ``rgb_of_tensor``."""
    if form.colour is None:
        rgb, white = rgb_of_tensor(array, contract), (1 << form.depth) - 1
        pixels = np.rint(np.clip(rgb, 0, 1) * np.float32(white)).astype("<u2" if form.depth > 8 else np.uint8)
        return np.ascontiguousarray(pixels[:, :, list(PACKED[form.name][1])]).tobytes()
    row = PIXEL_FORMATS[form.name]
    planes = planes_of_tensor(array, contract, form.colour, row)
    arrays = [planes.luma, *(planes.chroma or ())]
    if row.interleaved:
        arrays = [arrays[0], np.dstack(arrays[1:])]
    return b"".join(np.ascontiguousarray(array << row.shift if row.shift else array).tobytes() for array in arrays)


def _shapes(form: RawForm) -> List[Size]:
    """(rows, samples of a row) of each stored plane."""
    height, width = form.size
    if form.name in PACKED:
        return [(height, 3 * width)]
    row = PIXEL_FORMATS[form.name]
    if row.grey:
        return [(height, width)]
    rows, columns = -(-height // row.subsampling[0]), -(-width // row.subsampling[1])
    return [(height, width), *([(rows, 2 * columns)] if row.interleaved else [(rows, columns)] * 2)]


def _planes(flat: np.ndarray, form: RawForm) -> Planes:
    row: PixelFormat = PIXEL_FORMATS[form.name]
    arrays, at = [], 0
    for rows, columns in _shapes(form):
        arrays.append(flat[at : at + rows * columns].reshape(rows, columns) >> row.shift)
        at += rows * columns
    chroma = None
    if row.interleaved:
        chroma = (arrays[1][:, 0::2], arrays[1][:, 1::2])
    elif not row.grey:
        chroma = (arrays[1], arrays[2])
    return Planes(arrays[0], chroma, row.depth, row.subsampling)
