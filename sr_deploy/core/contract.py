"""What a graph takes and gives: the one description of colour order, value range, layout and sizes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Dict, NamedTuple, Optional, Tuple

from pydantic import Field
from typing_extensions import Annotated, Literal

from sr_deploy.core.errors import BadImage, UsageError
from sr_deploy.core.schema import MOST_EDGE, Edge, ShortText, described
from sr_deploy.core.yuv import YuvColour

#: Height and width in pixels.
Size = Tuple[int, int]

Dtype = Literal["float32", "uint8"]
Layout = Literal["NCHW", "NHWC", "NV12", "P010"]


class IOForm(NamedTuple):
    """The tensors that ``--io`` names.

    Attributes:
        dtype: element type.
        layout: axis order; see ``shape_in``.
        depth: bits of a sample; 0 for floats.
        planar: a video decoder's planes, Y'CbCr in 4:2:0, as bytes.
    """

    dtype: Dtype
    layout: Layout
    depth: int
    planar: bool = False


#: What ``--io`` may be.
IO_FORMS: Dict[str, IOForm] = {
    "float32": IOForm("float32", "NCHW", 0),
    "uint8": IOForm("uint8", "NHWC", 8),
    "nv12": IOForm("uint8", "NV12", 8, planar=True),
    "p010": IOForm("uint8", "P010", 10, planar=True),
}
#: What may stand in a manifest, for errors.
KNOWN_FORMS = "NCHW goes with float32; NHWC, and with a matrix NV12 and P010, with uint8 and value_range 255"
#: Layout → bytes of a pixel in the last axis, of those that are bytes.
_LAST_AXIS: Dict[str, int] = {"NHWC": 3, "NV12": 1, "P010": 2}


@described
@dataclass(frozen=True)
class IOContract:
    """The tensors at the two ends of a graph.

    Attributes:
        value_range: the value of white, 1.0 or 255.0; black is 0.
        colour: order of the three channels.
        layout: axis order, or a video decoder's planes; see ``shape_in``. The batch is 1.
        dtype: element type of both tensors: "float32" with NCHW, or "uint8" with the others and white = 255.
        clamped: True when the graph itself limits its output to ``0…value_range``.
        input_name, output_name: tensor names in the graph.
        yuv: what the planes of NV12 and P010 mean; None: RGB.
    """

    value_range: Annotated[float, Field(gt=0.0, le=65535.0)]
    colour: Literal["RGB", "BGR"] = "RGB"
    layout: Layout = "NCHW"
    dtype: Dtype = "float32"
    clamped: bool = True
    input_name: ShortText = "lr"
    output_name: ShortText = "sr"
    yuv: Optional[YuvColour] = None

    def shape(self, size: Size) -> Tuple[int, int, int, int]:
        """The tensor of a picture of ``size`` (height, width); see ``shape_in``."""
        return shape_in(self.layout, size)

    @property
    def row_axis(self) -> int:
        """The axis of rows in the tensor; columns are the next."""
        return 1 if self.layout == "NHWC" else 2

    def size_of(self, array: Any) -> Size:
        """(height, width) of a picture's tensor."""
        return int(array.shape[self.row_axis]), int(array.shape[self.row_axis + 1])

    @property
    def is_known(self) -> bool:
        """Whether this is a form that srdeploy writes; another tool, or a newer version, may have written others."""
        form = IO_FORMS.get(self.io)
        known = form is not None and form.planar == (self.yuv is not None) and self.colour in ("RGB", "BGR")
        return known and (self.dtype != "uint8" or self.value_range == 255)

    @property
    def io(self) -> str:
        """The name of its tensors in IO_FORMS; "" for a form that is not there."""
        return next((n for n, form in IO_FORMS.items() if form[:2] == (self.dtype, self.layout)), "")

    @property
    def depth(self) -> int:
        """Bits of a sample of its tensors; 0 for floats."""
        return IO_FORMS[self.io].depth

    def check_rgb(self, what: str) -> None:
        """Raise UsageError where ``what`` cannot be done with a video's planes."""
        if self.yuv is not None:
            raise UsageError(
                f"{what} is not made for graphs that take the planes of {self.io}",
                "a graph that takes RGB",
                "export the network once more with --io uint8 for it",
            )


