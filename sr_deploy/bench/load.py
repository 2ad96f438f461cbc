"""Load as it is in life: pictures that arrive at a rate, alone or several at once, whether or not the last is done."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import Callable, List, Optional, Sequence, Tuple

from sr_deploy.bench.percentile import nearest_rank
from sr_deploy.core.errors import UsageError
from sr_deploy.core.schema import Count, Duration, Positive, Rate, Seconds, described

#: Seconds before an arrival at which sleeping ends and looking at the clock begins: a sleep wakes late by less.
SPIN = 5e-4
#: Bursts that are at least measured, however slow the rate.
FEWEST = 10


@described
@dataclass(frozen=True)
class Load:
    """One size under one load. All times are in seconds.

    Pictures arrive in bursts, the k-th one ``k · burst / rate_hz`` after the first, and wait for each other: the
    latency of a picture is from its arrival until it is done, so the time in the queue is in it. It misses its deadline
    when it is not done before the next burst arrives.

    Attributes:
        rate_hz: pictures a second.
        burst: how many arrive at once; 1: each alone.
        latencies_s: of every picture, in the order of arrival.
        median_s, p90_s, p99_s: of the latencies, percentiles by nearest rank.
        jitter_s: mean absolute difference from the latency of the picture at the same place in the burst before, as the
            interarrival jitter of RFC 3550, 6.4.1, without its smoothing.
        missed: how many pictures missed their deadline.
        cut_short: True when a time limit ended it before all pictures had come.
    """

    rate_hz: Rate
    burst: Positive
    latencies_s: Tuple[Duration, ...]
    median_s: Duration
    p90_s: Duration
    p99_s: Duration
    jitter_s: Seconds
    missed: Count
    cut_short: bool = False

    def __post_init__(self) -> None:
        """Refuse a load without pictures, or that missed more than it has.

        Raises:
            ValueError: naming the keys.
        """
        if not self.latencies_s or self.missed > len(self.latencies_s):
            raise ValueError("latencies_s must not be empty, and missed must not exceed their number")

    @property
    def period_s(self) -> float:
        """From one burst to the next: the deadline of each picture."""
        return self.burst / self.rate_hz


@dataclass(frozen=True)
class LoadOptions:
    """Which load to measure.

    Attributes:
        rate_hz: pictures a second.
        burst: how many arrive at once.
        seconds: pictures arrive for so long, and for FEWEST bursts at least.
        max_seconds: no burst arrives later than this; what waits then is still run.
    """

    rate_hz: float
    burst: int = 1
    seconds: float = 3.0
    max_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Refuse a rate or a burst that is none.

        Raises:
            UsageError: naming it.
        """
        if not 0 < self.rate_hz < 1e6:
            raise UsageError(f"a rate of {self.rate_hz:g} pictures a second", "more than 0 and less than a million")
        if self.burst < 1:
            raise UsageError(f"bursts of {self.burst}", "1 picture or more")

    @property
    def bursts(self) -> int:
        """How many bursts arrive."""
        return max(FEWEST, math.ceil(self.seconds * self.rate_hz / self.burst))


def measure_load(
    run: Callable[[], object],
    options: LoadOptions,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Load:
    """Run a warm network under a load.

    Args:
        run: upscales one picture and returns when it is done.
        options: which load.
        clock, sleep: of the system; others make tests exact.
    """
    latencies: List[float] = []
    period, cut_short = options.burst / options.rate_hz, False
    start = clock()
    for number in range(options.bursts):
        arrival = start + number * period
        if arrival - start > options.max_seconds or clock() - start > options.max_seconds:
            cut_short = True
            break
        _wait_until(arrival, clock, sleep)
        for _ in range(options.burst):
            run()
            latencies.append(clock() - arrival)
    return load_of(latencies, options.rate_hz, options.burst, cut_short)


def load_of(latencies: Sequence[float], rate_hz: float, burst: int, cut_short: bool = False) -> Load:
    """The figures of latencies (seconds, in the order of arrival), see ``Load``."""
    taken = tuple(round(float(value), 9) for value in latencies)
    return Load(
        rate_hz=rate_hz,
        burst=burst,
        latencies_s=taken,
        median_s=statistics.median(taken),
        p90_s=nearest_rank(taken, 90),
        p99_s=nearest_rank(taken, 99),
        jitter_s=jitter(taken, burst),
        missed=sum(latency > burst / rate_hz for latency in taken),
        cut_short=cut_short,
    )


def jitter(latencies: Sequence[float], burst: int) -> float:
    """See ``Load.jitter_s``; 0 for a single burst."""
    changes = [abs(after - before) for before, after in zip(latencies, latencies[burst:])]
    return statistics.fmean(changes) if changes else 0.0


def loads_wanted(
    pace: Optional[float], burst: Optional[int], seconds: float, longest: float
) -> Tuple[LoadOptions, ...]:
    """The loads of ``bench --pace`` and ``--burst``: one picture at a time, and so many at once at the same rate.

    Raises:
        UsageError: a burst without a rate, as its deadline is when the next one comes.
    """
    if pace is None:
        if burst is not None:
            raise UsageError(
                f"--burst {burst} without a rate has no deadline", "--pace too", f"--pace 30 --burst {burst}"
            )
        return ()
    sizes = (1,) if burst is None else (1, burst)
    return tuple(LoadOptions(pace, size, seconds, longest) for size in dict.fromkeys(sizes))


def _wait_until(moment: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    """Sleep nearly until ``moment``, then look at the clock; returns at once where it has passed."""
    remaining = moment - clock()
    if remaining > SPIN:
        sleep(remaining - SPIN)
    while clock() < moment:
        pass
