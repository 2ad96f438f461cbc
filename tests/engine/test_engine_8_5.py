"""The 8.5 path, from the graph to the plan, against a stand-in whose behaviour is that of the documentation."""

from __future__ import annotations

import dataclasses
import sys
import types

import pytest

import sr_deploy.engine.tensorrt as engine_tensorrt
from sr_deploy.core.errors import CheckFailed, EnvironmentFault, UsageError
from sr_deploy.core.host.machine import Gpu, Jetson, Machine
from sr_deploy.engine.flavour import logger_of
from sr_deploy.engine.options import EngineOptions
from sr_deploy.engine.preflight import (
    LEAST_WORKSPACE,
    Need,
    check_room,
    need_of,
    with_less_on_failure,
    workspace_for,
)
from sr_deploy.engine.tensorrt import engine_from_graph
from tests.engine.standin_8_5 import LISTED, Listed, stand_in

FIXED = ((8, 8),) * 3
XAVIER = Gpu("NVIDIA Jetson Xavier NX (integrated)", "7.2", None, None)
JETSON = Jetson("NVIDIA Jetson Xavier NX", "35.4.1", 8, "MODE_20W_6CORE")
BOARD = Machine("Carmel", "aarch64", 6, 8 * 10**9, 5 * 10**9, "Ubuntu 20.04", "3.8.10", (XAVIER,), JETSON)


@pytest.fixture
def board(monkeypatch):
    def install(**options):
        trt = stand_in(**options)
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        monkeypatch.setattr(engine_tensorrt, "this_machine", lambda: types.SimpleNamespace(gpus=(XAVIER,)))
        logger_of.cache_clear()
        return trt

    yield install
    logger_of.cache_clear()


