"""A measurement goes on until its median is known, within its bounds; settings that a runner lacks are refused."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest

from sr_deploy.bench.measure import measure
from sr_deploy.bench.monitor import Watch
from sr_deploy.bench.options import BenchOptions
from sr_deploy.core.errors import UsageError
from sr_deploy.report.numbers import doubts
from sr_deploy.run.base import DeviceTime
from sr_deploy.run.fake import FakeClock, FakeRunner


def timed(latency, **options):
    clock = FakeClock()
    wanted = {"warmup_seconds": 0.0, "min_seconds": 0.0, **options}
    return measure(FakeRunner(2, latency, clock.sleep), (4, 6), BenchOptions(**wanted), clock)


def noisy(spread, seed=0):
    generator = np.random.default_rng(seed)
    return lambda size, n: 0.01 * float(np.exp(spread * generator.normal()))


def test_quiet_samples_stop_early_and_noisy_ones_later():
    quiet, loud = timed(noisy(0.01)), timed(noisy(0.1))
    assert quiet.precise and loud.precise
    assert len(quiet.samples_s) < 40 < 200 < len(loud.samples_s)
    for point in (quiet, loud):
        assert (point.median_high_s - point.median_low_s) / 2 <= 0.01 * point.median_s
        assert point.median_low_s <= point.median_s <= point.median_high_s
        assert not point.cut_short
        assert 1 <= point.effective_samples <= len(point.samples_s)


def test_bound_in_time_ends_it_and_the_point_says_so():
    point = timed(noisy(2.0), precision_seconds=2.0)
    assert point.precise is False and not point.cut_short
    assert 1.9 < sum(point.samples_s) < 5


def test_bound_in_count_ends_it():
    point = timed(noisy(2.0), max_iterations=100)
    assert (len(point.samples_s), point.precise, point.cut_short) == (100, False, False)


def test_without_a_wanted_precision_the_minimums_decide():
    point = timed(noisy(2.0), precision=None, min_iterations=12)
    assert (len(point.samples_s), point.precise) == (12, None)


def test_correlated_samples_are_measured_longer():
    def slow_wave(size, n):
        return 0.01 * (1 + 0.05 * np.sign(np.sin(n / 20 + 0.3)) + 0.001 * np.sin(7.0 * n))

    generator = np.random.default_rng(0)

    def coin(size, n):
        return 0.01 * (1 + 0.05 * generator.choice([-1, 1]) + 0.001 * np.sin(7.0 * n))

    alternating, waving = timed(coin, min_iterations=500), timed(slow_wave, min_iterations=500)
    assert waving.effective_samples / len(waving.samples_s) < 0.2
    assert alternating.effective_samples / len(alternating.samples_s) > 0.5


def test_enqueue_is_the_hosts_part_and_the_device_is_waited_for():
    clock = FakeClock()
    runner = FakeRunner(2, lambda size, n: 0.1, clock.sleep)
    plain = runner.compute

    def compute():
        clock.sleep(0.001)
        plain()

    runner.compute = compute
    point = measure(runner, (4, 6), BenchOptions(scope="enqueue", min_iterations=20, min_seconds=0.0), clock)
    assert point.median_s == pytest.approx(0.001)
    assert (point.scope, point.timer) == ("enqueue", "host")
    # Every sample was followed by its wait: the clock moved by all of the device's work.
    assert clock.now >= 0.1 * (len(point.samples_s) + point.warmup_iterations)


class Eventful(FakeRunner):
    """Its device says half of what the host sees."""

    device_events = True

    queueing = 0.01

    def timed_compute(self):
        self.compute()
        self.synchronize()
        return DeviceTime(0.05, self.queueing)


def test_device_events_are_taken_where_there_are_and_the_host_on_request():
    clock = FakeClock()
    runner = Eventful(2, lambda size, n: 0.1, clock.sleep)
    by_device = measure(runner, (4, 6), BenchOptions(), clock)
    by_host = measure(runner, (4, 6), BenchOptions(timer="host"), clock)
    assert (by_device.timer, by_device.median_s) == ("events", pytest.approx(0.05))
    assert (by_host.timer, by_host.median_s) == ("host", pytest.approx(0.1))
    assert (by_device.in_flight, by_host.in_flight) == (2, None)
    assert measure(runner, (4, 6), BenchOptions(scope="end-to-end"), clock).timer == "host"


def test_a_run_that_takes_as_long_to_queue_as_to_run_is_launch_bound():
    clock = FakeClock()
    runner = Eventful(2, lambda size, n: 0.1, clock.sleep)
    for queueing, bound in ((0.039, False), (0.041, True)):
        runner.queueing = queueing
        point = measure(runner, (4, 6), BenchOptions(), clock)
        assert (point.enqueue_s, point.launch_bound) == (queueing, bound)
        assert ("launch-bound" in doubts(point)) == bound
    assert "--cuda-graph" in doubts(point)
    assert "--cuda-graph" not in doubts(dataclasses.replace(point, settings={"cuda_graph": True}))


def test_by_the_hosts_clock_queueing_is_known_too():
    clock = FakeClock()
    runner = FakeRunner(2, lambda size, n: 0.1, clock.sleep)
    plain = runner.compute
    runner.compute = lambda: (clock.sleep(0.9), plain())[1]
    point = measure(runner, (4, 6), BenchOptions(), clock)
    assert (point.enqueue_s, point.launch_bound, point.median_s) == (pytest.approx(0.9), True, pytest.approx(1.0))
    runner.asynchronous = False
    point = measure(runner, (4, 6), BenchOptions(), clock)
    assert (point.enqueue_s, point.launch_bound, point.in_flight) == (None, None, None)
    assert measure(runner, (4, 6), BenchOptions(scope="end-to-end"), clock).launch_bound is None


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"timer": "events"}, "no device events"),
        ({"cuda_graph": True}, "a CUDA graph"),
        ({"wait": "spin"}, "'spin'"),
        ({"streams": 2}, "2 streams"),
    ],
)
def test_what_the_runner_lacks_is_refused(options, word):
    with pytest.raises(UsageError, match=word):
        timed(lambda size, n: 0.01, **options)


def test_a_runner_that_computes_at_once_has_no_enqueue_time():
    clock = FakeClock()
    runner = FakeRunner(2, lambda size, n: 0.1, clock.sleep)
    runner.asynchronous = False
    with pytest.raises(UsageError, match="no enqueue time"):
        measure(runner, (4, 6), BenchOptions(scope="enqueue"), clock)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"timer": "sundial"}, "sundial"),
        ({"timer": "events", "scope": "end-to-end"}, "end-to-end"),
        ({"precision": 0.0}, "precision"),
        ({"precision": 1.5}, "precision"),
        ({"confidence": 1.0}, "confidence"),
        ({"wait": "sleep"}, "sleep"),
        ({"streams": 0}, "0 streams"),
        ({"precision_seconds": -1.0}, "precision_seconds"),
    ],
)
def test_options_that_cannot_be(options, word):
    with pytest.raises(UsageError, match=word):
        BenchOptions(**options)


def test_what_the_watch_saw_is_in_the_point():
    events = []

    class Seen(Watch):
        def timing_begins(self):
            events.append("timing")

    watch = Seen(dict, dict, 1.0)

    @contextlib.contextmanager
    def watching():
        events.append("begin")
        yield watch
        watch.sensors, watch.invalid, watch.peak_memory = {"after": {"gpu_c": 90}}, "too hot", {"rss_bytes": 5}
        events.append("end")

    clock = FakeClock()
    runner = FakeRunner(2, lambda size, n: 0.1, clock.sleep)
    point = measure(runner, (4, 6), BenchOptions(), clock, watching)
    assert events == ["begin", "timing", "end"]
    assert (point.invalid, point.sensors, point.peak_memory) == ("too hot", {"after": {"gpu_c": 90}}, {"rss_bytes": 5})
    assert not point.usable and point.samples_s
