"""The workflow and the GitLab job for somebody else's repository, run there line by line with the real commands.

Two things stand in: ``pip``, as no index is asked, which checks that what it is told to install is what runs here; and
the process of ``srdeploy``, which hands its words to this one, where torch is imported already.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from sr_deploy import __version__
from sr_deploy.cli import main

TEMPLATES = Path(__file__).resolve().parents[2] / "engines" / "ci"
NETWORK = """import torch
def factory():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 12, 3, padding=1), torch.nn.PixelShuffle(2))
"""
CLIENT = """#!{python} -SE
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
connection.sendall(json.dumps([sys.argv[1:], os.getcwd()]).encode() + b"\\n")
code, out, err = json.loads(connection.makefile().read())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""
PIP = """#!/bin/sh
if [ "$*" != "install srdeploy[export]=={version}" ]; then echo "pip $*: not what is installed" >&2; exit 1; fi
"""


class Shell:
    """Runs lines of bash in a folder; what they call srdeploy is served by this process."""

    def __init__(self, place: Path) -> None:
        self.address = str(place / "s")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.address)
        self.listener.listen(8)
        self.listener.settimeout(0.05)
        self.bin = place / "bin"
        self.bin.mkdir()
        for name, text in (
            ("srdeploy", CLIENT.format(python=sys.executable, address=self.address)),
            ("pip", PIP.format(version=__version__)),
        ):
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)

    def run(self, lines: str, folder: Path, variables: dict) -> tuple[int, str]:
        """(exit code, stdout and stderr) of the lines in bash, ending at the first error, as a runner has it."""
        environment = {**os.environ, **variables, "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}
        with open(self.bin.parent / "log", "w+") as log:
            process = subprocess.Popen(["bash", "-eo", "pipefail", "-c", lines], cwd=folder, env=environment,
                                       stdout=log, stderr=subprocess.STDOUT)  # fmt: skip
            while process.poll() is None:
                with contextlib.suppress(socket.timeout):
                    self._serve(self.listener.accept()[0])
            log.seek(0)
            return process.returncode, log.read()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            arguments, folder = json.loads(connection.makefile().readline())
            out, err, code = io.StringIO(), io.StringIO(), 0
            before = os.getcwd()
            os.chdir(folder)
            try:
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    main(arguments)
            except SystemExit as ended:
                code = int(ended.code or 0)
            finally:
                os.chdir(before)
                sys.modules.pop("own_network", None)
            connection.sendall(json.dumps([code, out.getvalue(), err.getvalue()]).encode())


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def scratch(tmp_path):
    """A repository with a network of its own, its branch main at the server, and a shell."""
    import torch

    sys.path.insert(0, str(tmp_path))
    theirs = tmp_path / "theirs"
    (theirs / "weights").mkdir(parents=True)
    (theirs / "own_network.py").write_text(NETWORK)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 12, 3, padding=1), torch.nn.PixelShuffle(2))
    torch.save(network.state_dict(), theirs / "weights" / "net.pth")
    git(theirs, "init", "-b", "main")
    git(theirs, "add", ".")
    git(theirs, "commit", "-m", "a network")
    git(theirs, "update-ref", "refs/remotes/origin/main", "main")
    yield Shell(tmp_path), theirs
    sys.path.remove(str(tmp_path))


SMALL = {"EXPORT": "--model own_network:factory --value-range 1", "SIZES": "8"}


def steps_of(workflow, job, variables):
    """(name, lines) of the steps that a runner would run, and the paths that it would upload."""
    steps = workflow["jobs"][job]["steps"]
    lines = [(s["name"], s["run"]) for s in steps if "run" in s and not (s.get("if") and not variables.get("BUDGET"))]
    (upload,) = [s["with"]["path"] for s in steps if s.get("uses", "").startswith("actions/upload-artifact@")]
    return lines, upload.split()


def test_a_workflow_gates_a_change_in_anothers_repository(scratch):
    shell, theirs = scratch
    workflow = yaml.safe_load((TEMPLATES / "github.yml").read_text())
    summary = theirs.parent / "summary.md"
    variables = {**workflow["env"], **SMALL, "GITHUB_BASE_REF": "main", "GITHUB_STEP_SUMMARY": str(summary)}
    lines, upload = steps_of(workflow, "gate", variables)
    # A change that doubles the work many times over, so that any machine finds it.
    slow = NETWORK.replace("torch.nn.PixelShuffle(2))", "torch.nn.PixelShuffle(2), Slow())")
    slow += "class Slow(torch.nn.Module):\n    def forward(self, x):\n        for _ in range(40):\n"
    slow += "            x = torch.sin(x)\n        return x\n"
    (theirs / "own_network.py").write_text(slow)
    told = []
    for name, step in lines:
        code, log = shell.run(step, theirs, variables)
        told.append(log)
        assert code == (1 if name == "gate" else 0), log
    assert re.search(r"^::error title=REGRESSION latency 8x8::", told[-1], re.MULTILINE), told[-1]
    assert "srdeploy gate: REGRESSION" in summary.read_text()
    assert ElementTree.parse(theirs / "gate.xml").getroot().get("failures") == "1"
    assert all((theirs / name).is_file() for name in upload)


def test_a_gitlab_runner_keeps_a_baseline_and_a_budget(scratch):
    shell, theirs = scratch
    pipeline = yaml.safe_load((TEMPLATES / "gitlab.yml").read_text())
    variables = {**pipeline["variables"], **SMALL, "BUDGET": "net.toml"}
    variables["BENCH"] += " --seconds 0.3 --ci 0"
    measured = "\n".join(pipeline[".measured"]["before_script"])
    code, log = shell.run(measured + "\n" + "\n".join(pipeline["baseline"]["script"]), theirs, variables)
    assert code == 0, log
    (baseline,) = theirs.glob(pipeline["baseline"]["artifacts"]["paths"][0] + "/*/net_*_fp32_compute.json")
    assert "+ 8x8: median" in log and str(baseline.relative_to(theirs)) in log
    device = json.loads(baseline.read_text())["points"][0]["device"]
    # The same numbers again pass; a bound that nothing keeps is a regression, and the job ends there.
    for bound, wanted in ((1e6, 0), (1e-6, 1)):
        (theirs / "net.toml").write_text(f'[devices."{device}".sizes.8x8]\nmax_median_ms = {bound}\n')
        code, log = shell.run("\n".join(pipeline["latency"]["script"]), theirs, variables)
        for _ in range(3):
            # A machine that changes its speed in mid-measurement allows no verdict: what is wanted then is another one.
            if code == 5:
                assert shell.run(measured, theirs, variables)[0] == 0
                code, log = shell.run("\n".join(pipeline["latency"]["script"]), theirs, variables)
        assert code == wanted, log
        verdicts = ElementTree.parse(theirs / "budget.xml").getroot()
        assert verdicts.get("failures") == str(wanted)
    assert ElementTree.parse(theirs / "baseline.xml").getroot().get("tests") == "1"
    assert pipeline["latency"]["allow_failure"] == {"exit_codes": 5}


@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml"])
def test_the_version_is_this_one_and_every_word_is_an_option(name, srdeploy):
    text = (TEMPLATES / name).read_text()
    assert f"srdeploy[export]=={__version__}" in text
    for command in sorted(set(re.findall(r"srdeploy (\w+) ", text)) - {"that"}):
        said = srdeploy(command, "--help").out
        for line in re.findall(rf"srdeploy {command} .*(?:\\\n.*)*", text):
            assert all(option in said for option in re.findall(r"(?<= )--[a-z-]+", line.split("||")[0])), line
