"""The latency of one runner at one size: a fixed input, a warm-up until it is stable, every sample kept."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from typing import Callable, ContextManager, List, Optional, Sequence, Tuple

import numpy as np

from sr_deploy.bench.interval import effective_sample_size, median_interval, relative_half_width
from sr_deploy.bench.load import Load, measure_load
from sr_deploy.bench.monitor import Watch, no_watch
from sr_deploy.bench.options import BenchOptions
from sr_deploy.bench.percentile import nearest_rank
from sr_deploy.bench.result import EnqueueFacts, Point, Summary, Timer, description_of, now_utc
from sr_deploy.core.contract import IO_FORMS, Size, format_size, picture_size, shape_in
from sr_deploy.core.errors import CheckFailed, UsageError
from sr_deploy.run.base import Runner, no_device_events
from sr_deploy.run.settings import DeviceSettings

#: Two windows of samples agree when their medians differ by less than this part of the smaller one.
STABLE_WITHIN = 0.02

#: A run whose queueing takes more than this part of its time is launches rather than work; trtexec warns at the same.
LAUNCH_BOUND_FROM = 0.8

#: The interval is looked at whenever there are so many times more samples: few looks, as each one is another chance
#: to stop on luck, and as a fast GPU idles meanwhile.
LOOK_EVERY = 1.25


def measure(
    runner: Runner,
    size: Size,
    options: BenchOptions,
    clock: Callable[[], float] = time.perf_counter,
    watch: Callable[[], ContextManager[Watch]] = no_watch,
) -> Point:
    """Time a runner at one input size.

    Args:
        runner: any runtime; it is prepared here, and stays open.
        size: input (height, width), pixels.
        options: scope and stop rules.
        clock: gives seconds; another one than the system's makes tests exact.
        watch: gives a context that watches the machine while it is measured, see monitor.py.

    Returns:
        A point with every sample, in seconds.

    Raises:
        BadInput: the runner does not take this size.
        CheckFailed: the output is not finite, so its time means nothing.
        UsageError: the runner cannot time this scope, or cannot run with these settings.
    """
    timer, began = _timer_of(runner, options), now_utc("milliseconds")
    configure(runner, options)
    lr = example_for(runner, size, options.value_range, options.seed)
    with watch() as watched:
        runner.prepare(size)
        runner.upload(lr)
        runner.compute()
        sr = runner.download()
        if not np.isfinite(sr).all():
            raise CheckFailed(
                f"the output of {runner.runtime} for an input of {format_size(size)} has NaN or infinite values",
                "a picture",
                "srdeploy verify tells which precision or layer is at fault; the time of a wrong result means nothing",
            )
        queueing: List[float] = []
        sample = sampler(runner, lr, options.scope, timer, clock, queueing.append)
        warmup, warmup_seconds, stable = _warm_up(sample, options, clock)
        watched.timing_begins()
        queueing.clear()
        collected, cut_short = _collect(sample, options, clock)
        ended = now_utc("milliseconds")
        loads = _loads(runner, lr, options, clock)
    # A nanosecond is the clock's own step; more digits would only make the record longer.
    samples = tuple(round(float(value), 9) for value in collected)
    effective = effective_sample_size(samples)
    interval = median_interval(samples, options.confidence, effective)
    median = statistics.median(samples)
    known = relative_half_width(interval, median)
    return Point(
        size=(size[0], size[1]),
        scope=options.scope,
        runtime=runner.runtime,
        device=runner.device,
        description=description_of(runner.describe()),
        output_pixels=math.prod(picture_size(sr)),
        input_bytes=lr.nbytes,
        output_bytes=sr.nbytes,
        warmup_iterations=warmup,
        warmup_seconds=warmup_seconds,
        warmup_stable=stable,
        cut_short=cut_short,
        samples_s=samples,
        timer=timer,
        settings=dataclasses.asdict(options.device_settings()),
        median_low_s=interval[0] if interval else None,
        median_high_s=interval[1] if interval else None,
        effective_samples=round(effective, 1),
        precise=None if options.precision is None else known <= options.precision,
        sensors=watched.sensors,
        peak_memory=watched.peak_memory,
        invalid=watched.invalid,
        began=began,
        ended=ended,
        loads=loads,
        **enqueue_facts(queueing, median, timer),
        **summary(samples),
    )


def _loads(runner: Runner, lr: np.ndarray, options: BenchOptions, clock: Callable[[], float]) -> Tuple[Load, ...]:
    """The warm runner under each load that is wanted, by the host's clock: a picture is done when the host has it."""
    run = sampler(runner, lr, options.scope, "host", clock)
    return tuple(measure_load(run, wanted, clock) for wanted in options.loads)


def configure(runner: Runner, options: BenchOptions) -> None:
    """Drive the device as the options say; raises UsageError where the runner cannot."""
    if options.device_settings() != DeviceSettings():
        runner.configure(options.device_settings())


