"""What a graph takes and gives: the one description of colour order, value range, layout and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Tuple

from pydantic import Field
from typing_extensions import Annotated, Literal

from sr_deploy.core.errors import BadImage, UsageError
from sr_deploy.core.schema import Edge, ShortText, described

#: Height and width in pixels.
Size = Tuple[int, int]

#: What ``--io`` may be, and the layout that goes with it.
Dtype = Literal["float32", "uint8"]
Layout = Literal["NCHW", "NHWC"]
LAYOUTS: Dict[Dtype, Layout] = {"float32": "NCHW", "uint8": "NHWC"}


@described
@dataclass(frozen=True)
class IOContract:
    """The tensors at the two ends of a graph.

    Attributes:
        value_range: the value of white, 1.0 or 255.0; black is 0.
        colour: order of the three channels.
        layout: axis order; the batch is 1.
        dtype: element type of both tensors: "float32" with NCHW, or "uint8" with NHWC and white = 255.
        clamped: True when the graph itself limits its output to ``0…value_range``.
        input_name, output_name: tensor names in the graph.
    """

    value_range: Annotated[float, Field(gt=0.0, le=65535.0)]
    colour: Literal["RGB", "BGR"] = "RGB"
    layout: Layout = "NCHW"
    dtype: Dtype = "float32"
    clamped: bool = True
    input_name: ShortText = "lr"
    output_name: ShortText = "sr"

    def shape(self, size: Size) -> Tuple[int, int, int, int]:
        """The tensor of a picture of ``size`` (height, width): (1, 3, H, W) or (1, H, W, 3)."""
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
        known = LAYOUTS.get(self.dtype) == self.layout and self.colour in ("RGB", "BGR")
        return known and (self.dtype != "uint8" or self.value_range == 255)


def shape_in(layout: str, size: Size) -> Tuple[int, int, int, int]:
    """The shape of one picture of ``size`` (height, width) in a layout, "NCHW" or "NHWC"."""
    return (1, size[0], size[1], 3) if layout == "NHWC" else (1, 3, size[0], size[1])


def picture_size(array: Any) -> Size:
    """Height and width of a numpy array of one picture: uint8 is (1, H, W, 3), floats are (1, 3, H, W)."""
    rows = 1 if str(array.dtype) == "uint8" else 2
    return int(array.shape[rows]), int(array.shape[rows + 1])


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
        UsageError: not of that form, or not positive.
    """
    parts = text.lower().split("x")
    if len(parts) == 1:
        parts = parts * 2
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and int(p) > 0 for p in parts):
        wanted = "HxW in pixels, height first, such as 720x1280, or one number for a square"
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
