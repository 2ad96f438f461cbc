"""A sweep saves as it goes, resumes what still holds, and survives a size that fails."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import numpy as np
import pytest

from sr_deploy.bench.options import BenchOptions
from sr_deploy.bench.result import load_result
from sr_deploy.bench.sweep import Job, sweep
from sr_deploy.core.errors import BadImage, ForeignEngine, MissingPackage, UsageError

QUICK = BenchOptions(warmup_seconds=0.0, min_seconds=0.0, min_iterations=3, max_iterations=3)
ENVIRONMENT = {"cpu": "x", "memory_available_bytes": 5, "packages": {"numpy": "1"}, "gpus": ()}


class Network:
    """Takes 1 ms per input row on its own clock. ``trouble`` gives the error of a size."""

    runtime = "fake"
    device = "no device"
    asynchronous = device_events = False
    io_dtype = "float32"

    def __init__(self, trouble=None, threads=1):
        self.trouble, self.threads, self.now, self.computed, self.closed = trouble or {}, threads, 0.0, [], 0

    def clock(self):
        return self.now

    def prepare(self, size):
        self.size = size
        if size in self.trouble:
            raise self.trouble[size]

    def upload(self, lr):
        self.lr = lr

    def compute(self):
        self.computed.append(self.size)

    def synchronize(self):
        self.now += 0.001 * self.size[0]

    def download(self):
        return np.zeros((1, 3, 2 * self.size[0], 2 * self.size[1]), np.float32)

    def describe(self):
        return {"threads": self.threads, "shape": (1, 3)}

    def close(self):
        self.closed += 1


A, B = "a" * 64, "b" * 64


def jobs(network, *edges, sha256=A):
    return [Job((edge, edge), sha256, lambda: contextlib.nullcontext(network)) for edge in edges]


def measured(network, *edges, save_to=None, options=QUICK, environment=ENVIRONMENT, sha256=A, **more):
    network.computed.clear()
    return sweep(
        jobs(network, *edges, sha256=sha256), options, "net", environment, save_to, clock=network.clock, **more
    )


def test_points_in_order_with_their_facts():
    network, seen = Network(), []
    result = measured(network, 8, 16, on_point=lambda point, kept: seen.append((point.size, kept)))
    assert [p.size for p in result.points] == [(8, 8), (16, 16)]
    assert [p.median_s for p in result.points] == pytest.approx([0.008, 0.016])
    assert [len(p.samples_s) for p in result.points] == [3, 3]
    assert result.points[0].output_pixels == 256
    assert result.points[0].sha256 == A
    assert seen == [((8, 8), False), ((16, 16), False)]
    assert result.options == json.loads(json.dumps(dataclasses.asdict(QUICK)))
    assert network.closed == 0


def test_every_point_is_saved_when_it_exists(tmp_path):
    path, network = tmp_path / "r.json", Network()
    sizes = []
    measured(network, 8, 16, 4, save_to=path, on_point=lambda p, kept: sizes.append(len(load_result(path).points)))
    assert sizes == [1, 2, 3]


def test_interrupted_sweep_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "r.json"
    network = Network({(16, 16): KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        measured(network, 8, 16, save_to=path)
    again, seen = Network(), []
    result = measured(again, 8, 16, save_to=path, on_point=lambda p, kept: seen.append(kept))
    assert seen == [True, False]
    assert set(again.computed) == {(16, 16)}
    assert load_result(path) == result
    assert measured(again, 8, 16, save_to=path) == result
    assert again.computed == []


def test_free_memory_does_not_hinder_resuming_but_asking_anew_measures_anew(tmp_path):
    path, network = tmp_path / "r.json", Network()
    measured(network, 8, save_to=path)
    measured(network, 8, save_to=path, environment={**ENVIRONMENT, "memory_available_bytes": 6})
    assert network.computed == []
    measured(network, 8, save_to=path, resume=False)
    assert network.computed


def test_sizes_of_the_file_that_are_not_asked_for_stay(tmp_path):
    path, network = tmp_path / "r.json", Network()
    measured(network, 8, 16, save_to=path)
    result = measured(network, 4, save_to=path)
    assert [p.size for p in result.points] == [(8, 8), (16, 16), (4, 4)]


@pytest.mark.parametrize("change", ["engine", "threads", "device"])
def test_point_of_something_else_is_measured_again(tmp_path, change):
    path = tmp_path / "r.json"
    measured(Network(), 8, save_to=path)
    network = Network(threads=2 if change == "threads" else 1)
    if change == "device":
        network.device = "another"
    measured(network, 8, save_to=path, sha256=B if change == "engine" else A)
    assert network.computed
    assert len(load_result(path).points) == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"options": dataclasses.replace(QUICK, scope="end-to-end")}, "options.scope was 'compute'"),
        ({"environment": {**ENVIRONMENT, "packages": {"numpy": "2"}}}, "packages.numpy was '1' and is '2'"),
    ],
)
def test_another_sweep_is_neither_continued_nor_replaced(tmp_path, change, word):
    path = tmp_path / "r.json"
    measured(Network(), 8, save_to=path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=word) as caught:
        measured(Network(), 16, save_to=path, **change)
    assert "--resume" in caught.value.todo
    assert path.read_bytes() == before
    assert [p.size for p in measured(Network(), 16, save_to=path, resume=False, **change).points] == [(16, 16)]


class OutOfMemoryError(RuntimeError):
    """As PyTorch names its own."""


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (BadImage("an input of 16x16 is too large", "at most 8x8"), "too large"),
        (ForeignEngine("built for SM86, this is SM90"), "SM86"),
        (MemoryError(), "out of memory: MemoryError"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "Tried to allocate"),
        (RuntimeError("[ONNXRuntimeError] : Failed to allocate memory for a buffer of size 9"), "out of memory"),
    ],
)
def test_size_that_fails_becomes_a_point_and_the_sweep_goes_on(tmp_path, error, word):
    path = tmp_path / "r.json"
    result = measured(Network({(16, 16): error}), 8, 16, 4, save_to=path)
    assert [p.failure is None for p in result.points] == [True, False, True]
    failed = result.points[1]
    assert word in failed.failure
    assert (failed.samples_s, failed.median_s, failed.runtime) == ((), None, "fake")
    assert load_result(path) == result
    network = Network()
    assert measured(network, 8, 16, 4, save_to=path).points[1].failure is None
    assert set(network.computed) == {(16, 16)}


def test_engine_that_cannot_be_opened_is_a_failure_of_its_size():
    def refuse():
        raise ForeignEngine("built for another GPU")

    network = Network()
    both = [Job((8, 8), A, refuse), *jobs(network, 16)]
    result = sweep(both, QUICK, "net", ENVIRONMENT, clock=network.clock)
    assert [p.failure for p in result.points] == ["built for another GPU", None]


def test_runner_of_one_size_is_closed_even_when_it_fails():
    good, bad = Network(), Network({(16, 16): MemoryError()})
    both = [Job((8, 8), A, lambda: contextlib.closing(good)), Job((16, 16), B, lambda: contextlib.closing(bad))]
    sweep(both, QUICK, "net", ENVIRONMENT, clock=good.clock)
    assert (good.closed, bad.closed) == (1, 1)


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), MissingPackage("no onnxruntime")])
def test_what_is_no_matter_of_the_size_is_not_swallowed(error):
    with pytest.raises(type(error)):
        measured(Network({(8, 8): error}), 8)


def test_no_size_and_a_size_twice_are_refused():
    with pytest.raises(UsageError, match="no size"):
        measured(Network())
    with pytest.raises(UsageError, match="twice"):
        measured(Network(), 8, 8)
