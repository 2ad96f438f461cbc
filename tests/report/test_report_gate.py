"""Verdicts from results, sessions, budgets and quality reports."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sr_deploy.bench.compare import Ratio
from sr_deploy.bench.measure import summary
from sr_deploy.bench.result import Point, Result
from sr_deploy.core.errors import BadInput
from sr_deploy.report.budget import Budget, DeviceBudget, QualityFloors, SizeBudget
from sr_deploy.report.gate import (
    INCONCLUSIVE,
    PASS,
    REGRESSION,
    Finding,
    check_budget,
    check_quality,
    compare_results,
    differences,
    judge_sessions,
    limit_ratio,
    overall,
    process_medians,
    refuse_unlike,
)
from sr_deploy.report.quality_file import QualityFile, QualityMean, QualityRow

OPTIONS = {"scope": "compute", "value_range": 1.0, "seed": 0, "timer": "auto", "min_seconds": 3.0}
VERSIONS = {"onnxruntime": "1.20"}
ENVIRONMENT = {"cpu": "x", "memory_available_bytes": 5, "packages": VERSIONS, "jetson": {"power_mode": 8}}
DEFAULT = Budget()


def point(median_s, edge=8, count=400, noise=0.001, seed=0, **more):
    samples = tuple(median_s * (1 + noise * np.random.default_rng(seed).standard_normal(count)))
    facts = {"runtime": "fake", "device": "a device", "description": {"version": "1", "file": "a.onnx"}, **more}
    return Point(size=(edge, edge), scope="compute", samples_s=samples, **facts, **summary(samples))


def result(*points, processes=None, **environment):
    table = ()
    if processes:
        facts = {"size": [8, 8], "process_medians_s": processes, "processes": len(processes), "builds": 1}
        table = (facts,)
    return Result("net", {**ENVIRONMENT, **environment}, dict(OPTIONS), tuple(points), "2026-05-01", table)


def ratio(low, estimate, high):
    return Ratio(estimate, low, high, 0.99, "test", 20, 15.0)


def verdict_of(baseline, candidate, budget=DEFAULT):
    (finding,), _ = compare_results(baseline, candidate, budget)
    return finding.verdict


def test_a_verdict_on_launches_says_so():
    (finding,), _ = compare_results(result(point(0.002)), result(point(0.002, launch_bound=True)), DEFAULT)
    assert "launch-bound (candidate): it compares launches, not kernels" in finding.why
    (finding,), _ = compare_results(result(point(0.002)), result(point(0.002)), DEFAULT)
    assert "launch-bound" not in finding.why


def test_times_of_a_busy_and_of_an_idle_device_are_not_compared():
    events = {"timer": "events", "settings": {}}
    with pytest.raises(BadInput, match="in_flight: None and 2"):
        refuse_unlike(differences(result(point(0.002, **events)), result(point(0.002, in_flight=2, **events))))


@pytest.mark.parametrize(
    "sessions, wanted",
    [
        ([ratio(0.99, 1.0, 1.02)], PASS),
        ([ratio(0.90, 0.95, 1.03)], PASS),
        ([ratio(1.04, 1.05, 1.06), ratio(1.04, 1.05, 1.06)], REGRESSION),
        ([ratio(1.01, 1.04, 1.06), ratio(1.04, 1.05, 1.06)], REGRESSION),
        ([ratio(1.00, 1.02, 1.06), ratio(1.04, 1.05, 1.06)], INCONCLUSIVE),
        ([ratio(1.04, 1.05, 1.06), ratio(0.99, 1.0, 1.01)], PASS),
        ([ratio(1.04, 1.05, 1.06), ratio(1.00, 1.04, 1.06)], INCONCLUSIVE),
        ([ratio(1.04, 1.05, 1.06)], INCONCLUSIVE),
        ([ratio(0.0, 1.0, float("inf"))], INCONCLUSIVE),
    ],
)
def test_a_regression_takes_two_sessions(sessions, wanted):
    finding = judge_sessions((8, 8), 0.01, 0.01, sessions, 1.03)
    assert finding.verdict == wanted
    assert "limit +3.00 %" in finding.why
    assert "20 rounds, worth 15 independent ones" in finding.why


def test_threshold_and_floor_must_both_be_exceeded():
    assert limit_ratio(0.010, 3.0, 20.0) == pytest.approx(1.03)
    assert limit_ratio(0.0002, 3.0, 20.0) == pytest.approx(1.10)


def test_five_processes_each_decide():
    quiet, slow = [0.01, 0.01001, 0.01002, 0.00999, 0.00998], [0.0105, 0.01051, 0.01049, 0.01052, 0.01048]
    assert verdict_of(result(point(0.01), processes=quiet), result(point(0.01), processes=quiet)) == PASS
    assert verdict_of(result(point(0.01), processes=quiet), result(point(0.0105), processes=slow)) == REGRESSION
    noisy = [0.008, 0.012, 0.01, 0.009, 0.011]
    assert verdict_of(result(point(0.01), processes=noisy), result(point(0.0105), processes=slow)) == INCONCLUSIVE


def test_one_run_each_knows_only_gross_regressions():
    assert verdict_of(result(point(0.01)), result(point(0.0105, seed=1))) == INCONCLUSIVE
    assert verdict_of(result(point(0.01)), result(point(0.02, seed=1))) == REGRESSION
    known = Budget(run_noise_percent=0.3)
    assert verdict_of(result(point(0.01)), result(point(0.0105, seed=1)), known) == REGRESSION
    assert verdict_of(result(point(0.01)), result(point(0.01, seed=1)), known) == PASS


def test_a_fast_network_may_lose_what_the_floor_allows():
    known = Budget(run_noise_percent=0.1)
    assert verdict_of(result(point(0.0002)), result(point(0.00021, seed=1)), known) == PASS
    assert verdict_of(result(point(0.0002)), result(point(0.00023, seed=1)), known) == REGRESSION


def test_a_candidate_that_fails_or_is_missing_or_invalid():
    failed = dataclasses.replace(point(0.01), failure="out of memory", samples_s=())
    assert verdict_of(result(point(0.01)), result(failed)) == REGRESSION
    invalid = dataclasses.replace(point(0.01), invalid="the GPU throttled")
    assert verdict_of(result(point(0.01)), result(invalid)) == INCONCLUSIVE
    findings, notes = compare_results(result(point(0.01), point(0.02, 16)), result(point(0.01), point(1, 32)), Budget())
    assert [finding.verdict for finding in findings] == [INCONCLUSIVE, INCONCLUSIVE]
    assert notes == ("32x32: not in the baseline, not judged",)
    with pytest.raises(BadInput, match="no size in common"):
        compare_results(result(point(0.01)), result(point(0.01, 16)), Budget())


def test_unlike_results_are_refused_with_the_difference():
    same = result(point(0.01, sha256="a"))
    assert differences(same, result(point(0.01, sha256="b"), memory_available_bytes=9)) == []
    mode = result(point(0.01), jetson={"power_mode": 2})
    assert differences(same, mode) == ["jetson.power_mode: 8 and 2"]
    threads = result(point(0.01, description={"version": "2", "file": "b.onnx"}))
    assert differences(same, threads) == ["runner.version: '1' and '2'"]
    scope = dataclasses.replace(same, options={**OPTIONS, "scope": "end-to-end", "min_seconds": 9.0})
    assert differences(same, scope) == ["options.scope: 'compute' and 'end-to-end'"]
    with pytest.raises(BadInput, match="power_mode: 8 and 2"):
        refuse_unlike(differences(same, mode))


def test_builds_are_the_independent_ones_where_there_are_several():
    table = {"size": [8, 8], "process_medians_s": [1.0, 3.0, 5.0, 7.0], "processes": 2, "builds": 2}
    assert process_medians(dataclasses.replace(result(point(1)), variance=(table,)), (8, 8)) == (2.0, 6.0)
    assert process_medians(result(point(1)), (8, 8)) == ()


def test_slow_samples_in_one_burst_do_not_prove_a_p99():
    steady = 0.01 * (1 + 0.001 * np.random.default_rng(5).standard_normal(1000))
    burst, spread = steady.copy(), steady.copy()
    burst[500:530] = 0.02
    spread[::33] = 0.02
    device = DeviceBudget("a device", (SizeBudget((8, 8), max_p99_ms=15.0),))
    verdicts = []
    for samples in (burst, spread):
        slow = dataclasses.replace(point(0.01), samples_s=tuple(samples), **summary(samples.tolist()))
        verdicts += [finding.verdict for finding in check_budget([slow], device)]
    # Thirty of a thousand above the bound, each time: one event, and thirty.
    assert verdicts == [INCONCLUSIVE, REGRESSION]


@pytest.mark.parametrize(
    "bounds, wanted",
    [
        ({"max_median_ms": 11.0}, PASS),
        ({"max_median_ms": 9.0}, REGRESSION),
        ({"max_median_ms": 10.0}, INCONCLUSIVE),
        ({"max_p99_ms": 11.0}, PASS),
        ({"max_p99_ms": 9.0}, REGRESSION),
    ],
)
def test_absolute_bounds(bounds, wanted):
    device = DeviceBudget("a device", (SizeBudget((8, 8), **bounds),))
    (finding,) = check_budget([point(0.01)], device)
    assert finding.verdict == wanted
    (absent,) = check_budget([point(0.01, 16)], device)
    assert (absent.verdict, absent.why) == (INCONCLUSIVE, "not measured")


def test_a_few_slow_samples_are_no_proof_against_the_p99_bound():
    few = dataclasses.replace(point(0.01, count=40), samples_s=(0.01,) * 39 + (0.1,), p99_s=0.1)
    (finding,) = check_budget([few], DeviceBudget("a device", (SizeBudget((8, 8), max_p99_ms=20.0),)))
    assert finding.verdict == INCONCLUSIVE


def test_quality_floors():
    report = QualityFile("Y", (), (), QualityMean(psnr_y=31.0, torch_psnr_y=31.2), largest_difference=0.01)
    floors = QualityFloors(min_psnr_y=30.0, max_psnr_y_loss=0.1, min_ssim_y=0.9, max_difference=0.05)
    assert [f.verdict for f in check_quality(floors, report)] == [PASS, INCONCLUSIVE, REGRESSION, PASS]
    assert check_quality(QualityFloors(), report) == []


def test_a_bound_on_the_worst_picture_is_no_bound_on_the_mean():
    rows = tuple(QualityRow(name, psnr_y=31.0 - lost, torch_psnr_y=31.0) for name, lost in (("a", 0.0), ("b", 0.3)))
    report = QualityFile("Y", (), rows, QualityMean(psnr_y=30.85, torch_psnr_y=31.0), largest_structure=5.0)
    floors = QualityFloors(max_psnr_y_loss=0.2, max_worst_psnr_y_loss=0.2, max_structure=16.0)
    mean, worst, patch = check_quality(floors, report)
    assert (mean.verdict, worst.verdict, patch.verdict) == (PASS, REGRESSION, PASS)
    assert worst.what == "PSNR-Y lost in the worst picture" and "0.3000 dB" in worst.why
    uncompared = dataclasses.replace(report, images=(rows[0], QualityRow("b", psnr_y=30.0)), largest_structure=None)
    assert [one.verdict for one in check_quality(floors, uncompared)] == [PASS, INCONCLUSIVE, INCONCLUSIVE]


def test_the_worst_finding_is_the_verdict():
    def findings(*verdicts):
        return [Finding("x", "", verdict, "") for verdict in verdicts]

    assert overall(findings(PASS, PASS)) == PASS
    assert overall(findings(PASS, INCONCLUSIVE)) == INCONCLUSIVE
    assert overall(findings(INCONCLUSIVE, REGRESSION, PASS)) == REGRESSION
    assert overall([]) == INCONCLUSIVE
