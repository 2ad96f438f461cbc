"""Intervals of a ratio: exact cuts against published tables, and their coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from sr_deploy.bench.compare import paired_ratio, process_ratio, rank_sum_cut, signed_rank_cut, single_run_ratio


@pytest.mark.parametrize("rounds, confidence, largest", [(8, 0.99, 0), (16, 0.99, 19), (20, 0.95, 52), (20, 0.99, 37)])
def test_the_signed_rank_cut_is_one_above_the_table_of_critical_values(rounds, confidence, largest):
    # Critical values of Wilcoxon's signed-rank test, two-sided, as in any table.
    assert signed_rank_cut(rounds, confidence) == largest + 1


@pytest.mark.parametrize("count_a, count_b, confidence, largest", [(5, 5, 0.99, 0), (8, 8, 0.95, 13), (7, 9, 0.99, 7)])
def test_the_rank_sum_cut_is_one_above_the_table_of_critical_values(count_a, count_b, confidence, largest):
    # Critical values of the Mann-Whitney U test, two-sided.
    assert rank_sum_cut(count_a, count_b, confidence) == largest + 1


def test_too_few_for_the_confidence():
    assert signed_rank_cut(7, 0.99) is None
    assert rank_sum_cut(4, 4, 0.99) is None
    ratio = paired_ratio([1.0] * 5, [1.1] * 5, 0.99)
    assert (ratio.low, ratio.high) == (0.0, math.inf)
    assert ratio.estimate == pytest.approx(1.1)


def test_the_signed_rank_distribution_by_enumeration():
    sums = [sum(subset) for size in range(7) for subset in itertools.combinations(range(1, 7), size)]
    below = [2 * sum(value <= k - 1 for value in sums) / 64 for k in range(1, 22)]
    for confidence in (0.5, 0.8, 0.9, 0.95):
        assert signed_rank_cut(6, confidence) == sum(share <= 1 - confidence + 1e-12 for share in below)


def test_a_common_factor_of_each_round_cancels_exactly():
    random = np.random.default_rng(0)
    clock = np.exp(random.standard_normal(40))
    ratio = paired_ratio(clock, 1.05 * clock, 0.99)
    assert (ratio.low, ratio.estimate, ratio.high) == pytest.approx((1.05, 1.05, 1.05))


def test_the_paired_interval_holds_the_ratio_as_often_as_it_says():
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(2000):
        noise = random.standard_t(2, (2, 16)) * 0.05
        ratio = paired_ratio(np.exp(noise[0]), 1.1 * np.exp(noise[1]), 0.9)
        inside += ratio.low <= 1.1 <= ratio.high
    assert 0.89 <= inside / 2000 <= 0.93


def test_processes_and_not_samples_decide():
    random = np.random.default_rng(2)
    inside = 0
    for _ in range(1000):
        a, b = np.exp(0.1 * random.standard_normal((2, 5)))
        ratio = process_ratio(a, b, 0.99)
        inside += ratio.low <= 1.0 <= ratio.high
    assert inside / 1000 >= 0.98


def test_one_run_each_is_as_wide_as_the_noise_that_is_given():
    samples = list(1.0 + 1e-6 * np.random.default_rng(3).standard_normal(400))
    wide = single_run_ratio(samples, samples, 0.1, 0.99)
    narrow = single_run_ratio(samples, samples, 0.0, 0.99)
    assert math.log(wide.high) == pytest.approx(2.576 * 0.1 * math.sqrt(2), rel=1e-3)
    assert narrow.high < 1.00001
    assert single_run_ratio([1.0] * 3, [1.0] * 3, 0.0, 0.99).high == math.inf
