"""One suite that every runtime runs: the same network must give the same picture, whatever was done before."""

from __future__ import annotations

import contextlib
import sys

import numpy as np
import pytest
import torch

from sr_deploy.core.errors import BadInput, EnvironmentFault, UsageError
from sr_deploy.core.host.machine import this_machine
from sr_deploy.core.media.sample import sample_input
from sr_deploy.core.tolerance import GRAPH_FP32, largest_difference
from sr_deploy.engine.flavour import flavours, logger_of
from sr_deploy.engine.manifest import open_engine
from sr_deploy.run.base import upscale
from tests.run.standin_bindings import BINDINGS, install
from tests.run.standin_driver import Driver
from tests.run.standin_tensorrt import engine_file, running_tensorrt
from tests.small_network import CONTRACT, SCALE, small_network

#: Even, odd, mixed, one pixel wide, one pixel high, one pixel, long.
SIZES = ((8, 10), (9, 11), (8, 11), (9, 1), (1, 9), (1, 1), (3, 40))
LARGEST = (64, 64)


def torch_runner(graphs, folder):
    from sr_deploy.run.torch import TorchRunner

    return TorchRunner(small_network())


def torch_cuda_runner(graphs, folder):
    from sr_deploy.run.torch import TorchRunner

    try:
        return TorchRunner(small_network(), "cuda")
    except EnvironmentFault as fault:
        pytest.skip(fault.found)


def onnxruntime_graph_runner(graphs, folder):
    from sr_deploy.run.onnxruntime import runner_from_graph

    return runner_from_graph(graphs.dynamic, CONTRACT, SCALE)


def onnxruntime_engine_runner(graphs, folder):
    from sr_deploy.engine.onnxruntime import engine_from_graph
    from sr_deploy.run.onnxruntime import runner_from_graph

    return runner_from_graph(engine_from_graph(graphs.dynamic, folder, CONTRACT, SCALE), CONTRACT, SCALE)


def tensorrt_runner(flavour):
    def make(graphs, folder):
        from sr_deploy.engine.built import write_engine
        from sr_deploy.engine.tensorrt import engine_from_graph
        from sr_deploy.run.tensorrt import runner_from_engine

        if flavour not in [found.name for found in flavours()]:
            pytest.skip(f"{flavour} is not installed")
        if not this_machine().gpus:
            pytest.skip(f"no NVIDIA GPU: {flavour} engines cannot run here")
        built = engine_from_graph(flavour, graphs.dynamic, ((1, 1), (16, 16), LARGEST))
        manifest = write_engine(built, folder, graphs.dynamic, CONTRACT, SCALE)
        return runner_from_engine(folder / manifest.file, manifest)

    return make


def stand_in_runner(binding):
    """The TensorRT runner on a device of host memory, through the real class of one CUDA binding."""

    def make(graphs, folder, monkeypatch):
        from sr_deploy.run.tensorrt import runner_from_engine

        driver = Driver()
        install(monkeypatch, binding, driver)
        monkeypatch.setitem(sys.modules, "tensorrt", running_tensorrt(driver))
        logger_of.cache_clear()
        engine = engine_file(graphs.dynamic, folder)
        runner = runner_from_engine(engine, open_engine(engine))
        assert runner.describe()["provider"] == binding.split()[0]
        return runner, driver

    return make


RUNTIMES = {
    "torch": torch_runner,
    "torch-cuda": torch_cuda_runner,
    "onnxruntime": onnxruntime_graph_runner,
    "onnxruntime-engine": onnxruntime_engine_runner,
    "tensorrt": tensorrt_runner("tensorrt"),
    "tensorrt-rtx": tensorrt_runner("tensorrt-rtx"),
}


STAND_INS = {f"tensorrt on a stand-in of {binding}": stand_in_runner(binding) for binding in BINDINGS}


@pytest.fixture(params=[*RUNTIMES, *STAND_INS])
def runner(request, graphs, tmp_path, monkeypatch):
    if request.param in RUNTIMES:
        with contextlib.closing(RUNTIMES[request.param](graphs, tmp_path)) as opened:
            yield opened
        return
    opened, driver = STAND_INS[request.param](graphs, tmp_path, monkeypatch)
    with contextlib.closing(opened):
        yield opened
    logger_of.cache_clear()
    assert not driver.leaks()


