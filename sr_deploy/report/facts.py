"""Facts by name as a table for the terminal, each figure with its unit: what ``inspect`` and ``calibrate`` show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Sequence, Tuple

from sr_deploy.core.contract import format_size
from sr_deploy.core.quality.metrics import METRICS
from sr_deploy.core.text import decibels_lost, markup, markup_lines
from sr_deploy.report.table import facts_frame

if TYPE_CHECKING:
    from rich.table import Table

#: Facts whose parts are named by others (tensors, files, operators, ports of a graph): shown letter for letter.
NAMED_BY_OTHERS = (
    "keys", "inputs", "outputs", "operators", "streaming", "files", "proofs", "rewrite", "plans", "gave_up", "islands",
    "pinned_fp32", "widths", "tools",
)  # fmt: skip
#: Facts all of whose parts are figures of one unit.
PARTS: Mapping[str, str] = {"proofs": "of 255", "files": "bytes", "macs_share": "%"}
#: How the name of a figure ends → its unit; the first that fits counts. Counts are named by what is counted.
UNITS: Tuple[Tuple[str, str], ...] = (
    *((metric.key, metric.unit) for metric in METRICS),
    *((f"{metric.key}_float32", metric.unit) for metric in METRICS),
    ("macs_before", "multiply-accumulates a pixel"),
    ("macs_after", "multiply-accumulates a pixel"),
    ("macs", "multiply-accumulates"),
    ("bytes", "bytes"),
    ("bytes_moved", "bytes"),
    ("seconds", "s"),
    ("_db", "dB"),
    ("share", "%"),
    ("shift", "of 255"),
    ("structure", "of 255"),
    ("proved", "of 255"),
    ("error", "of the largest value"),
    ("error_before", "of the largest value"),
    ("_float32", "of the largest value"),
    ("_float64", "of the largest value"),
    ("halo", "px"),
    ("minimum", "px"),
    ("multiple", "px"),
    ("side", "px"),
)
#: Facts that are pairs, before and after.
_BEFORE_AFTER = ("parameters", "macs", "widths")
#: Words at the end of a name that its unit says already.
_SAID = {"bytes": "_bytes", "s": "_seconds", "dB": "_db"}


def facts_table(facts: Dict[str, Any]) -> Table:
    """Facts by name, one row each; nested facts are indented, empty ones left out.

    Args:
        facts: JSON-able; ``kind`` and ``path`` become the title.
    """
    shown = {key: value for key, value in facts.items() if key not in ("kind", "path", "schema")}
    table = facts_frame(f"{facts.get('kind', '')} {facts.get('path', '')}".strip())
    for name, value in _flattened(shown):
        table.add_row(markup(name), markup_lines(value))
    return table


def _flattened(facts: Mapping[str, Any], depth: int = 0, under: str = "") -> List[Tuple[str, str]]:
    """Rows of nested facts: a dict becomes a heading and indented rows, a list of dicts one such block each.

    Args:
        facts: by name.
        depth: how far the rows are indented.
        under: the name of the fact that these belong to.
    """
    rows: List[Tuple[str, str]] = []
    for key, value in facts.items():
        if value is None or (isinstance(value, (dict, list, tuple, str)) and not value):
            continue
        unit = unit_of(key, under)
        name = "  " * depth + _name(key, unit, under)
        if isinstance(value, dict):
            rows += [(name, ""), *_flattened(value, depth + 1, key)]
        elif isinstance(value, (list, tuple)) and isinstance(value[0], dict):
            if "was" in value[0]:
                rows.append((name, _blocks(value)))
                continue
            for index, entry in enumerate(value):
                rows += [(f"{name} {index + 1}", ""), *_flattened(entry, depth + 1, key)]
        else:
            rows.append((name, _with_unit(under if under in _BEFORE_AFTER else key, value, unit)))
    return rows


def unit_of(key: str, under: str = "") -> str:
    """The unit of the figures of a fact, "" of a count; ``under`` is the fact that it belongs to."""
    if under in PARTS:
        return PARTS[under]
    return "" if under in NAMED_BY_OTHERS else next((unit for end, unit in UNITS if key.endswith(end)), "")


def _name(key: str, unit: str, under: str) -> str:
    if under in NAMED_BY_OTHERS:
        return key
    said = _SAID.get(unit, "")
    return (key[: -len(said)] if said and key.endswith(said) else key).replace("_", " ")


def _blocks(blocks: Sequence[Mapping[str, Any]]) -> str:
    """Blocks that were folded or left: those alike in one line, with their number and the largest error."""
    alike: Dict[str, List[float]] = {}
    for block in blocks:
        before, after, error = (block.get(key) for key in ("macs_before", "macs_after", "error_float64"))
        text = f"{block['was']}: {block['reason']}" if "reason" in block else f"{block['was']} → {block['became']}"
        if before is not None and after is not None:
            text += f", {before:,} → {after:,} multiply-accumulates a pixel"
        alike.setdefault(text, []).append(0.0 if error is None else error)
    return "\n".join(
        f"{len(errors)} × {text}" + (f", off by {max(errors):.1e} of the largest value" if any(errors) else "")
        for text, errors in alike.items()
    )


def _with_unit(key: str, value: Any, unit: str) -> str:
    """One fact in words: a figure with its unit."""
    if key == "value_range" and isinstance(value, (int, float)):
        return f"0…{value:g}"
    if isinstance(value, str) and value.isdigit() and unit:
        value = int(value)  # settings are texts
    figures = value if isinstance(value, (list, tuple)) else [value]
    if not unit or any(isinstance(one, (bool, str)) for one in figures):
        return _fact_text(key, value)
    if unit == "dB" and ("loss" in key or "lost" in key):
        return decibels_lost(value)
    if unit == "%":
        return ", ".join(f"{100 * one:.4g} %" for one in figures)
    return f"{_fact_text(key, value)} {unit}"


def _fact_text(key: str, value: Any) -> str:
    """One value in words: thousands apart, sizes as HxW, sentences on lines of their own."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1e6 else f"{value:,.6g}"
    if isinstance(value, (list, tuple)):
        return _list_text(key, value)
    return str(value)


def _list_text(key: str, value: Sequence[Any]) -> str:
    if len(value) == 2 and "size" in key and all(isinstance(edge, int) for edge in value):
        return format_size((value[0], value[1]))
    if key in _BEFORE_AFTER:
        return " → ".join(_fact_text("", entry) for entry in value)
    # A profile is three sizes, and what was folded was tried at several.
    sizes = key in ("profile", "sizes")
    words = [_fact_text("size" if sizes else "", entry) for entry in value]
    return "\n".join(words) if any(" " in word for word in words) else ", ".join(words)
