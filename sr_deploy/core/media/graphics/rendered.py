"""What machines make: pixel art, gradients, frames of video with the blocks of a strong compression."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from sr_deploy.core.media.graphics.canvas import FONTS, Canvas, colour, leaves, words, write


def pixel_art(random: np.random.Generator, side: int) -> Image.Image:
    """A grid of few colours, its pixels some pixels wide; symmetrical sprites on a ground."""
    edge = int(random.choice([4, 8, 12]))
    cells = -(-side // edge)
    colours = np.array([colour(random) for _ in range(6)], np.uint8)
    grid = np.zeros((cells, cells), np.int64)
    grid[int(cells * random.uniform(0.5, 0.9)) :] = 1
    for _ in range(int(random.integers(2, 8))):
        size = int(random.integers(4, max(5, cells // 3)))
        half = random.integers(0, 6, (size, (size + 1) // 2))
        sprite = np.concatenate([half, half[:, ::-1]], 1)[: cells - 1, : cells - 1]
        top, left = (int(random.integers(0, cells - length + 1)) for length in sprite.shape)
        grid[top : top + sprite.shape[0], left : left + sprite.shape[1]] = sprite
    return Image.fromarray(np.kron(colours[grid], np.ones((edge, edge, 1), np.uint8))[:side, :side])


def gradient(random: np.random.Generator, side: int) -> Image.Image:
    """Smooth ramps from colour to colour, with a few sharp shapes on them."""
    rows, columns = np.mgrid[0:side, 0:side] / float(side - 1)
    corners = np.array([colour(random) for _ in range(4)], np.float64)
    weights = np.stack([(1 - rows) * (1 - columns), (1 - rows) * columns, rows * (1 - columns), rows * columns], 2)
    ramp = Image.fromarray(np.rint(weights @ corners).astype(np.uint8))
    canvas = Canvas(side, (0, 0, 0))
    canvas.image.paste(ramp.resize(canvas.image.size, Image.Resampling.BILINEAR))
    # A ramp alone is restored at 50 dB, where a tenth of a step costs a decibel that nobody sees.
    for _ in range(int(random.integers(1, 5))):
        x, y, radius = *random.uniform(0, side, 2), random.uniform(0.03, 0.2) * side
        canvas.ellipse((x, y), (radius, radius), colour(random))
    return canvas.finished()


def frame(random: np.random.Generator, side: int) -> Image.Image:
    """A ground like a photograph with a line of text, compressed until blocks of 8 pixels show."""
    image = Image.fromarray(leaves(random, side).astype(np.uint8))
    write(image, (side * 0.06, side * 0.06), words(random, 2), (FONTS[1], side // 14), (255, 255, 255))
    held = io.BytesIO()
    image.save(held, "JPEG", quality=int(random.integers(8, 40)), subsampling=2)
    return Image.open(held).convert("RGB")
