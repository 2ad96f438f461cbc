"""What painters share: a canvas that is reduced to smooth edges, fonts, colours, and a ground like a photograph."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Tuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = Tuple[int, int, int]

#: The fonts that Matplotlib carries (DejaVu; free to use and to ship): sans, bold, serif, italic serif, monospaced.
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSansMono")
#: Shapes are drawn so many times as large and reduced: ImageDraw has no smooth edges.
SMOOTH = 2
#: Colours at the corners of the cube, and a few that interfaces and charts are made of.
SATURATED: Tuple[Colour, ...] = (
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255), (0, 0, 0), (255, 255, 255),
)  # fmt: skip
PALETTE: Tuple[Colour, ...] = (
    (26, 115, 232), (219, 68, 55), (244, 180, 0), (15, 157, 88), (103, 58, 183), (0, 172, 193), (255, 112, 67),
    (96, 125, 139), (194, 24, 91), (124, 179, 66), (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40),
)  # fmt: skip
_TEXT = """the quick brown fox jumps over lazy dog while packets arrive from 192.0.2.10 and nothing is lost Settings
    Account Display Network Privacy Updates 0123456789 Save Cancel OK Open File Edit View Help (42%) x=3.14 Total:
    1,284.50 Möglich année niño Temperature [°C] Chapter 7 – Where? Here! @user #tag {json} a/b if (i < n) return; || &&
"""
WORDS = tuple(_TEXT.split())


def colour(random: np.random.Generator) -> Colour:
    """Any colour: of a palette, at a corner of the cube, or between."""
    kind = random.random()
    if kind < 0.45:
        return PALETTE[int(random.integers(len(PALETTE)))]
    if kind < 0.7:
        return SATURATED[int(random.integers(len(SATURATED)))]
    red, green, blue = (int(value) for value in random.integers(0, 256, 3))
    return red, green, blue


def ground_and_ink(random: np.random.Generator) -> Tuple[Colour, Colour]:
    """Two colours that can be told apart: mostly dark on light or light on dark, some of two colours."""
    light, dark = (int(random.integers(225, 256)),) * 3, (int(random.integers(0, 40)),) * 3
    kind = random.random()
    if kind < 0.4:
        return light, dark
    if kind < 0.6:
        return dark, light
    while True:
        ground, ink = colour(random), colour(random)
        if abs(brightness(ground) - brightness(ink)) > 60.0:
            return ground, ink


def brightness(of: Colour) -> float:
    """Luma of a colour, 0…255 (BT.601)."""
    return 0.299 * of[0] + 0.587 * of[1] + 0.114 * of[2]


@lru_cache(maxsize=64)
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """One of FONTS at a height of ``size`` pixels."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def words(random: np.random.Generator, count: int) -> str:
    """So many words."""
    return " ".join(WORDS[int(index)] for index in random.integers(0, len(WORDS), count))


class Canvas:
    """A square to draw on, SMOOTH times as large as it will be; coordinates are in pixels of the result.

    Args:
        side: of the result.
        ground: its colour.
    """

    def __init__(self, side: int, ground: Colour) -> None:
        self.side = side
        self.image = Image.new("RGB", (side * SMOOTH, side * SMOOTH), ground)
        self._draw = ImageDraw.Draw(self.image)

    def polygon(self, points: np.ndarray, fill: Colour, outline: Colour, width: float) -> None:
        """A closed shape of points (N, 2); no outline where ``width`` is 0."""
        scaled = [(float(x) * SMOOTH, float(y) * SMOOTH) for x, y in points]
        self._draw.polygon(scaled, fill=fill)
        if width > 0:
            self._draw.line([*scaled, scaled[0], scaled[1]], outline, max(1, round(width * SMOOTH)), "curve")

    def box(self, corners: Tuple[float, float, float, float], fill: Colour, radius: float = 0.0) -> None:
        """A rectangle (left, top, right, bottom), with round corners where ``radius`` is given."""
        left, top, right, bottom = (round(value * SMOOTH) for value in corners)
        self._draw.rounded_rectangle((left, top, max(left, right), max(top, bottom)), radius * SMOOTH, fill)

    def ellipse(self, centre: Tuple[float, float], radii: Tuple[float, float], fill: Colour) -> None:
        """An upright ellipse."""
        (x, y), (across, down) = centre, radii
        self._draw.ellipse([SMOOTH * value for value in (x - across, y - down, x + across, y + down)], fill)

    def line(self, points: np.ndarray, ink: Colour, width: float) -> None:
        """An open line through points (N, 2)."""
        scaled = [(float(x) * SMOOTH, float(y) * SMOOTH) for x, y in points]
        self._draw.line(scaled, ink, max(1, round(width * SMOOTH)), "curve")

    def finished(self) -> Image.Image:
        """The picture at its own size; text is written on that, as screens write it."""
        return self.image.resize((self.side, self.side), Image.Resampling.BOX)


def write(
    image: Image.Image, place: Tuple[float, float], text: str, style: Tuple[str, int], ink: Colour, stroke: int = 0
) -> None:
    """Write a line of text, ``style`` is (font, size); with a black rim of ``stroke`` pixels."""
    ImageDraw.Draw(image).text(place, text, ink, font(*style), stroke_width=stroke, stroke_fill=(0, 0, 0))


def leaves(random: np.random.Generator, side: int, count: int = 220) -> np.ndarray:
    """A ground with a photograph's statistics, float64 (side, side, 3) in 0…255: leaves that cover each other, their
    sizes by a power law, shaded and grained.

    After the dead leaves model: A. Lee, D. Mumford and J. Huang, "Occlusion models for natural images", IJCV 41, 2001.
    """
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float64)
    picture = np.full((side, side, 3), random.uniform(40, 200, 3))
    for _ in range(count):
        # Radii r with a density of r⁻³ between 2 % and 50 % of the side.
        radius = side * (random.uniform(1 / 0.5**2, 1 / 0.02**2)) ** -0.5
        x, y, turn, flat = *random.uniform(0, side, 2), random.uniform(0, np.pi), random.uniform(0.4, 1.0)
        across = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
        along = (rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)
        inside = across**2 + (along / flat) ** 2 < radius**2
        shade = 1.0 + random.uniform(-0.4, 0.4) * across[inside] / radius
        hue = np.clip(random.uniform(15, 240) * random.uniform(0.75, 1.25, 3), 0, 255)
        picture[inside] = shade[:, None] * hue
    return np.clip(picture + random.normal(0, 4.0, (side, side, 1)), 0, 255)
