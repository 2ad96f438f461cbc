"""What PSNR does not tell apart: a grid that upsampling leaves, and a shift of a whole colour."""

from __future__ import annotations

import numpy as np

from sr_deploy.core.quality.psnr_ssim import luma


def sub_pixel_grid(sr: np.ndarray, hr: np.ndarray, border: int) -> float:
    """How far the mean error of the luma differs between places in the upsampling's grid: largest minus smallest.

    The error is averaged over each of the scale² phases (row mod scale, column mod scale): where an upsampling treats
    its sub-pixels unlike, which is seen as a pattern on even areas, they differ.

    Args:
        sr, hr: uint8 (H, W, 3) RGB or (H, W, 1) grey.
        border: the scale, by convention, which is the period of the grid; 1 or less has none.

    Returns:
        In 8-bit steps of luma; 0 is best.

    Raises:
        BadImage: not 8 bit.
    """
    if border <= 1:
        return 0.0
    inside = (slice(border, sr.shape[0] - border), slice(border, sr.shape[1] - border))
    error = (luma(sr) - luma(hr))[inside]
    phases = [error[row::border, column::border] for row in range(border) for column in range(border)]
    means = [float(phase.mean()) for phase in phases if phase.size]
    return max(means) - min(means)


def colour_shift(sr: np.ndarray, hr: np.ndarray, border: int) -> float:
    """The largest |mean of sr − hr| of red, green and blue.

    Args:
        sr, hr: uint8 (H, W, 3) RGB or (H, W, 1) grey.
        border: pixels left out on each side.

    Returns:
        In 8-bit steps; 0 is best.
    """
    inside = (slice(border, sr.shape[0] - border), slice(border, sr.shape[1] - border))
    error = sr[inside].astype(np.float64) - hr[inside]
    return float(np.abs(error.mean(axis=(0, 1))).max())
