"""How much slower one latency is than another: a ratio with its interval, whatever the distribution. Pure.

All work is on logarithms: a latency is a product of factors (clock, load, network), and a ratio of 2 and one of ½ are
then equally far from 1. No interval here assumes the shape of a distribution; what each assumes instead is with it.
``tests/benchmarks/interval_coverage.py`` measures how often they hold the truth on correlated samples,
``gate_simulation.py`` what the gate makes of them under drift, bursts, two modes, autocorrelation and heavy tails.
"""

from __future__ import annotations

import functools
import math
import statistics
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

import numpy as np

from sr_deploy.bench.interval import EXACT_UP_TO, effective_sample_size, median_interval


@dataclass(frozen=True)
class Ratio:
    """Candidate over baseline: 1.05 is five percent slower.

    Attributes:
        estimate: the best single value.
        low, high: the interval; 0 and infinity when there is too little data for any.
        confidence: that the interval holds the true ratio, by its method.
        method: the method's name.
        count: rounds, or processes on the smaller side, or 1.
        effective: how many independent rounds the rounds are worth, see ``effective_sample_size``; else ``count``.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    method: str
    count: int
    effective: float


def paired_ratio(baseline: Sequence[float], candidate: Sequence[float], confidence: float) -> Ratio:
    """From rounds that ran both sides one right after the other, in random order.

    Both sides of a round meet the same clocks and the same neighbours, so their log-ratio is free of what drifts more
    slowly than a round (Kalibera and Jones, "Rigorous benchmarking in reasonable time", ISMM 2013, for the unit of
    repetition; the pairing is theirs only in spirit). The random order makes what is left symmetric. The estimate is
    the median of the Walsh averages, the interval lies between two of them and belongs to Wilcoxon's signed-rank test
    (Hodges and Lehmann, Annals of Mathematical Statistics 34, 1963; Hollander, Wolfe and Chicken, Nonparametric
    Statistical Methods, 3rd edition, sections 3.2 and 3.3).

    The test's distribution is exact for independent rounds. Rounds may correlate, as the two parts of a round are not
    at the same moment; the interval is then that of fewer rounds, see ``paired_interval``.

    Args:
        baseline, candidate: one latency (the median of a round's samples) for each round, in the order taken, seconds.
        confidence: between 0 and 1.
    """
    logs = np.log(np.asarray(candidate, np.float64)) - np.log(np.asarray(baseline, np.float64))
    effective = effective_sample_size(logs)
    estimate, low, high = paired_interval(logs, confidence, effective)
    method = "signed-rank over paired rounds, by their effective sample size"
    return Ratio(math.exp(estimate), math.exp(low), math.exp(high), confidence, method, len(logs), effective)


def paired_interval(logs: np.ndarray, confidence: float, effective: float) -> Tuple[float, float, float]:
    """(estimate, low, high) of the centre of differences; see ``paired_ratio``.

    Args:
        logs: (rounds,), in the order taken.
        confidence: between 0 and 1.
        effective: how many independent rounds they are worth, in 1…rounds.

    Returns:
        The interval is infinite when the rounds are worth too few for the confidence.
    """
    first, second = _pairs(len(logs))
    averages = (logs[first] + logs[second]) / 2
    count = averages.size
    middle = [(count - 1) // 2, count // 2]
    cut = paired_cut(len(logs), confidence, effective)
    ends = [] if cut is None else [cut - 1, count - cut]
    # All that is needed of the order; sorting a hundred thousand averages would take ten times as long.
    averages.partition(sorted({*middle, *ends}))
    estimate = float(averages[middle].mean())
    if not ends:
        return estimate, -math.inf, math.inf
    return estimate, float(averages[ends[0]]), float(averages[ends[1]])


def paired_cut(rounds: int, confidence: float, effective: float) -> Optional[int]:
    """As ``signed_rank_cut``, for rounds that are worth ``effective`` independent ones.

    With dependence the variance of the Hodges-Lehmann estimate grows by τ = rounds / effective, where τ is the
    integrated autocorrelation time of the ranks. So the rounds get those quantiles of their Walsh averages that
    ``effective`` independent rounds would: the cut's share of the m(m + 1)/2 averages of m rounds carries over.
    """
    worth = int(effective)
    cut = signed_rank_cut(worth, confidence)
    return None if cut is None else max(1, cut * rounds * (rounds + 1) // (worth * (worth + 1)))


@functools.lru_cache(maxsize=8)
def _pairs(rounds: int) -> Tuple[np.ndarray, np.ndarray]:
    """The indices of all pairs (i, j) with i ≤ j: a session asks for the same ones at each look."""
    return np.triu_indices(rounds)


def process_ratio(baseline: Sequence[float], candidate: Sequence[float], confidence: float) -> Ratio:
    """From the medians of several independent processes on each side.

    Only the highest level of repetition counts: samples of one process share its memory layout and its moment, however
    many they are (Kalibera and Jones 2013). The estimate is the median of all differences of logarithms; the interval
    lies between two of them and belongs to the rank-sum test (Hodges and Lehmann 1963; Hollander, Wolfe and Chicken,
    sections 4.2 and 4.3), with its exact distribution. Five processes on each side are the fewest for 0.99.

    It takes the processes as independent, of which so few cannot tell anything: a machine that is slower throughout one
    side's measurement than throughout the other's makes a difference that the interval knows nothing of.

    Args:
        baseline, candidate: one latency a process, seconds.
        confidence: between 0 and 1.
    """
    a, b = (np.log(np.asarray(side, np.float64)) for side in (baseline, candidate))
    differences = np.sort((b[:, None] - a[None, :]).ravel())
    cut = rank_sum_cut(len(a), len(b), confidence)
    low, high = (-math.inf, math.inf) if cut is None else (differences[cut - 1], differences[-cut])
    return Ratio(
        math.exp(np.median(differences)),
        math.exp(low),
        math.exp(high),
        confidence,
        "rank-sum over processes, taken as independent",
        min(len(a), len(b)),
        min(len(a), len(b)),
    )


def single_run_ratio(
    baseline: Sequence[float], candidate: Sequence[float], run_noise: float, confidence: float
) -> Ratio:
    """From one run on each side. What differs from run to run cannot be seen in one run, so it must be given.

    Each median has its interval, corrected for autocorrelation (``median_interval``); the two are joined for the
    difference of logarithms by their squares (Donner and Zou, Statistical Methods in Medical Research 21, 2012), and
    the noise of two runs, √2 · z · run_noise, is added the same way.

    Args:
        baseline, candidate: all samples in the order taken, seconds.
        run_noise: standard deviation of a run's median from run to run, as a part of it.
        confidence: between 0 and 1.
    """
    medians = [math.log(statistics.median(side)) for side in (baseline, candidate)]
    intervals = [found for found in (median_interval(side, confidence) for side in (baseline, candidate)) if found]
    estimate = medians[1] - medians[0]
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    noise = 2 * (z * run_noise) ** 2
    if len(intervals) < 2:
        low, high = -math.inf, math.inf
    else:
        (low_a, high_a), (low_b, high_b) = ((math.log(i[0]), math.log(i[1])) for i in intervals)
        low = estimate - math.sqrt((medians[1] - low_b) ** 2 + (high_a - medians[0]) ** 2 + noise)
        high = estimate + math.sqrt((high_b - medians[1]) ** 2 + (medians[0] - low_a) ** 2 + noise)
    method = f"two medians, run-to-run noise taken as {100 * run_noise:g} %"
    return Ratio(math.exp(estimate), math.exp(low), math.exp(high), confidence, method, 1, 1.0)


def fewest_for(confidence: float) -> int:
    """How many processes on each side are the fewest for which ``process_ratio`` has an interval: 5 for 0.99."""
    return next(count for count in range(2, 100) if rank_sum_cut(count, count, confidence) is not None)


@functools.lru_cache(maxsize=None)
def signed_rank_cut(rounds: int, confidence: float) -> Optional[int]:
    """The interval is from the k-th smallest to the k-th largest Walsh average; None when no k reaches the confidence.

    The number of subsets of 1…n with a given sum gives the exact distribution of the signed-rank statistic. Above
    EXACT_UP_TO rounds it is taken as normal, with the continuity correction (Hollander, Wolfe and Chicken, section
    3.1): its tails are lighter than the normal ones, so the interval only gets wider, by less than one in a hundred.
    """
    if rounds > EXACT_UP_TO:
        deviation = math.sqrt(rounds * (rounds + 1) * (2 * rounds + 1) / 24)
        z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
        return math.floor(rounds * (rounds + 1) / 4 + 0.5 - z * deviation)
    ways = np.ones(1)
    for rank in range(1, rounds + 1):
        longer = np.zeros(ways.size + rank)
        longer[: ways.size] += ways / 2
        longer[rank:] += ways / 2
        ways = longer
    return _cut(ways, confidence)


@functools.lru_cache(maxsize=None)
def rank_sum_cut(count_a: int, count_b: int, confidence: float) -> Optional[int]:
    """As ``signed_rank_cut``, for the differences of two independent groups.

    The exact distribution of the rank-sum statistic is the Gaussian binomial coefficient, a product of
    (1 − x^(b+i)) / (1 − x^i) for i in 1…a.
    """
    size = count_a * count_b + 1
    ways = np.zeros(size)
    ways[0] = 1.0
    for index in range(1, count_a + 1):
        factor = count_b + index
        for power in range(size - 1, factor - 1, -1):
            ways[power] -= ways[power - factor]
        for power in range(index, size):
            ways[power] += ways[power - index]
    return _cut(ways / math.comb(count_a + count_b, count_a), confidence)


def _cut(probabilities: np.ndarray, confidence: float) -> Optional[int]:
    """The largest k with 2·P(statistic ≤ k − 1) ≤ 1 − confidence; None when there is none."""
    below = 2 * np.cumsum(probabilities)
    cut = int(np.searchsorted(below, 1 - confidence + 1e-12, side="right"))
    return cut or None
