"""How well the median of a latency is known: a distribution-free interval, corrected for autocorrelation. Pure."""

from __future__ import annotations

import math
import statistics
from typing import List, Optional, Sequence, Tuple

import numpy as np

#: Above so many samples the binomial distribution of the ranks is taken as normal.
EXACT_UP_TO = 60


def median_interval(
    samples: Sequence[float], confidence: float = 0.95, effective: Optional[float] = None
) -> Optional[Tuple[float, float]]:
    """The interval between two order statistics that holds the median with at least this confidence.

    For n independent samples of any continuous distribution the number of samples below the median is binomial(n, ½),
    so the r-th smallest and the r-th largest enclose it with probability 1 − 2·P(binomial(n, ½) < r) (David and
    Nagaraja, Order Statistics, 3rd edition, section 7.1). Nothing is assumed of the distribution: latencies have heavy
    tails and several modes.

    Latencies one after the other are not independent. The variance of a median is that of the share of samples below
    it; dependence multiplies this by τ = n / effective (Sen, Annals of Mathematical Statistics 39, 1968, for the
    median of mixing processes). So the distance of the ranks from the middle is multiplied by √τ.

    Args:
        samples: any unit, in the order taken.
        confidence: between 0 and 1.
        effective: see ``effective_sample_size``; None computes it.

    Returns:
        (low, high) in the unit of the samples, or None when there are too few for this confidence (six are the fewest
        for 0.95).
    """
    count = len(samples)
    if count < 2:
        return None
    tau = max(1.0, count / (effective or effective_sample_size(samples)))
    rank = _rank(count, confidence, tau)
    if rank is None:
        return None
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    return float(ordered[rank - 1]), float(ordered[count - rank])


def relative_half_width(interval: Optional[Tuple[float, float]], median: float) -> float:
    """Half the interval's width over the median; infinity without an interval."""
    if interval is None or median <= 0:
        return math.inf
    return (interval[1] - interval[0]) / (2 * median)


def effective_sample_size(samples: Sequence[float]) -> float:
    """How many independent samples these are worth for their median, in 1…n.

    n / τ with τ = 1 + 2·Σρ(k), where ρ is the autocorrelation of the indicator "lies above the median", the one that
    decides the median's variance. The sum ends by Geyer's initial positive sequence (Statistical Science 7, 1992,
    section 3.3): pairs ρ(2m) + ρ(2m+1) are added as long as they are positive. Never more than n: the chance that
    negative correlations make the median better known is not taken.
    """
    values = np.asarray(samples, dtype=np.float64)
    count = values.size
    # Samples that equal the median count half, so that a clock with coarse steps does not make all of them one side.
    signs = np.sign(values - np.median(values))
    signs -= signs.mean()
    power = float(signs @ signs)
    if count < 4 or power == 0.0:
        return float(count)
    length = 1 << (2 * count - 1).bit_length()
    spectrum = np.fft.rfft(signs, length)
    rho = np.fft.irfft(spectrum * np.conj(spectrum), length)[:count] / power
    total = 0.0
    for first in range(0, count - 1, 2):
        pair = float(rho[first] + rho[first + 1])
        if pair <= 0:
            break
        total += pair
    return float(count / min(max(1.0, 2 * total - 1), count))


def batch_medians(samples: Sequence[float], batches: int) -> List[float]:
    """The medians of ``batches`` equal parts of the samples, in order; what does not fit into equal parts is left out
    at the start, where a warm-up that ended early would show."""
    length = len(samples) // batches
    if length == 0:
        return []
    tail = list(samples)[len(samples) - batches * length :]
    return [statistics.median(tail[start : start + length]) for start in range(0, len(tail), length)]


def _rank(count: int, confidence: float, tau: float) -> Optional[int]:
    """The largest r (from 1) whose order statistics still reach the confidence; None when not even r = 1 does."""
    if tau == 1.0 and count <= EXACT_UP_TO:
        rank, below = 0, 0.0
        while True:
            below += math.comb(count, rank) * 0.5**count
            if 1 - 2 * below < confidence or 2 * (rank + 1) > count:
                return rank or None
            rank += 1
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    rank = math.floor((count + 1 - z * math.sqrt(count * tau)) / 2)
    return rank if rank >= 1 else None
