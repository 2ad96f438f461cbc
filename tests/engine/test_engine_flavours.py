"""TensorRT 8.5, 10 and 11 need a GPU to build, so stand-ins take their place here.

A stand-in has only the names that its release has (diffed from the bindings' sources of the releases): a call of
anything younger, or of anything removed, is an AttributeError and fails the test. What they build means nothing.
"""

from __future__ import annotations

import enum
import os
import signal
import subprocess
import sys
import types

import pytest

import sr_deploy.engine.tensorrt as engine_tensorrt
from sr_deploy.core.errors import CheckFailed, EnvironmentFault, MissingPackage, UsageError
from sr_deploy.core.host.machine import Gpu, this_machine
from sr_deploy.engine.flavour import flavour_version, flavours, import_flavour, logger_of
from sr_deploy.engine.options import EngineOptions
from sr_deploy.engine.tensorrt import engine_from_graph, targets_of

XAVIER = Gpu("NVIDIA Jetson Xavier NX (integrated)", "7.2", None, None)
FIXED = ((8, 8),) * 3
#: Release → (bits of network flags, has an activation-memory property called …).
FLAGS = {
    "8.5.2.2": ({"EXPLICIT_BATCH": 0, "EXPLICIT_PRECISION": 1}, "device_memory_size"),
    "10.3.0": ({"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}, "device_memory_size_v2"),
    "11.0.0": ({"STRONGLY_TYPED": 0, "PREFER_JIT_PYTHON_PLUGINS": 1}, "device_memory_size_v2"),
}


class Severity(enum.Enum):
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    ERROR, WARNING, INFO, VERBOSE = Severity

    def __init__(self):
        pass


class ParserError:
    """The 8.5 form: a node's number, not its name."""

    def node(self):
        return 3

    def desc(self):
        return "no importer registered for op: DFT"

    def code(self):
        return types.SimpleNamespace(name="UNSUPPORTED_NODE")


def stand_in(version: str, fault: str = ""):
    """A module ``tensorrt`` of one release. ``fault``: "start", "parse", "memory" or "build"; ``calls`` records."""
    flags, memory_property = FLAGS[version]
    trt = types.ModuleType("tensorrt")
    trt.__version__, trt.calls = version, []
    trt.ILogger, trt.float32 = ILogger, types.SimpleNamespace(name="FLOAT")
    trt.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", flags)
    trt.BuilderFlag = enum.Enum("BuilderFlag", ["TF32"])
    trt.MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
    trt.IBuilderConfig = type("IBuilderConfig", (), {})

    class Tensor:
        name, dtype = "lr", trt.float32

        @property
        def shape(self):
            return (1, 3, -1, -1)

        @shape.setter
        def shape(self, value):
            trt.calls.append(("shape", value))

    class Network:
        num_inputs = num_outputs = 1
        num_layers = 0

        def get_input(self, index):
            return Tensor()

    class Parser:
        num_errors = 1

        def __init__(self, network, logger):
            self.logger = logger

        def parse_from_file(self, path):
            if fault == "parse":
                self.logger.log(Severity.ERROR, 'While parsing node number 3 [DFT -> "spectrum"]:')
            return fault != "parse"

        def get_error(self, index):
            return ParserError()

    class Cache:
        def __init__(self, data):
            self.data = data

        def serialize(self):
            return b"timings" if ("build",) in trt.calls else self.data or b"empty"

    class Config(trt.IBuilderConfig):
        def clear_flag(self, flag):
            trt.calls.append(("clear", flag.name))

        def set_memory_pool_limit(self, pool, size):
            trt.calls.append((pool.name, size))

        def add_optimization_profile(self, profile):
            trt.calls.append(("profile", profile.shapes))

        def create_timing_cache(self, data):
            trt.calls.append(("cache", data))
            return Cache(data)

        def set_timing_cache(self, cache, ignore_mismatch):
            return fault != "cache" or cache.data == b""

    class Profile:
        def set_shape(self, name, low, best, high):
            self.shapes = (name, low, best, high)

    class Builder:
        def __init__(self, logger):
            self.logger = logger
            if fault == "start":
                logger.log(Severity.ERROR, "CUDA initialization failure with error: 35")
                raise TypeError("pybind11::init(): factory function returned nullptr")

        def create_network(self, flags):
            trt.calls.append(("network", flags))
            return Network()

        def create_builder_config(self):
            return Config()

        def create_optimization_profile(self):
            return Profile()

        def build_serialized_network(self, network, config):
            self.logger.log(Severity.WARNING, "a warning")
            trt.calls.append(("build",))
            if fault == "memory":
                self.logger.log(Severity.ERROR, "Error Code 2: OutOfMemory (no further information)")
            if fault == "build":
                self.logger.log(Severity.ERROR, "Error Code 10: Could not find any implementation for node conv_1")
            return None if fault in ("memory", "build") else bytearray(b"plan")

    class Runtime:
        def __init__(self, logger):
            pass

        def deserialize_cuda_engine(self, plan):
            return types.SimpleNamespace(**{memory_property: 4096})

    trt.Builder, trt.OnnxParser, trt.Runtime = Builder, Parser, Runtime
    return trt


@pytest.fixture
def board(monkeypatch, graphs):
    """``board(version, fault)`` puts a release onto a machine with Xavier NX's GPU, and gives the module."""

    def install(version: str, fault: str = ""):
        trt = stand_in(version, fault)
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        monkeypatch.setattr(engine_tensorrt, "this_machine", lambda: types.SimpleNamespace(gpus=(XAVIER,)))
        logger_of.cache_clear()
        return trt

    yield install
    logger_of.cache_clear()


@pytest.mark.parametrize(("version", "bits"), [("8.5.2.2", 0b1), ("10.3.0", 0b10), ("11.0.0", 0b1)])
def test_each_release_gets_its_own_flags_and_only_calls_it_has(board, graphs, version, bits):
    trt = board(version)
    built = engine_from_graph(
        "tensorrt", graphs.dynamic, FIXED, options=EngineOptions(workspace_bytes=1 << 20, progress=lambda *told: None)
    )
    assert ("network", bits) in trt.calls
    assert ("clear", "TF32") in trt.calls and ("WORKSPACE", 1 << 20) in trt.calls
    assert ("shape", (1, 3, 8, 8)) in trt.calls and "profile" not in [call[0] for call in trt.calls]
    assert (built.plan, built.version, built.device) == (b"plan", version, XAVIER.name)
    assert (built.compute_capabilities, built.activation_bytes, built.weights_bytes) == (("7.2",), 4096, None)
    assert built.warnings == ("a warning",)
    assert built.settings["typing"] == ("explicit_batch" if version.startswith("8") else "strongly_typed")


def test_a_range_of_sizes_becomes_an_optimization_profile(board, graphs):
    trt = board("8.5.2.2")
    engine_from_graph("tensorrt", graphs.dynamic, ((8, 8), (8, 16), (32, 32)))
    assert ("profile", ("lr", (1, 3, 8, 8), (1, 3, 8, 16), (1, 3, 32, 32))) in trt.calls
    assert "shape" not in [call[0] for call in trt.calls]


def test_the_timing_cache_is_read_and_written(board, graphs, tmp_path):
    trt = board("8.5.2.2")
    cache = tmp_path / "timing.cache"
    for stored in (b"", b"timings"):
        engine_from_graph("tensorrt", graphs.dynamic, FIXED, options=EngineOptions(timing_cache=cache))
        assert ("cache", stored) in trt.calls
        assert cache.read_bytes() == b"timings"
    board("8.5.2.2", "cache")
    built = engine_from_graph("tensorrt", graphs.dynamic, FIXED, options=EngineOptions(timing_cache=cache))
    assert "timing.cache is damaged, or of another TensorRT or GPU" in built.warnings[0]
    assert built.settings["timing_cache"] == "timing.cache" and built.plan == b"plan"


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("start", EnvironmentFault, "does not start: CUDA initialization failure"),
        ("parse", CheckFailed, r"node number 3 \(DFT -> \"spectrum\"\): no importer registered for op: DFT"),
        ("memory", EnvironmentFault, "(?s)OutOfMemory.*--workspace"),
        ("build", CheckFailed, "for 8x8: .*implementation for node conv_1"),
    ],
)
def test_faults(board, graphs, fault, error, words):
    board("8.5.2.2", fault)
    with pytest.raises(error, match=words) as caught:
        engine_from_graph("tensorrt", graphs.dynamic, FIXED)
    assert type(caught.value) is error


