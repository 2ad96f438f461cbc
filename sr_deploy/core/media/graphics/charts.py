"""Charts as plotting libraries draw them: bars, curves, colour maps. Each is a kind of its own: drawn by lot, two
pictures of charts were bars and curves in four cases of five, and networks fail on each for other reasons."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from sr_deploy.core.media.graphics.canvas import FONTS, PALETTE, Canvas, Colour, colour, words, write

#: Matplotlib's colour maps that are used most; those of saturated hues from one end to the other.
MAPS = ("viridis", "coolwarm", "hot", "plasma", "RdYlGn", "Blues", "gray", "Spectral")
STRONG = ("jet", "turbo", "rainbow", "gist_rainbow")


class _Axes(NamedTuple):
    """A canvas with the corners of what is plotted on it, in its pixels, and the colour of axes and labels."""

    canvas: Canvas
    left: float
    top: float
    right: float
    bottom: float
    ink: Colour


def _axes(random: np.random.Generator, side: int, right: float = 0.94) -> _Axes:
    """Mostly on white; the plot ends at the share ``right`` of the width."""
    dark = random.random() < 0.2
    canvas = Canvas(side, (30, 30, 34) if dark else (255, 255, 255))
    return _Axes(canvas, side * 0.14, side * 0.1, side * right, side * 0.88, (220, 220, 220) if dark else (0, 0, 0))


def _labelled(random: np.random.Generator, axes: _Axes, grid: bool) -> Image.Image:
    """The picture, with a frame, ticks, lines of a grid where wanted, a title and numbers."""
    canvas, left, top, right, bottom, ink = axes
    for share in np.linspace(0, 1, int(random.integers(4, 9))):
        y = bottom - share * (bottom - top)
        if grid:
            canvas.line(np.array([[left, y], [right, y]]), (176, 176, 176), 0.6)
        canvas.line(np.array([[left - 4, y], [left, y]]), ink, 1.0)
    frame = np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]])
    canvas.line(frame, ink, 1.0)
    image, side = canvas.finished(), canvas.side
    write(image, (left + 20, top * 0.15), words(random, 3), (FONTS[0], max(10, side // 24)), ink)
    for share in np.linspace(0, 1, 6):
        label = (FONTS[0], max(9, side // 34))
        write(image, (2, bottom - share * (bottom - top) - 8), f"{share:.1f}", label, ink)
        write(image, (left + share * (right - left) - 8, bottom + 4), f"{10 * share:.0f}", label, ink)
    return image


def bars(random: np.random.Generator, side: int) -> Image.Image:
    """Upright bars, mostly of a palette."""
    axes = _axes(random, side)
    count = int(random.integers(4, 14))
    step = (axes.right - axes.left) / count
    for index in range(count):
        height = random.uniform(0.1, 1.0) * (axes.bottom - axes.top)
        fill = PALETTE[(index + 3) % len(PALETTE)] if random.random() < 0.7 else colour(random)
        start = axes.left + index * step
        axes.canvas.box((start + 1, axes.bottom - height, start + 0.75 * step, axes.bottom), fill)
    return _labelled(random, axes, grid=True)


def curves(random: np.random.Generator, side: int) -> Image.Image:
    """Two to five waves in thin lines."""
    axes = _axes(random, side)
    x = np.linspace(axes.left, axes.right, 80)
    for index in range(int(random.integers(2, 6))):
        wave = np.sin(np.linspace(0, random.uniform(3, 30), 80) + random.uniform(0, 6)) * random.uniform(0.1, 0.9)
        y = (axes.top + axes.bottom) / 2 + wave * (axes.bottom - axes.top) / 2
        axes.canvas.line(np.stack([x, y], 1), PALETTE[(index + 10) % len(PALETTE)], random.uniform(0.8, 3.0))
    return _labelled(random, axes, grid=True)


def colour_map(random: np.random.Generator, side: int) -> Image.Image:
    """Two maps, one of strong hues and one of any: cells of one colour each, of values between noise and a smooth
    field, and the scale of the colours beside."""
    axes = _axes(random, side, right=0.82)
    middle = axes.top + random.uniform(0.35, 0.65) * (axes.bottom - axes.top)
    names = [STRONG[int(random.integers(len(STRONG)))], MAPS[int(random.integers(len(MAPS)))]]
    random.shuffle(names)
    _mapped(random, axes._replace(bottom=middle - 0.03 * side), names[0])
    _mapped(random, axes._replace(top=middle + 0.03 * side), names[1])
    return _labelled(random, axes, grid=False)


def _mapped(random: np.random.Generator, axes: _Axes, name: str) -> None:
    """One map with its scale, in a frame."""
    import matplotlib

    canvas, left, top, right, bottom, ink = axes
    hues = matplotlib.colormaps[name]

    def of(value: float) -> Colour:
        red, green, blue, _ = hues(min(max(value, 0.0), 1.0), bytes=True)
        return int(red), int(green), int(blue)

    rows, columns = int(random.integers(3, 10)), int(random.integers(4, 17))
    smooth, (down, across, turn) = random.random() ** 2, random.uniform(2, 9, 3)
    x, y = np.linspace(left, right, columns + 1), np.linspace(top, bottom, rows + 1)
    for row in range(rows):
        for column in range(columns):
            wave = 0.5 + 0.5 * np.sin(down * row / rows + turn) * np.cos(across * column / columns)
            value = smooth * wave + (1 - smooth) * random.random()
            canvas.box((x[column], y[row], x[column + 1], y[row + 1]), of(value))
    for height in np.arange(top, bottom):
        end = min(height + 1, bottom)
        canvas.box((canvas.side * 0.87, height, canvas.side * 0.92, end), of((bottom - height) / (bottom - top)))
    canvas.line(np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]), ink, 1.0)
