"""The latency of one runner at one size: a fixed input, a warm-up until it is stable, every sample kept."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Callable, List, Sequence, Tuple

import numpy as np

from sr_deploy.bench.result import Point
from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.errors import CheckFailed, UsageError
from sr_deploy.run.base import Runner

#: What one sample spans. "compute": compute() and synchronize(), the input already on the device. "end-to-end":
#: upload(), compute() and download(), so both transfers too. trtexec calls the first GPU compute time (plus the
#: launch), the second latency.
SCOPES = ("compute", "end-to-end")

#: Two windows of samples agree when their medians differ by less than this part of the smaller one.
STABLE_WITHIN = 0.02


@dataclass(frozen=True)
class BenchOptions:
    """How long to measure and what. Times are in seconds.

    The upper bounds win over the minimums: a network that takes a minute for one picture is measured
    ``max_seconds`` long and not ``min_iterations`` often, and the point says so (``cut_short``).

    Attributes:
        scope: one of SCOPES.
        value_range: the value of white in the contract, 1.0 or 255.0; the input is spread evenly over 0…value_range.
        seed: of the input's pseudo-random numbers.
        warmup_iterations, warmup_seconds: the warm-up takes at least both.
        warmup_window: at least so many samples make one of the two windows whose medians are compared.
        warmup_max_seconds: the warm-up ends here even when it is not stable.
        min_iterations, min_seconds: the measurement takes at least both.
        max_iterations, max_seconds: the measurement ends at the first of these.
    """

    scope: str = "compute"
    value_range: float = 1.0
    seed: int = 0
    warmup_iterations: int = 5
    warmup_seconds: float = 1.0
    warmup_window: int = 5
    warmup_max_seconds: float = 20.0
    min_iterations: int = 10
    min_seconds: float = 3.0
    max_iterations: int = 20000
    max_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            UsageError: an unknown scope, a count below one, a negative time, or a bound below its minimum.
        """
        if self.scope not in SCOPES:
            raise UsageError(f"{self.scope!r} is not a timing scope", "one of " + ", ".join(SCOPES))
        for name in ("warmup_iterations", "warmup_window", "min_iterations", "max_iterations"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", "at least 1")
        for name in ("value_range", "warmup_seconds", "warmup_max_seconds", "min_seconds", "max_seconds"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is {getattr(self, name)}", "a number that is not negative")
        for low, high in (
            ("warmup_seconds", "warmup_max_seconds"),
            ("min_iterations", "max_iterations"),
            ("min_seconds", "max_seconds"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise UsageError(
                    f"{low} is {getattr(self, low)} and {high} only {getattr(self, high)}", f"{high} at least {low}"
                )


def measure(runner: Runner, size: Size, options: BenchOptions, clock: Callable[[], float] = time.perf_counter) -> Point:
    """Time a runner at one input size.

    Args:
        runner: any runtime; it is prepared here, and stays open.
        size: input (height, width), pixels.
        options: scope and stop rules.
        clock: gives seconds; another one than the system's makes tests exact.

    Returns:
        A point with every sample, in seconds.

    Raises:
        BadInput: the runner does not take this size.
        CheckFailed: the output is not finite, so its time means nothing.
    """
    lr = example_input(size, options.value_range, options.seed)
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
    iteration = _iteration(runner, lr, options.scope)
    warmup, warmup_seconds, stable = _warm_up(iteration, options, clock)
    collected, cut_short = _collect(iteration, options, clock)
    # A nanosecond is the clock's own step; more digits would only make the record longer.
    samples = tuple(round(sample, 9) for sample in collected)
    return Point(
        size=(size[0], size[1]),
        scope=options.scope,
        runtime=runner.runtime,
        device=runner.device,
        description=runner.describe(),
        output_pixels=int(sr.shape[2] * sr.shape[3]),
        warmup_iterations=warmup,
        warmup_seconds=warmup_seconds,
        warmup_stable=stable,
        cut_short=cut_short,
        samples_s=samples,
        **summary(samples),
    )


def example_input(size: Size, value_range: float, seed: int = 0) -> np.ndarray:
    """The input of every measurement: float32 (1, 3, H, W), even over 0…value_range, the same on every machine."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return generator.random((1, 3, size[0], size[1]), dtype=np.float32) * np.float32(value_range)


def summary(samples: Sequence[float]) -> dict:
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


def nearest_rank(samples: Sequence[float], percent: int) -> float:
    """The smallest sample that at least ``percent`` percent of all samples do not exceed (``percent`` in 1…100)."""
    return sorted(samples)[-(-percent * len(samples) // 100) - 1]


def _iteration(runner: Runner, lr: np.ndarray, scope: str) -> Callable[[], None]:
    """What one sample times."""

    def compute() -> None:
        runner.compute()
        runner.synchronize()

    def end_to_end() -> None:
        runner.upload(lr)
        runner.compute()
        runner.download()

    return compute if scope == "compute" else end_to_end


def _warm_up(
    iteration: Callable[[], None], options: BenchOptions, clock: Callable[[], float]
) -> Tuple[int, float, bool]:
    """Iterate until stable or until the bound: (iterations, seconds, whether stable)."""
    samples: List[float] = []
    start = before = clock()
    while True:
        iteration()
        now = clock()
        samples.append(now - before)
        before = now
        enough = len(samples) >= options.warmup_iterations and now - start >= options.warmup_seconds
        # Judged once a window: sorting after every iteration would leave a fast GPU idle in between.
        if enough and len(samples) % options.warmup_window == 0 and is_stable(samples, options.warmup_window):
            return len(samples), now - start, True
        if now - start >= options.warmup_max_seconds:
            return len(samples), now - start, False


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


def _collect(
    iteration: Callable[[], None], options: BenchOptions, clock: Callable[[], float]
) -> Tuple[List[float], bool]:
    """(samples, cut short): iterate until both minimums are reached, or one bound."""
    samples: List[float] = []
    start = clock()
    while True:
        before = clock()
        iteration()
        now = clock()
        samples.append(now - before)
        if len(samples) >= options.min_iterations and now - start >= options.min_seconds:
            return samples, False
        if len(samples) >= options.max_iterations or now - start >= options.max_seconds:
            return samples, True
