"""A sweep that is killed, that another one runs into, or that finds the disk full: real processes, real signals."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

from sr_deploy.bench.lock import locked_device, locked_file
from sr_deploy.bench.result import load_result
from sr_deploy.core.errors import EnvironmentFault

DEADLINE = 120.0


@pytest.fixture
def net(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "net")
    return tmp_path / "net"


def start(*arguments, **more):
    command = [sys.executable, "-m", "sr_deploy.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen(command, **{**pipes, **more})


def wait_for(what, process=None):
    end = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < end, "it never came"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


def points_in(file):
    return len(load_result(file).points) if file.exists() else 0


SLOW = ("--seconds", 0.8, "--ci", 0, "--threads", 1, "--backend", "onnxruntime")


def test_kill_9_loses_the_running_point_only(net, srdeploy):
    file = net / "results" / "bench_onnxruntime_fp32_compute.json"
    process = start("bench", net, "--size", "16,20,24", *SLOW)
    wait_for(lambda: points_in(file) == 1, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = load_result(file).points
    assert [point.size for point in kept] == [(16, 16)] and len(kept[0].samples_s) >= 10
    outcome = srdeploy("bench", net, "--size", "16,20,24", *SLOW, "--resume")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("kept from the earlier sweep") == 1
    points = load_result(file).points
    assert [point.size for point in points] == [(16, 16), (20, 20), (24, 24)]
    assert points[0] == kept[0]
    assert not [path for path in file.parent.iterdir() if path.name.startswith(".") and path.suffix != ".lock"]


def test_kill_9_of_repeated_processes_ends_the_child_too(net):
    folder = net / "results" / "bench_onnxruntime_fp32_compute"
    process = start("bench", net, "--size", "16,20", "--builds", 2, *SLOW)
    file = folder / "build1_process1.json"
    wait_for(lambda: points_in(file) == 1, process)
    holder = json.loads((folder / ".build1_process1.json.lock").read_text())["pid"]
    process.send_signal(signal.SIGKILL)
    process.communicate()

    def ended():
        try:
            with open(f"/proc/{holder}/stat") as stat:
                return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
        except FileNotFoundError:
            return True

    wait_for(ended)
    assert points_in(file) >= 1
    done = start("bench", net, "--size", "16,20", "--builds", 2, *SLOW, "--resume")
    _, said = done.communicate()
    assert done.returncode == 0, said
    result = load_result(net / "results" / "bench_onnxruntime_fp32_compute.json")
    assert [point.size for point in result.points] == [(16, 16), (20, 20)]
    assert [table["builds"] for table in result.variance] == [2, 2]
    assert all(table["run_s"] > 0 and table["process_s"] is None for table in result.variance)


def test_two_sweeps_into_one_file_do_not_mix(net, srdeploy):
    file = net / "results" / "bench_onnxruntime_fp32_compute.json"
    first = start("bench", net, "--size", "16,20", *SLOW)
    lock = file.with_name(f".{file.name}.lock")
    wait_for(lambda: lock.exists() and lock.stat().st_size > 0, first)
    second = srdeploy("bench", net, "--size", "24", *SLOW)
    assert second.code == 3
    assert f"process {first.pid} of" in second.err and "--size 16,20" in second.err
    assert "Traceback" not in second.err
    _, said = first.communicate()
    assert first.returncode == 0, said
    assert [point.size for point in load_result(file).points] == [(16, 16), (20, 20)]
    assert srdeploy("bench", net, "--size", "24", *SLOW).code == 0


def test_full_disk_is_an_error_and_the_file_stays_whole(net, srdeploy):
    """The kernel itself refuses the write: no file of that process may pass 12 kB."""
    file = net / "results" / "bench_onnxruntime_fp32_compute.json"
    few = ("--threads", 1, "--backend", "onnxruntime", "--runs", 10)
    assert srdeploy("bench", net, "--size", "16", *few).code == 0
    before = file.read_bytes()
    assert len(before) < 12_000

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))

    many = ("--threads", 1, "--backend", "onnxruntime", "--runs", 2000, "--max-seconds", 60)
    process = start("bench", net, "--size", "16", *many, preexec_fn=limit)
    _, said = process.communicate()
    assert process.returncode == 3, said
    assert "no space left" in said and str(file.name) in said and "Traceback" not in said
    assert file.read_bytes() == before
    assert not list(file.parent.glob(".*.json")), "a half-written file was left"


def test_lock_names_its_holder_and_ends_with_the_block(tmp_path):
    with locked_file(tmp_path / "r.json"):
        words = rf"r\.json is being written by process {os.getpid()} of"
        with pytest.raises(EnvironmentFault, match=words), locked_file(tmp_path / "r.json"):
            pass
        with locked_file(tmp_path / "other.json"):
            pass
    with locked_file(tmp_path / "r.json"):
        pass


def test_device_lock_waits(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    code = (
        "import sys, time\n"
        "from sr_deploy.bench.lock import locked_device\n"
        "with locked_device('GPU 0'):\n"
        "    print('in', flush=True); time.sleep(0.5); print(time.monotonic(), flush=True)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert holder.stdout.readline() == "in\n"
    with locked_device("GPU 0"):
        entered = time.monotonic()
    assert entered >= float(holder.communicate()[0])
