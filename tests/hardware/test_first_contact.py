"""The parts of first contact that need no GPU, for real; those that need one, against memory of the host.

That the questions are the right ones, and what the answers are, only a GPU can show.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import sr_deploy.run.tensorrt
from sr_deploy.core.errors import EnvironmentFault
from sr_deploy.core.host.machine import Gpu, this_machine
from sr_deploy.run.onnxruntime import runner_from_graph
from tests.hardware import first_contact, on_cuda, on_engines
from tests.hardware.rows import Rows, StillOpen, read_rows

SIZE = (24, 32)


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """The material of the network that ships."""
    folder = tmp_path_factory.mktemp("contact") / "material"
    first_contact.prepare(folder, quick=True)
    return folder


@pytest.fixture
def rows(tmp_path):
    return Rows(tmp_path / "rows")


def asked(rows):
    return {row.what: row for row in read_rows(rows._path)}


@pytest.mark.skipif(bool(this_machine().gpus), reason="this machine has a GPU: run the script itself")
def test_one_command_gives_one_table_and_one_file(ready, tmp_path, capsys):
    """The whole script, every part in its own process, where there is no GPU."""
    before = sorted(entry.name for entry in (first_contact.ROOT / "engines").iterdir())
    assert first_contact.main(["--material", str(ready), "--json", str(tmp_path / "found.json")]) == 0
    result = json.loads((tmp_path / "found.json").read_text("utf-8"))
    found = {row["what"]: row for row in result["rows"]}
    for settled in ("doctor", "ONNX Runtime on the CPU", "ONNX Runtime as the product opens it"):
        assert found[settled]["settled"], found[settled]
    assert found["ONNX Runtime on the CPU"]["data"]["steps"] < 0.01
    for still in ("CUDA's device 0 by PCI id", "a TensorRT for demo", "ONNX Runtime with CUDA, TF32 off"):
        assert not found[still]["settled"] and found[still]["found"].startswith("open: "), found[still]
    assert not [what for what in found if what.startswith("the rest of")], "no part died"
    printed = capsys.readouterr().out
    assert all(what in printed for what in found)
    assert result["environment"]["gpus"] == []
    assert sorted(entry.name for entry in (first_contact.ROOT / "engines").iterdir()) == before


def test_tensorrt_rtx_builds_without_a_gpu(ready, rows):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    assert {path.stem for path in (ready / "rtx").iterdir()} == {"sm80", "sm86", "sm120", "portable"}
    on_engines.rtx(rows, ready)
    found = asked(rows)
    assert found["TensorRT-RTX: build for SM86 without its GPU"].settled
    if not this_machine().gpus:
        assert found["TensorRT-RTX: load the plan sm86"].found == "open: no GPU"


def test_the_island_is_a_graph_that_a_strongly_typed_builder_takes(ready):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    from sr_deploy.engine.options import EngineOptions
    from sr_deploy.engine.tensorrt import engine_from_graph

    types = json.loads((ready / "island/nodes.json").read_text("utf-8"))
    graph = ready / "island/model.onnx"
    built = engine_from_graph("tensorrt-rtx", graph, None, ("8.6",), EngineOptions(precision="fp16", planned=types))
    assert built.precision == "fp16"


@pytest.mark.parametrize(
    ("program", "seconds", "why"),
    [
        ("pass", 30, ""),
        ("import time; time.sleep(30)", 0.5, "it took more than"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 30, "it ended with -11"),
        ("raise SystemExit('no libnvinfer')", 30, "it ended with 1: no libnvinfer"),
    ],
)
def test_a_part_that_hangs_or_dies_is_one_line(program, seconds, why):
    told = first_contact.run([sys.executable, "-c", program], seconds)
    assert told.startswith(why) and bool(told) == bool(why)


def test_what_a_dead_part_has_found_is_kept_and_time_ends(ready, tmp_path, monkeypatch):
    def dies(command, seconds):
        path = command[command.index("--rows") + 1]
        Rows(first_contact.Path(path)).look("before", lambda: "answer")
        with open(path, "a") as stream:
            stream.write('{"what": "cut')
        return "it ended with -11: no word"

    monkeypatch.setattr(first_contact, "run", dies)
    found = first_contact.ask(ready, tmp_path, 60)
    assert [row.line() for row in found[:2]] == [
        "settled  before: answer", "open     the rest of doctor: open: it ended with -11: no word",
    ]  # fmt: skip
    assert {row.found for row in first_contact.ask(ready, tmp_path, 0)} == {"open: no time is left"}


def test_all_parts_fit_into_eight_minutes_and_every_network_is_asked():
    assert first_contact.TOTAL_SECONDS == 480
    assert list(first_contact.LIMITS)[-1] == "engines" and max(first_contact.LIMITS.values()) < 480


def test_it_runs_from_a_clone_without_the_package_installed(ready, tmp_path):
    """-S and -I would hide numpy too: another folder, and a path without the project."""
    command = [sys.executable, str(first_contact.__file__), "--material", str(ready), "--seconds", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "0 settled" in done.stdout, done.stderr


class HostCuda:
    """A ``Cuda`` in the host's memory. ``fault`` names what it does wrong."""

    name = "host"

    def __init__(self, fault: str = "") -> None:
        self.fault, self.memory, self.queue = fault, {}, None

    def stream(self) -> int:
        return 0

    def allocate(self, size: int) -> int:
        if size > 1 << 40 and self.fault != "gives all":
            raise EnvironmentFault("not enough GPU memory", "more")
        self.memory[len(self.memory) + 1] = None
        return len(self.memory)

    def free(self, address: int) -> None:
        self.memory[address] = None

    def pinned(self, shape, dtype="float32"):
        return np.empty(shape, "float32" if self.fault == "one type" else dtype)

    def free_pinned(self, array) -> None:
        pass

    def to_device(self, address: int, array) -> None:
        self._do(lambda: self.memory.__setitem__(address, array.copy()))

    def to_host(self, array, address: int) -> None:
        self._do(lambda: np.copyto(array, self.memory[address] if self.fault != "loses" else 0))

    def _do(self, step) -> None:
        step() if self.queue is None or self.fault == "runs" else self.queue.append(step)

    def synchronize(self) -> None:
        pass

    def event(self, blocking: bool):
        return {"at": 0.0}

    def record(self, event) -> None:
        import time

        event["at"] = time.perf_counter()

    def wait_for(self, event) -> None:
        pass

    def seconds_between(self, start, end) -> float:
        return end["at"] - start["at"]

    def free_event(self, event) -> None:
        pass

    def capture(self, queue):
        self.queue = []
        try:
            queue()
            return list(self.queue)
        except Exception as error:
            if self.fault == "masks":
                raise EnvironmentFault("CUDA failed in cudaStreamEndCapture", "") from error
            raise
        finally:
            self.queue = None

    def launch(self, graph) -> None:
        for step in graph:
            step()

    def free_graph(self, graph) -> None:
        pass

    def close(self) -> None:
        pass


