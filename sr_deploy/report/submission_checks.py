"""Which entries cannot be true: altered, without their conditions, or against arithmetic. Pure."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from sr_deploy.bench.interval import effective_sample_size, median_interval
from sr_deploy.bench.load import load_of
from sr_deploy.bench.measure import summary
from sr_deploy.bench.result import Point
from sr_deploy.core.contract import format_size
from sr_deploy.core.quality.metrics import CRITERION, METRICS
from sr_deploy.report.device_peaks import least_seconds
from sr_deploy.report.numbers import milliseconds, precision_label, precision_of
from sr_deploy.report.quality_file import hash_of_pictures
from sr_deploy.report.submission import Submission, seal_of

#: Samples that a size needs at least.
FEWEST_SAMPLES = 10
#: Relative difference that rounding in the record may make.
ROUNDING = 1e-6
#: Seconds that clocks of a record may disagree by.
CLOCK_SLACK = 2.0
#: Facts of the environment and of the runner without which a latency cannot be placed.
ENVIRONMENT = ("cpu", "cores", "system", "python", "packages")
RUNNER = ("version", "provider", "precision")

#: Hash → (the entry that has it first, what it says of it).
Seen = Dict[str, Tuple[str, object]]


def problems_of(entry: Submission, now: Optional[datetime.datetime] = None) -> List[str]:
    """Why an entry is refused, each reason once; empty for one that may be true.

    Args:
        entry: as read from its file.
        now: the time, in UTC; None: the clock's.
    """
    now = now or datetime.datetime.now(datetime.timezone.utc)
    whole = [check(entry) for check in _WHOLE]
    points = [
        f"{format_size(point.size)}: {told}"
        for point in entry.result.points
        for told in ([_unusable(point)] if not point.usable else [check(entry, point) for check in _POINT])
        if told is not None
    ]
    return [told for told in (*whole, _dated(entry, now)) if told is not None] + points


def problems_between(entries: Mapping[str, Submission]) -> Dict[str, List[str]]:
    """Name → why an entry contradicts one before it: twice the same, or one hash for two things."""
    found: Dict[str, List[str]] = {}
    networks: Seen = {}
    engines: Seen = {}
    samples: Dict[Tuple[float, ...], str] = {}
    for name, entry in entries.items():
        told: List[str] = []
        facts = dataclasses.replace(entry.network, name="")
        told += _second(networks, entry.network.graph_sha256, name, facts, "graph", "other figures of the network")
        for point in entry.result.points:
            if point.samples_s in samples:
                told.append(f"{format_size(point.size)}: the samples of {samples[point.samples_s]}, to the last digit")
            samples.setdefault(point.samples_s, name)
            kind = precision_of(point)
            told += _second(engines, f"{point.runtime} {point.sha256}", name, kind, "file", "another precision")
        if told:
            found[name] = list(dict.fromkeys(told))
    return found


def _second(seen: Seen, key: str, name: str, value: object, what: str, other: str) -> List[str]:
    """Nothing, or what an entry says otherwise than the one in which the key was first seen."""
    first, known = seen.setdefault(key, (name, value))
    return [] if known == value else [f"its {what} has the hash of the one in {first}, with {other}"]


def _sealed(entry: Submission) -> Optional[str]:
    content = json.loads(json.dumps(dataclasses.asdict(entry)))
    return None if seal_of(content) == entry.seal else "it was altered: its seal is of other content"


def _has_conditions(entry: Submission) -> Optional[str]:
    missing = [f"environment.{key}" for key in ENVIRONMENT if not entry.result.environment.get(key)]
    for point in entry.result.points:
        missing += [f"description.{key}" for key in RUNNER if not point.description.get(key)]
        missing += [f"sensors.{key}" for key in ("before", "after") if key not in point.sensors]
        missing += _clock_missing(point)
        missing += [key for key in ("sha256", "began", "ended") if not getattr(point, key)]
        missing += ["samples_s"] if len(point.samples_s) < FEWEST_SAMPLES else []
        bursts = {load.burst > 1 for load in point.loads}
        missing += [f"loads ({word})" for word, kind in (("paced", False), ("bursty", True)) if kind not in bursts]
    if not entry.result.points:
        missing.append("points")
    if entry.result.options.get("scope") not in ("compute", "end-to-end"):
        missing.append("options.scope of compute or end-to-end")
    return f"conditions are missing: {', '.join(dict.fromkeys(missing))}" if missing else None


def _clock_missing(point: Point) -> List[str]:
    """The clock of a GPU, which a driver always tells; a container may hide the processor's."""
    readings = (point.sensors.get("before") or {}, *(point.sensors.get("during") or ()))
    hidden = point.description.get("provider") == "CPUExecutionProvider"
    return [] if hidden or any("gpu_mhz" in reading for reading in readings) else ["sensors (gpu_mhz)"]


