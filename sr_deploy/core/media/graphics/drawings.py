"""What is drawn by hand: line art, flat drawings with outlines, screentone."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sr_deploy.core.media.graphics.canvas import Canvas, Colour, brightness, colour


def _blob(random: np.random.Generator, centre: np.ndarray, radius: float) -> np.ndarray:
    """A closed, smooth or pointed shape around a centre, (N, 2)."""
    if random.random() < 0.3:
        angles = np.sort(random.uniform(0, 2 * np.pi, int(random.integers(3, 8))))
        shape: np.ndarray = centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
        return shape
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    wave = np.zeros(len(angles))
    for order in (2, 3, 5):
        wave += random.uniform(0, 0.25) * np.sin(order * angles + random.uniform(0, 6))
    reach = radius * (1.0 + wave) * random.uniform(0.6, 1.0)
    return np.asarray(centre + np.stack([reach * np.cos(angles), random.uniform(0.5, 1.0) * reach * np.sin(angles)], 1))


def _curve(random: np.random.Generator, side: int) -> np.ndarray:
    """An open curve, (40, 2): a cubic Bézier."""
    ends = random.uniform(-0.1, 1.1, (4, 2)) * side
    at = np.linspace(0, 1, 40)[:, None]
    weights = np.concatenate([(1 - at) ** 3, 3 * at * (1 - at) ** 2, 3 * at**2 * (1 - at), at**3], 1)
    return np.asarray(weights @ ends)


def line_art(random: np.random.Generator, side: int) -> Image.Image:
    """Thin black lines and hatching on white, sometimes the other way round or on paper."""
    ground, ink = (((255, 255, 255), (0, 0, 0)), ((0, 0, 0), (255, 255, 255)), ((244, 236, 216), (40, 30, 20)))[
        int(random.choice(3, p=(0.7, 0.15, 0.15)))
    ]
    canvas = Canvas(side, ground)
    for _ in range(int(random.integers(3, 9))):
        shape = _blob(random, random.uniform(0, side, 2), random.uniform(0.08, 0.3) * side)
        canvas.polygon(shape, ground, ink, random.uniform(0.7, 4.0))
    for _ in range(int(random.integers(6, 20))):
        canvas.line(_curve(random, side), ink, random.uniform(0.6, 3.0))
    for _ in range(int(random.integers(1, 4))):
        corner, length, gap = random.uniform(0, side * 0.8, 2), random.uniform(0.1, 0.3) * side, random.uniform(3, 9)
        for shift in np.arange(0, length, gap):
            canvas.line(np.array([corner + (shift, 0), corner + (shift + length / 3, length)]), ink, 0.9)
    return canvas.finished()


def flat(random: np.random.Generator, side: int) -> Image.Image:
    """Flat colours with dark outlines, as in cel animation and comics."""
    canvas = Canvas(side, colour(random))
    outline: Colour = (int(random.integers(0, 40)), int(random.integers(0, 25)), int(random.integers(0, 30)))
    width = random.uniform(1.2, 5.0)
    for reach in np.linspace(0.45, 0.06, int(random.integers(10, 28))):
        fill = colour(random)
        shape = _blob(random, random.uniform(-0.05, 1.05, 2) * side, reach * side)
        canvas.polygon(shape, fill, outline, width * random.uniform(0.5, 1.2) if brightness(fill) > 30 else 0.0)
        if random.random() < 0.4:
            middle = shape.mean(axis=0)
            canvas.ellipse((middle[0], middle[1]), (reach * side * 0.15, reach * side * 0.2), (255, 255, 255))
    return canvas.finished()


def screentone(random: np.random.Generator, side: int) -> Image.Image:
    """A drawing in black and white whose greys are regular dots, as printed comics have them."""
    canvas = Canvas(side, (255, 255, 255))
    for _ in range(int(random.integers(2, 5))):
        shape = _blob(random, random.uniform(0.1, 0.9, 2) * side, random.uniform(0.2, 0.5) * side)
        canvas.polygon(shape, (128, 128, 128), (0, 0, 0), random.uniform(1.5, 4.0))
    grey = np.asarray(canvas.image, np.float64)[:, :, 0]
    pitch, turn = random.uniform(8, 24), random.uniform(0, np.pi / 2)
    rows, columns = np.mgrid[0 : grey.shape[0], 0 : grey.shape[1]]
    across = np.cos(2 * np.pi / pitch * (columns * np.cos(turn) + rows * np.sin(turn)))
    along = np.cos(2 * np.pi / pitch * (rows * np.cos(turn) - columns * np.sin(turn)))
    dots = np.where(across + along > random.uniform(-0.6, 0.6), 0, 255)
    toned = np.where((grey > 100) & (grey < 160), dots, np.where(grey > 128, 255, 0)).astype(np.uint8)
    return Image.fromarray(np.repeat(toned[:, :, None], 3, 2)).resize((side, side), Image.Resampling.BOX)
