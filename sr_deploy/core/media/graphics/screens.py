"""What screens show: user interfaces, and what is hardest to show."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sr_deploy.core.media.graphics.canvas import FONTS, SATURATED, Canvas, Colour, colour, words, write


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