def _quality_is_of_it(entry: Submission) -> Optional[str]:
    precisions = {precision_of(point) for point in entry.result.points}
    if precisions != {entry.quality.precision}:
        timed = " and ".join(sorted(map(precision_label, precisions)))
        return f"its quality is of {precision_label(entry.quality.precision)}, and {timed} was timed"
    pictures = entry.quality.pictures
    rows = [(row.name, str(row.lr_sha256), str(row.hr_sha256)) for row in entry.quality.images]
    if pictures is None or pictures.count != len(rows) or pictures.sha256 != hash_of_pictures(rows):
        return "its pictures are not those of its rows"
    for metric in METRICS:
        values = [getattr(row, metric.key) for row in entry.quality.images]
        mean = getattr(entry.quality.mean, metric.key)
        if metric.judges:
            values = [value for value in values if value is not None]
        if metric is not CRITERION and mean is None and set(values) <= {None}:
            continue  # not taken: it needs something beside, or the file is from before it
        if not values or None in values or mean is None or not _close(sum(values) / len(values), mean):
            return f"its mean {metric.title} is not the mean of its pictures"
    return None


def _dated(entry: Submission, now: datetime.datetime) -> Optional[str]:
    latest = max((point.ended for point in entry.result.points), default="")
    ended = _time(latest)
    late = ended is not None and ended > now + datetime.timedelta(days=1)
    return f"it was measured in the future, {latest}" if late else None


def _unusable(point: Point) -> str:
    return f"not a measurement: {point.failure or point.invalid}"


def _figures(entry: Submission, point: Point) -> Optional[str]:
    for name, value in summary(point.samples_s).items():
        if not _close(getattr(point, name), float(value)):  # type: ignore[arg-type]
            return f"{name} is not that of the samples"
    confidence = entry.result.options.get("confidence")
    effective = effective_sample_size(point.samples_s)
    interval = None if confidence is None else median_interval(point.samples_s, confidence, effective)
    found = (point.median_low_s, point.median_high_s)
    if not all(map(_close, found, interval or (None, None))):
        return "the interval of the median is not that of the samples"
    return None


def _samples(entry: Submission, point: Point) -> Optional[str]:
    if len(set(point.samples_s)) == 1:
        return f"all {len(point.samples_s)} samples are the same to the nanosecond, which no clock gives"
    began, ended = _time(point.began), _time(point.ended)
    spent = math.fsum(point.samples_s)
    if began is None or ended is None or (ended - began).total_seconds() + CLOCK_SLACK < spent:
        return f"its samples take {spent:.1f} s, longer than from its begin to its end"
    return None


def _possible(entry: Submission, point: Point) -> Optional[str]:
    least = least_seconds(point, entry.network.macs_per_pixel, entry.result.environment)
    fastest = min(point.samples_s)
    if fastest >= least:
        return None
    what = f"{precision_label(precision_of(point))} on {point.device}"
    return f"{milliseconds(fastest)} ms is below what arithmetic allows, {milliseconds(least)} ms for {what}"


def _output(entry: Submission, point: Point) -> Optional[str]:
    wanted = point.input_pixels * entry.network.scale**2
    return None if point.output_pixels == wanted else f"its output has {point.output_pixels} pixels, not {wanted}"


def _loads(entry: Submission, point: Point) -> Optional[str]:
    for load in point.loads:
        again = load_of(load.latencies_s, load.rate_hz, load.burst, load.cut_short)
        figures = ("median_s", "p90_s", "p99_s", "jitter_s")
        if again.missed != load.missed or not all(_close(getattr(again, f), getattr(load, f)) for f in figures):
            return f"the figures of its load at {load.rate_hz:g} /s are not those of its latencies"
        if min(load.latencies_s) < 0.2 * min(point.samples_s):
            return f"at {load.rate_hz:g} /s a picture takes a fifth of the fastest sample"
    return None


_WHOLE: Sequence[Callable[[Submission], Optional[str]]] = (_sealed, _has_conditions, _quality_is_of_it)
_POINT: Sequence[Callable[[Submission, Point], Optional[str]]] = (_figures, _samples, _possible, _output, _loads)


def _close(a: Optional[float], b: Optional[float]) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=ROUNDING, abs_tol=2e-9)


def _time(text: str) -> Optional[datetime.datetime]:
    """ISO 8601 with a zone; None for another text."""
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
