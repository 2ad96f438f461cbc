"""The catalogue: entries of many devices and networks on one static page. Entries in, HTML out."""

from __future__ import annotations

from typing import Dict, List, Mapping, Tuple

from sr_deploy.bench.energy import joules, mean_power
from sr_deploy.bench.result import Point
from sr_deploy.core.contract import format_size
from sr_deploy.core.quality.metrics import CRITERION
from sr_deploy.core.text import xml
from sr_deploy.report import html
from sr_deploy.report.numbers import (
    NONE,
    doubts,
    figures,
    fixed,
    half_width,
    milliseconds,
    precision_label,
    precision_of,
)
from sr_deploy.report.page_deployment import conditions_of
from sr_deploy.report.submission import Submission

HEADINGS = (
    "network", "input", "in", "p50 ms", "± %", "p90 ms", "p99 ms", "W", "mJ", f"mean {CRITERION.unit}",
    f"worst {CRITERION.unit}", "paced: p99 ms", "missed", "bursts: p99 ms", "missed",
)  # fmt: skip
INTRODUCTION = (
    "Every row is of one file, checked: sealed, with its conditions, its figures those of its samples, and none faster "
    "than the arithmetic of its device allows. ± is half the interval of the median. W and mJ: power while it was "
    "timed, and energy a picture, where a sensor tells."
)


def catalogue_page(title: str, made: str, entries: Mapping[str, Submission]) -> str:
    """The page as text.

    Args:
        title, made: plain text.
        entries: file name → entry, each without problems.
    """
    groups: Dict[Tuple[str, str], List[str]] = {}
    for name, entry in entries.items():
        groups.setdefault(_shared(entry), []).append(name)
    body = f"<header>\n<h1>{xml(title)}</h1>\n{html.paragraph(made, 'small')}</header>\n"
    body += html.paragraph(INTRODUCTION, "note")
    for index, ((shared, caption), names) in enumerate(sorted(groups.items())):
        body += html.section(shared, _group(caption, {name: entries[name] for name in names}), f"device-{index + 1}")
    return html.page(title, body)


def _shared(entry: Submission) -> Tuple[str, str]:
    """What the rows of one table share, for its heading: device, runtime, scope; and its caption: whose pictures."""
    point, pictures = entry.result.points[0], entry.quality.pictures
    on = f"; quality on {pictures.count} pictures of {pictures.name}" if pictures else ""
    caption = f"Time a picture{on}"
    version = point.description.get("version", "")
    threads = point.description.get("threads")
    told = f", {threads} {'thread' if threads == 1 else 'threads'}" if threads else ""
    return f"{point.device}: {point.runtime} {version}{told}, {point.scope}, ×{entry.network.scale}", caption


def _group(caption: str, entries: Mapping[str, Submission]) -> str:
    rows = [
        _row(entry, point)
        for entry in sorted(entries.values(), key=lambda one: one.network.name)
        for point in sorted(entry.result.points, key=lambda one: one.input_pixels)
    ]
    details = "".join(
        html.details(f"{name}: how it was measured", html.facts(_identity(entry)) + conditions_of(entry.result))
        for name, entry in entries.items()
    )
    told = [
        f"{entry.network.name} at {format_size(point.size)}: {doubts(point)}"
        for entry in entries.values()
        for point in entry.result.points
        if doubts(point)
    ]
    # Few devices have a sensor, and not everybody measures every load.
    said = [column for column in range(len(HEADINGS)) if any(row[column] != NONE for row in rows)]
    table = html.table(caption, [HEADINGS[column] for column in said], [[row[c] for c in said] for row in rows], 3)
    return table + html.items(told, "warn") + details


def _row(entry: Submission, point: Point) -> List[html.Cell]:
    power, energy = mean_power(point), joules(point)
    row: List[html.Cell] = [
        entry.network.name,
        format_size(point.size).replace("x", "×"),
        precision_label(precision_of(point)),
        milliseconds(point.median_s),
        half_width(point),
        milliseconds(point.p90_s),
        milliseconds(point.p99_s),
        NONE if power is None else fixed(power[1], 1),
        NONE if energy is None else figures(1e3 * energy),
        fixed(getattr(entry.quality.mean, CRITERION.key), CRITERION.decimals),
        fixed(entry.quality.worst, CRITERION.decimals),
    ]
    for bursty in (False, True):
        load = next((load for load in point.loads if (load.burst > 1) == bursty), None)
        row += [NONE, NONE] if load is None else [
            f"{milliseconds(load.p99_s)} at {load.rate_hz:g} /s" + (f", {load.burst} at once" if bursty else ""),
            f"{load.missed} of {len(load.latencies_s)}",
        ]  # fmt: skip
    return row


def _identity(entry: Submission) -> List[Tuple[str, str]]:
    network = entry.network
    return [
        ("network", f"{network.architecture} ×{network.scale}, {network.parameters:,} parameters"),
        ("GMACs a megapixel of input", figures(network.macs_per_pixel / 1e3)),
        ("graph sha256", network.graph_sha256),
        ("checkpoint sha256", network.checkpoint_sha256),
        ("what ran, sha256", _first(entry).sha256),
        ("measured", f"{_first(entry).began}, srdeploy {entry.srdeploy}"),
        *((f"{format_size(point.size)} before", _readings(point)) for point in entry.result.points),
        ("seal", entry.seal),
    ]


def _readings(point: Point) -> str:
    """Clocks, power mode, temperatures and load as they were read before a size was measured."""
    read = point.sensors.get("before") or {}
    return ", ".join(f"{name} {value}" for name, value in read.items()) or NONE


def _first(entry: Submission) -> Point:
    return entry.result.points[0]
