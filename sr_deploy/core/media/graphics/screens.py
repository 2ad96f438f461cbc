"""What screens show: user interfaces and charts."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sr_deploy.core.media.graphics.canvas import FONTS, PALETTE, SATURATED, Canvas, Colour, colour, words, write


def interface(random: np.random.Generator, side: int) -> Image.Image:
    """A window with a title bar, a column of entries, cards, buttons and switches; light or dark."""
    dark = random.random() < 0.35
    ground: Colour = (24, 26, 30) if dark else (255, 255, 255)
    card: Colour = (44, 47, 54) if dark else (241, 242, 245)
    ink: Colour = (232, 234, 237) if dark else (32, 33, 36)
    accent = colour(random)
    canvas = Canvas(side, ground)
    bar, column, row = side * 0.1, side * random.uniform(0.0, 0.35), float(random.integers(34, 60))
    canvas.box((0, bar, column, side), card)
    canvas.box((0, 0, side, bar), accent)
    tops = np.arange(bar + 10, side, row + 10)
    for index, top in enumerate(tops):
        canvas.box((column + 9, top - 1, side - 9, top + row + 1), (128, 130, 134), 7)
        canvas.box((column + 10, top, side - 10, top + row), card, 6)
        on = (index + int(random.integers(2))) % 2 == 0
        centre, right = top + row / 2, side - 20.0
        canvas.box((right - 34, centre - 10, right, centre + 10), accent if on else (189, 193, 198), 10)
        canvas.ellipse((right - 10 if on else right - 24, centre), (8, 8), (255, 255, 255))
    image = canvas.finished()
    write(image, (10, bar * 0.2), words(random, 3), (FONTS[1], max(10, int(bar * 0.5))), (255, 255, 255))
    for top in tops:
        write(image, (8, top + 4), words(random, 1), (FONTS[0], 14), ink)
        write(image, (column + 18, top + 4), words(random, 3), (FONTS[0], 14), ink)
        write(image, (column + 18, top + 22), words(random, 5), (FONTS[0], 10), (128, 134, 139))
    return image


def chart(random: np.random.Generator, side: int) -> Image.Image:
    """Bars, curves or a heat map with axes and labels, mostly on white."""
    ground: Colour = (255, 255, 255) if random.random() < 0.8 else (30, 30, 34)
    ink: Colour = (0, 0, 0) if ground[0] == 255 else (220, 220, 220)
    canvas = Canvas(side, ground)
    left, top, right, bottom = side * 0.14, side * 0.1, side * 0.94, side * 0.88
    kind = int(random.integers(3))
    if kind == 0:
        count = int(random.integers(4, 14))
        step = (right - left) / count
        for index in range(count):
            height = random.uniform(0.1, 1.0) * (bottom - top)
            fill = PALETTE[(index + 3) % len(PALETTE)] if random.random() < 0.7 else colour(random)
            canvas.box((left + index * step + 1, bottom - height, left + (index + 0.75) * step, bottom), fill)
    elif kind == 1:
        x = np.linspace(left, right, 80)
        for index in range(int(random.integers(2, 6))):
            wave = np.sin(np.linspace(0, random.uniform(3, 30), 80) + random.uniform(0, 6)) * random.uniform(0.1, 0.9)
            y = (top + bottom) / 2 + wave * (bottom - top) / 2
            canvas.line(np.stack([x, y], 1), PALETTE[(index + 10) % len(PALETTE)], random.uniform(0.8, 3.0))
    else:
        count = int(random.integers(5, 14))
        step = (right - left) / count
        down = (bottom - top) / count
        for cell in range(count * count):
            corner = left + cell % count * step, top + cell // count * down
            canvas.box((*corner, corner[0] + step, corner[1] + down), _heat(random.random()))
    for share in np.linspace(0, 1, int(random.integers(4, 9))):
        y = bottom - share * (bottom - top)
        if kind != 2:
            canvas.line(np.array([[left, y], [right, y]]), (176, 176, 176), 0.6)
        canvas.line(np.array([[left - 4, y], [left, y]]), ink, 1.0)
    frame = np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]])
    canvas.line(frame, ink, 1.0)
    image = canvas.finished()
    write(image, (left + 20, top * 0.15), words(random, 3), (FONTS[0], max(10, side // 24)), ink)
    for share in np.linspace(0, 1, 6):
        label = (FONTS[0], max(9, side // 34))
        write(image, (2, bottom - share * (bottom - top) - 8), f"{share:.1f}", label, ink)
        write(image, (left + share * (right - left) - 8, bottom + 4), f"{10 * share:.0f}", label, ink)
    return image


def _heat(value: float) -> Colour:
    """Blue over cyan, yellow and red to dark red, as common maps of heat have it."""
    red, green, blue = (
        int(255 * min(max(1.5 - abs(4.0 * value - centre), 0.0), 1.0)) for centre in (3.0, 2.0, 1.0)
    )  # fmt: skip
    return red, green, blue


def combs(random: np.random.Generator, side: int) -> Image.Image:
    """Saturated stripes, checks and wedges of widths from one pixel of the network's input up, side by side."""
    canvas = Canvas(side, SATURATED[int(random.integers(len(SATURATED)))])
    cell = side / float(random.integers(2, 5))
    for top in np.arange(0, side, cell):
        for left in np.arange(0, side, cell):
            first, second = (SATURATED[int(index)] for index in random.choice(len(SATURATED), 2, replace=False))
            canvas.box((left, top, left + cell, top + cell), first)
            width = random.choice([2, 3, 4, 6, 8, 12, 16, 24])
            kind = int(random.integers(4))
            for at in np.arange(0, cell, 2 * width):
                if kind == 0:
                    canvas.box((left + at, top, left + min(at + width, cell), top + cell), second)
                elif kind == 1:
                    canvas.box((left, top + at, left + cell, top + min(at + width, cell)), second)
                elif kind == 2:
                    wedge = [[left + at, top], [left + at + width, top], [left + cell / 2, top + cell]]
                    canvas.polygon(np.array(wedge), second, second, 0)
                else:
                    for index, down in enumerate(np.arange(0, cell, width)):
                        x = left + at + (index % 2) * width
                        canvas.box((x, top + down, min(x + width, left + cell), top + down + width), second)
    return canvas.finished()
