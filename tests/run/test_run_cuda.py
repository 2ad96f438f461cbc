"""Each class of run/ over a CUDA binding, on a device of host memory that has the binding's real signatures."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

import sr_deploy.core.host.cuda_device as core
from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import CheckFailed, EnvironmentFault, MissingPackage, UsageError
from sr_deploy.core.host.cuda_device import cuda_device
from sr_deploy.core.media.sample import sample_for, sample_input
from sr_deploy.engine.flavour import logger_of
from sr_deploy.engine.manifest import open_engine
from sr_deploy.run.base import upscale
from sr_deploy.run.cuda import open_cuda
from sr_deploy.run.settings import DeviceSettings
from sr_deploy.run.tensorrt import runner_from_engine
from tests.run.standin_bindings import BINDINGS, install
from tests.run.standin_cuda_python import SIGNATURES, cuda_python, signatures
from tests.run.standin_driver import COPY_SECONDS, KERNEL_SECONDS, Driver, Refused
from tests.run.standin_tensorrt import engine_file, running_tensorrt

CUDA_PYTHON = [name for name in BINDINGS if name != "pycuda"]
UINT8 = IOContract(255.0, layout="NHWC", dtype="uint8")
GRAPH = DeviceSettings(cuda_graph=True)


@pytest.fixture(params=BINDINGS)
def binding(request):
    yield request.param
    cuda_device.cache_clear()


@pytest.fixture
def opened(monkeypatch, binding):
    """(driver, the product's class); nothing may be left of either at the end."""
    driver = Driver()
    install(monkeypatch, binding, driver)
    cuda = open_cuda()
    yield driver, cuda
    cuda.close()
    assert driver.leaks() == {}


@pytest.fixture
def board(monkeypatch, graphs, tmp_path):
    """Opens an engine on the stand-ins: (driver, the TensorRT module, runner)."""

    def make(binding, contract=None, **options):
        driver = Driver(memory=options.pop("memory", 1 << 30))
        install(monkeypatch, binding, driver)
        given = {} if contract is None else {"contract": contract}
        trt = running_tensorrt(driver, **given)
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        logger_of.cache_clear()
        engine = engine_file(graphs.dynamic, tmp_path, **given, **options)
        return driver, trt, runner_from_engine(engine, open_engine(engine))

    yield make
    logger_of.cache_clear()
    cuda_device.cache_clear()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_round_trip_moves_as_many_bytes_as_the_array_has(opened, dtype):
    driver, cuda = opened
    source, target = cuda.pinned((1, 4, 4, 3), dtype), cuda.pinned((1, 4, 4, 3), dtype)
    assert source.dtype == dtype and source.nbytes == 48 * np.dtype(dtype).itemsize
    source[:] = np.arange(48).reshape(source.shape)
    address = cuda.allocate(source.nbytes)
    cuda.to_device(address, source)
    cuda.to_host(target, address)
    assert not np.array_equal(target, source), "nothing runs before it is waited for"
    cuda.synchronize()
    assert np.array_equal(target, source)
    cuda.free(address)
    for array in (source, target):
        cuda.free_pinned(array)


def test_a_copy_beyond_its_memory_and_a_use_of_freed_memory_are_faults(opened):
    driver, cuda = opened
    wide = cuda.pinned((48,), "float32")
    address = cuda.allocate(48)
    for queue in (cuda.to_device, lambda to, array: cuda.to_host(array, to)):
        with pytest.raises(EnvironmentFault, match="(?s)CUDA failed in cu.*Memcpy"):
            queue(address, wide)
    cuda.free(address)
    with pytest.raises(EnvironmentFault, match="CUDA failed in"):
        cuda.to_device(address, wide)
    cuda.free_pinned(wide)


def test_events_time_what_lies_between_them(opened):
    driver, cuda = opened
    array, address = cuda.pinned((8,)), cuda.allocate(32)
    start, end = cuda.event(blocking=True), cuda.event(blocking=False)
    cuda.record(start)
    cuda.to_device(address, array)
    cuda.record(end)
    with pytest.raises(EnvironmentFault, match="ElapsedTime"):
        cuda.seconds_between(start, end)
    cuda.wait_for(start)
    cuda.wait_for(end)
    assert cuda.seconds_between(start, end) == pytest.approx(COPY_SECONDS)
    assert driver.waits == ["sleeping", "spinning"]
    cuda.free_event(start)
    cuda.free_event(end)
    cuda.free(address)
    cuda.free_pinned(array)


def test_more_than_the_memory_is_told_and_the_stream_goes_on(opened):
    driver, cuda = opened
    with pytest.raises(EnvironmentFault, match="not enough GPU memory"):
        cuda.allocate(driver.limit + 1)
    cuda.free(cuda.allocate(16))


def test_without_a_driver_the_fault_says_so(monkeypatch, binding):
    """cuda-python 11 raises RuntimeError, 12 and 13 return an error, PyCUDA raises its own."""
    install(monkeypatch, binding, Driver(present=False))
    with pytest.raises(EnvironmentFault, match="CUDA finds no GPU"):
        open_cuda()
    assert cuda_device() is None


def test_the_device_tells_its_facts(monkeypatch, binding):
    install(monkeypatch, binding, Driver(name="Xavier", capability=(7, 2), bus="0000:00:00.0", integrated=1))
    device = cuda_device()
    assert (device.name, device.compute_capability, device.pci_bus_id) == ("Xavier", "7.2", "0000:00:00.0")
    assert device.integrated is True and device.memory_bytes == 1 << 30


@pytest.mark.parametrize("name", CUDA_PYTHON)
def test_a_graph_is_captured_launched_and_given_back(monkeypatch, name):
    driver = Driver()
    install(monkeypatch, name, driver)
    cuda = open_cuda()
    ran = []
    graph = cuda.capture(lambda: driver.kernel(cuda.stream(), lambda: ran.append(1)))
    cuda.synchronize()
    assert not ran
    cuda.launch(graph)
    cuda.launch(graph)
    cuda.synchronize()
    assert len(ran) == 2
    cuda.free_graph(graph)
    cuda.close()
    assert driver.leaks() == {}


@pytest.mark.parametrize("name", CUDA_PYTHON)
@pytest.mark.parametrize("invalid", [False, True], ids=["valid", "invalidated"])
def test_what_went_wrong_in_a_capture_is_what_is_told(monkeypatch, name, invalid):
    """CUDA refuses to end a capture that a forbidden call made invalid; that must not hide the cause."""
    driver = Driver()
    install(monkeypatch, name, driver)
    cuda = open_cuda()

    def fail():
        driver.kernel(cuda.stream(), lambda: None)
        if invalid:
            with pytest.raises(EnvironmentFault):
                cuda.allocate(16)
        raise CheckFailed("TensorRT failed to run")

    with pytest.raises(CheckFailed, match="TensorRT failed to run"):
        cuda.capture(fail)
    cuda.synchronize()
    cuda.free_graph(cuda.capture(lambda: None))
    with pytest.raises(EnvironmentFault, match="(?s)cannot be captured.*StreamCaptureUnsupported.*--cuda-graph"):
        cuda.capture(lambda: cuda.allocate(16))
    cuda.close()
    assert driver.leaks() == {}


def test_pycuda_refuses_a_graph(monkeypatch):
    driver = Driver()
    install(monkeypatch, "pycuda", driver)
    cuda = open_cuda()
    with pytest.raises(UsageError, match="PyCUDA"):
        cuda.capture(lambda: None)
    cuda.close()


def test_pixels_of_bytes_give_the_picture_of_the_network(board, binding):
    driver, _, runner = board(binding, UINT8)
    lr = sample_for(UINT8, (8, 10))
    small = bytes_of_network(lr)
    assert np.array_equal(upscale(runner, lr), small)
    assert sorted(block.size for block in driver.device.held.values()) == [8 * 10 * 3, 16 * 20 * 3]
    runner.close()
    assert driver.leaks() == {}


def bytes_of_network(lr):
    """What the small network makes of bytes, by PyTorch."""
    import torch

    from tests.small_network import small_network

    with torch.no_grad():
        sr = small_network()(torch.from_numpy(lr.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)))
    return np.rint(255 * sr.numpy()).astype(np.uint8).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("name", CUDA_PYTHON)
