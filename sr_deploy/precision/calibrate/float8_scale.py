"""The scale of a tensor's FP8 form: where the grid's steps fall on what the tensor holds.

A float's rounding is relative, so between subnormals and the largest value a scale matters little. What it decides is
the cut, as for INT8 (half of the range costs twice the step of the values that are left, and saves the bits that a few
outliers would take), and where within a power of two the largest values fall: E4M3 ends at 1.75 · 2^8.
"""

from __future__ import annotations

import numpy as np

from sr_deploy.core.number_formats import FLOAT8
from sr_deploy.precision.calibrate.ranges import BINS, DEAD_SCALE, TensorStats
from sr_deploy.precision.grid import on_grid

#: Cuts that are tried, as shares of the largest magnitude: ten for each halving down to a 32nd.
_CUTS = np.exp2(-np.arange(51) / 10.0)


def float8_scale(stats: TensorStats, naive: bool = False) -> float:
    """The scale with the least mean squared error of rounding and saturation together, from the histogram.

    Args:
        stats: of the tensor, with finite values only; ``scale_of`` of ranges.py refuses others.
        naive: take the largest magnitude as 448, as a calibration without a search does.

    Returns:
        A positive float32 number, as a float; DEAD_SCALE for a tensor that is always zero.
    """
    if stats.amax == 0.0:
        return DEAD_SCALE
    cuts = stats.amax * (np.ones(1) if naive else _CUTS)
    scales = np.maximum(cuts / FLOAT8.largest, float(np.finfo(np.float32).tiny)).astype(np.float32)
    return float(scales[int(np.argmin([float8_error(stats, float(scale)) for scale in scales]))])


def float8_error(stats: TensorStats, scale: float) -> float:
    """Mean squared error of storing the tensor in FP8 with this scale; values are taken at the middles of their bins.

    The bins that matter lie far above the smallest step: one is 448 / 4096 of the grid's units at most, where the
    largest value is 448, and the step there is 32.
    """
    counts = stats.histogram.astype(np.float64)
    counts[0] = max(counts[0] - stats.zeros, 0.0)
    middles = (np.arange(BINS) + 0.5) * (stats.top / BINS) / scale
    return float(np.dot((on_grid(middles, FLOAT8) - middles) ** 2, counts) / max(stats.histogram.sum(), 1) * scale**2)
