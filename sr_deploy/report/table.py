"""Tables for the terminal: plain dataclasses and dicts in, rich renderables out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Container, Dict, List, Optional, Sequence, Tuple

from sr_deploy.bench.result import Result
from sr_deploy.core.contract import format_size
from sr_deploy.core.host.finding import Finding
from sr_deploy.core.quality.metrics import figure_columns
from sr_deploy.core.quality.structure import OFF_STEPS
from sr_deploy.core.text import decibels_lost, log_line, log_lines, markup, markup_lines
from sr_deploy.report.numbers import (
    NONE,
    SCOPE_WORDS,
    doubts,
    filled,
    fixed,
    layer_cells,
    mebibytes,
    megabytes,
    milliseconds,
    precision_label,
    rate_cells,
    result_title,
    strips_of,
)
from sr_deploy.report.quality_file import ran_text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

#: Of the quality table after the figures: key of the report, heading, digits.
DIFFERENCE_COLUMN = ("difference", "differs /255", 4)
#: A node's name keeps so many characters, its end: with the other columns the table of layers is 80 columns wide.
NODE_CHARACTERS = 20
LEVEL_STYLES = {"ok": "green", "missing": "red", "warning": "yellow"}


def latency_table(result: Result) -> Group:
    """One row a size: median, p90 and p99 in ms, pictures per second, output megapixels per second.

    Below it, one line for each size that failed, whose warm-up did not settle, or that its time limit cut short.
    """
    from rich.console import Group
    from rich.text import Text

    rows = []
    for point in result.points:
        cells = [NONE] * 6
        if point.failure is None and point.median_s:
            cells = [milliseconds(value) for value in (point.median_s, point.p90_s, point.p99_s)]
            cells += [*rate_cells(point), str(len(point.samples_s))]
        rows.append([format_size(point.size), *cells])
    title, caption, first = _latency_title(result)
    headings = (first, "median ms", "p90 ms", "p99 ms", "pictures/s", "out MP/s", "samples")
    table = plain_table(title, caption, headings, rows)
    told = [f"{format_size(point.size)}: {doubts(point)}" for point in result.points if doubts(point)]
    notes = [Text(log_line(text), "yellow") for text in told]
    return Group(table, *notes)


def quality_table(report: Dict[str, Any]) -> Table:
    """One row a picture and the mean.

    Args:
        report: the dict form of a QualityFile: ``images`` (dicts with ``name``, the keys of ``figure_columns`` and
            "difference"; None where not measured), ``mean``, ``ran``, ``precision`` and ``convention``; if PyTorch was
            compared, ``largest_difference`` and ``tolerance`` in 8-bit steps, for a lower precision ``loss_db`` and
            ``tolerance_db`` too.
    """
    every = (*figure_columns(), DIFFERENCE_COLUMN)
    columns = [column for column in every if any(image.get(column[0]) is not None for image in report["images"])]
    precision, ran = report.get("precision"), ran_text(report.get("ran") or ())
    title = f"Quality{f' in {precision_label(precision)}' if precision else ''}"
    table = _table(title, "\n".join(filter(None, (ran, report.get("convention")))), "picture")
    for _, heading, _ in columns:
        table.add_column(heading, justify="right")
    for image in report["images"]:
        table.add_row(markup(image["name"]), *(fixed(image.get(key), digits) for key, _, digits in columns))
    table.add_section()
    mean = {"difference": report.get("largest_difference"), **report["mean"]}
    table.add_row("mean", *(fixed(mean.get(key), digits) for key, _, digits in columns), style="bold")
    worst, bound = report.get("largest_difference"), report.get("tolerance")
    if worst is not None and bound is not None:
        verdict = "within" if worst <= bound else "[bold red]outside[/bold red]"
        table.caption = f"{table.caption}\nlargest difference from PyTorch {worst:.4f} of 255, {verdict} {bound:g}"
    lost, bound = report.get("loss_db"), report.get("tolerance_db")
    if lost is not None and bound is not None:
        verdict = "within" if lost <= bound else "[bold red]outside[/bold red]"
        table.caption = f"{table.caption}\n{decibels_lost(lost)} against PyTorch, {verdict} {bound:g} dB"
        table.caption = "\n".join(filter(None, (table.caption, markup(worst_text(report)))))
    return table


def worst_text(report: Dict[str, Any]) -> str:
    """A line for people: what the picture that loses most loses, and what can be seen; "" where not compared."""
    worst, off, patch = (report.get(key) for key in ("worst_loss_db", "largest_off_share", "largest_structure"))
    if worst is None or off is None or patch is None:
        return ""
    return (
        f"worst: {decibels_lost(worst)} in {report.get('worst_loss_picture')}; of a picture's pixels up to {off:.1%} "
        f"off by more than {OFF_STEPS} of 255, a patch by up to {patch:.1f}"
    )


def sensitivity_table(facts: Dict[str, Any]) -> Table:
    """One row a layer, most noise first.

    Args:
        facts: ``pictures``; and ``layers``, dicts with ``name``, ``default``, ``loss_db``, ``noise``, ``macs_share``,
            ``why_wide``, of which the word before the colon is shown.
    """
    caption = f"on {len(facts['pictures'])} pictures; noises add up, losses do not"
    headings = ("layer", "default", "dB lost", "noise", "MACs", "why wider")
    rows = [
        (layer["name"], layer["default"], f"{layer['loss_db']:+.4f}", f"{layer['noise']:.4f}",
         f"{layer['macs_share']:.1%}", layer["why_wide"].partition(":")[0])
        for layer in facts["layers"]
    ]  # fmt: skip
    return plain_table("Each layer alone in INT8", caption, headings, rows, numbers=range(2, 5))


def doctor_table(findings: Sequence[Finding]) -> Group:
    """One row a finding, and below it what to do about what is missing, each command on a line of its own."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    table = _table("What this machine can do", "", "")
    table.add_column("what", no_wrap=True)
    table.add_column("found", overflow="fold")
    steps: List[Any] = []
    for finding in findings:
        style = LEVEL_STYLES[finding.level]
        table.add_row(f"[{style}]{finding.level}[/{style}]", markup(finding.what), markup_lines(finding.found))
        if finding.how_to_get:
            steps.append(Text(log_line(f"{finding.what}:"), style))
            steps.append(Padding(Text(log_lines(finding.how_to_get)), (0, 0, 0, 2), expand=False))
    return Group(table, *([Text("\nWhat to do", style="bold"), *steps] if steps else []))