def test_a_graph_gives_the_picture_and_a_failing_one_leaves_nothing(board, name):
    driver, trt, runner = board(name)
    lr = sample_input((8, 10), 1.0)
    plain = upscale(runner, lr)
    runner.configure(GRAPH)
    assert np.array_equal(upscale(runner, lr), plain)
    runner.configure(GRAPH)

    def forbidden_while_captured():
        if driver.capturing:
            with pytest.raises(Refused):
                driver.allocate(16)

    trt.while_running = forbidden_while_captured
    with pytest.raises(EnvironmentFault, match="(?s)cannot be captured.*leave --cuda-graph out"):
        upscale(runner, lr)
    runner.configure(DeviceSettings())
    assert np.array_equal(upscale(runner, lr), plain)
    runner.close()
    assert driver.leaks() == {}


@pytest.mark.parametrize("name", CUDA_PYTHON)
def test_a_graph_that_was_captured_empty_is_found_and_given_back(board, name):
    driver, _, runner = board(name)
    runner.configure(GRAPH)
    capture = runner._cuda.capture
    runner._cuda.capture = lambda queue: capture(lambda: None)
    with pytest.raises(CheckFailed, match="another picture"):
        upscale(runner, sample_input((8, 10), 1.0))
    runner.close()
    assert driver.leaks() == {}


