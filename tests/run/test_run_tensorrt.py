"""What can be known of the TensorRT runner without a GPU: that the names it calls exist, and how it refuses."""

from __future__ import annotations

import ast
import importlib.util
import inspect

import numpy as np
import pytest

import sr_deploy.run.cuda
import sr_deploy.run.tensorrt
from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadDeployment, CheckFailed, EnvironmentFault, MissingPackage
from sr_deploy.core.host.machine import this_machine
from sr_deploy.engine.built import write_engine
from sr_deploy.engine.manifest import open_engine
from sr_deploy.engine.tensorrt import engine_from_graph
from sr_deploy.run.cuda import CudaPython, PyCuda, open_cuda
from sr_deploy.run.tensorrt import TensorRTRunner, runner_from_engine
from tests.small_network import CONTRACT, SCALE

needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
no_gpu = pytest.mark.skipif(bool(this_machine().gpus), reason="this machine has a GPU")


def names_called_on(source: str, owner: str) -> set:
    """Attributes that the source reads from a variable or member called ``owner``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            value = node.value
            name = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", None)
            if name is not None and name.lstrip("_") == owner:
                found.add(node.attr)
    return found


@needs_rtx
def test_every_name_that_the_runner_calls_exists_in_the_bindings():
    import tensorrt_rtx as trt

    source = inspect.getsource(sr_deploy.run.tensorrt)
    for owner, holder in (
        ("context", trt.IExecutionContext),
        ("engine", trt.ICudaEngine),
        ("runtime", trt.Runtime),
        ("config", trt.IRuntimeConfig),
        ("trt", trt),
        ("TensorIOMode", trt.TensorIOMode),
        ("DynamicShapesKernelSpecializationStrategy", trt.DynamicShapesKernelSpecializationStrategy),
    ):
        called = names_called_on(source, owner)
        assert called, f"nothing is called on {owner}: the test has lost its subject"
        assert not [name for name in called if not hasattr(holder, name)], owner


@needs_rtx
def test_the_runner_uses_nothing_that_tensorrt_10_or_11_removed():
    removed = {"execute_async_v2", "get_binding_index", "num_bindings", "nptype", "device_memory_size"}
    source = inspect.getsource(sr_deploy.run.tensorrt)
    assert not {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)} & removed


def test_both_bindings_have_every_method_of_the_protocol():
    wanted = {name for name in vars(sr_deploy.run.cuda.Cuda) if not name.startswith("_")}
    used = names_called_on(inspect.getsource(TensorRTRunner), "cuda") - {"name"}
    assert {"allocate", "to_device", "to_host", "synchronize", "stream"} <= used <= wanted
    for binding in (CudaPython, PyCuda):
        for name in wanted:
            ours = inspect.signature(getattr(binding, name)).parameters
            assert list(ours) == list(inspect.signature(getattr(sr_deploy.run.cuda.Cuda, name)).parameters), name


def test_cuda_python_has_every_function_that_is_called():
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    source = inspect.getsource(CudaPython)
    calls = {
        node.args[0].value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "_call"
    }
    assert {"cudaMalloc", "cudaMemcpyAsync", "cudaHostAlloc"} <= calls
    assert not [name for name in calls | names_called_on(source, "runtime") if not hasattr(runtime, name)]


@no_gpu
def test_without_a_gpu_or_binding_the_error_says_which():
    has_binding = importlib.util.find_spec("cuda") is not None or importlib.util.find_spec("pycuda") is not None
    wanted, words = (EnvironmentFault, "no GPU") if has_binding else (MissingPackage, "cuda-python, or pycuda")
    with pytest.raises(wanted, match=words):
        open_cuda()


@pytest.fixture
def engine(graphs, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    built = engine_from_graph("tensorrt-rtx", graphs.dynamic, ((8, 10),) * 3, ("8.6",))
    return tmp_path / write_engine(built, tmp_path, graphs.dynamic, CONTRACT, SCALE).file


@no_gpu
def test_an_engine_without_a_gpu(engine):
    with pytest.raises(EnvironmentFault, match="no GPU|no CUDA binding"):
        runner_from_engine(engine, open_engine(engine))


def test_an_altered_engine_is_refused_before_anything_is_loaded(engine):
    engine.write_bytes(engine.read_bytes()[:-1] + b"\x00")
    with pytest.raises(BadDeployment, match="not the file that was built"):
        runner_from_engine(engine, open_engine(engine))


class HostMemory:
    """A ``Cuda`` whose device memory is ordinary memory, and which counts what is not given back."""

    name = "host"

    def __init__(self):
        self.memory, self.pinned_arrays, self.closed = {}, [], 0
        self.waits, self.events, self.graphs, self.launched, self.freed = [], {}, [], 0, 0

    def stream(self):
        return 7

    def allocate(self, size):
        address = 1000 + len(self.memory)
        self.memory[address] = np.zeros(size, np.uint8)
        return address

    def free(self, address):
        del self.memory[address]

    def pinned(self, shape, dtype="float32"):
        self.pinned_arrays.append(np.zeros(shape, dtype))
        return self.pinned_arrays[-1]

    def free_pinned(self, array):
        self.pinned_arrays = [kept for kept in self.pinned_arrays if kept is not array]

    def to_device(self, address, array):
        self.memory[address][:] = array.ravel().view(np.uint8)

    def to_host(self, array, address):
        array[:] = self.memory[address].view(array.dtype).reshape(array.shape)

    def synchronize(self):
        self.waits.append("stream")

    def event(self, blocking):
        self.events[len(self.waits) + len(self.events) + 1] = blocking
        return max(self.events)

    def record(self, event):
        assert event in self.events

    def wait_for(self, event):
        self.waits.append("sleeping" if self.events[event] else "spinning")

    def seconds_between(self, start, end):
        assert start != end and {start, end} <= set(self.events)
        return 0.25

    def free_event(self, event):
        del self.events[event]

    def capture(self, queue):
        self.graphs.append(queue)
        return len(self.graphs)

    def launch(self, graph):
        self.launched += 1
        self.graphs[graph - 1]()

    def free_graph(self, graph):
        self.freed += 1

    def close(self):
        assert not self.events, "events were not given back"
        assert not self.memory and not self.pinned_arrays, "memory was not given back"
        self.closed += 1


class DoublingContext:
    """An execution context that repeats pixels, in place of the GPU, which this machine lacks."""

    def __init__(self, cuda, contract=CONTRACT):
        self.cuda, self.addresses, self.shape, self.contract = cuda, {}, None, contract

    def set_input_shape(self, name, shape):
        self.shape = shape
        return True

    def infer_shapes(self):
        return []

    def get_tensor_shape(self, name):
        return self.contract.shape(tuple(2 * side for side in self.size()))

    def size(self):
        return self.shape[1:3] if self.contract.layout == "NHWC" else self.shape[2:]

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        assert stream == 7
        rows = self.shape.index(self.size()[0])
        lr = self.cuda.memory[self.addresses["lr"]].view(self.contract.dtype).reshape(self.shape)
        sr = lr.repeat(2, axis=rows).repeat(2, axis=rows + 1)
        self.cuda.memory[self.addresses["sr"]][:] = sr.ravel().view(np.uint8)
        return True


def test_bookkeeping_of_sizes_and_memory(engine):
    """Only the order of calls and the memory kept are checked here; numbers need the GPU (test_parity_suite.py)."""
    import tensorrt_rtx as trt

    from sr_deploy.core.errors import BadInput
    from sr_deploy.core.media.sample import sample_input
    from sr_deploy.run.base import upscale

    manifest = open_engine(engine)
    cuda = HostMemory()
    runner = TensorRTRunner(trt, None, DoublingContext(cuda), cuda, manifest)
    lr = sample_input((8, 10), 1.0)
    for _ in range(2):
        assert np.array_equal(upscale(runner, lr), lr.repeat(2, axis=2).repeat(2, axis=3))
    assert len(cuda.memory) == len(cuda.pinned_arrays) == 2
    with pytest.raises(BadInput, match="(?s)does not take an input of 9x11.*an input of 8x10") as refused:
        runner.prepare((9, 11))
    told = str(refused.value)
    assert "srdeploy build DEPLOYMENT --backend tensorrt-rtx --size 9x11" in told
    assert "--min-size 8x10 --opt-size 9x11 --max-size 9x11" in told and "pad" not in told
    runner.close()
    runner.close()
    assert cuda.closed == 1
    with pytest.raises(BadInput, match="prepare"):
        runner.upload(lr)


def test_bytes_cross_the_bus_as_bytes(engine):
    """A runner of a uint8 contract: buffers a quarter as large, and a CUDA graph that is captured empty is found."""
    import dataclasses

    import tensorrt_rtx as trt

    from sr_deploy.core.media.sample import sample_for
    from sr_deploy.run.base import upscale
    from sr_deploy.run.settings import DeviceSettings

    contract = IOContract(255.0, layout="NHWC", dtype="uint8")
    manifest = dataclasses.replace(open_engine(engine), contract=contract)
    cuda = HostMemory()
    runner = TensorRTRunner(trt, None, DoublingContext(cuda, contract), cuda, manifest)
    lr = sample_for(contract, (8, 10))
    assert np.array_equal(upscale(runner, lr), lr.repeat(2, axis=1).repeat(2, axis=2))
    assert sorted(array.nbytes for array in cuda.pinned_arrays) == [8 * 10 * 3, 16 * 20 * 3]
    assert (runner.io_dtype, runner.describe()["io"]) == ("uint8", "uint8 NHWC")
    runner.configure(DeviceSettings(cuda_graph=True))
    assert np.array_equal(upscale(runner, lr), lr.repeat(2, axis=1).repeat(2, axis=2))
    runner.configure(DeviceSettings(cuda_graph=True))
    runner.prepare((8, 10))
    runner.upload(lr)
    cuda.capture = lambda queue: cuda.graphs.append(lambda: None) or len(cuda.graphs)
    with pytest.raises(CheckFailed, match="another picture"):
        runner.compute()
    runner.close()


def host_runner(engine, cuda=None):
    import tensorrt_rtx as trt

    cuda = cuda or HostMemory()
    return cuda, TensorRTRunner(trt, None, DoublingContext(cuda), cuda, open_engine(engine))


def test_device_events_give_the_time_and_settings_are_recorded(engine):
    from sr_deploy.bench.measure import measure
    from sr_deploy.bench.options import BenchOptions

    quick = {"min_seconds": 0.0, "warmup_seconds": 0.0, "precision": None, "min_iterations": 3, "max_iterations": 3}
    cuda, runner = host_runner(engine)
    point = measure(runner, (8, 10), BenchOptions(wait="block", **quick))
    assert (point.timer, point.median_s) == ("events", 0.25)
    assert (point.description["wait"], point.description["pinned_memory"]) == ("block", True)
    assert point.settings == {"cuda_graph": False, "wait": "block", "streams": 1}
    assert "sleeping" in cuda.waits
    cuda.waits.clear()
    assert measure(runner, (8, 10), BenchOptions(wait="spin", timer="host", **quick)).timer == "host"
    assert "spinning" in cuda.waits and "sleeping" not in cuda.waits
    assert measure(runner, (8, 10), BenchOptions(scope="enqueue", **quick)).median_s < 0.25
    runner.close()
    assert cuda.closed == 1


def test_a_cuda_graph_is_captured_once_a_size_proved_and_given_back(engine):
    from sr_deploy.core.media.sample import sample_input
    from sr_deploy.run.base import upscale
    from sr_deploy.run.settings import DeviceSettings

    cuda, runner = host_runner(engine)
    runner.configure(DeviceSettings(cuda_graph=True))
    lr = sample_input((8, 10), 1.0)
    for _ in range(3):
        assert np.array_equal(upscale(runner, lr), lr.repeat(2, axis=2).repeat(2, axis=3))
    # Once for the proof, once for each run.
    assert (len(cuda.graphs), cuda.launched, runner.describe()["cuda_graph"]) == (1, 4, True)
    runner.close()
    assert cuda.freed == 1


def test_an_empty_cuda_graph_is_found(engine):
    from sr_deploy.core.errors import CheckFailed
    from sr_deploy.core.media.sample import sample_input
    from sr_deploy.run.base import upscale
    from sr_deploy.run.settings import DeviceSettings

    class Forgetful(HostMemory):
        def capture(self, queue):
            return super().capture(lambda: None)

    cuda, runner = host_runner(engine, Forgetful())
    runner.configure(DeviceSettings(cuda_graph=True))
    with pytest.raises(CheckFailed, match="another picture"):
        upscale(runner, sample_input((8, 10), 1.0))
    runner.close()


def test_what_tensorrt_cannot_is_refused(engine):
    from sr_deploy.core.errors import UsageError
    from sr_deploy.run.settings import DeviceSettings

    _, runner = host_runner(engine)
    with pytest.raises(UsageError, match="2 streams"):
        runner.configure(DeviceSettings(streams=2))
    with pytest.raises(UsageError, match="PyCUDA"):
        PyCuda.capture(None, lambda: None)
    runner.close()
