"""How well the median of a latency is known: a distribution-free interval, corrected for autocorrelation. Pure."""

from __future__ import annotations

import math
import statistics
from typing import List, Optional, Sequence, Tuple, Union

import numpy as np

#: Above so many samples the binomial distribution of the ranks is taken as normal.
EXACT_UP_TO = 60
#: With fewer samples nothing can be said of their autocorrelation, so they are worth one.
FEWEST = 10


def median_interval(
    samples: Sequence[float], confidence: float = 0.95, effective: Optional[float] = None
) -> Optional[Tuple[float, float]]:
    """The interval between two order statistics that holds the median, or None where the samples are too few to tell.

    For m independent samples of any continuous distribution the number of samples below the median is binomial(m, ½),
    so the r-th smallest and the r-th largest enclose it with probability 1 − 2·P(binomial(m, ½) < r) (David and
    Nagaraja, Order Statistics, 3rd edition, section 7.1). Nothing is assumed of the distribution: latencies have heavy
    tails and several modes.

    Latencies one after the other are not independent. Dependence multiplies the variance of a median by τ = n / m (Sen,
    Annals of Mathematical Statistics 39, 1968, for the median of mixing processes), so n samples get the quantiles that
    m independent ones would: the levels r / (m + 1) and 1 − r / (m + 1) of the n samples.

    What it promises: of all measurements, at most 1 − confidence give an interval that misses the median of a
    stationary process whose memory is short against the measurement (``tests/benchmarks/interval_coverage.py`` measures
    it for AR(1) with ρ up to 0.9 and 10 samples and more). It does not promise that of those alone that do give one:
    where the memory fills the measurement nearly all give none. And it says nothing of the time outside the
    measurement: a machine that changes its state once a minute has another median in the next one.

    Args:
        samples: any unit, in the order taken.
        confidence: between 0 and 1.
        effective: see ``effective_sample_size``; None computes it.

    Returns:
        (low, high) in the unit of the samples, or None when they are worth too few independent ones for this
        confidence (six are the fewest for 0.95).
    """
    count = len(samples)
    if count < 2:
        return None
    worth = int(min(count, effective or effective_sample_size(samples)))
    rank = _rank(worth, confidence)
    if rank is None:
        return None
    rank = rank * (count + 1) // (worth + 1)
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    return float(ordered[rank - 1]), float(ordered[count - rank])


def relative_half_width(interval: Optional[Tuple[float, float]], median: float) -> float:
    """Half the interval's width over the median; infinity without an interval."""
    if interval is None or median <= 0:
        return math.inf
    return (interval[1] - interval[0]) / (2 * median)


def effective_sample_size(samples: Union[Sequence[float], np.ndarray]) -> float:
    """How many independent samples these are worth for their centre, cautiously, in 1…n.

    n / τ, where τ = 1 + 2·Σρ(k) is the integrated autocorrelation time. ρ is that of two robust scores of the samples,
    which decide the variance of the median and of the Hodges-Lehmann estimate: "lies above the median", and the rank.
    The larger τ counts, and of each score the larger of two estimates, as each is good where the other is not:

    - that of a first-order autoregressive process, (1 + ρ) / (1 − ρ), for few samples: see ``_cautious_lag_one``;
    - Geyer's initial monotone sequence for many samples and any memory (Statistical Science 7, 1992, section 3.3):
      pairs ρ(2m) + ρ(2m+1) are added as long as they are positive, none larger than the one before.

    Never more than n: the chance that negative correlations make the centre better known is not taken. Samples that
    are all equal are worth n.
    """
    values = np.asarray(samples, dtype=np.float64)
    if values.size < FEWEST:
        return 1.0
    time = max(_autocorrelation_time(score) for score in (np.sign(values - np.median(values)), _ranks(values)))
    return float(min(max(values.size / time, 1.0), values.size))


def _autocorrelation_time(score: np.ndarray) -> float:
    """τ of a score, at least 1; see ``effective_sample_size``."""
    count = score.size
    score = score - score.mean()
    power = float(score @ score)
    if power == 0.0:
        return 1.0
    length = 1 << (2 * count - 1).bit_length()
    spectrum = np.fft.rfft(score, length)
    rho = np.fft.irfft(spectrum * np.conj(spectrum), length)[:count] / power
    lag_one = _cautious_lag_one(float(rho[1]), count)
    pairs = rho[: count // 2 * 2].reshape(-1, 2).sum(axis=1)
    positive = np.cumprod(pairs > 0)
    monotone = 2 * float((np.minimum.accumulate(pairs) * positive).sum()) - 1
    return max(1.0, (1 + lag_one) / (1 - lag_one), monotone)


def _cautious_lag_one(measured: float, count: int) -> float:
    """A lag-one autocorrelation, 0…0.999, that is rarely below the true one.

    Few samples show less correlation than there is, by (1 + 4ρ) / n (Marriott and Pope, Biometrika 41, 1954), which is
    undone; and one standard error, √((1 − ρ²) / n) (Bartlett, Journal of the Royal Statistical Society B 8, 1946), is
    added, as an interval that is too short does harm and one that is too long only takes time.
    """
    rho = min(max((count * measured + 1) / (count - 4), -0.99), 0.999)
    error = math.sqrt(max(1 - rho * rho, 1 / count) / count)
    return min(max(rho + error, 0.0), 0.999)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, equal values with the mean of theirs, so that a clock with coarse steps makes no order of its own."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2


def binomial_tail(count: int, successes: int, share: float) -> float:
    """P(binomial(count, share) ≥ successes), exactly; ``share`` between 0 and 1."""
    odds, ways = math.log(share / (1 - share)), math.lgamma(count + 1)
    below = (
        math.exp(ways - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * odds + count * math.log1p(-share))
        for k in range(min(successes, count + 1))
    )
    return max(0.0, 1.0 - math.fsum(below))


def batch_medians(samples: Sequence[float], batches: int) -> List[float]:
    """The medians of ``batches`` equal parts of the samples, in order; what does not fit into equal parts is left out
    at the start, where a warm-up that ended early would show."""
    length = len(samples) // batches
    if length == 0:
        return []
    tail = list(samples)[len(samples) - batches * length :]
    return [statistics.median(tail[start : start + length]) for start in range(0, len(tail), length)]


def _rank(count: int, confidence: float) -> Optional[int]:
    """The largest r (from 1) whose order statistics of independent samples still reach the confidence, or None."""
    if count <= EXACT_UP_TO:
        rank, below = 0, 0.0
        while True:
            below += math.comb(count, rank) * 0.5**count
            if 1 - 2 * below < confidence or 2 * (rank + 1) > count:
                return rank or None
            rank += 1
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    rank = math.floor((count + 1 - z * math.sqrt(count)) / 2)
    return rank if rank >= 1 else None
