"""Latency under load, as rows that the terminal's table and the page share."""

from __future__ import annotations

from typing import TYPE_CHECKING, List, Tuple

from sr_deploy.bench.load import Load
from sr_deploy.bench.result import Result
from sr_deploy.core.contract import format_size
from sr_deploy.report.numbers import figures, milliseconds, result_title

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = ("input", "load", "median ms", "p90 ms", "p99 ms", "jitter ms", "missed")
CAPTION = "from a picture's arrival until it is done; missed: not done when the next were due"


def load_name(load: Load) -> str:
    """ "30 /s", or "30 /s, 4 at once"."""
    several = f", {load.burst} at once" if load.burst > 1 else ""
    return f"{load.rate_hz:g} /s{several}"


def load_rows(result: Result) -> Tuple[List[str], ...]:
    """One row a size and load, under HEADINGS; none where no load was measured."""
    return tuple(
        [
            format_size(point.size),
            load_name(load),
            *(milliseconds(value) for value in (load.median_s, load.p90_s, load.p99_s)),
            figures(1e3 * load.jitter_s) if load.jitter_s else "0",
            f"{load.missed} of {len(load.latencies_s)}" + (", cut short" if load.cut_short else ""),
        ]
        for point in result.points
        for load in point.loads
    )


def load_table(result: Result) -> Table:
    """The rows for the terminal."""
    from sr_deploy.report.table import plain_table

    return plain_table(
        f"Load on {result_title(result)}", CAPTION, HEADINGS, load_rows(result), numbers=range(2, len(HEADINGS))
    )
