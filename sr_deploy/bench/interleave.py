"""Two runners in turn, A B B A B A …: what holds on a machine that others use too."""

from __future__ import annotations

import dataclasses
import random
import time
from dataclasses import dataclass
from typing import Callable, ContextManager, Iterator, List, Sequence, Tuple

from sr_deploy.bench.interval import effective_sample_size, median_interval
from sr_deploy.bench.measure import example_for, is_launch_bound, measure, sampler, summary
from sr_deploy.bench.monitor import Watch, no_watch
from sr_deploy.bench.options import BenchOptions
from sr_deploy.bench.result import Point
from sr_deploy.core.contract import Size
from sr_deploy.core.errors import UsageError
from sr_deploy.run.base import Runner

#: Of a part with at least so many samples the first is left out: it pays for the caches that the other side filled.
DROP_FIRST_FROM = 3


@dataclass(frozen=True)
class InterleaveOptions:
    """How a session of rounds goes. A round is one part of the baseline and one of the candidate, in random order.

    Of every two rounds one begins with the baseline and one with the candidate (randomised blocks: Box, Hunter and
    Hunter, Statistics for Experimenters, 2nd edition, section 4.2), so that what a place in the round costs cancels
    in short sessions too.

    Attributes:
        looks: after so many rounds the verdict is looked for; after the last the session ends.
        part_seconds: a part repeats the network for about this long…
        part_most: …but no more often than this, and at least once.
        max_seconds: no round begins after so many seconds of rounds.
        warmup_seconds: each side runs so long at least before the rounds.
        seed: of the random order of the rounds.
        first: the side that is prepared and warmed up first, 0 the baseline and 1 the candidate. Memory that was taken
            first may be faster or slower for the whole session, so whoever opens the runners draws it anew.
    """

    looks: Tuple[int, ...] = (20, 60, 180, 540)
    part_seconds: float = 0.03
    part_most: int = 20
    max_seconds: float = 120.0
    warmup_seconds: float = 0.5
    seed: int = 0
    first: int = 0

    def __post_init__(self) -> None:
        """Refuse rounds that cannot be run.

        Raises:
            UsageError: no look, looks that do not grow, a time that is not positive, no such side.
        """
        if not self.looks or any(b <= a for a, b in zip((0, *self.looks), self.looks)):
            raise UsageError(f"looks after {self.looks} rounds", "whole numbers from 1 that grow")
        if self.part_seconds <= 0 or self.part_most < 1 or self.max_seconds <= 0 or self.warmup_seconds < 0:
            raise UsageError("a session without time", "part_seconds and max_seconds above 0, part_most from 1")
        if self.first not in (0, 1):
            raise UsageError(f"first is {self.first!r}", "0 for the baseline, 1 for the candidate")


@dataclass(frozen=True)
class Session:
    """The rounds of one size with one pair of opened runners.

    Attributes:
        baseline_s, candidate_s: the median of each round's part, seconds.
        points: the baseline's and the candidate's record, with all their samples of all rounds in the order taken.
        looks_taken: how often the verdict was looked for.
        order: of each round, which side began: 0 the baseline, 1 the candidate.
    """

    baseline_s: Tuple[float, ...]
    candidate_s: Tuple[float, ...]
    points: Tuple[Point, Point]
    looks_taken: int
    order: Tuple[int, ...]


def interleave(
    baseline: Runner,
    candidate: Runner,
    size: Size,
    bench: BenchOptions,
    options: InterleaveOptions,
    decided: Callable[[Sequence[float], Sequence[float]], bool],
    clock: Callable[[], float] = time.perf_counter,
    watch: Callable[[], ContextManager[Watch]] = no_watch,
) -> Session:
    """Warm both up, then alternate until decided.

    Args:
        baseline, candidate: two open runners.
        size: input (height, width), pixels.
        bench: scope, timer and device settings; its stop rules are not used.
        options: the rounds.
        decided: given the rounds' medians of both sides at each look, whether more rounds are not needed.
        clock, watch: see ``measure``.

    Raises:
        What ``measure`` raises.
    """
    short = dataclasses.replace(
        bench,
        warmup_seconds=options.warmup_seconds,
        warmup_max_seconds=max(2.0, 4 * options.warmup_seconds),
        min_seconds=0.0,
        min_iterations=3,
        precision=None,
    )
    runners = (baseline, candidate)
    begins = _beginnings(random.Random(f"{options.seed} {size}"))
    order: List[int] = []
    parts: Tuple[List[float], List[float]] = ([], [])
    samples: Tuple[List[float], List[float]] = ([], [])
    looks = 0
    with watch() as watched:
        warmed = {side: measure(runners[side], size, short, clock) for side in (options.first, 1 - options.first)}
        first = [warmed[0], warmed[1]]
        inputs = [example_for(runner, size, bench.value_range, bench.seed) for runner in runners]
        pairs = zip(runners, inputs, first)
        times = [sampler(runner, lr, bench.scope, point.timer, clock) for runner, lr, point in pairs]
        length = _part_length(first, options)
        watched.timing_begins()
        start = clock()
        while looks < len(options.looks) and (not parts[0] or clock() - start < options.max_seconds):
            order.append(next(begins))
            for side in (order[-1], 1 - order[-1]):
                taken = [times[side]() for _ in range(length)]
                kept = taken[1:] if len(taken) >= DROP_FIRST_FROM else taken
                parts[side].append(summary(kept)["median_s"])
                samples[side].extend(kept)
            if len(parts[0]) == options.looks[looks]:
                looks += 1
                if decided(*parts):
                    break
    points = tuple(_record(point, taken, bench, watched, whole=looks > 0) for point, taken in zip(first, samples))
    return Session(tuple(parts[0]), tuple(parts[1]), (points[0], points[1]), looks, tuple(order))


def opened_first(seed: int, size: Size, attempt: int) -> int:
    """The side to open first: drawn for a size's first session, the other one for its confirmation.

    Args:
        seed: the gate's.
        size: input (height, width).
        attempt: 0 for the first session, 1 for the confirmation.
    """
    return (random.Random(f"opened first {seed} {size}").randrange(2) + attempt) % 2


def _beginnings(order: random.Random) -> Iterator[int]:
    """Without end, the side that begins a round: of every two rounds one and the other."""
    while True:
        side = order.randrange(2)
        yield side
        yield 1 - side


def _part_length(points: Sequence[Point], options: InterleaveOptions) -> int:
    """How often a part runs the network: the same for both sides, as the median of two skewed samples is not the
    median of three."""
    seconds = max(sum(point.median_s or 0.0 for point in points) / len(points), 1e-9)
    return max(1, min(options.part_most, round(options.part_seconds / seconds)))


def _record(point: Point, samples: Sequence[float], bench: BenchOptions, watched: Watch, whole: bool) -> Point:
    """A point with the samples of the rounds in place of the warm-up's."""
    rounded = tuple(round(value, 9) for value in samples)
    effective = effective_sample_size(rounded)
    interval = median_interval(rounded, bench.confidence, effective)
    return dataclasses.replace(
        point,
        samples_s=rounded,
        cut_short=not whole,
        median_low_s=interval[0] if interval else None,
        median_high_s=interval[1] if interval else None,
        effective_samples=round(effective, 1),
        precise=None,
        launch_bound=is_launch_bound(point.enqueue_s, summary(rounded)["median_s"]),
        sensors=watched.sensors,
        peak_memory=watched.peak_memory,
        invalid=watched.invalid,
        **summary(rounded),
    )