def engine_table(engines: Sequence[Dict[str, Any]]) -> Table:
    """One row an engine, from the dict form of its manifest."""
    # Short headings: with the longest file name the table is 80 columns wide.
    headings = ("engine", "precision", "GPU", "memory", "weights", "build s", "strips")
    rows = [
        (engine["file"], engine["precision"], ", ".join(engine["compute_capabilities"]),
         *(mebibytes(engine[key]) for key in ("activation_bytes", "weights_bytes")), fixed(engine["build_seconds"], 1),
         str(strips_of(engine) or NONE))
        for engine in engines
    ]  # fmt: skip
    told = any(engine[key] is not None for engine in engines for key in ("activation_bytes", "weights_bytes"))
    caption = "memory of activations, and weights, in MiB, as the builder reports them" if told else ""
    return plain_table("Engines", caption, headings, rows, numbers=range(3, 7))


def built_table(listings: Sequence[Tuple[str, Dict[str, Any]]]) -> Table:
    """One row an engine: its kernels, its products by type, what it moves.

    Args:
        listings: (engine's file, summary of its listing, see engine/listing.py).
    """
    caption = "products: convolutions and matrix products, by input → output type\n"
    caption += "MB: read and written, without weights"
    rows = []
    for name, one in listings:
        products = [f"{types} {count}" for types, count in one["products"].items()]
        missing = one["products_in_graph"] - one["products_found"]
        products += [f"not told {missing}"] if missing else []
        rows.append((name, str(one["kernels"]), ", ".join(products), megabytes(one["bytes_moved"])))
    headings = ("engine", "kernels", "products", "MB")
    return plain_table("What the builder made of them", caption, headings, rows, numbers=(1, 3))


