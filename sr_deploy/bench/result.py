"""The record of a sweep: a versioned JSON file that carries the device, the versions and every sample."""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple, cast

from pydantic import Field
from typing_extensions import Annotated, Literal, TypedDict

from sr_deploy.bench.load import Load
from sr_deploy.core.artifact import write_json
from sr_deploy.core.contract import Size
from sr_deploy.core.schema import (
    Amount,
    Count,
    Duration,
    Positive,
    Seconds,
    ShortText,
    SizePair,
    described,
    described_open,
    read_described,
)

SCHEMA = 1
Timer = Literal["host", "events"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


@described
class LayerTime(TypedDict):
    """One layer of an imported profile.

    Attributes:
        name: the runtime's.
        mean_s: seconds a run.
        share: of the whole, 0 to 1.
    """

    name: str
    mean_s: Seconds
    share: Amount


@described_open
class Description(TypedDict, total=False):
    """What a runner says of itself.

    Attributes:
        precision: of what ran.
        layers: of an imported profile.
    """

    precision: Optional[str]
    layers: List[LayerTime]


@described_open
class OptionsRecord(TypedDict, total=False):
    """The fields of BenchOptions that reports and the gate work with."""

    scope: str
    confidence: Optional[Share]


def description_of(told: Mapping[str, Any]) -> Description:
    """What a runner tells of itself, as a record of it; cast, as no type of Python says "these keys and others"."""
    return cast(Description, dict(told))


def options_record(fields: Mapping[str, Any]) -> OptionsRecord:
    """The fields of BenchOptions as a record of them; see ``description_of``."""
    return cast(OptionsRecord, dict(fields))


@described
class VarianceRecord(TypedDict):
    """The fields of VarianceTable, see variance.py.

    Attributes:
        size, scope: the point's.
        median_s: of all samples.
        builds, processes, runs: how many of each were measured.
        run_s, process_s, build_s: standard deviations, seconds; null where there is only one.
        process_medians_s: one a process.
        left_out: processes that do not count, and why.
    """

    size: SizePair
    scope: str
    median_s: Duration
    builds: Positive
    processes: Positive
    runs: Positive
    run_s: Seconds
    process_s: Optional[Seconds]
    build_s: Optional[Seconds]
    process_medians_s: Tuple[Duration, ...]
    left_out: Tuple[str, ...]


class Summary(TypedDict):
    """The figures of a Point that ``summary`` of measure.py takes of the samples, seconds."""

    median_s: float
    p90_s: float
    p99_s: float
    mean_s: float
    min_s: float


class EnqueueFacts(TypedDict, total=False):
    """The fields of a Point that tell of queueing."""

    enqueue_s: Optional[float]
    launch_bound: Optional[bool]
    in_flight: Optional[int]


@described
@dataclass(frozen=True)
class Point:
    """One size on one runtime. All times are in seconds.

    Attributes:
        size: input (height, width), pixels.
        scope: what one sample spans, see SCOPES of options.py.
        runtime, device: names of the runner.
        description: what the runner says of itself: versions, provider, threads, precision.
        sha256: of the engine, or of the graph that the runtime loads.
        output_pixels: height times width of the upscaled picture; 0 for a failure.
        warmup_iterations, warmup_seconds: how long the warm-up took.
        warmup_stable: False when the warm-up ended at its bound; then the samples may still drift.
        cut_short: True when a bound ended the measurement before its minimums were reached.
        samples_s: every sample in the order taken; empty for a failure.
        median_s, p90_s, p99_s, mean_s, min_s: of the samples, as ``summary`` of measure.py defines them; None for a
            failure.
        failure: why there are no samples; None when there are.
        timer: "host" (the clock of the process) or "events" (the device's own).
        settings: see DeviceSettings of run/settings.py.
        median_low_s, median_high_s: interval of the median at the confidence of the options, None when there are too
            few samples for one; see ``median_interval`` of interval.py.
        effective_samples: how many independent samples the samples are worth.
        precise: whether the interval is as narrow as was asked for; None when nothing was asked for.
        sensors: "before", "during" (a list, at a low rate) and "after": clocks, power, temperatures, throttle reasons.
        peak_memory: "rss_bytes" of the process, and "gpu_used_bytes" of the whole GPU where there is one.
        invalid: why the samples must not be used (throttled, power mode or clocks changed); None when they may. Such a
            point keeps its samples as evidence, is never averaged, and is measured again when a sweep is resumed.
        began, ended: of the preparation and of the last sample, ISO 8601 in UTC; "" where it is not known.
        input_bytes, output_bytes: what crosses the bus for one picture; None where it is not known.
        enqueue_s: median time that the host takes to queue one run; None for other scopes than "compute" and for
            runtimes that compute before they return.
        launch_bound: whether queueing takes so long that the samples are the host's launches rather than the device's
            work, see ``is_launch_bound`` of measure.py; None where ``enqueue_s`` is.
        in_flight: with the timer "events", how many runs are on the device when a timed one is queued, itself
            included; None with the host's clock, for which each run is waited for, and where it is not known.
        loads: the same runner under loads, see load.py; empty where none was asked for.
    """

    size: SizePair
    scope: ShortText
    runtime: ShortText
    device: ShortText
    description: Description
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    output_pixels: Count = 0
    warmup_iterations: Count = 0
    warmup_seconds: Seconds = 0.0
    warmup_stable: bool = False
    cut_short: bool = False
    samples_s: Tuple[Duration, ...] = ()
    median_s: Optional[Duration] = None
    p90_s: Optional[Duration] = None
    p99_s: Optional[Duration] = None
    mean_s: Optional[Duration] = None
    min_s: Optional[Duration] = None
    failure: Optional[str] = None
    timer: Timer = "host"
    settings: Dict[str, Any] = dataclasses.field(default_factory=dict)
    median_low_s: Optional[Duration] = None
    median_high_s: Optional[Duration] = None
    effective_samples: Optional[Amount] = None
    precise: Optional[bool] = None
    sensors: Dict[str, Any] = dataclasses.field(default_factory=dict)
    peak_memory: Dict[str, Count] = dataclasses.field(default_factory=dict)
    invalid: Optional[str] = None
    began: ShortText = ""
    ended: ShortText = ""
    input_bytes: Optional[Count] = None
    output_bytes: Optional[Count] = None
    enqueue_s: Optional[Seconds] = None
    launch_bound: Optional[bool] = None
    in_flight: Optional[Count] = None
    loads: Tuple[Load, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a point that has neither its times nor a reason why not.

        Raises:
            ValueError: naming the keys.
        """
        times = (self.median_s, self.p90_s, self.p99_s, self.mean_s, self.min_s)
        if self.failure is None and (not self.samples_s or None in times):
            raise ValueError("neither failure nor samples_s and median_s, p90_s, p99_s, mean_s, min_s are there")

    @property
    def usable(self) -> bool:
        """Whether its times may be compared and averaged."""
        return self.failure is None and self.invalid is None

    @property
    def input_pixels(self) -> int:
        """Height times width of the input."""
        return self.size[0] * self.size[1]


@described
@dataclass(frozen=True)
class Result:
    """A sweep.

    Attributes:
        deployment: name of the deployment's folder.
        environment: see core/host/device.py.
        options: the fields of BenchOptions.
        points: one for each size, in the order measured.
        created: when the sweep was begun, ISO 8601 in UTC.
        variance: where several processes or builds were measured, one table a size; see variance.py.
        schema: version of this layout.
    """

    deployment: ShortText
    environment: Dict[str, Any]
    options: OptionsRecord
    points: Tuple[Point, ...]
    created: ShortText
    variance: Tuple[VarianceRecord, ...] = ()
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Refuse tables whose medians are not as many as their builds and processes.

        Raises:
            ValueError: naming the keys.
        """
        for table in self.variance:
            if len(table["process_medians_s"]) != table["builds"] * table["processes"]:
                raise ValueError("variance: process_medians_s must hold builds times processes values")

    def point_for(self, size: Size) -> Optional[Point]:
        """The point of an input (height, width), or None."""
        return next((point for point in self.points if point.size == tuple(size)), None)

    def to_dict(self) -> Dict[str, Any]:
        """The JSON form."""
        return dataclasses.asdict(self)


def now_utc(unit: str = "seconds") -> str:
    """The time now, such as "2026-05-01T12:00:00+00:00"; ``unit`` is "seconds" or "milliseconds"."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec=unit)


def save_result(path: Path, result: Result) -> None:
    """Write a result as JSON, whole or not at all.

    Raises:
        DiskFull, EnvironmentFault: it cannot be written.
    """
    write_json(path, result.to_dict())


def load_result(path: Path) -> Result:
    """Read a result.

    Raises:
        BadInput: not a file, or not as described.
    """
    todo = "measure again with srdeploy bench, or name another file"
    return read_described(Result, path, "result file", todo)
