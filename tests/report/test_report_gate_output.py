"""The verdict as table, JUnit XML, GitHub annotations and Markdown."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree

from rich.console import Console

from sr_deploy.report.gate import INCONCLUSIVE, PASS, REGRESSION, Finding, GateReport
from sr_deploy.report.gate_output import gate_table, github_annotations, junit_xml, markdown

FINDINGS = (
    Finding("latency", "144x144", REGRESSION, '+5.00 %: a|b <c> & "d"', 10.0, 10.5, 1.05, 1.04, 1.06),
    Finding("latency", "360x360", PASS, "+0.10 %", 20.0, 20.02, 1.001, 0.99, 1.01),
    Finding("p99 budget", "144x144", INCONCLUSIVE, "too few"),
)


def report(findings=FINDINGS, verdict=REGRESSION):
    return GateReport(verdict, "old.json", "new.json", "a device", "compute", "test", 3.0, 20.0, findings, ("a note",))


def test_the_table_shows_verdicts_and_reasons_at_eighty_columns():
    stream = io.StringIO()
    Console(file=stream, width=80).print(gate_table(report()))
    text = stream.getvalue()
    for wanted in ("REGRESSION: at least one bound", "INCONCLUSIVE", "10.000", "10.500", "+5.00 %", "a note", "p99"):
        assert wanted in text


def test_junit_is_xml_and_counts():
    suite = ElementTree.fromstring(junit_xml(report()).encode())
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    cases = {case.get("name"): [child.tag for child in case] for case in suite}
    assert cases["latency 144x144"] == ["failure"]
    assert cases["latency 360x360"] == ["system-out"]
    assert cases["p99 budget 144x144"] == ["skipped"]
    assert suite[0][0].get("message") == FINDINGS[0].why


def test_annotations_are_escaped():
    lines = github_annotations(report())
    assert lines[0].startswith("::error title=REGRESSION latency 144x144::+5.00 %25: a|b")
    assert lines[1] == "::warning title=INCONCLUSIVE p99 budget 144x144::too few"
    assert len(lines) == 2
    assert github_annotations(report(FINDINGS[1:2], PASS)) == ["::notice title=srdeploy gate::PASS: 1 checks"]


def test_markdown_keeps_its_columns():
    lines = [line for line in markdown(report()).splitlines() if line.startswith("|")]
    assert len(lines) == 5
    assert {line.replace("\\|", "").count("|") for line in lines} == {9}