def layers_table(summary: str, layers: Sequence[Dict[str, Any]]) -> Group:
    """One row a layer, what moves most first.

    Args:
        summary: a sentence for below the table.
        layers: dicts of ``layer_facts`` (engine/listing.py).
    """
    from rich.console import Group
    from rich.text import Text

    table = _table("Layers", "MB: read and written, without weights; +N: it computes N more nodes", "MB")
    table.columns[0].justify = "right"
    for heading in ("kind", "types", "output", "computes"):
        table.add_column(heading, no_wrap=True)
    for layer in layers:
        moved, kind, types, shape, computes = layer_cells(layer)
        short = computes if len(computes) <= NODE_CHARACTERS else "…" + computes[1 - NODE_CHARACTERS :]
        table.add_row(moved, markup(kind), types, shape, markup(short))
    return Group(table, Text(summary))


def roofline_table(found: Dict[str, Any]) -> Table:
    """Estimates for one GPU, a row a size, from ``roofline_of`` of pipeline/measure."""
    note = f"\n{found['note']}" if found["note"] else ""
    headings = ("size", "least ms", "bound by", "kernels", "MB", "GMACs", "estimated ms")
    rows = [
        (point["size"], f"{point['least_ms']:.2f}", point["limited_by"],
         NONE if point["kernels"] is None else str(point["kernels"]), fixed(point["megabytes"], 1),
         fixed(point["giga_macs"], 1), fixed(point["estimate_ms"], 2))
        for point in found["points"]
    ]  # fmt: skip
    caption = f"{found['kind']}\nleast: weights, input and output once, and the fewest multiply-accumulates known{note}"
    return plain_table(f"{found['device']}, float16: estimates", caption, headings, rows)


def facts_frame(title: str) -> Table:
    """An empty table of facts, their names and values."""
    table = _table(title, "", "fact")
    table.add_column("value", overflow="fold")
    return table


def _table(title: str, caption: str, first_heading: str) -> Table:
    """An empty table in the house's looks, with its first column."""
    from rich.table import Table, box

    table = Table(
        title=markup(title),
        caption=markup_lines(caption) or None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        padding=(0, 1, 0, 0),
    )
    table.add_column(first_heading, no_wrap=True)
    return table


def plain_table(
    title: str,
    caption: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: Optional[Container[int]] = None,
) -> Table:
    """A table of texts that are shown as they are, of the columns that any row fills.

    A column of words may wrap where the page is narrow; one of single figures or names is never cut.

    Args:
        title, caption: plain text.
        headings: of the columns; the first names the rows.
        rows: cells, as many as headings.
        numbers: the columns whose cells are numbers, aligned to the right; None: all but the first.
    """
    table = _table(title, caption, headings[0])
    shown = filled(rows) if rows else tuple(range(len(headings)))
    for column in shown[1:]:
        right = numbers is None or column in numbers
        words = any(" " in row[column] for row in rows)
        table.add_column(headings[column], justify="right" if right else "left", no_wrap=not words)
    for row in rows:
        table.add_row(*(markup(row[column]) for column in shown))
    return table


def _latency_title(result: Result) -> Tuple[str, str, str]:
    """(title, caption, first heading) of a sweep."""
    timed = SCOPE_WORDS.get(result.options.get("scope", ""), "")
    return f"Latency of {result_title(result)}", f"timed: {timed}; percentiles are nearest-rank", "input"
