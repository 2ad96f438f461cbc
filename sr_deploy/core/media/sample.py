"""Deterministic test pictures: what proofs and measurements feed to a network when no photograph is at hand."""

from __future__ import annotations

from typing import Callable

import numpy as np

from sr_deploy.core.contract import IOContract, Size
from sr_deploy.core.media.surface import surface_of_rgb

#: Makes a picture of (height, width) and value of white: float32 (1, 3, H, W) RGB in whole 8-bit steps.
Picture = Callable[[Size, float], np.ndarray]


def sample_input(size: Size, value_range: float, seed: int = 0) -> np.ndarray:
    """A picture-like input: smooth waves, hard edges and noise, over the whole value range.

    Noise alone is not like a photograph, and smooth content alone hides errors at borders; this has both, and the
    edges run into all four borders.

    Args:
        size: height and width in pixels.
        value_range: the value of white, 1.0 or 255.0.
        seed: equal seeds give equal pictures.

    Returns:
        float32 (1, 3, H, W) in ``0…value_range``, quantised to 8 bits as a decoded picture would be.
    """
    height, width = size
    generator = np.random.default_rng(seed)
    rows = np.arange(height, dtype=np.float64)[:, None] / max(height - 1, 1)
    columns = np.arange(width, dtype=np.float64)[None, :] / max(width - 1, 1)
    planes = []
    for _ in range(3):
        fy, fx, phase = generator.uniform(1, 9, 2).tolist() + [generator.uniform(0, 6.3)]
        wave = 0.5 + 0.3 * np.sin(6.283 * (fy * rows + fx * columns) + phase)
        slope = generator.uniform(-2, 2)
        edge = 0.25 * ((columns + slope * (rows - 0.5)) > generator.uniform(0.3, 0.7))
        noise = generator.normal(0, 0.05, (height, width))
        planes.append(wave + edge - 0.1 + noise)
    picture = np.rint(np.clip(np.stack(planes), 0, 1) * 255)
    return np.asarray(picture[None] * (value_range / 255.0), np.float32)


def sample_for(contract: IOContract, size: Size, picture: Picture = sample_input) -> np.ndarray:
    """A picture as a graph of this contract takes it; its sides must be even where that takes planes."""
    if contract.dtype != "uint8":
        return picture(size, contract.value_range)
    if contract.yuv is not None:
        return surface_of_rgb(picture(size, 1.0)[0].transpose(1, 2, 0), contract)
    return np.ascontiguousarray(picture(size, 255.0).transpose(0, 2, 3, 1).astype(np.uint8))
