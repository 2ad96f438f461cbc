"""One table of FP32, FP16, INT8 and auto: latency, quality, bytes, energy; and what is slower than it should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

from sr_deploy.bench.energy import joules
from sr_deploy.bench.result import Point, Result
from sr_deploy.core.contract import format_size
from sr_deploy.core.number_formats import ENGINE_PRECISIONS
from sr_deploy.core.quality.metrics import CRITERION
from sr_deploy.core.schema import Amount, Count, Duration, Seconds, ShortText, SizePair, described
from sr_deploy.report.numbers import NONE, figures, fixed, megabytes, milliseconds, precision_label, precision_of

if TYPE_CHECKING:
    from rich.console import Group

HEADINGS = (
    "input", "in", "median ms", f"mean {CRITERION.unit}", f"worst {CRITERION.unit}", "file MB", "memory MB", "mJ",
)  # fmt: skip
CAPTION = (
    f"{CRITERION.title} of the pictures that were verified, mean and worst; memory: peak of the GPU, else of the "
    "process; mJ: energy a picture"
)


@described
@dataclass(frozen=True)
class PrecisionRow:
    """One precision at one input size.

    Attributes:
        precision: "fp32", "fp16", "int8" or "auto".
        runtime, device, scope: of the sweep.
        size: input (height, width), pixels.
        median_s: latency, seconds; None where it failed.
        mean, worst: of the criterion over the pictures that were verified; None where nothing was.
        file_bytes: of the engine or graph; None where it is not here any more.
        memory_bytes: the most that the GPU, else the process, held.
        joules: energy a picture; None without sensors.
        failure: why there is no latency, or why it must not be used.
    """

    precision: ShortText
    runtime: ShortText
    device: ShortText
    scope: ShortText
    size: SizePair
    median_s: Optional[Duration] = None
    mean: Optional[float] = None
    worst: Optional[Amount] = None
    file_bytes: Optional[Count] = None
    memory_bytes: Optional[Count] = None
    joules: Optional[Seconds] = None
    failure: Optional[str] = None


@described
@dataclass(frozen=True)
class PrecisionTable:
    """What ``bench --all`` writes.

    Attributes:
        deployment: name of the folder.
        rows: by runtime, device, scope and size, widest precision first.
        remarks: what a reader must not miss, such as a lower precision that is slower.
        schema: version of this layout.
    """

    deployment: ShortText
    rows: Tuple[PrecisionRow, ...]
    remarks: Tuple[str, ...] = ()
    schema: int = 1


#: Precision → the dict form of its QualityFile.
Qualities = Mapping[str, Mapping[str, Any]]


def precision_table(
    deployment: str, results: Sequence[Result], qualities: Qualities, sizes: Mapping[str, int]
) -> PrecisionTable:
    """The rows of a deployment's sweeps; of several points alike the newest sweep's is taken.

    Args:
        deployment: its name.
        results: sweeps, of any runtimes and precisions.
        qualities: by precision.
        sizes: sha256 of a file → its bytes.
    """
    newest: Dict[Tuple[str, str, str, Tuple[int, int], str], Tuple[str, PrecisionRow]] = {}
    for result in results:
        told = next((name for name in map(precision_of, result.points) if name), "")
        for point in result.points:
            row = _row(point, precision_of(point) or told, qualities, sizes)
            key = (row.runtime, row.device, row.scope, row.size, row.precision)
            if key not in newest or newest[key][0] <= result.created:
                newest[key] = (result.created, row)
    rows = sorted((row for _, row in newest.values()), key=_order)
    return PrecisionTable(deployment, tuple(rows), tuple(_remarks(rows)))


def _order(row: PrecisionRow) -> Tuple[str, str, str, int, int]:
    place = ENGINE_PRECISIONS.index(row.precision) if row.precision in ENGINE_PRECISIONS else len(ENGINE_PRECISIONS)
    return row.runtime, row.device, row.scope, row.size[0] * row.size[1], place


def _row(point: Point, precision: str, qualities: Qualities, sizes: Mapping[str, int]) -> PrecisionRow:
    quality = qualities.get(precision) or {}
    images = [image.get(CRITERION.key) for image in quality.get("images", ())]
    known = [value for value in images if value is not None]
    worst = (min(known) if CRITERION.higher_is_better else max(known)) if known else None
    memory = point.peak_memory.get("gpu_used_bytes", point.peak_memory.get("rss_bytes"))
    return PrecisionRow(
        precision=precision,
        runtime=point.runtime,
        device=point.device,
        scope=point.scope,
        size=point.size,
        median_s=point.median_s if point.usable else None,
        mean=(quality.get("mean") or {}).get(CRITERION.key),
        worst=worst,
        file_bytes=sizes.get(point.sha256),
        memory_bytes=memory,
        joules=joules(point) if point.usable else None,
        failure=point.failure or point.invalid,
    )


def _remarks(rows: Sequence[PrecisionRow]) -> List[str]:
    """A lower precision that takes longer than a wider one at the same size costs quality for nothing."""
    told = []
    for row in rows:
        alike = [one for one in rows if _order(one)[:4] == _order(row)[:4] and one.size == row.size]
        wider = [one for one in alike if _order(one) < _order(row) and one.median_s and row.median_s]
        faster = [one for one in wider if (one.median_s or 0.0) < (row.median_s or 0.0)]
        if faster:
            best = min(faster, key=lambda one: one.median_s or 0.0)
            told.append(
                f"{precision_label(row.precision)} is slower than {precision_label(best.precision)} at "
                f"{format_size(row.size)}: {milliseconds(row.median_s)} against {milliseconds(best.median_s)} ms"
            )
        if row.failure is not None:
            told.append(f"{precision_label(row.precision)} at {format_size(row.size)}: {row.failure}")
    return told


def cells(row: PrecisionRow) -> List[str]:
    """A row under HEADINGS."""
    return [
        format_size(row.size), precision_label(row.precision), milliseconds(row.median_s),
        fixed(row.mean, CRITERION.decimals), fixed(row.worst, CRITERION.decimals), megabytes(row.file_bytes),
        megabytes(row.memory_bytes), NONE if row.joules is None else figures(1e3 * row.joules),
    ]  # fmt: skip


def groups(table: PrecisionTable) -> Dict[str, List[PrecisionRow]]:
    """The rows that may stand beside each other, by what they share: "tensorrt on NVIDIA H200, compute"."""
    found: Dict[str, List[PrecisionRow]] = {}
    for row in table.rows:
        found.setdefault(f"{row.runtime or 'nothing ran'} on {row.device or NONE}, {row.scope}", []).append(row)
    return found


def terminal_table(table: PrecisionTable) -> Group:
    """The table for the terminal, and the remarks below it."""
    from rich.console import Group
    from rich.text import Text

    from sr_deploy.core.text import log_line
    from sr_deploy.report.table import plain_table

    title, numbers = f"Precisions of {table.deployment}", range(2, len(HEADINGS))
    parts = [
        plain_table(f"{title}: {shared}", CAPTION, HEADINGS, [cells(row) for row in rows], numbers)
        for shared, rows in groups(table).items()
    ]
    return Group(*parts, *(Text(log_line(f"note: {remark}"), "yellow") for remark in table.remarks))