def test_the_stand_in_has_no_younger_name(board):
    config = board().Builder(None).create_builder_config()
    with pytest.raises(AttributeError, match="builder_optimization_level"):
        config.builder_optimization_level = 5
    assert not hasattr(config, "progress_monitor")
    assert not hasattr(board().NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    with pytest.raises(NotImplementedError, match="says nothing of IBuilderConfig.reset"):
        config.reset()
    for holder in Listed.__subclasses__():
        public = {name for name in vars(holder) if not name.startswith("_")} - {"listed"}
        assert not [name for name in public if LISTED.lookup(holder.listed, name) is None], holder.listed


def test_float32(board, graphs):
    trt = board()
    built = engine_from_graph("tensorrt", graphs.dynamic, FIXED, options=EngineOptions(workspace_bytes=1 << 20))
    assert ("network", 1) in trt.calls and ("clear", "TF32") in trt.calls and ("WORKSPACE", 1 << 20) in trt.calls
    assert ("build", []) in trt.calls
    assert (built.settings["typing"], built.activation_bytes) == ("explicit_batch", 4096)


def test_a_range_of_sizes_has_its_profile(board, graphs):
    trt = board()
    engine_from_graph("tensorrt", graphs.dynamic, ((8, 8), (8, 16), (32, 32)))
    assert [call[0] for call in trt.calls].count("profile") == 1


def test_fp16_and_its_flags(board, graphs):
    trt = board()
    built = engine_from_graph("tensorrt", graphs.dynamic, FIXED, options=EngineOptions(precision="fp16"))
    assert built.precision == "fp16" and any(call[0] == "build" and "FP16" in call[1] for call in trt.calls)


def test_an_operator_that_the_parser_does_not_have(board, graphs, tmp_path):
    import onnx

    model = onnx.load(str(graphs.dynamic))
    model.graph.node[0].op_type = "DFT"
    onnx.save(model, str(tmp_path / "dft.onnx"))
    board()
    with pytest.raises(CheckFailed, match="DFT.*No importer registered for op: DFT"):
        engine_from_graph("tensorrt", tmp_path / "dft.onnx", FIXED)


def test_dla_tells_what_falls_back(board, graphs):
    trt = board()
    built = engine_from_graph("tensorrt", graphs.dynamic, FIXED, options=EngineOptions(precision="fp16", dla_core=1))
    assert ("set", "GPU_FALLBACK") in trt.calls
    assert built.settings["dla_core"] == "1"
    assert ("deserialize", 1) in trt.calls, "the read-back opens the engine on its core"
    on, _, total = built.settings["dla_layers"].partition(" of ")
    assert 0 < int(on) < int(total) and "shuffle" in built.settings["dla_on_gpu"]


@pytest.mark.parametrize(
    ("cores", "core", "precision", "profile", "error", "words"),
    [
        (0, 0, "fp16", FIXED, EnvironmentFault, "finds no DLA core"),
        (2, 2, "fp16", FIXED, UsageError, "(?s)no DLA core 2.*0 to 1"),
        (2, 0, "fp32", FIXED, UsageError, "(?s)does not compute in FP32.*--precision fp16"),
        (2, 0, "fp16", ((8, 8), (8, 8), (16, 16)), UsageError, "one size, not 8x8 up to 16x16"),
    ],
)
def test_dla_that_cannot_be(board, graphs, cores, core, precision, profile, error, words):
    board(dla_cores=cores)
    with pytest.raises(error, match=words):
        engine_from_graph(
            "tensorrt", graphs.dynamic, profile, options=EngineOptions(precision=precision, dla_core=core)
        )


def test_rtx_has_no_dla(graphs):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    with pytest.raises(UsageError, match="tensorrt-rtx .* has no DLA"):
        engine_from_graph("tensorrt-rtx", graphs.dynamic, FIXED, ("8.6",), EngineOptions(dla_core=0))


def test_out_of_memory_is_tried_again_with_less(board, graphs):
    """A build fails for want of memory twice; each further one is given half the workspace."""
    trt, said, tried = board(), [], []

    def build(workspace):
        tried.append(workspace)
        trt.state.workspace_needed = workspace + 1 if len(tried) < 3 else 0
        return engine_from_graph("tensorrt", graphs.dynamic, FIXED, options=EngineOptions(workspace_bytes=workspace))

    built = with_less_on_failure(build, 8 * LEAST_WORKSPACE, said.append)
    assert tried == [8 * LEAST_WORKSPACE, 4 * LEAST_WORKSPACE, 2 * LEAST_WORKSPACE]
    assert built.settings["workspace_bytes"] == str(2 * LEAST_WORKSPACE)
    assert "out of memory with a workspace of 268 MB; once more with 134 MB" in said


def test_it_ends_with_the_least_workspace_and_other_faults_are_not_repeated(board, graphs):
    trt, tried = board(), []

    def build(workspace):
        tried.append(workspace)
        trt.state.workspace_needed = 1 << 40
        return engine_from_graph("tensorrt", graphs.dynamic, FIXED, options=EngineOptions(workspace_bytes=workspace))

    with pytest.raises(EnvironmentFault, match="OutOfMemory"):
        with_less_on_failure(build, 2 * LEAST_WORKSPACE, print)
    assert tried == [2 * LEAST_WORKSPACE, LEAST_WORKSPACE]

    def no_gpu(workspace):
        tried.append("no GPU")
        raise EnvironmentFault("no GPU")

    with pytest.raises(EnvironmentFault, match="no GPU"):
        with_less_on_failure(no_gpu, 1 << 30, print)
    assert tried.count("no GPU") == 1


NEED = Need(10**9, 10**6, 10**8, "the census of the graph")


def test_room_on_a_shared_memory():
    check_room(NEED, (1080, 1080), BOARD)
    tight = dataclasses.replace(BOARD, memory_available_bytes=10**9)
    with pytest.raises(EnvironmentFault) as caught:
        check_room(NEED, (1080, 1080), tight)
    text = str(caught.value)
    for word in ("1080x1080 needs 1101 MB", "1000 MB for activations", "census", "1000 MB are free", "--memory-budget"):
        assert word in text


def test_room_on_a_card_of_its_own():
    card = Gpu("NVIDIA RTX 3090", "8.6", 24 * 10**9, "550")
    machine = dataclasses.replace(BOARD, gpus=(card,), jetson=None, memory_available_bytes=10**6)
    check_room(NEED, (8, 8), machine)
    small = dataclasses.replace(card, memory_bytes=5 * 10**8)
    with pytest.raises(EnvironmentFault, match="500 MB are on NVIDIA RTX 3090"):
        check_room(NEED, (8, 8), dataclasses.replace(machine, gpus=(small,)))
    assert workspace_for(NEED, None, machine) is None


def test_the_workspace_leaves_room_for_the_engine():
    workspace = workspace_for(NEED, None, BOARD)
    assert 1.8e9 < workspace <= (5e9 - NEED.total) / 2 and workspace % 2**20 == 0
    assert workspace_for(NEED, 123, BOARD) == 123
    assert workspace_for(NEED, None, dataclasses.replace(BOARD, memory_available_bytes=NEED.total)) == LEAST_WORKSPACE


def test_a_builders_figure_comes_before_the_census():
    def engine(**changes):
        facts = {"activation_bytes": 777, "graph_sha256": "a", "profile": ((8, 8),) * 3, "precision": "fp32"}
        return types.SimpleNamespace(**{**facts, **changes})

    assert need_of((8, 8), 2, 10, 500, [engine()], "a") == Need(
        777, 40, 3 * 4 * 64 * 5, "a builder's figure for this graph and size"
    )
    others = [engine(graph_sha256="b"), engine(profile=((9, 9),) * 3), engine(precision="fp16")]
    assert need_of((8, 8), 2, 10, 500, others, "a").activations == 500
    assert need_of((8, 8), 2, 10, 500, [], "a", "fp16").activations == 250
