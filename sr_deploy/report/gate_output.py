"""The gate's verdict for people, for CI and for a page: rich table, JUnit XML, GitHub annotations, Markdown."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional

from sr_deploy.bench.result import now_utc
from sr_deploy.core import text
from sr_deploy.core.artifact import atomic_file
from sr_deploy.report.gate import INCONCLUSIVE, PASS, REGRESSION, Finding, GateReport

if TYPE_CHECKING:
    from rich.console import Group

STYLES = {PASS: "green", REGRESSION: "bold red", INCONCLUSIVE: "yellow"}
EXIT_CODES = {PASS: 0, REGRESSION: 1, INCONCLUSIVE: 5}
MEANINGS = {
    PASS: "nothing is slower, over budget or below a quality floor",
    REGRESSION: "at least one bound is broken, and chance is ruled out",
    INCONCLUSIVE: "the measurement does not allow a verdict",
}


def gate_table(report: GateReport) -> Group:
    """One row a finding, then the reasons, then the verdict."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title = text.markup(f"{report.candidate} against {report.baseline}")
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("judged")
    for heading in ("input", "verdict"):
        table.add_column(heading, no_wrap=True)
    for heading in ("baseline ms", "candidate ms", "change"):
        table.add_column(heading, justify="right")
    for finding in report.findings:
        cells = _cells(finding)[:3]
        judged = (text.markup(finding.what), text.markup(finding.size))
        table.add_row(*judged, Text(finding.verdict, STYLES[finding.verdict]), *cells)
    table.caption = text.markup(f"{report.device}, {report.scope}; {report.method}")
    table.caption_justify = "left"
    reasons = [Text(text.log_line(f"{_name(f)}: {f.why}"), STYLES[f.verdict]) for f in report.findings]
    notes = [Text(text.log_line(f"note: {note}")) for note in report.notes]
    verdict = Text(f"{report.verdict}: {MEANINGS[report.verdict]}", STYLES[report.verdict])
    return Group(table, *reasons, *notes, verdict)


def junit_xml(report: GateReport, when: Optional[str] = None) -> str:
    """A test suite with one case a finding: REGRESSION is a failure, INCONCLUSIVE is skipped with its reason.

    ``time`` is the candidate's median in seconds, which a CI draws over builds; 0 for what is no latency.

    Args:
        report: from the gate.
        when: of the suite, ISO 8601; None: now.
    """
    counts = {verdict: sum(f.verdict == verdict for f in report.findings) for verdict in STYLES}
    suite = ElementTree.Element(
        "testsuite",
        name="srdeploy gate",
        tests=str(len(report.findings)),
        failures=str(counts[REGRESSION]),
        errors="0",
        skipped=str(counts[INCONCLUSIVE]),
        time=_seconds(sum(finding.candidate_ms or 0.0 for finding in report.findings)),
        timestamp=(when or now_utc())[: len("2026-05-01T12:00:00")],
    )
    for finding in report.findings:
        # ElementTree escapes markup; what XML cannot hold at all is taken out here.
        name, why = text.plain(_name(finding)), text.plain(finding.why)
        time = _seconds(finding.candidate_ms or 0.0)
        case = ElementTree.SubElement(suite, "testcase", classname="srdeploy.gate", name=name, time=time)
        if finding.verdict == REGRESSION:
            ElementTree.SubElement(case, "failure", type=REGRESSION, message=why)
        elif finding.verdict == INCONCLUSIVE:
            ElementTree.SubElement(case, "skipped", type=INCONCLUSIVE, message=why)
        else:
            ElementTree.SubElement(case, "system-out").text = why
    body = ElementTree.tostring(suite, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def github_annotations(report: GateReport) -> List[str]:
    """Workflow commands: an error for each REGRESSION, a warning for each INCONCLUSIVE, one notice for a PASS."""
    levels = {REGRESSION: "error", INCONCLUSIVE: "warning"}
    lines = [
        f"::{levels[f.verdict]} title={_property(f'{f.verdict} {_name(f)}')}::{_data(f.why)}"
        for f in report.findings
        if f.verdict in levels
    ]
    if report.verdict == PASS:
        lines.append(f"::notice title=srdeploy gate::{_data(f'PASS: {len(report.findings)} checks')}")
    return lines


def markdown(report: GateReport) -> str:
    """A summary for a pull request."""
    lines = [
        f"## srdeploy gate: {report.verdict}",
        "",
        f"{_cell(report.candidate)} against {_cell(report.baseline)} on {_cell(report.device)}, "
        f"scope {_cell(report.scope)}.{_limit(report)}",
        "",
        "| judged | input | verdict | baseline ms | candidate ms | change | interval | why |",
        "|---|---|---|---:|---:|---:|---:|---|",
    ]
    for finding in report.findings:
        judged = (_cell(finding.what), _cell(finding.size), f"**{finding.verdict}**")
        lines.append("| " + " | ".join((*judged, *_cells(finding), _cell(finding.why))) + " |")
    lines += ["", f"How: {_cell(report.method)}."] + [f"Note: {_cell(note)}." for note in report.notes]
    return "\n".join(lines) + "\n"


def write_text(path: Path, content: str) -> None:
    """Write a file, whole or not at all; raises DiskFull or EnvironmentFault."""
    with atomic_file(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def _name(finding: Finding) -> str:
    return f"{finding.what} {finding.size}".strip()


def _limit(report: GateReport) -> str:
    """What a regression is, where two were compared."""
    if not any(finding.what == "latency" for finding in report.findings):
        return ""
    limits = f"more than {report.threshold_percent:g} % and by more than {report.floor_us:g} µs"
    return f" A regression is slower by {limits}."


def _cells(finding: Finding) -> List[str]:
    change = "–" if finding.ratio is None else _percent(finding.ratio)
    bounds = "–"
    if finding.low is not None and finding.high is not None:
        bounds = f"{_percent(finding.low)} … {_percent(finding.high)}"
    return [_ms(finding.baseline_ms), _ms(finding.candidate_ms), change, bounds]


def _ms(value: Optional[float]) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.2f} %"


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1e3:.6f}"


def _cell(told: str) -> str:
    """Text of others inside Markdown. Signs of figures need no escape, and stay readable where nothing renders them."""
    return text.markdown(told).replace("\\+", "+").replace("\\(", "(").replace("\\)", ")")


def _data(told: str) -> str:
    """Text of a workflow command, escaped as GitHub's runner reads it."""
    return text.plain(told).replace("%", "%25")


def _property(told: str) -> str:
    """A property of a workflow command."""
    return _data(told).replace(":", "%3A").replace(",", "%2C")
