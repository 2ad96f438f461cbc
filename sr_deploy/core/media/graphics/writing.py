"""Text: pages, terminals, subtitles."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sr_deploy.core.media.graphics.canvas import FONTS, SATURATED, ground_and_ink, leaves, words, write


def page(random: np.random.Generator, side: int) -> Image.Image:
    """A page of text of one to three sizes, dark on light, light on dark or in colours."""
    ground, ink = ground_and_ink(random)
    image = Image.new("RGB", (side, side), ground)
    y = float(random.integers(2, 12))
    size = int(random.integers(9, 40))
    while y < side:
        if random.random() < 0.15:
            size = int(random.integers(9, 40))
        style = FONTS[int(random.integers(len(FONTS) - 1))] if random.random() < 0.2 else FONTS[2 * (size % 2)]
        write(image, (float(random.integers(4, 14)), y), words(random, 14), (style, size), ink)
        y += size * 1.3
    return image


def terminal(random: np.random.Generator, side: int) -> Image.Image:
    """Monospaced lines in saturated colours on a dark ground."""
    image = Image.new("RGB", (side, side), (int(random.integers(0, 25)),) * 3)
    size = int(random.integers(10, 19))
    for row in range(side // (size + 4) + 1):
        ink = SATURATED[int(random.integers(len(SATURATED)))]
        ink = (0, 190, 255) if ink == (0, 0, 0) else ink
        write(image, (6.0, 4.0 + row * (size + 4)), "user@host:~$ " + words(random, 7), (FONTS[4], size), ink)
    return image


def subtitles(random: np.random.Generator, side: int) -> Image.Image:
    """White or yellow text with a black rim on a ground like a photograph."""
    image = Image.fromarray(leaves(random, side).astype(np.uint8))
    size = int(random.integers(side // 16, side // 8))
    for row in range(int(random.integers(2, 5))):
        place = (float(random.integers(-20, side // 8)), side - (row + 1.4) * size * 1.25)
        ink = (255, 255, 255) if random.random() < 0.6 else (255, 255, 0)
        write(image, place, words(random, 6), (FONTS[int(random.integers(2))], size), ink, max(1, size // 12))
    return image
