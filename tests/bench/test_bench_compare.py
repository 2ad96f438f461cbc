"""Intervals of a ratio: exact cuts against published tables, and their coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from sr_deploy.bench.compare import (
    _cut,
    paired_cut,
    paired_ratio,
    process_ratio,
    rank_sum_cut,
    signed_rank_cut,
    single_run_ratio,
)


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
        assert 1 <= ratio.effective <= ratio.count == 16
    assert 0.89 <= inside / 2000 <= 0.99


@pytest.mark.parametrize("rounds", [20, 60, 180])
def test_rounds_that_correlate_miss_the_ratio_no_more_often_than_said(rounds):
    random = np.random.default_rng(4)
    missed = 0
    for _ in range(1000):
        noise = random.standard_normal(rounds)
        noise[1:] *= 0.6
        for step in range(1, rounds):
            noise[step] += 0.8 * noise[step - 1]
        ratio = paired_ratio(np.ones(rounds), 1.1 * np.exp(0.05 * noise), 0.95)
        missed += not ratio.low <= 1.1 <= ratio.high
    assert missed / 1000 <= 0.06


def test_the_cut_of_rounds_worth_fewer():
    assert paired_cut(60, 0.99, 60.0) == signed_rank_cut(60, 0.99)
    # Of 20 independent rounds the 38th of 210 averages; of 60 worth 20 the same share of 1830.
    assert paired_cut(60, 0.99, 20.9) == 38 * 1830 // 210
    assert paired_cut(60, 0.99, 7.0) is None


def test_the_normal_cut_continues_the_exact_one():
    for rounds in (61, 120, 200):
        ways = np.ones(1)
        for rank in range(1, rounds + 1):
            ways = np.convolve(ways, np.eye(1, rank + 1, 0)[0] + np.eye(1, rank + 1, rank)[0]) / 2
        for confidence in (0.95, 0.9975):
            middle, exact = rounds * (rounds + 1) / 4, _cut(ways, confidence)
            width = (middle - signed_rank_cut(rounds, confidence)) / (middle - exact)
            assert 0.999 <= width <= 1.02


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
