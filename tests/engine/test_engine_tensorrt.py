"""Real TensorRT-RTX builds without a GPU. What other flavours do differently is in test_engine_flavours.py."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadDeployment, CheckFailed, EnvironmentFault, UsageError
from sr_deploy.core.host.machine import this_machine
from sr_deploy.engine.built import write_engine
from sr_deploy.engine.flavour import flavours
from sr_deploy.engine.listing import open_listing
from sr_deploy.engine.manifest import open_engine
from sr_deploy.engine.options import EngineOptions
from sr_deploy.engine.tensorrt import engine_from_graph, targets_of
from tests.small_network import CONTRACT, FIXED_SIZE, SCALE

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed"
)
RTX = "tensorrt-rtx"
DYNAMIC = ((1, 1), (16, 16), (64, 64))


def fixed(height, width):
    return ((height, width),) * 3


@pytest.mark.parametrize("capability", ["8.6", "12.0"])
@pytest.mark.parametrize("profile", [fixed(144, 144), DYNAMIC], ids=["fixed", "dynamic"])
def test_builds_for_gpus_that_are_not_here(graphs, tmp_path, capability, profile):
    import tensorrt_rtx

    built = engine_from_graph(RTX, graphs.dynamic, profile, (capability,))
    assert built.compute_capabilities == (capability,) and built.device is None
    assert built.activation_bytes > 0 and built.weights_bytes > 0
    settings = {"typing": "strongly_typed", "tf32": "off", "built": "float32 2", "products_found": "2 of 2"}
    assert built.settings == settings and built.refusal is None
    assert built.warnings == ()
    manifest = write_engine(built, tmp_path / "engines", graphs.dynamic, CONTRACT, SCALE)
    path = tmp_path / "engines" / manifest.file
    assert manifest == open_engine(path)
    assert open_listing(path, manifest.sha256) == built.listing
    # What an input of any size moves is not known; all else is.
    assert (built.listing.bytes_moved is None) == (profile == DYNAMIC)
    assert path.read_bytes() == built.plan and manifest.sha256 == sha256_of(path)
    assert manifest.graph_sha256 == sha256_of(graphs.dynamic)
    assert manifest.runtime_version == tensorrt_rtx.__version__
    assert manifest.profile == profile and manifest.takes(profile[2]) and not manifest.takes((145, 145))
    sm = capability.replace(".", "")
    sizes = "144x144" if profile[0] == profile[2] else "1x1-16x16-64x64"
    assert manifest.file == f"tensorrt-rtx_{sizes}_sm{sm}.engine"


def test_a_fixed_graph_needs_no_profile(graphs):
    built = engine_from_graph(RTX, graphs.fixed, None, ("8.6",))
    assert built.profile == fixed(*FIXED_SIZE)
    assert engine_from_graph(RTX, graphs.fixed, fixed(*FIXED_SIZE), ("8.6",)).profile == built.profile


def test_several_gpus_in_one_engine(graphs):
    built = engine_from_graph(RTX, graphs.dynamic, DYNAMIC, ("8.6", "12.0", "8.6"))
    assert built.compute_capabilities == ("8.6", "12.0")


def test_memory_grows_with_the_picture_and_belongs_to_its_own_build(graphs):
    sizes = (fixed(720, 1280), fixed(64, 64), fixed(1080, 1920), fixed(64, 64))
    large, small, larger, small_again = (
        engine_from_graph(RTX, graphs.dynamic, size, ("8.6",)).activation_bytes for size in sizes
    )
    assert small == small_again < large < larger
    # One float32 feature map of 8 channels at 1080x1920 must fit.
    assert larger >= 8 * 1080 * 1920 * 4


def test_a_compute_capability_that_rtx_does_not_have(graphs):
    with pytest.raises(UsageError, match="(?s)compute capability 9.0.*7.5, 8.0, 8.6, 8.9, 12.0"):
        engine_from_graph(RTX, graphs.dynamic, DYNAMIC, ("8.6", "9.0"))
    for nonsense in ("86", "sm86", "", "8.6.1"):
        with pytest.raises(UsageError, match="compute capability"):
            targets_of(RTX, (nonsense,))


@pytest.mark.skipif(bool(this_machine().gpus), reason="this machine has a GPU")
def test_no_gpu_and_no_compute_capability(graphs):
    with pytest.raises(EnvironmentFault, match="(?s)no NVIDIA GPU.*--compute-capability"):
        engine_from_graph(RTX, graphs.dynamic, DYNAMIC)


def test_a_fourier_transform_is_refused_with_its_node(tmp_path):
    path = tmp_path / "dft.onnx"
    nodes = [
        helper.make_node("Unsqueeze", ["lr", "axis"], ["real"], name="unsqueeze"),
        helper.make_node("DFT", ["real"], ["sr"], name="/body/block_2/spectral", axis=2),
    ]
    axis = numpy_helper.from_array(np.array([-1], np.int64), "axis")
    path = save(path, nodes, [1, 3, 8, 8], TensorProto.FLOAT, [axis])
    with pytest.raises(CheckFailed) as caught:
        engine_from_graph(RTX, path, fixed(8, 8), ("8.6",))
    text = str(caught.value)
    for word in ("dft.onnx", "'/body/block_2/spectral'", "(DFT)", "Plugin not found", "--spectral"):
        assert word in text
    # The next build must not see the errors of this one.
    assert engine_from_graph(RTX, save_identity(tmp_path, [1, 3, 8, 8]), None, ("8.6",)).plan


def test_files_that_are_no_graphs(graphs, tmp_path):
    text, cut = tmp_path / "text.onnx", tmp_path / "cut.onnx"
    text.write_text("no graph")
    cut.write_bytes(graphs.dynamic.read_bytes()[:500])
    for path in (text, cut, tmp_path / "absent.onnx"):
        with pytest.raises(BadDeployment, match=path.name):
            engine_from_graph(RTX, path, DYNAMIC, ("8.6",))


def test_sizes_and_graphs_that_contradict_each_other(graphs):
    with pytest.raises(BadDeployment, match="(?s)8x10 only, not 9x9.*--size 9x9"):
        engine_from_graph(RTX, graphs.fixed, fixed(9, 9), ("8.6",))
    with pytest.raises(UsageError, match="(?s)takes any size.*--size"):
        engine_from_graph(RTX, graphs.dynamic, None, ("8.6",))
    with pytest.raises(UsageError, match="not in order"):
        engine_from_graph(RTX, graphs.dynamic, ((9, 9), (8, 8), (64, 64)), ("8.6",))


@pytest.mark.parametrize(
    ("shape", "element", "words"),
    [
        ([1, 1, "height", "width"], TensorProto.FLOAT, r"\(1, 1, -1, -1\)"),
        ([3, "height", "width"], TensorProto.FLOAT, r"\(3, -1, -1\)"),
        ([1, 3, "height", "width"], TensorProto.FLOAT16, "HALF"),
    ],
)
def test_inputs_that_are_not_a_picture(tmp_path, shape, element, words):
    with pytest.raises(BadDeployment, match=words):
        engine_from_graph(RTX, save_identity(tmp_path, shape, element), DYNAMIC, ("8.6",))


def test_nothing_is_changed_silently(graphs, tmp_path):
    with pytest.raises(UsageError, match="fp16"):
        engine_from_graph(RTX, graphs.dynamic, DYNAMIC, ("8.6",), EngineOptions(precision="fp16"))
    with pytest.raises(UsageError, match="timing cache"):
        engine_from_graph(RTX, graphs.dynamic, DYNAMIC, ("8.6",), EngineOptions(timing_cache=tmp_path / "cache"))
    with pytest.raises(UsageError, match="flavour 'tensorflow'"):
        engine_from_graph("tensorflow", graphs.dynamic, DYNAMIC, ("8.6",))
    built = engine_from_graph(RTX, graphs.dynamic, DYNAMIC, ("8.6",), EngineOptions(workspace_bytes=1 << 30))
    assert built.settings["workspace_bytes"] == str(1 << 30)


def test_progress_is_told_and_can_stop_the_build(graphs):
    told = []
    engine_from_graph(
        RTX,
        graphs.dynamic,
        DYNAMIC,
        ("8.6",),
        EngineOptions(progress=lambda phase, done, total: told.append((phase, done, total))),
    )
    assert told and all(0 <= done <= total for _, done, total in told)

    def stop(phase, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine_from_graph(RTX, graphs.dynamic, DYNAMIC, ("8.6",), EngineOptions(progress=stop))


def test_flavours_are_listed_with_versions():
    import tensorrt_rtx

    assert (RTX, tensorrt_rtx.__version__) in [(flavour.name, flavour.version) for flavour in flavours()]


def test_no_torch_and_no_onnx_while_building(graphs):
    """A build on a board must not hold PyTorch in memory beside the builder."""
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from sr_deploy.engine.tensorrt import engine_from_graph\n"
        f"engine_from_graph('tensorrt-rtx', Path({str(graphs.fixed)!r}), None, ('8.6',))\n"
        "assert not {'torch', 'onnx', 'onnxruntime', 'polygraphy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def save(path, nodes, shape, element, initializers=()):
    tensors = [
        helper.make_tensor_value_info("lr", element, shape),
        helper.make_tensor_value_info("sr", element, None),
    ]
    graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], list(initializers))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def save_identity(folder, shape, element=TensorProto.FLOAT):
    return save(folder / "identity.onnx", [helper.make_node("Relu", ["lr"], ["sr"], name="relu")], shape, element)


def test_a_contract_travels_with_the_engine(graphs, tmp_path):
    contract = IOContract(value_range=255.0)
    built = engine_from_graph(RTX, graphs.fixed, None, ("8.6",))
    manifest = write_engine(built, tmp_path, graphs.fixed, contract, 4)
    assert (open_engine(tmp_path / manifest.file).contract, manifest.scale) == (contract, 4)
