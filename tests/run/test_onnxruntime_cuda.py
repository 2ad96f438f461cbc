"""ONNX Runtime with CUDA, against a stand-in with the signatures and the habits of onnxruntime-gpu 1.26.

Its habits: the constructor retreats to the CPU unless ``enable_fallback=0`` says no, a provider whose libraries do not
load is left out without an exception, and ``preload_dlls`` prints what it does not find.
"""

from __future__ import annotations

import types

import pytest

import sr_deploy.engine.onnxruntime as engine_onnxruntime
import sr_deploy.engine.onnxruntime_cuda as onnxruntime_cuda
from sr_deploy.core.errors import EnvironmentFault
from sr_deploy.core.host.machine import Gpu
from sr_deploy.engine.onnxruntime import open_session
from sr_deploy.engine.onnxruntime_cuda import CPU, CUDA, default_provider, preload_cuda, tf32_of
from sr_deploy.run.onnxruntime import runner_from_graph
from tests.small_network import CONTRACT, SCALE

GPU = Gpu("NVIDIA RTX A4000", "8.6", 16 << 30, "550.54.14")


class Session:
    """Of onnxruntime-gpu; ``fault`` is "", "libraries", "driver" or "tf32"."""

    def __init__(self, ort, path, options, providers, enable_fallback=1):
        ort.calls.append((providers, enable_fallback))
        self.asked = [one if isinstance(one, tuple) else (one, {}) for one in providers]
        if ort.fault == "driver" and self.asked[0][0] == CUDA:
            if enable_fallback:
                self.asked = [(CPU, {})]
                return
            raise RuntimeError("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version")
        if ort.fault == "libraries":
            self.asked = [(CPU, {})]
        if ort.fault == "tf32":
            self.asked = [(CUDA, {}), (CPU, {})]

    def get_providers(self):
        return [name for name, _ in self.asked]

    def get_provider_options(self):
        return {name: {"use_tf32": "1", **told} if name == CUDA else {} for name, told in self.asked}

    def get_inputs(self):
        return [types.SimpleNamespace(name=CONTRACT.input_name, shape=[1, 3, "height", "width"], type="tensor(float)")]

    def get_outputs(self):
        return [types.SimpleNamespace(name=CONTRACT.output_name, shape=[1, 3, "h", "w"], type="tensor(float)")]


@pytest.fixture
def gpu(monkeypatch):
    """``gpu(fault)`` puts onnxruntime-gpu onto a machine with a GPU, and gives the module."""

    def install(fault: str = "", gpus=(GPU,)):
        ort = types.SimpleNamespace(
            __version__="1.26.0", fault=fault, calls=[], preloaded=0, SessionOptions=types.SimpleNamespace
        )

        def preload_dlls():
            ort.preloaded += 1
            if fault == "libraries":
                print("Failed to load libcudnn.so.9: cannot open shared object file")

        ort.preload_dlls = preload_dlls
        ort.InferenceSession = lambda path, options, **more: Session(ort, path, options, **more)
        ort.get_available_providers = lambda: [CUDA, CPU]
        monkeypatch.setattr(engine_onnxruntime, "import_onnxruntime", lambda: ort)
        monkeypatch.setattr("sr_deploy.run.onnxruntime.import_onnxruntime", lambda: ort)
        monkeypatch.setattr(onnxruntime_cuda, "this_machine", lambda: types.SimpleNamespace(gpus=gpus))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return ort

    return install


def test_cuda_gets_its_libraries_and_no_tf32(gpu, graphs):
    ort = gpu()
    runner = runner_from_graph(graphs.dynamic, CONTRACT, SCALE)
    assert ort.preloaded == 1
    assert ort.calls == [([(CUDA, {"use_tf32": "0"}), CPU], 0)]
    said = runner.describe()
    assert (said["provider"], said["tf32"]) == (CUDA, "off")


@pytest.mark.parametrize("fault", ["libraries", "driver", "tf32"])
@pytest.mark.parametrize("provider", [None, CUDA])
def test_a_provider_that_does_not_start_is_an_error(gpu, graphs, capsys, fault, provider):
    """Asked for or chosen because there is a GPU: the CPU never runs in its place."""
    gpu(fault)
    words = {"libraries": "offered CPU.*libcudnn.so.9", "driver": "driver version is insufficient", "tf32": "TF32 on"}
    with pytest.raises(EnvironmentFault, match=f"(?s){CUDA} does not start.*{words[fault]}.*CUDA_VISIBLE_DEVICES="):
        runner_from_graph(graphs.dynamic, CONTRACT, SCALE, provider=provider)
    assert capsys.readouterr().out == "", "what preload_dlls prints would break --json"


def test_the_cpu_is_chosen_where_no_gpu_is_or_is_wanted(gpu, monkeypatch):
    gpu(gpus=())
    assert default_provider([CUDA, CPU]) == (CPU, "this machine has no NVIDIA GPU")
    gpu()
    assert default_provider([CUDA, CPU])[0] == CUDA
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert default_provider([CUDA, CPU]) == (CPU, "CUDA_VISIBLE_DEVICES hides every GPU")


def test_an_older_release_without_preloading(gpu, graphs):
    ort = gpu()
    del ort.preload_dlls
    assert preload_cuda(ort) == ""
    runner_from_graph(graphs.dynamic, CONTRACT, SCALE)


def test_the_real_module_takes_these_arguments(graphs):
    import onnxruntime

    session = open_session(graphs.dynamic, onnxruntime.SessionOptions(), CPU)
    assert session.get_providers() == [CPU] and tf32_of(session) is None
    assert not session._enable_fallback
    assert isinstance(preload_cuda(onnxruntime), str)
    assert runner_from_graph(graphs.dynamic, CONTRACT, SCALE, provider=CPU).describe()["tf32"] is None
