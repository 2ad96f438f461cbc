"""Names that want to be more than names, through every output: terminal, CI log, JUnit, Markdown, HTML, plots."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from rich.console import Console

from sr_deploy.bench.result import save_result
from sr_deploy.core.host.device import Finding as DoctorFinding
from sr_deploy.core.text import markdown as markdown_text
from sr_deploy.report import html
from sr_deploy.report.facts import facts_table
from sr_deploy.report.gate import INCONCLUSIVE, REGRESSION, Finding, GateReport
from sr_deploy.report.gate_output import gate_table, github_annotations, junit_xml, markdown
from sr_deploy.report.plots import latency_plot
from sr_deploy.report.table import doctor_table, engine_table, latency_table, quality_table
from tests.benchmarks.format_mutations import sweep_result

NASTY = (
    "GPU\n::error title=x::owned", "::error::owned", "a ::set-env name=X::y", "##[error]owned", "[/b]", "net[fp16]",
    "[red]x", "\x1b]0;title\x07", "\x1b[2J", "\x00\x01\x0b", "<img src=x onerror=alert(1)>", "&lt;b&gt;", "a|b\n|c|",
    "`x` **b** [l](http://x)", "$\\frac{", "a\u202eb", "\ud800", "_hidden", ":warning:", "]]>",
)  # fmt: skip


def shown(renderable) -> str:
    stream = io.StringIO()
    Console(file=stream, width=80, emoji=False).print(renderable)
    return stream.getvalue()


def harmless(text: str) -> None:
    """Nothing that a terminal or a CI log obeys: whatever breaks lines, no line is a command."""
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text), repr(text)
    assert not any(re.match(r"\s*(::|##\[)", line) for line in text.splitlines()), text
    assert not re.search(r"::(error|set-env)", text), text


def nasty_result(name: str):
    from sr_deploy.bench.result import Result
    from sr_deploy.core.schema import value_from

    raw = sweep_result()
    raw["variance"] = []
    result = value_from(Result, json.dumps(raw), "it")
    points = tuple(dataclasses.replace(p, device=name, runtime=name, failure=p.failure and name) for p in result.points)
    return dataclasses.replace(result, deployment=name, points=points)


def nasty_gate(name: str) -> GateReport:
    findings = (
        Finding(name, "8x8", REGRESSION, name, 1.0, 2.0, 2.0, 1.9, 2.1),
        Finding("latency", name, INCONCLUSIVE, name),
    )
    return GateReport(REGRESSION, name, name, name, name, name, 3.0, 20.0, findings, (name,))


@pytest.mark.parametrize("name", NASTY)
def test_tables(name):
    harmless(shown(latency_table(nasty_result(name))))
    harmless(shown(gate_table(nasty_gate(name))))
    harmless(shown(doctor_table([DoctorFinding("missing", name, name, name)])))
    harmless(shown(facts_table({"kind": name, "path": name, "notes": [name], "a": {name: name}})))
    engine = {"file": name, "precision": name, "compute_capabilities": [name], "activation_bytes": None,
              "weights_bytes": 1, "build_seconds": 1.0, "settings": {}}  # fmt: skip
    harmless(shown(engine_table([engine])))
    image = {"name": name, "psnr_y": 1.0, "ssim_y": 1.0}
    harmless(
        shown(
            quality_table(
                {
                    "images": [image],
                    "mean": {},
                    "precision": name,
                    "convention": name,
                    "ran": [{"runtime": name, "device": name, "file": name}],
                }
            )
        )
    )


def test_brackets_are_shown():
    assert "net[fp16]" in shown(latency_table(nasty_result("net[fp16]")))
    assert "[/b]" in shown(gate_table(nasty_gate("[/b]")))


@pytest.mark.parametrize("name", NASTY)
def test_junit_is_xml_with_time_and_timestamp(name):
    suite = ElementTree.fromstring(junit_xml(nasty_gate(name), "2026-05-01T12:00:00+00:00").encode())
    assert suite.get("timestamp") == "2026-05-01T12:00:00" and float(suite.get("time")) == 0.002
    assert [float(case.get("time")) for case in suite] == [0.002, 0.0]
    assert "\n" not in suite[0].get("name")


@pytest.mark.parametrize("name", NASTY)
def test_annotations_are_two_lines(name):
    lines = github_annotations(nasty_gate(name))
    assert len(lines) == 2 and all("\n" not in line and "\x1b" not in line for line in lines)
    assert lines[0].startswith("::error title=") and lines[1].startswith("::warning title=")
    assert lines[0].split("::")[1].count(":") == 0


@pytest.mark.parametrize("name", NASTY)
def test_markdown_holds_no_html_and_keeps_its_columns(name):
    text = markdown(nasty_gate(name))
    assert "<img" not in text and "\x1b" not in text and not re.search(r"[^\\]\]\(http", text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4 and {re.sub(r"\\\|", "", row).count("|") for row in rows} == {9}
    assert "\n" not in markdown_text(name)


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)


@pytest.mark.parametrize("name", NASTY)
def test_html_pieces(name):
    pieces = (
        html.paragraph(name) + html.items([name]) + html.command(name) + html.table(name, ["", name], [[name, name]])
        + html.facts([(name, name)]) + html.section(name, "x", "a") + html.details(name, "x")
        + html.image("image/png", b"", name)
    )  # fmt: skip
    parser = _Tags()
    parser.feed(pieces)
    assert parser.tags.count("img") == 1 and "b" not in parser.tags
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800]", pieces)


def test_plots_draw_dollars_and_hidden_names(tmp_path):
    for index, name in enumerate(("$\\frac{", "_hidden", "a$b$c", "\x1b[2J\n")):
        latency_plot([nasty_result(name), nasty_result("other")], tmp_path / f"{index}.svg")
        assert (tmp_path / f"{index}.svg").stat().st_size > 0


@pytest.mark.parametrize(
    "name", ["GPU\n::error ::owned", "[/b]", "<img src=x>", "\x1b]0;t\x07", "##[error]x", "net[fp16]"]
)
def test_the_gate_and_its_files(srdeploy, tmp_path, name):
    save_result(tmp_path / "r.json", nasty_result(name))
    files = ("--junit", tmp_path / "j.xml", "--markdown", tmp_path / "m.md")
    outcome = srdeploy("gate", tmp_path / "r.json", tmp_path / "r.json", *files, "--github")
    assert outcome.code in (0, 1, 5), outcome.err
    commands = [line for line in (outcome.out + outcome.err).splitlines() if line.startswith("::")]
    assert all(line.startswith(("::warning title=INCONCLUSIVE", "::notice title=srdeploy")) for line in commands)
    harmless("\n".join(line for line in (outcome.out + outcome.err).splitlines() if line not in commands))
    ElementTree.fromstring((tmp_path / "j.xml").read_bytes())
    assert "<img" not in (tmp_path / "m.md").read_text()


def test_an_error_names_a_file_and_commands_nobody(srdeploy, tmp_path):
    path = tmp_path / "a\n::error ::owned\x1b[2J.json"
    path.write_text('{"schema": 1, "deployment": "\\u001b]0;x"}')
    outcome = srdeploy("gate", path, path)
    assert outcome.code == 4
    harmless(outcome.out + outcome.err)
