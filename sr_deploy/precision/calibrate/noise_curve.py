"""What every cut of a tensor's range costs on one picture, in dB: so that each picture counts as much as any other.

The largest values of a network on drawings, text or combs of saturated colours can be ten to a hundred times those on
photographs. A squared error over all pictures together is theirs alone, and the cut that is best for it leaves a
photograph a few of the 127 steps. The mean over the pictures of the error in dB has no such leaders: what doubles the
error of one picture may cost no more than what doubles that of another.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from sr_deploy.core.deployment.plan import INT8_MAX

#: Octaves of magnitude that are told apart, and bins in each. Bins are even within an octave: they are the exponent and
#: the first four bits of the fraction of a float32, read from its bits.
_OCTAVES, _PARTS = (-24, 24), 16
_BINS = (_OCTAVES[1] - _OCTAVES[0]) * _PARTS
_SHIFT, _BIAS, _MAGNITUDE = 19, 127, 0x7FFFFFFF
#: Upper and lower ends of the bins; all but the lowest are the cuts that are tried.
_EDGES = np.append(
    np.ldexp(1.0 + np.tile(np.arange(_PARTS) / _PARTS, _BINS // _PARTS), np.repeat(np.arange(*_OCTAVES), _PARTS)),
    np.ldexp(1.0, _OCTAVES[1]),
)
CUTS = _EDGES[1:]
#: Below this a mean squared error is none.
_NOTHING = 1e-30


def rounding_integral(steps: np.ndarray) -> np.ndarray:
    """∫ (x − stored x)² from 0 to ``steps``, in steps: 1/12 over each whole one; beyond 127.5 what is stored stays at
    127."""
    inside = np.minimum(steps, INT8_MAX + 0.5)
    whole = np.rint(inside)
    result: np.ndarray = whole / 12.0 + (inside - whole) ** 3 / 3.0
    return result + (np.maximum(steps - INT8_MAX, 0.5) ** 3 - 0.125) / 3.0


@lru_cache(maxsize=1)
def _costs() -> np.ndarray:
    """Mean squared error of a value in each bin under each cut, (cuts, bins)."""
    scales = CUTS[:, None] / INT8_MAX
    edges = _EDGES[None, :] / scales
    costs: np.ndarray = np.diff(rounding_integral(edges), axis=1) / np.diff(edges, axis=1) * scales**2
    return costs


def noise_curve(values: np.ndarray) -> np.ndarray:
    """10 log₁₀ of the mean squared error of storing these values in 8 bits, for each of CUTS; float64.

    Args:
        values: finite, any shape, of one picture. Magnitudes below 2⁻²⁴ count as zeros, those above 2²⁴ as that.
    """
    bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.int32) & _MAGNITUDE
    counts = np.bincount(bits >> _SHIFT, minlength=2 ** (31 - _SHIFT)).astype(np.float64)
    first, last = ((_BIAS + octave) * _PARTS for octave in _OCTAVES)
    held = counts[first:last].copy()
    held[-1] += counts[last:].sum()
    curve: np.ndarray = 10.0 * np.log10(np.maximum(_costs() @ held / max(counts.sum(), 1.0), _NOTHING))
    return curve


def quietest(curve: np.ndarray) -> float:
    """The cut at which a curve, or a mean of curves, is lowest."""
    return float(CUTS[int(np.argmin(curve))])
