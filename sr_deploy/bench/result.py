"""The record of a sweep: a versioned JSON file that carries the device, the versions and every sample."""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from sr_deploy.core.artifact import read_json, write_json
from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.errors import BadInput

SCHEMA = 1


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
    """

    size: Size
    scope: str
    runtime: str
    device: str
    description: Dict[str, Any]
    sha256: str = ""
    output_pixels: int = 0
    warmup_iterations: int = 0
    warmup_seconds: float = 0.0
    warmup_stable: bool = False
    cut_short: bool = False
    samples_s: Tuple[float, ...] = ()
    median_s: Optional[float] = None
    p90_s: Optional[float] = None
    p99_s: Optional[float] = None
    mean_s: Optional[float] = None
    min_s: Optional[float] = None
    failure: Optional[str] = None
    timer: str = "host"
    settings: Dict[str, Any] = dataclasses.field(default_factory=dict)
    median_low_s: Optional[float] = None
    median_high_s: Optional[float] = None
    effective_samples: Optional[float] = None
    precise: Optional[bool] = None
    sensors: Dict[str, Any] = dataclasses.field(default_factory=dict)
    peak_memory: Dict[str, int] = dataclasses.field(default_factory=dict)
    invalid: Optional[str] = None
    began: str = ""
    ended: str = ""
    input_bytes: Optional[int] = None
    output_bytes: Optional[int] = None
    enqueue_s: Optional[float] = None
    launch_bound: Optional[bool] = None
    in_flight: Optional[int] = None

    @property
    def usable(self) -> bool:
        """Whether its times may be compared and averaged."""
        return self.failure is None and self.invalid is None

    @property
    def input_pixels(self) -> int:
        """Height times width of the input."""
        return self.size[0] * self.size[1]


@dataclass(frozen=True)
class Result:
    """A sweep.

    Attributes:
        deployment: name of the deployment's folder.
        environment: see core/device.py.
        options: the fields of BenchOptions.
        points: one for each size, in the order measured.
        created: when the sweep was begun, ISO 8601 in UTC.
        variance: where several processes or builds were measured, one table a size; see variance.py.
        schema: version of this layout.
    """

    deployment: str
    environment: Dict[str, Any]
    options: Dict[str, Any]
    points: Tuple[Point, ...]
    created: str
    variance: Tuple[Dict[str, Any], ...] = ()
    schema: int = SCHEMA

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
        BadInput: not a file, not JSON, another schema, or fields missing, unknown or of the wrong type.
    """
    raw = read_json(path, "result file")
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        found = raw.get("schema") if isinstance(raw, dict) else type(raw).__name__
        raise BadInput(
            f"{path} has schema {found!r}",
            f"a result file of schema {SCHEMA}",
            "measure again with srdeploy bench, or name another file",
        )
    try:
        points = tuple(_point(entry) for entry in raw["points"])
        result = Result(**{**raw, "points": points, "variance": tuple(raw.get("variance", ()))})
        if not all(isinstance(value, dict) for value in (result.environment, result.options)):
            raise TypeError("environment and options must be objects")
        return result
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise BadInput(
            f"{path} does not have the fields of a result: {error}", f"the layout of schema {SCHEMA}", "measure again"
        ) from error


def _point(entry: Dict[str, Any]) -> Point:
    """A point from its JSON form; TypeError or ValueError when it is not one."""
    point = Point(**{**entry, "size": tuple(entry["size"]), "samples_s": tuple(entry["samples_s"])})
    if len(point.size) != 2 or not all(isinstance(edge, int) and edge > 0 for edge in point.size):
        raise ValueError(f"size {entry['size']!r}")
    times = point.samples_s + (point.median_s, point.p90_s, point.p99_s, point.mean_s, point.min_s)
    if point.failure is None and not (point.samples_s and all(isinstance(t, (int, float)) for t in times)):
        raise ValueError(f"the point of {format_size(point.size)} has neither all its times nor a failure")
    return point