def expected(lr: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return small_network()(torch.from_numpy(lr)).numpy()


def steps(a: np.ndarray, b: np.ndarray) -> float:
    return largest_difference(a, b, CONTRACT.value_range)


def test_every_size_matches_the_network(runner):
    for size in SIZES:
        lr = sample_input(size, CONTRACT.value_range)
        sr = upscale(runner, lr)
        assert sr.shape == (1, 3, SCALE * size[0], SCALE * size[1]) and sr.dtype == np.float32
        assert sr.flags["C_CONTIGUOUS"]
        assert steps(sr, expected(lr)) <= GRAPH_FP32.steps, size
        assert sr.min() > 0.05 and sr.max() < 0.95, "the clamp would hide a difference"


def test_results_do_not_depend_on_what_ran_before(runner):
    first = sample_input((9, 11), 1.0, seed=1)
    alone = upscale(runner, first)
    for size in SIZES:
        upscale(runner, sample_input(size, 1.0, seed=2))
    assert np.array_equal(upscale(runner, first), alone)


def test_a_new_input_of_the_prepared_size_replaces_the_old_one(runner):
    one, two = sample_input((8, 10), 1.0, seed=3), sample_input((8, 10), 1.0, seed=4)
    runner.prepare((8, 10))
    runner.upload(one)
    runner.compute()
    result_one = runner.download()
    kept = result_one.copy()
    runner.upload(two)
    runner.compute()
    assert steps(runner.download(), expected(two)) <= GRAPH_FP32.steps
    assert np.array_equal(result_one, kept), "download must give a new array"


def test_the_caller_may_reuse_its_array(runner):
    lr = sample_input((8, 10), 1.0)
    wanted = expected(lr)
    runner.prepare((8, 10))
    runner.upload(lr)
    lr[:] = 0
    runner.compute()
    assert steps(runner.download(), wanted) <= GRAPH_FP32.steps


def test_many_computes_on_one_upload(runner):
    lr = sample_input((9, 11), 1.0)
    runner.prepare((9, 11))
    runner.upload(lr)
    for _ in range(5):
        runner.compute()
    runner.synchronize()
    once = runner.download()
    assert steps(once, expected(lr)) <= GRAPH_FP32.steps
    assert np.array_equal(runner.download(), once)


def test_non_contiguous_inputs(runner):
    lr = sample_input((8, 10), 1.0)
    hwc = np.ascontiguousarray(lr[0].transpose(1, 2, 0))
    for view in (hwc.transpose(2, 0, 1)[None], lr[..., ::-1], np.repeat(lr, 2, axis=3)[..., ::2]):
        assert not view.flags["C_CONTIGUOUS"]
        assert steps(upscale(runner, view), expected(np.ascontiguousarray(view))) <= GRAPH_FP32.steps


def test_wrong_order_is_refused(runner):
    with pytest.raises(BadInput, match="prepare"):
        runner.upload(sample_input((8, 10), 1.0))
    runner.prepare((8, 10))
    with pytest.raises(BadInput, match="in this order"):
        runner.compute()
    runner.upload(sample_input((8, 10), 1.0))
    with pytest.raises(BadInput, match="in this order"):
        runner.download()


def test_a_new_size_forgets_the_old_result(runner):
    upscale(runner, sample_input((8, 10), 1.0))
    runner.prepare((9, 11))
    with pytest.raises(BadInput, match="in this order"):
        runner.download()


@pytest.mark.parametrize(
    ("lr", "words"),
    [
        (np.zeros((1, 3, 8, 10), np.float64), "float64"),
        (np.zeros((1, 3, 8, 10), np.uint8), "uint8"),
        ([[[[0.0]]]], "list"),
        (np.zeros((1, 3, 10, 8), np.float32), r"\(1, 3, 10, 8\).*\(1, 3, 8, 10\), as 8x10 was prepared"),
        (np.zeros((3, 8, 10), np.float32), r"\(3, 8, 10\)"),
        (np.zeros((1, 1, 8, 10), np.float32), r"\(1, 1, 8, 10\)"),
    ],
    ids=["float64", "uint8", "list", "swapped", "no batch", "grey"],
)
def test_wrong_arrays_are_refused_and_leave_the_runner_usable(runner, lr, words):
    runner.prepare((8, 10))
    with pytest.raises(BadInput, match="(?s)" + words):
        runner.upload(lr)
    good = sample_input((8, 10), 1.0)
    assert steps(upscale(runner, good), expected(good)) <= GRAPH_FP32.steps


def test_timing_by_the_device_is_there_or_refused(runner):
    """Every runner has the whole protocol: what has no clock of its own says so, as an error of ours."""
    runner.prepare((8, 10))
    if not runner.device_events:
        with pytest.raises(UsageError, match="has no device events"):
            runner.timed_compute()
        return
    with pytest.raises(BadInput, match="in this order"):
        runner.timed_compute()
    runner.upload(sample_input((8, 10), 1.0))
    assert runner.timed_compute().seconds > 0


def test_closing_twice_and_describing(runner):
    said = runner.describe()
    assert said["version"] and said["precision"] == "fp32" and runner.device
    assert said["runtime"] == runner.runtime and said == runner.describe()
    runner.close()
    runner.close()
    with pytest.raises(BadInput):
        runner.upload(sample_input((8, 10), 1.0))
