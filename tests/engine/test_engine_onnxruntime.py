from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadDeployment, CheckFailed, DiskFull, EnvironmentFault
from sr_deploy.core.tolerance import GRAPH_FP32
from sr_deploy.engine.fits import check_engine, host_facts
from sr_deploy.engine.manifest import open_engine
from sr_deploy.engine.onnxruntime import CPU, engine_from_graph, is_out_of_memory
from sr_deploy.run.onnxruntime import runner_from_graph
from sr_deploy.run.parity import check_parity, compare
from sr_deploy.run.torch import TorchRunner
from tests.small_network import CONTRACT, FIXED_SIZE, SCALE, small_network


def test_a_dynamic_engine(graphs, tmp_path):
    path = engine_from_graph(graphs.dynamic, tmp_path, CONTRACT, SCALE)
    manifest = open_engine(path)
    assert path.name == manifest.file == "onnxruntime_dynamic.onnx"
    assert (manifest.profile, manifest.backend, manifest.precision) == (None, "onnxruntime", "fp32")
    assert manifest.graph_sha256 == sha256_of(graphs.dynamic) and manifest.graph_file == "model.onnx"
    assert manifest.runtime_version == onnxruntime.__version__ and manifest.contract == CONTRACT
    assert (manifest.activation_bytes, manifest.weights_bytes, manifest.compute_capabilities) == (None, None, ())
    check_engine(manifest, host_facts("onnxruntime"), (manifest.graph_sha256,))
    sizes = ((8, 10), (9, 11))
    differences = compare(runner_from_graph(path, CONTRACT, SCALE), TorchRunner(small_network()), sizes, CONTRACT)
    check_parity(differences, GRAPH_FP32, path.name)


def test_an_engine_of_one_size(graphs, tmp_path):
    path = engine_from_graph(graphs.dynamic, tmp_path, CONTRACT, SCALE, (12, 14))
    assert path.name == "onnxruntime_12x14.onnx"
    assert open_engine(path).profile == ((12, 14),) * 3
    assert [d.dim_value for d in onnx.load(str(path)).graph.input[0].type.tensor_type.shape.dim] == [1, 3, 12, 14]
    runner = runner_from_graph(path, CONTRACT, SCALE)
    check_parity(compare(runner, TorchRunner(small_network()), ((12, 14),), CONTRACT), GRAPH_FP32, path.name)


def test_an_engine_of_a_fixed_graph(graphs, tmp_path):
    assert engine_from_graph(graphs.fixed, tmp_path, CONTRACT, SCALE).name == "onnxruntime_8x10.onnx"
    assert engine_from_graph(graphs.fixed, tmp_path, CONTRACT, SCALE, FIXED_SIZE).name == "onnxruntime_8x10.onnx"
    with pytest.raises(BadDeployment, match="(?s)8x10 only, not 9x9.*--size 9x9"):
        engine_from_graph(graphs.fixed, tmp_path, CONTRACT, SCALE, (9, 9))


def test_operators_of_onnxruntime_do_not_depend_on_this_processor(graphs, tmp_path):
    path = engine_from_graph(graphs.dynamic, tmp_path, CONTRACT, SCALE, (8, 10))
    domains = {node.domain for node in onnx.load(str(path)).graph.node}
    assert "com.microsoft.nchwc" not in domains


def test_axes_of_other_names_are_refused(graphs, tmp_path):
    model = onnx.load(str(graphs.dynamic))
    for index, name in ((2, "rows"), (3, "columns")):
        model.graph.input[0].type.tensor_type.shape.dim[index].dim_param = name
    onnx.save(model, str(tmp_path / "named.onnx"))
    with pytest.raises(CheckFailed, match="(?s)named.onnx to 8x10.*height"):
        engine_from_graph(tmp_path / "named.onnx", tmp_path / "engines", CONTRACT, SCALE, (8, 10))
    assert not (tmp_path / "engines").exists()


def test_wrong_graphs_and_providers(graphs, tmp_path):
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(BadDeployment, match="text.onnx"):
        engine_from_graph(tmp_path / "text.onnx", tmp_path, CONTRACT, SCALE)
    with pytest.raises(BadDeployment, match="absent.onnx"):
        engine_from_graph(tmp_path / "absent.onnx", tmp_path, CONTRACT, SCALE)
    with pytest.raises(BadDeployment, match="inputs \\['lr'\\]"):
        engine_from_graph(graphs.dynamic, tmp_path, IOContract(value_range=1.0, input_name="x"), SCALE)
    with pytest.raises(EnvironmentFault, match=f"(?s)no Nothing here.*{CPU}"):
        engine_from_graph(graphs.dynamic, tmp_path, CONTRACT, SCALE, provider="Nothing")
    assert [path.name for path in tmp_path.iterdir()] == ["text.onnx"]


BUILD_WITH_LITTLE_ROOM = """
import resource, sys
from pathlib import Path
from sr_deploy.core.errors import DiskFull
from sr_deploy.engine.onnxruntime import engine_from_graph
from tests.small_network import CONTRACT, SCALE
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    engine_from_graph(Path({graph!r}), Path({folder!r}), CONTRACT, SCALE)
except DiskFull as full:
    print(full.exit_code, full)
"""


def test_a_full_disk(graphs, tmp_path):
    """ONNX Runtime itself only says that serialization failed."""
    code = BUILD_WITH_LITTLE_ROOM.format(graph=str(graphs.dynamic), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.getcwd())
    assert done.stdout.startswith(f"{DiskFull.exit_code} no space left while writing"), done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("std::bad_alloc", True),
        ("Failed to allocate memory for requested buffer of size 99", True),
        ("CUDA failure 2: out of memory", True),
        ("ensure the pre-allocated shapes match the expected output shapes", False),
    ],
)
def test_words_of_memory(text, memory):
    assert is_out_of_memory(text) is memory


def test_results_equal_those_of_the_graph_itself(graphs, tmp_path):
    from sr_deploy.core.media.sample import sample_input
    from sr_deploy.run.base import upscale

    lr = sample_input((9, 11), 1.0)
    engine = engine_from_graph(graphs.dynamic, tmp_path, CONTRACT, SCALE, (9, 11))
    ours, plain = (upscale(runner_from_graph(path, CONTRACT, SCALE), lr) for path in (engine, graphs.dynamic))
    assert np.abs(ours - plain).max() < 1e-6
