"""What is ONNX Runtime's own: providers, threads, sizes, broken files."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import onnx
import pytest
from onnx import TensorProto, helper

from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadDeployment, BadInput, CheckFailed, EnvironmentFault, MissingPackage, UsageError
from sr_deploy.core.media.sample import sample_input
from sr_deploy.engine.onnxruntime import CPU, CUDA, providers_here
from sr_deploy.run.base import upscale
from sr_deploy.run.onnxruntime import runner_from_graph
from tests.small_network import CONTRACT, FIXED_SIZE, SCALE


def test_default_provider_is_told_with_its_reason(graphs):
    said = runner_from_graph(graphs.dynamic, CONTRACT, SCALE).describe()
    assert said["provider"] in (CPU, CUDA)
    if CUDA not in providers_here():
        assert said["provider"] == CPU and CUDA in said["provider_reason"]


def test_a_provider_that_is_asked_for_is_used(graphs):
    said = runner_from_graph(graphs.dynamic, CONTRACT, SCALE, threads=1, provider=CPU).describe()
    assert (said["provider"], said["provider_reason"], said["threads"]) == (CPU, "asked for", 1)


def test_an_absent_provider_is_refused(graphs):
    missing = CUDA if CUDA not in providers_here() else "NoSuchExecutionProvider"
    with pytest.raises(EnvironmentFault, match=f"(?s)has no {missing}.*{CPU}"):
        runner_from_graph(graphs.dynamic, CONTRACT, SCALE, provider=missing)


def test_no_threads(graphs):
    with pytest.raises(UsageError, match="0 threads"):
        runner_from_graph(graphs.dynamic, CONTRACT, SCALE, threads=0)


def test_a_fixed_graph_names_its_size(graphs):
    runner = runner_from_graph(graphs.fixed, CONTRACT, SCALE)
    with pytest.raises(
        BadInput, match="(?s)model_8x10.onnx does not take an input of 9x11.*an input of 8x10"
    ) as refused:
        runner.prepare((9, 11))
    assert "srdeploy build DEPLOYMENT --backend onnxruntime --size 9x11" in str(refused.value)
    assert "--dynamic" in str(refused.value) and "pad" not in str(refused.value)
    assert upscale(runner, sample_input(FIXED_SIZE, 1.0)).shape == (1, 3, 16, 20)


def test_broken_files(tmp_path, graphs):
    text = tmp_path / "text.onnx"
    text.write_text("not a graph")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(graphs.dynamic.read_bytes()[:400])
    for path in (text, cut, tmp_path / "absent.onnx", tmp_path):
        with pytest.raises(BadDeployment, match=str(path)):
            runner_from_graph(path, CONTRACT, SCALE)


@pytest.mark.parametrize(
    ("shape", "element", "names", "words"),
    [
        ([1, 3, "h", "w"], TensorProto.FLOAT, ("input", "sr"), "inputs \\['input'\\]"),
        ([1, 3, "h", "w"], TensorProto.FLOAT16, ("lr", "sr"), "float16"),
        ([1, 1, "h", "w"], TensorProto.FLOAT, ("lr", "sr"), "shape \\[1, 1, 'h', 'w'\\]"),
        ([2, 3, "h", "w"], TensorProto.FLOAT, ("lr", "sr"), "shape \\[2, 3"),
        ([3, "h", "w"], TensorProto.FLOAT, ("lr", "sr"), "shape \\[3,"),
    ],
)
def test_graphs_of_another_contract(tmp_path, shape, element, names, words):
    with pytest.raises(BadDeployment, match=words):
        runner_from_graph(identity(tmp_path, shape, element, names), CONTRACT, SCALE)


def test_a_graph_of_another_scale_is_reported_when_it_runs(tmp_path):
    graph = identity(tmp_path, [1, 3, "height", "width"], TensorProto.FLOAT, ("lr", "sr"))
    runner = runner_from_graph(graph, IOContract(value_range=1.0), scale=2)
    runner.prepare((4, 5))
    runner.upload(sample_input((4, 5), 1.0))
    with pytest.raises(CheckFailed, match="(?s)identity.onnx at 4x5.*2 times"):
        runner.compute()


def test_more_memory_than_there_is(graphs):
    runner = runner_from_graph(graphs.dynamic, CONTRACT, SCALE)
    with pytest.raises(EnvironmentFault, match="not enough memory.*4000000x4000000"):
        runner.prepare((4_000_000, 4_000_000))
    lr = sample_input((8, 10), 1.0)
    assert upscale(runner, lr).shape == (1, 3, 16, 20)


def test_without_onnxruntime(graphs, tmp_path):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libonnxruntime.so is missing')")
    code = (
        "import sys; from pathlib import Path; from sr_deploy.core.errors import MissingPackage\n"
        "from sr_deploy.engine.onnxruntime import import_onnxruntime\n"
        "try: import_onnxruntime()\n"
        "except MissingPackage as error: print(error.exit_code, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    code = MissingPackage.exit_code
    assert done.stdout.startswith(f"{code} ONNX Runtime does not import: libonnxruntime.so is missing")
    assert "pip install" in done.stdout


def identity(folder, shape, element, names):
    tensors = [helper.make_tensor_value_info(name, element, shape) for name in names]
    graph = helper.make_graph([helper.make_node("Identity", [names[0]], [names[1]])], "g", tensors[:1], tensors[1:])
    path = folder / "identity.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_an_engine_of_a_lower_precision_says_so(graphs):
    """A table of INT8 must not be titled FP32: what runs is what its manifest says."""
    from types import SimpleNamespace

    from sr_deploy.run.onnxruntime import open_engine

    manifest = SimpleNamespace(contract=CONTRACT, scale=SCALE, precision="int8")
    with contextlib.closing(open_engine(graphs.dynamic, manifest, 1)) as runner:
        assert runner.describe()["precision"] == "int8"