def example_input(size: Size, value_range: float, seed: int = 0) -> np.ndarray:
    """The input of every measurement: float32 (1, 3, H, W), even over 0…value_range, the same on every machine."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return generator.random((1, 3, size[0], size[1]), dtype=np.float32) * np.float32(value_range)


def example_for(runner: Runner, size: Size, value_range: float, seed: int = 0) -> np.ndarray:
    """``example_input`` as the runner takes it: the same picture, its nearest in uint8 (1, H, W, 3), or even planes."""
    form = IO_FORMS[runner.io_dtype]
    if form.planar:
        shape = shape_in(form.layout, size)
        return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, shape, dtype=np.uint8)
    lr = example_input(size, value_range, seed)
    if runner.io_dtype != "uint8":
        return lr
    return np.ascontiguousarray(np.rint(lr * (255 / value_range)).astype(np.uint8).transpose(0, 2, 3, 1))


def summary(samples: Sequence[float]) -> Summary:
    """Median, percentiles, mean and minimum of samples, all in their unit (seconds).

    The median of an even count is the mean of the two in the middle. A percentile is the nearest rank: the
    ceil(p/100 · n)-th smallest sample, a time that was measured, never one in between. trtexec takes the same one.
    With fewer than 100 samples the 99th percentile is the largest.
    """
    return {
        "median_s": statistics.median(samples),
        "p90_s": nearest_rank(samples, 90),
        "p99_s": nearest_rank(samples, 99),
        "mean_s": statistics.fmean(samples),
        "min_s": min(samples),
    }


def enqueue_facts(queueing: Sequence[float], median: float, timer: Timer) -> EnqueueFacts:
    """``enqueue_s``, ``launch_bound`` and ``in_flight`` of a Point, for a run timed by this module.

    Args:
        queueing: seconds that each run's queueing took; empty where it was not timed.
        median: of the samples, seconds.
        timer: "host" or "events".
    """
    enqueue = round(statistics.median(queueing), 9) if queueing else None
    return {
        "enqueue_s": enqueue,
        "launch_bound": is_launch_bound(enqueue, median),
        "in_flight": 2 if timer == "events" else None,
    }


def is_launch_bound(enqueue: Optional[float], median: float) -> Optional[bool]:
    """Whether queueing takes more than LAUNCH_BOUND_FROM of a run; None where the time of queueing is not known."""
    return None if enqueue is None else enqueue > LAUNCH_BOUND_FROM * median


def is_stable(samples: Sequence[float], window: int) -> bool:
    """Whether the medians of the last two windows differ by less than STABLE_WITHIN of the smaller.

    A window is a quarter of all samples, and at least ``window``: on a fast device that spans enough time to see the
    clocks rise.
    """
    length = max(window, len(samples) // 4)
    if len(samples) < 2 * length:
        return False
    earlier = statistics.median(samples[-2 * length : -length])
    later = statistics.median(samples[-length:])
    return abs(later - earlier) <= STABLE_WITHIN * min(earlier, later)


def _timer_of(runner: Runner, options: BenchOptions) -> Timer:
    """ "events" or "host".

    Raises:
        UsageError: the runner has no device events, or does not work behind the caller's back and enqueues nothing.
    """
    if options.timer == "events" and not runner.device_events:
        raise no_device_events(runner)
    if options.scope == "enqueue" and not runner.asynchronous:
        raise UsageError(
            f"{runner.runtime} on {runner.device} computes before it returns: there is no enqueue time apart",
            "--scope compute",
            "or time a TensorRT engine",
        )
    return "events" if runner.device_events and options.scope == "compute" and options.timer != "host" else "host"


def _ignore(seconds: float) -> None:
    """Nobody asks for the time of queueing."""


def sampler(
    runner: Runner,
    lr: np.ndarray,
    scope: str,
    timer: Timer,
    clock: Callable[[], float],
    queued: Callable[[float], None] = _ignore,
) -> Callable[[], float]:
    """A function that runs once and gives its seconds; ``queued`` is told how long the host took to queue the run."""

    def compute() -> float:
        before = clock()
        runner.compute()
        if runner.asynchronous:
            queued(clock() - before)
        runner.synchronize()
        return clock() - before

    def by_events() -> float:
        seconds, enqueue_seconds = runner.timed_compute()
        queued(enqueue_seconds)
        return seconds

    def enqueue() -> float:
        before = clock()
        runner.compute()
        seconds = clock() - before
        runner.synchronize()
        return seconds

    def end_to_end() -> float:
        before = clock()
        runner.upload(lr)
        runner.compute()
        runner.download()
        return clock() - before

    if timer == "events":
        return by_events
    return {"compute": compute, "enqueue": enqueue, "end-to-end": end_to_end}[scope]


def _warm_up(sample: Callable[[], float], options: BenchOptions, clock: Callable[[], float]) -> Tuple[int, float, bool]:
    """Iterate until stable or until the bound: (iterations, seconds, whether stable)."""
    samples: List[float] = []
    start = clock()
    while True:
        samples.append(sample())
        now = clock()
        enough = len(samples) >= options.warmup_iterations and now - start >= options.warmup_seconds
        # Judged once a window: sorting after every iteration would leave a fast GPU idle in between.
        if enough and len(samples) % options.warmup_window == 0 and is_stable(samples, options.warmup_window):
            return len(samples), now - start, True
        if now - start >= options.warmup_max_seconds:
            return len(samples), now - start, False


def _collect(
    sample: Callable[[], float], options: BenchOptions, clock: Callable[[], float]
) -> Tuple[List[float], bool]:
    """(samples, cut short): iterate until the stop rule of BenchOptions holds, or a bound ends it before."""
    samples: List[float] = []
    next_look = 0.0
    start = clock()
    while True:
        samples.append(sample())
        count, passed = len(samples), clock() - start
        minimums = count >= options.min_iterations and passed >= options.min_seconds
        if count >= options.max_iterations or passed >= options.max_seconds:
            return samples, not minimums
        if not minimums:
            continue
        if options.precision is None or passed >= options.precision_seconds:
            return samples, False
        if count >= next_look:
            next_look = LOOK_EVERY * count
            interval = median_interval(samples, options.confidence)
            if relative_half_width(interval, statistics.median(samples)) <= options.precision:
                return samples, False
