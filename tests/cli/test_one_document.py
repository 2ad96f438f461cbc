"""With --json, stdout is one JSON document: also of a dry run, of a failure and of a command line that is refused."""

from __future__ import annotations

import json

import pytest

from tests.cli.test_gate_command import written
from tests.test_commands import DEMO


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("build", "net", "--json", "--no-such-option"), "--no-such-option"),
        (("pack", "--json"), "deployment"),
        (("qat", "net", "--json", "--images", "x", "--steps", "many"), "--steps"),
        (("gate", "a", "b", "--json", "--sizes", "64"), "--sizes"),
        (("no-such-command", "--json"), "no-such-command"),
        (("verify", "net", "--json"), "verify needs pictures"),
    ],
)
def test_a_refused_command_line_is_json_with_its_reason(srdeploy, arguments, says):
    outcome = srdeploy(*arguments)
    failure = json.loads(outcome.out)
    assert (outcome.code, failure["exit_code"]) == (2, 2)
    assert says in failure["error"].lower() and failure["next"] == f"srdeploy {arguments[0]} --help"


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (("build", "--size", "144"), "model.onnx → engines/onnxruntime_144x144.onnx"),
        (("pack", "-o", "x.srd", "--golden-size", "144"), "golden:  144x144 with model.onnx"),
    ],
)
def test_a_dry_run_is_json_too(srdeploy, tmp_path, command, line):
    assert srdeploy("export", DEMO, "-o", tmp_path / "net").code == 0
    outcome = srdeploy(command[0], tmp_path / "net", *command[1:], "--dry-run", "--json")
    assert outcome.code == 0 and line in json.loads(outcome.out)["would"]


def test_gate_prints_one_document_where_a_file_of_it_cannot_be_written(srdeploy, tmp_path):
    old = written(tmp_path / "old.json", 0.01)
    outcome = srdeploy("gate", old, old, "--json", "--junit", old / "x.xml")
    assert outcome.code == 3 and json.loads(outcome.out)["exit_code"] == 3


def test_an_updated_baseline_is_json_too(srdeploy, tmp_path):
    new, folder = written(tmp_path / "new.json", 0.01), tmp_path / "baselines"
    outcome = srdeploy("gate", new, "--update-baseline", "--baselines", folder, "--json")
    target = folder / "amd-epyc" / "net_onnxruntime_fp32_compute.json"
    assert outcome.code == 0 and json.loads(outcome.out)["baseline"] == str(target)
