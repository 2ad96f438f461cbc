"""The interval of the median misses it no more often than it says, for independent and for correlated samples."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from sr_deploy.bench.interval import (
    batch_medians,
    binomial_tail,
    effective_sample_size,
    median_interval,
    relative_half_width,
)

TRIALS = 1000


def coverage(make, median, count, confidence=0.95):
    """(share of the trials that do not miss the median, share of them that get an interval)."""
    intervals = [median_interval(make(np.random.default_rng(trial), count), confidence) for trial in range(TRIALS)]
    given = [interval for interval in intervals if interval is not None]
    wrong = sum(not low <= median <= high for low, high in given)
    return 1 - wrong / TRIALS, len(given) / TRIALS


def heavy_tailed(generator, count):
    return generator.standard_cauchy(count)


def skewed(generator, count):
    return generator.exponential(size=count)


def correlated(generator, count, phi=0.8):
    noise = generator.normal(size=count + 100)
    values = np.zeros(count + 100)
    for n in range(1, count + 100):
        values[n] = phi * values[n - 1] + noise[n]
    return values[100:]


@pytest.mark.parametrize("count", [20, 30, 100, 1000])
@pytest.mark.parametrize(("make", "median"), [(heavy_tailed, 0.0), (skewed, math.log(2))])
def test_independent_samples(make, median, count):
    # Independent samples must get an interval, too: one that is never given is never wrong.
    held, given = coverage(make, median, count)
    assert held > 0.94 and given > (0.75 if count < 30 else 0.95)


@pytest.mark.parametrize("count, phi", [(10, 0.9), (30, 0.5), (30, 0.9), (100, 0.9), (300, 0.8), (1000, 0.9)])
def test_correlated_samples_miss_no_more_often_than_said(count, phi):
    assert coverage(functools.partial(correlated, phi=phi), 0.0, count)[0] > 0.94


def test_without_the_correction_correlated_samples_miss():
    without = sum(
        low <= 0 <= high
        for low, high in (
            median_interval(correlated(np.random.default_rng(n), 500), effective=500) for n in range(TRIALS)
        )
    )
    assert without / TRIALS < 0.75


def test_exact_ranks_of_the_textbook():
    # Table of the sign test: n = 10 gives the 2nd and the 9th, n = 20 the 6th and the 15th at 95 %.
    assert median_interval(list(range(1, 11)), effective=10) == (2, 9)
    assert median_interval(list(range(1, 21)), effective=20) == (6, 15)
    assert median_interval(list(range(1, 7)), effective=6) == (1, 6)
    assert median_interval(list(range(1, 6)), effective=5) is None
    assert median_interval([1.0]) is None


def test_normal_ranks_continue_the_exact_ones():
    exact = median_interval(list(range(60)), effective=60)
    approximate = median_interval(list(range(61)), effective=61)
    assert exact == (21, 38) and approximate == (22, 38)


def test_effective_size():
    generator = np.random.default_rng(0)
    independent = effective_sample_size(generator.normal(size=4000))
    assert 3000 < independent <= 4000
    # Of the two scores the ranks correlate more, nearly as the values do: τ = (1 + φ) / (1 − φ).
    assert effective_sample_size(correlated(generator, 40000)) == pytest.approx(40000 / 9, rel=0.1)
    assert effective_sample_size([1.0] * 50) == 50
    # Too few to see any correlation are worth one, and get no interval.
    assert effective_sample_size(generator.normal(size=9)) == 1
    # A drift is no information at all about one median.
    assert effective_sample_size(np.arange(1000.0)) < 10
    # An outlier of any size changes nothing much: only the side of the median counts.
    steady = generator.normal(size=1000)
    spiked = steady.copy()
    spiked[500] = 1e9
    assert effective_sample_size(spiked) == pytest.approx(effective_sample_size(steady), rel=0.1)


def test_half_width_and_batches():
    assert relative_half_width((0.99, 1.01), 1.0) == pytest.approx(0.01)
    assert relative_half_width(None, 1.0) == math.inf
    assert batch_medians([9, 1, 2, 3, 4, 5, 6], 3) == [1.5, 3.5, 5.5]
    assert batch_medians([1.0], 2) == []


def test_few_samples_show_less_correlation_than_there_is_and_the_estimate_knows():
    worth = [effective_sample_size(correlated(np.random.default_rng(trial), 30, 0.9)) for trial in range(300)]
    # 30 samples of φ = 0.9 are worth 1.6 independent ones; without a correction the median estimate is above six.
    assert np.median(worth) < 2.0


def test_the_binomial_tail():
    assert binomial_tail(10, 3, 0.5) == pytest.approx(1 - (1 + 10 + 45) / 1024)
    assert binomial_tail(100, 4, 0.01) == pytest.approx(0.0184, abs=1e-4)
    assert (binomial_tail(5, 0, 0.01), binomial_tail(3, 4, 0.01)) == (1.0, 0.0)
    assert binomial_tail(20000, 200, 0.01) == pytest.approx(0.5, abs=0.02)
