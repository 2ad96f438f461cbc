"""Warm-up, stop rules and statistics, exact because the clock is scripted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sr_deploy.bench.measure import example_input, is_stable, measure, summary
from sr_deploy.bench.options import BenchOptions
from sr_deploy.bench.percentile import nearest_rank
from sr_deploy.core.errors import CheckFailed, UsageError
from sr_deploy.run.fake import FakeClock, FakeRunner


class ScriptedRunner:
    """Doubles a picture; its clock moves by ``seconds(n)`` in the n-th synchronize, and by 1 ms in each transfer."""

    runtime = "fake"
    device = "no device"
    asynchronous = device_events = False
    io_dtype = "float32"

    def __init__(self, seconds):
        self.seconds, self.now, self.computed, self.calls = seconds, 0.0, 0, []

    def clock(self):
        return self.now

    def prepare(self, size):
        self.calls.append("prepare")

    def upload(self, lr):
        self.calls.append("upload")
        self.now += 0.001
        self.lr = lr

    def compute(self):
        self.calls.append("compute")

    def synchronize(self):
        self.calls.append("synchronize")
        self.now += self.seconds(self.computed)
        self.computed += 1

    def download(self):
        self.synchronize()
        self.calls[-1] = "download"
        self.now += 0.001
        return self.lr.repeat(2, axis=2).repeat(2, axis=3)

    def describe(self):
        return {"version": "1"}

    def close(self):
        self.calls.append("close")


def run(seconds, **options):
    runner = ScriptedRunner(seconds)
    return runner, measure(runner, (4, 6), BenchOptions(**options), runner.clock)


def test_constant_latency():
    _, point = run(lambda n: 0.1)
    # The first download() runs the network once; the warm-up needs 1 s and two windows of 5.
    assert (point.warmup_iterations, point.warmup_stable) == (10, True)
    assert point.warmup_seconds == pytest.approx(1.0)
    assert len(point.samples_s) in (30, 31)
    assert point.samples_s == pytest.approx([0.1] * len(point.samples_s))
    assert point.median_s == pytest.approx(0.1)
    assert not point.cut_short
    assert (point.size, point.output_pixels, point.scope) == ((4, 6), 96, "compute")
    assert (point.runtime, point.device, point.description) == ("fake", "no device", {"version": "1"})


def test_warm_up_goes_on_until_the_clocks_have_risen():
    # 0.1 s at first, falling to 0.05 s over 20 iterations.
    _, point = run(lambda n: 0.1 - 0.0025 * min(n, 20))
    assert point.warmup_stable
    assert point.warmup_iterations > 20
    assert point.samples_s == pytest.approx([0.05] * len(point.samples_s))


def test_warm_up_that_never_settles_ends_at_its_bound_and_says_so():
    _, point = run(lambda n: 0.1 * 1.05**n, warmup_max_seconds=5.0)
    assert not point.warmup_stable
    assert 5.0 <= point.warmup_seconds < 6.0


def test_slow_network_is_bounded_in_time():
    _, point = run(lambda n: 40.0)
    assert (point.warmup_iterations, point.warmup_stable) == (1, False)
    assert (len(point.samples_s), point.cut_short) == (2, True)


def test_fast_network_is_bounded_in_count():
    _, point = run(lambda n: 1e-4, max_iterations=50)
    assert (len(point.samples_s), point.cut_short) == (50, True)


def test_both_minimums_hold():
    _, point = run(lambda n: 1.0, min_iterations=12)
    assert len(point.samples_s) == 12
    _, point = run(lambda n: 0.25, min_seconds=10.0)
    assert len(point.samples_s) == 40
    assert not point.cut_short


def test_scopes_time_what_they_say():
    runner, compute = run(lambda n: 0.1)
    assert compute.median_s == pytest.approx(0.1)
    assert set(runner.calls[4:]) == {"compute", "synchronize"}
    runner, whole = run(lambda n: 0.1, scope="end-to-end")
    assert whole.median_s == pytest.approx(0.102)
    assert runner.calls[-3:] == ["upload", "compute", "download"]


def test_measure_prepares_first_and_leaves_the_runner_open():
    runner, _ = run(lambda n: 0.1)
    assert runner.calls[:4] == ["prepare", "upload", "compute", "download"]
    assert "close" not in runner.calls


def test_input_is_the_same_every_time_and_in_range():
    lr = example_input((5, 7), 255.0)
    assert (lr.shape, lr.dtype) == ((1, 3, 5, 7), np.float32)
    assert lr.min() >= 0
    assert 200 < lr.max() <= 255
    np.testing.assert_array_equal(lr, example_input((5, 7), 255.0))
    assert (lr != example_input((5, 7), 255.0, seed=1)).any()
    # The stream of PCG64 is part of numpy's promise; this pins it across versions and machines.
    assert example_input((1, 1), 1.0).ravel() == pytest.approx([0.8506, 0.6370, 0.5111], abs=1e-4)


def test_output_with_nan_is_not_timed():
    runner = ScriptedRunner(lambda n: 0.1)
    runner.download = lambda: np.full((1, 3, 8, 12), np.nan, np.float32)
    with pytest.raises(CheckFailed, match="NaN.*|4x6"):
        measure(runner, (4, 6), BenchOptions(), runner.clock)


def test_percentiles_are_samples():
    samples = [float(n) for n in range(10, 0, -1)]
    assert nearest_rank(samples, 90) == 9.0
    assert nearest_rank(samples, 99) == 10.0
    assert nearest_rank(samples, 50) == 5.0
    assert nearest_rank([3.0], 1) == 3.0
    assert nearest_rank([float(n) for n in range(1, 201)], 99) == 198.0
    assert summary(samples) == {"median_s": 5.5, "p90_s": 9.0, "p99_s": 10.0, "mean_s": 5.5, "min_s": 1.0}


def test_nearest_rank_is_the_definition():
    generator = np.random.default_rng(0)
    for count in (1, 2, 7, 99, 100, 101, 1000):
        samples = generator.random(count).tolist()
        for percent in (1, 50, 90, 95, 99, 100):
            rank = math.ceil(percent * count / 100)
            assert nearest_rank(samples, percent) == sorted(samples)[rank - 1]


def test_stability_compares_the_last_two_windows():
    assert not is_stable([1.0] * 9, 5)
    assert is_stable([9.0] * 5 + [1.0] * 5 + [1.015] * 5, 5)
    assert not is_stable([1.0] * 5 + [1.03] * 5, 5)
    # With many samples a window is a quarter of them: a slow drift is seen.
    drift = [1.0 + 0.0005 * n for n in range(200)]
    assert abs(drift[-1] - drift[-6]) / drift[-1] < 0.02
    assert not is_stable(drift, 5)


@pytest.mark.parametrize("scope", ["compute", "end-to-end"])
def test_work_that_a_device_does_behind_the_back_is_waited_for(scope):
    clock = FakeClock()
    runner = FakeRunner(2, lambda size, n: 0.1, clock.sleep)
    point = measure(runner, (4, 6), BenchOptions(scope=scope), clock)
    assert point.median_s == pytest.approx(0.1)
    assert (point.output_pixels, point.runtime, point.device) == (96, "fake", "fake device")


@pytest.mark.parametrize(
    "options",
    [
        {"scope": "latency"},
        {"min_iterations": 0},
        {"warmup_window": 0},
        {"min_seconds": -1.0},
        {"min_seconds": float("nan")},
        {"min_seconds": 61.0},
        {"warmup_seconds": 30.0},
    ],
)
def test_options_that_cannot_be_are_refused(options):
    with pytest.raises(UsageError, match=next(iter(options)) if "scope" not in options else "latency"):
        BenchOptions(**options)
