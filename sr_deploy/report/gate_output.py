"""The gate's verdict for people, for CI and for a page: rich table, JUnit XML, GitHub annotations, Markdown."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional

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

    table = Table(title=f"{report.candidate} against {report.baseline}", title_justify="left", title_style="bold")
    table.add_column("judged")
    for heading in ("input", "verdict"):
        table.add_column(heading, no_wrap=True)
    for heading in ("baseline ms", "candidate ms", "change"):
        table.add_column(heading, justify="right")
    for finding in report.findings:
        cells = _cells(finding)[:3]
        table.add_row(Text(finding.what), finding.size, Text(finding.verdict, STYLES[finding.verdict]), *cells)
    table.caption = f"{report.device}, {report.scope}; {report.method}"
    table.caption_justify = "left"
    reasons = [Text(f"{_name(f)}: {f.why}", STYLES[f.verdict]) for f in report.findings]
    notes = [Text(f"note: {note}") for note in report.notes]
    verdict = Text(f"{report.verdict}: {MEANINGS[report.verdict]}", STYLES[report.verdict])
    return Group(table, *reasons, *notes, verdict)


def junit_xml(report: GateReport) -> str:
    """A test suite with one case a finding: REGRESSION is a failure, INCONCLUSIVE is skipped with its reason."""
    counts = {verdict: sum(f.verdict == verdict for f in report.findings) for verdict in STYLES}
    suite = ElementTree.Element(
        "testsuite",
        name="srdeploy gate",
        tests=str(len(report.findings)),
        failures=str(counts[REGRESSION]),
        errors="0",
        skipped=str(counts[INCONCLUSIVE]),
    )
    for finding in report.findings:
        case = ElementTree.SubElement(suite, "testcase", classname="srdeploy.gate", name=_name(finding))
        if finding.verdict == REGRESSION:
            ElementTree.SubElement(case, "failure", type=REGRESSION, message=finding.why)
        elif finding.verdict == INCONCLUSIVE:
            ElementTree.SubElement(case, "skipped", type=INCONCLUSIVE, message=finding.why)
        else:
            ElementTree.SubElement(case, "system-out").text = finding.why
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
        f"{_cell(report.candidate)} against {_cell(report.baseline)} on {_cell(report.device)}, scope {report.scope}. "
        f"A regression is slower by more than {report.threshold_percent:g} % and by more than {report.floor_us:g} µs.",
        "",
        "| judged | input | verdict | baseline ms | candidate ms | change | interval | why |",
        "|---|---|---|---:|---:|---:|---:|---|",
    ]
    for finding in report.findings:
        cells = (finding.what, finding.size, f"**{finding.verdict}**", *_cells(finding), finding.why)
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    lines += ["", f"How: {_cell(report.method)}."] + [f"Note: {_cell(note)}." for note in report.notes]
    return "\n".join(lines) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all; raises DiskFull or EnvironmentFault."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _name(finding: Finding) -> str:
    return f"{finding.what} {finding.size}".strip()


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


def _cell(text: str) -> str:
    """Text inside a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def _data(text: str) -> str:
    """Text of a workflow command, escaped as GitHub's runner reads it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """A property of a workflow command."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