def shape_in(layout: str, size: Size) -> Tuple[int, int, int, int]:
    """The shape of one picture of ``size`` (height, width).

    NCHW is (1, 3, H, W), NHWC (1, H, W, 3). NV12 is (1, 3·H/2, W, 1): H rows of luma, then H/2 rows of Cb and Cr in
    turn, as decoders write them. P010 is (1, 3·H/2, W, 2): the same with two bytes a sample, the lower first, its 10
    bits in the upper ones.
    """
    height, width = size
    if layout == "NCHW":
        return (1, 3, height, width)
    return (1, height if layout == "NHWC" else height + -(-height // 2), width, _LAST_AXIS[layout])


def layout_of_shape(shape: Tuple[Any, ...]) -> str:
    """The layout of a tensor of bytes, by its last axis; "" where it is none of these."""
    return next((name for name, last in _LAST_AXIS.items() if len(shape) == 4 and shape[3] == last), "")


def picture_size(array: Any) -> Size:
    """Height and width of a numpy array of one picture, in any layout; bytes are of IO_FORMS, floats NCHW."""
    if str(array.dtype) != "uint8":
        return int(array.shape[2]), int(array.shape[3])
    rows, width = int(array.shape[1]), int(array.shape[2])
    return (rows if layout_of_shape(array.shape) == "NHWC" else rows * 2 // 3), width


def size_in(layout: str, shape: Tuple[Any, ...]) -> Tuple[Optional[int], Optional[int]]:
    """Height and width that a graph's tensor has; None where it is no number, or not positive: any."""
    rows, columns = (shape[2], shape[3]) if layout == "NCHW" else (shape[1], shape[2])
    fixed = [value if isinstance(value, int) and value > 0 else None for value in (rows, columns)]
    if layout in ("NV12", "P010") and fixed[0] is not None:
        fixed[0] = fixed[0] * 2 // 3
    return fixed[0], fixed[1]


def round_up(value: int, multiple: int) -> int:
    """The least multiple of ``multiple`` that is not below ``value``."""
    return -(-value // multiple) * multiple


@described
@dataclass(frozen=True)
class SizeRules:
    """Which input sizes a network takes.

    Attributes:
        minimum: smallest height and width, pixels.
        multiple: height and width must be multiples of this (1: any).
    """

    minimum: Edge = 1
    multiple: Edge = 1

    def fit(self, edge: int) -> int:
        """The least height or width from ``edge`` on, pixels, that the network takes."""
        return round_up(max(edge, self.minimum), self.multiple)

    def even(self) -> SizeRules:
        """The rules of the same network with planes of half the size."""
        return dataclasses.replace(self, minimum=max(2, self.minimum), multiple=self.multiple * (1 + self.multiple % 2))

    def check(self, size: Size) -> None:
        """Raise BadImage, naming the rule, when ``size`` (height, width) breaks it."""
        height, width = size
        if height < self.minimum or width < self.minimum:
            raise BadImage(
                f"an input of {height}x{width} is too small for this network",
                f"at least {self.minimum}x{self.minimum}",
                "pad the picture, or choose a larger size",
            )
        if height % self.multiple or width % self.multiple:
            raise BadImage(
                f"an input of {height}x{width} does not fit this network",
                f"height and width that are multiples of {self.multiple}",
                "pad or crop the picture",
            )


def parse_size(text: str) -> Size:
    """Turn ``"720x1280"`` into (720, 1280) and ``"144"`` into (144, 144). Height comes first.

    Raises:
        UsageError: not of that form, or not 1 to MOST_EDGE.
    """
    parts = text.lower().split("x")
    if len(parts) == 1:
        parts = parts * 2
    if len(parts) != 2 or not all(
        p.isascii() and p.isdigit() and len(p) < 20 and 0 < int(p) <= MOST_EDGE for p in parts
    ):
        wanted = f"HxW in pixels, height first, such as 720x1280, or one number for a square; up to {MOST_EDGE:,}"
        raise UsageError(f"{text!r} is not a size", wanted)
    return int(parts[0]), int(parts[1])


def format_size(size: Size) -> str:
    """The text form of a (height, width) pair: ``"720x1280"``."""
    return f"{size[0]}x{size[1]}"


def parse_bytes(text: str) -> int:
    """``"600MB"``, ``"1.3GB"`` or ``"512MiB"`` as bytes.

    Raises:
        UsageError: not of that form, or not positive.
    """
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    cleaned = text.strip().upper().replace(" ", "")
    unit = next((name for name in units if cleaned.endswith(name)), None)
    try:
        value = float(cleaned[: -len(unit)]) * units[unit] if unit else -1.0
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise UsageError(f"{text!r} is not an amount of memory", "a number with a unit, such as 600MB, 1.3GB or 512MiB")
    return int(value)