def test_a_size_beyond_the_memory_leaves_a_usable_runner(board, binding):
    driver, _, runner = board(binding, memory=40000)
    with pytest.raises(EnvironmentFault, match="not enough GPU memory"):
        runner.prepare((60, 60))
    small = sample_input((8, 10), 1.0)
    assert upscale(runner, small).shape == (1, 3, 16, 20)
    runner.close()
    assert driver.leaks() == {}


def test_a_timed_run_begins_while_another_is_in_flight(board, binding):
    driver, trt, runner = board(binding)
    runs = []
    trt.while_running = lambda: runs.append(driver.clock)
    runner.prepare((8, 10))
    runner.upload(sample_input((8, 10), 1.0))
    runner.synchronize()
    began = driver.clock
    seconds, enqueue = runner.timed_compute()
    assert seconds == pytest.approx(KERNEL_SECONDS) and 0 < enqueue < 0.1
    assert runs == [began, began], "the second is queued before the first has run"
    assert driver.clock == pytest.approx(began + 2 * KERNEL_SECONDS)
    runner.close()


def test_the_generations_differ_as_the_wheels_do():
    driver = Driver()
    for generation, wanted in (("11", 3), ("12", 2), ("13", 2)):
        functions, classes = signatures(generation)
        assert len(functions["cudaGraphInstantiate"][0]) == wanted
        assert len(functions["cudaGraphInstantiateWithFlags"][0]) == 2 and len(classes) == 8
        runtime = cuda_python(driver, generation)
        arguments = (runtime.cudaGraph_t(1), b"", 0)
        with pytest.raises(TypeError, match=f"takes exactly {wanted} positional"):
            runtime.cudaGraphInstantiate(*arguments[: 5 - wanted])


def test_the_signatures_are_those_of_the_binding_here():
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    from tests.benchmarks.cuda_signatures import FUNCTIONS, signature

    source = (SIGNATURES / "cuda_signatures_13.txt").read_text("utf-8").splitlines()
    assert [signature(getattr(runtime, name)) for name in FUNCTIONS] == [line for line in source if "->" in line]


def broken(name):
    def fail(wanted):
        if wanted == name:
            raise ImportError("libcuda.so.1: cannot open shared object file")
        raise ModuleNotFoundError(f"No module named {wanted!r}", name=wanted.split(".")[0])

    return fail


def test_a_binding_that_does_not_import_is_told_apart_from_none(monkeypatch):
    monkeypatch.setattr(core, "importlib", types.SimpleNamespace(import_module=broken("pycuda.driver")))
    with pytest.raises(EnvironmentFault, match="does not import: libcuda.so.1"):
        open_cuda()
    monkeypatch.setattr(core, "importlib", types.SimpleNamespace(import_module=broken("nothing")))
    with pytest.raises(MissingPackage, match="no CUDA binding"):
        open_cuda()


def test_an_engine_for_a_dla_core_opens_on_that_core(board, graphs, tmp_path):
    _, trt, runner = board("pycuda", dla_core="1")
    assert trt.opened == [1]
    runner.close()
    _, trt, runner = board("pycuda")
    assert trt.opened == [0]
    runner.close()
    with pytest.raises(EnvironmentFault, match="built for DLA core 2, and TensorRT finds 2 DLA cores"):
        board("pycuda", dla_core="2")