def test_the_stand_in_is_the_protocol():
    from sr_deploy.run.cuda import Cuda

    wanted = {name for name in vars(Cuda) if not name.startswith("_")}
    assert wanted <= set(dir(HostCuda))


def test_every_question_to_a_binding_has_an_answer(rows):
    on_cuda.one_binding(rows, "host", HostCuda())
    found = asked(rows)
    assert [row.what for row in found.values() if not row.settled] == ["host: an event without time"]
    assert len(found) == 8 and set(found["host: events"].data) >= {"spinning_event_ms", "blocking_host_ms"}


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("one type", "host: pinned uint8 there and back"),
        ("loses", "host: pinned float32 there and back"),
        ("runs", "host: capture, launch and free a graph"),
        ("masks", "host: a failing capture"),
        ("gives all", "host: more memory than there is"),
    ],
)
def test_a_fault_of_a_binding_is_one_open_line(rows, fault, what):
    on_cuda.one_binding(rows, "host", HostCuda(fault))
    found = asked(rows)
    assert len(found) == 8 and not found[what].settled and found["host: close"].settled


def test_pci_ids_of_cuda_and_of_nvidia_smi_are_the_same():
    assert on_cuda.pci("0000:65:00.0") == on_cuda.pci("00000000:65:00.0\n") == "0:65:00.0"
    assert on_cuda.pci("00000001:0A:00.0") == "1:0a:00.0"


def test_the_gpu_is_found_by_its_pci_id(monkeypatch):
    smi = "00000000:17:00.0, NVIDIA RTX A4000, 550.54.14\n00000000:65:00.0, NVIDIA H200, 550.54.14\n"
    monkeypatch.setattr(on_cuda, "command_output", lambda command: smi)
    monkeypatch.setattr(on_cuda, "pci_of_device_0", lambda: "0:65:00.0")
    found = on_cuda.device_0()
    assert found == {"pci": "0:65:00.0", "name": "NVIDIA H200", "driver": "550.54.14"}
    gpus = (Gpu("NVIDIA RTX A4000", "8.6", None, None),)
    monkeypatch.setattr(on_cuda, "this_machine", lambda: type("M", (), {"gpus": gpus}))
    with pytest.raises(StillOpen, match="it names NVIDIA RTX A4000, and CUDA's device 0 is NVIDIA H200"):
        on_cuda.same_gpu(found)


@pytest.mark.parametrize("wrong", [False, True])
def test_an_engine_is_built_run_and_timed(ready, rows, tmp_path, monkeypatch, wrong):
    """The judging with ONNX Runtime in TensorRT's place: its engines run here."""

    class Timed:
        """An ONNX Runtime runner that times itself, as TensorRT's does."""

        def __init__(self, path, _):
            manifest = on_engines.open_deployment(path.parents[1]).manifest
            self._own = runner_from_graph(path, manifest.contract, manifest.scale, threads=1)

        def __getattr__(self, name):
            return getattr(self._own, name)

        def timed_compute(self):
            return on_engines.host_seconds(self._own)

        def download(self):
            return self._own.download() * (0.5 if wrong else 1)

    monkeypatch.setattr(sr_deploy.run.tensorrt, "runner_from_engine", Timed)
    case = on_engines.Case(on_engines.copied(ready / "demo", tmp_path), "onnxruntime", "fp16", SIZE)
    times = on_engines.judge(rows, case, tmp_path)
    found = asked(rows)
    assert found[f"{case.name}: build"].settled
    assert found[f"{case.name}: picture"].settled is not wrong, found[f"{case.name}: picture"]
    assert times["event_ms"] > 0 and times["host_ms"] > 0
    assert times["graph_ms"] is None and "CUDA graph" in times["graph_problem"], "ONNX Runtime's runner captures none"
    assert list((ready / "demo").glob("engines/*")) == [], "nothing is written into the material"
