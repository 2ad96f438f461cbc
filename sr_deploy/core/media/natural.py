"""Parts of the photograph that ships with srdeploy: what proofs feed to a network beside made-up pictures.

Networks are trained on photographs, and some that are finite on every one of them overflow on noise.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Tuple

import numpy as np

from sr_deploy.core.contract import Size

#: See demo/README.md for where it comes from.
PHOTOGRAPH = Path(__file__).resolve().parents[2] / "demo" / "demo.png"
#: Upper left corners (row, column) of the parts, for sizes up to 128: fur and an eye, whiskers, background and fur.
_CORNERS: Tuple[Tuple[int, int], ...] = ((40, 60), (120, 30), (0, 128))


@functools.lru_cache(maxsize=1)
def _pixels() -> np.ndarray:
    from sr_deploy.core.media.image import read_picture

    return read_picture(PHOTOGRAPH).pixels


def natural_input(size: Size, value_range: float, part: int = 0) -> np.ndarray:
    """A part of the photograph, mirrored at its edges where it is too small.

    Args:
        size: height and width in pixels.
        value_range: the value of white, 1.0 or 255.0.
        part: which part; there are three, and higher numbers begin again.

    Returns:
        float32 (1, 3, H, W) RGB in ``0…value_range``.
    """
    row, column = _CORNERS[part % len(_CORNERS)]
    pixels = _pixels()
    rows = _mirrored(row, size[0], pixels.shape[0])
    columns = _mirrored(column, size[1], pixels.shape[1])
    picture = pixels[rows][:, columns].transpose(2, 0, 1)
    return np.asarray(picture[None] * (value_range / 255.0), np.float32)


def _mirrored(start: int, count: int, length: int) -> np.ndarray:
    """``count`` indices from ``start`` on that turn back at both ends of ``length``."""
    places = np.arange(start, start + count) % (2 * length)
    return np.where(places < length, places, 2 * length - 1 - places)
