"""How numbers and sizes read, in the terminal and on pages alike."""

from __future__ import annotations

import math
from typing import Any, Dict, Optional, Sequence, Tuple

from sr_deploy.bench.result import Point, Result
from sr_deploy.core.contract import format_size
from sr_deploy.core.number_formats import FORMATS

#: What a sample spans, for people.
SCOPE_WORDS = {
    "compute": "compute only, transfers excluded",
    "enqueue": "until the call returns",
    "end-to-end": "upload, compute and download",
}
#: What stands where there is no value.
NONE = "–"


def precision_label(name: str) -> str:
    """A precision for people: "FP32", "FP16", "INT8", "auto"; another one as it is."""
    return {one.precision: one.label for one in FORMATS}.get(name, name)


def precision_of(point: Point) -> str:
    """What a point was computed in, as its runner says, such as "fp32"; "" where it does not say."""
    return str(point.description.get("precision") or "")


def ran_in(result: Result) -> str:
    """Precision, runtime, device and scope of a sweep: "INT8, tensorrt on NVIDIA H200, compute"."""
    worked = [point for point in result.points if point.runtime]
    precisions = dict.fromkeys(precision_label(name) for name in map(precision_of, worked) if name)
    places = dict.fromkeys(f"{point.runtime} on {point.device}" for point in worked)
    scope = str(result.options.get("scope") or "")
    return ", ".join(filter(None, (" and ".join(precisions), ", ".join(places) or "nothing ran", scope)))


def result_title(result: Result) -> str:
    """What was timed, in what and where: the title of every table and plot of a sweep."""
    return f"{result.deployment}: {ran_in(result)}"


def figures(value: float) -> str:
    """Four significant figures, never in exponent form: 0.01234, 1.234, 123.4, 12345."""
    digits = 3 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(0, digits)}f}"


def milliseconds(seconds: Optional[float]) -> str:
    """Seconds as milliseconds with four significant figures."""
    return NONE if seconds is None else figures(seconds * 1e3)


def fixed(value: Optional[float], digits: int) -> str:
    """A number with so many decimals; infinity as its sign."""
    if value is None:
        return NONE
    return f"{value:.{digits}f}" if math.isfinite(value) else "∞"


def mebibytes(count: Optional[int]) -> str:
    """Bytes as MiB with one decimal."""
    return fixed(None if count is None else count / 2**20, 1)


def megabytes(count: Optional[int]) -> str:
    """Bytes moved as MB (10⁶) with one decimal."""
    return fixed(None if count is None else count / 1e6, 1)


def filled(rows: Sequence[Sequence[object]]) -> Tuple[int, ...]:
    """The columns of a table that are shown: the first, which names the rows, and those that any row fills; all where
    none is filled.

    Args:
        rows: of equal length, one or more; a cell is a text, or (text, how it is shown).
    """
    texts = [[cell[0] if isinstance(cell, tuple) else cell for cell in row] for row in rows]
    empty = ("", NONE)
    some = tuple(column for column in range(1, len(rows[0])) if any(row[column] not in empty for row in texts))
    return (0, *(some or range(1, len(rows[0]))))


def listing_text(listing: Optional[Dict[str, Any]]) -> str:
    """An engine's layers in one sentence, from the summary of its listing (engine/listing.py); "" without one."""
    if listing is None:
        return ""
    products = ", ".join(f"{types} {count}" for types, count in listing["products"].items())
    found = f"{listing['products_found']} of {listing['products_in_graph']} products"
    found += f" ({products})" if products else ""
    moved = listing["bytes_moved"]
    ends = f"{megabytes(moved)} MB read and written" if moved is not None else "bytes unknown, as the size is not fixed"
    unread = f"; {listing['unread_lines']} lines of it could not be read" if listing["unread_lines"] else ""
    return f"{listing['kernels']} kernels, {found}, {ends}, by the {listing['source']}{unread}"


def layer_cells(layer: Dict[str, Any]) -> Sequence[str]:
    """MB read and written, kind, types, shape and what it computes, of one of ``layer_facts`` (engine/listing.py)."""
    known = layer["bytes_read"] is not None and layer["bytes_written"] is not None
    moved = layer["bytes_read"] + layer["bytes_written"] if known else None
    # A batch of one is not told.
    shape = [extent for place, extent in enumerate(layer["shape"]) if place or extent != 1]
    named = layer["products"] or layer["nodes"]
    more = f" +{len(layer['nodes']) - 1}" if len(layer["nodes"]) > 1 else ""
    computes = (named[0] + more) if named else layer["name"]
    return megabytes(moved), layer["kind"], layer["types"], "×".join("?" if e < 0 else str(e) for e in shape), computes


def profile_text(profile: Optional[Sequence[Sequence[int]]]) -> str:
    """The inputs of an engine: one size, or smallest … largest."""
    if profile is None:
        return "any"
    low, _, high = (format_size((int(size[0]), int(size[1]))) for size in profile)
    return low if low == high else f"{low} … {high}"


def doubts(point: Point) -> str:
    """What a reader must know before trusting a row of latencies; empty when there is nothing."""
    if point.failure is not None:
        return f"failed: {point.failure}"
    notes = [f"invalid, not to be used: {point.invalid}"] if point.invalid else []
    notes += [] if point.warmup_stable else ["warm-up did not settle"]
    if point.effective_samples is not None and point.median_low_s is None:
        worth = f"{len(point.samples_s)} samples tell as much as {point.effective_samples:.3g} independent"
        notes.append(f"no interval of the median: {worth}")
    notes += ["cut short by its time limit"] if point.cut_short else []
    return "; ".join(notes + ([launches_text(point)] if point.launch_bound else []))


def launches_text(point: Point) -> str:
    """Why a launch-bound point's time is the host's, and what to do where something can be done."""
    text = f"launch-bound: the host takes {milliseconds(point.enqueue_s)} ms to queue a run, so this times launches"
    graph = point.settings.get("cuda_graph")
    return text if graph is not False else text + "; time it with --cuda-graph for the kernels alone"


def half_width(point: Point) -> str:
    """Half the interval of the median in percent of it; – where there is none."""
    if point.median_low_s is None or point.median_high_s is None or not point.median_s:
        return NONE
    return fixed(50 * (point.median_high_s - point.median_low_s) / point.median_s, 2)


def rate_cells(point: Point) -> Sequence[str]:
    """Pictures per second, and output megapixels per second where the output's size is known."""
    if point.failure is not None or not point.median_s:
        return (NONE, NONE)
    rate = 1.0 / point.median_s
    return (figures(rate), figures(rate * point.output_pixels / 1e6) if point.output_pixels else NONE)


def strips_of(engine: Dict[str, Any]) -> Optional[int]:
    """The row strips an engine runs in, from the dict form of its manifest; None where it is not streamed."""
    strips = (engine.get("settings") or {}).get("strips", "1")
    return int(strips) if str(strips).isdigit() and int(strips) > 1 else None


def streaming_text(engine: Dict[str, Any]) -> str:
    """How an engine was streamed and what its builder said of other strip counts; "" where it was not."""
    strips = strips_of(engine)
    if strips is None:
        return ""
    settings = engine["settings"]
    text = f"runs in {strips} row strips"
    if str(settings.get("memory_budget_bytes", "")).isdigit():
        text += f" to stay within {mebibytes(int(settings['memory_budget_bytes']))} MiB"
    if settings.get("streaming_difference"):
        text += f"; in strips it differs by {settings['streaming_difference']}"
    if settings.get("activation_bytes_by_strips"):
        text += f"; the builder's bytes by strips: {settings['activation_bytes_by_strips']}"
    return text