def test_a_flavour_without_a_choice_builds_for_its_own_gpu_only(board):
    board("8.5.2.2")
    assert targets_of("tensorrt") == targets_of("tensorrt", ("7.2",)) == (("7.2",), XAVIER.name)
    with pytest.raises(UsageError, match=r"(?s)8.5.2.2 builds for this machine's GPU only \(.*7.2\), not for 8.6"):
        targets_of("tensorrt", ("8.6",))


def test_a_gpu_that_rtx_does_not_support(board):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    board("8.5.2.2")
    with pytest.raises(EnvironmentFault, match="(?s)does not support .*Xavier.*7.2.*7.5, 8.0, 8.6"):
        targets_of("tensorrt-rtx")


def test_flavours_that_do_not_import_are_not_listed(monkeypatch, tmp_path):
    (tmp_path / "tensorrt.py").write_text(
        "import numpy\nraise AttributeError(\"module 'numpy' has no attribute 'bool'\")"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    assert "tensorrt" not in [flavour.name for flavour in flavours()]
    assert flavour_version("tensorrt") is None
    with pytest.raises(MissingPackage, match="(?s)has no attribute 'bool'.*srdeploy doctor"):
        import_flavour("tensorrt")


@pytest.mark.skipif(bool(this_machine().gpus), reason="this machine has a GPU")
def test_classic_tensorrt_without_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in("10.3.0"))
    with pytest.raises(EnvironmentFault, match="(?s)no NVIDIA GPU.*tensorrt-rtx --compute-capability"):
        targets_of("tensorrt")


@pytest.mark.parametrize("name", ["onnxruntime", "tensorrt_rtx"])
def test_a_signal_while_a_library_loads_is_no_fault_of_the_library(tmp_path, name):
    """Bindings turn every exception within their loading, SystemExit too, into an ImportError."""
    (tmp_path / f"{name}.py").write_text(
        "import os, signal\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.getpid()\n"
        "except SystemExit as error:\n"
        "    raise ImportError('initialization failed') from error\n"
        "InferenceSession = Builder = None\n__version__ = '1'\n"
    )
    loads = {
        "onnxruntime": "from sr_deploy.engine.onnxruntime import import_onnxruntime; import_onnxruntime()",
        "tensorrt_rtx": "from sr_deploy.engine.flavour import import_flavour; import_flavour('tensorrt-rtx')",
    }
    lines = f"from sr_deploy.core.signals import ended_by_signals\nwith ended_by_signals():\n    {loads[name]}\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", lines], env=environment, capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
