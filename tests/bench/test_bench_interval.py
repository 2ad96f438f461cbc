"""The interval of the median holds it as often as it says, for independent and for correlated samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sr_deploy.bench.interval import batch_medians, effective_sample_size, median_interval, relative_half_width

TRIALS = 1000


def coverage(make, median, count, confidence=0.95):
    """How often the intervals that are given hold the true median; with six samples not every trial gets one."""
    intervals = [median_interval(make(np.random.default_rng(trial), count), confidence) for trial in range(TRIALS)]
    given = [interval for interval in intervals if interval is not None]
    assert len(given) > (0.5 if count < 10 else 0.9) * TRIALS
    return sum(low <= median <= high for low, high in given) / len(given)


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


@pytest.mark.parametrize("count", [6, 10, 30, 100, 1000])
@pytest.mark.parametrize(("make", "median"), [(heavy_tailed, 0.0), (skewed, math.log(2))])
def test_independent_samples(make, median, count):
    # Three standard errors of 1000 trials below 0.95.
    assert coverage(make, median, count) > 0.929


def test_correlated_samples_need_the_correction_and_get_it():
    assert coverage(correlated, 0.0, 500) > 0.90
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
    # The sign of an AR(1) process has the autocorrelation 2/π·asin(φ^k).
    tau = 1 + 2 * sum(2 / math.pi * math.asin(0.8**k) for k in range(1, 200))
    assert effective_sample_size(correlated(generator, 40000)) == pytest.approx(40000 / tau, rel=0.2)
    assert effective_sample_size([1.0] * 50) == 50
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
