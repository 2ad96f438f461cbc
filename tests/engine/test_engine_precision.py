"""Precisions of TensorRT 8.5, with a recording stand-in: it needs a GPU to build. RTX: test_engine_layers.py."""

from __future__ import annotations

import json
import sys
import types

import onnx
import pytest
from onnx import TensorProto, helper

import sr_deploy.engine.tensorrt as engine_tensorrt
from sr_deploy.core.deployment.calibration_cache import CalibrationCache, cache_text
from sr_deploy.core.errors import BadDeployment, BadInput, CheckFailed, EnvironmentFault, UsageError
from sr_deploy.core.host.machine import Gpu
from sr_deploy.engine.built import write_engine
from sr_deploy.engine.flavour import logger_of
from sr_deploy.engine.graph_nodes import node_names
from sr_deploy.engine.manifest import open_engine
from sr_deploy.engine.options import EngineOptions
from sr_deploy.engine.preflight import manifests_in
from sr_deploy.engine.tensorrt import engine_from_graph, is_strongly_typed
from sr_deploy.engine.tensorrt8 import node_to_hold
from tests.engine.bindings_contract import read_bindings
from tests.engine.standin_legacy import DataType, Layer, Tensor, tensorrt_8_5
from tests.small_network import CONTRACT, SCALE

FIXED = ((8, 8),) * 3
XAVIER = Gpu("NVIDIA Jetson Xavier NX (integrated)", "7.2", None, None)


def plain_layers():
    """conv → relu, a matrix product of two layers, and what must not be touched."""
    return [
        Layer("conv", "CONVOLUTION", [Tensor("a", DataType.FLOAT)]),
        Layer("relu", "ACTIVATION", [Tensor("b", DataType.FLOAT)]),
        Layer("pad", "SLICE", [Tensor("c", DataType.FLOAT)]),
        Layer("pad_3", "SLICE", [Tensor("d", DataType.FLOAT)]),
        Layer("shape", "SHAPE", [Tensor("e", DataType.INT32)]),
        Layer("gather", "GATHER", [Tensor("f", DataType.INT32)]),
        Layer("size", "SHUFFLE", [Tensor("g", DataType.FLOAT, is_shape_tensor=True)]),
        Layer("constant", "CONSTANT", [Tensor("h", DataType.FLOAT)]),
    ]


def quantised_layers():
    return [
        Layer("q", "QUANTIZE", [Tensor("q", DataType.INT8)]),
        Layer("dq", "DEQUANTIZE", [Tensor("dq", DataType.FLOAT)]),
        *plain_layers(),
    ]


@pytest.fixture
def board(monkeypatch):
    """``board(layers, …)`` puts the stand-in onto a machine with Xavier NX's GPU, and gives the module."""

    def install(layers, **options):
        trt = tensorrt_8_5(layers, **options)
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        monkeypatch.setattr(engine_tensorrt, "this_machine", lambda: types.SimpleNamespace(gpus=(XAVIER,)))
        logger_of.cache_clear()
        return trt

    yield install
    logger_of.cache_clear()


def build(graphs, **options):
    return engine_from_graph("tensorrt", graphs.fixed, None, options=EngineOptions(**options))


def cache_file(tmp_path, algorithm="EntropyCalibration2", version=(8, 5, 2)):
    path = tmp_path / "calibration.cache"
    path.write_text(cache_text(CalibrationCache(version, algorithm, {"lr": 1 / 128})))
    return path


def test_it_is_not_strongly_typed(board):
    board([])
    assert not is_strongly_typed("tensorrt")


@pytest.mark.parametrize(
    ("precision", "rest", "quantised", "flags"),
    [
        ("fp32", "float16", False, []),
        ("fp16", "float16", False, ["FP16"]),
        ("fp16", "float32", False, ["FP16"]),
        ("int8", "float16", True, ["FP16", "INT8"]),
        ("auto", "float16", True, ["FP16", "INT8"]),
        ("int8", "float32", True, ["INT8"]),
    ],
)
def test_flags(board, graphs, precision, rest, quantised, flags):
    trt = board(quantised_layers() if quantised else plain_layers())
    built = build(graphs, precision=precision, rest=rest)
    assert trt.flags == flags
    assert built.precision == precision and built.settings["typing"] == "explicit_batch"
    assert {name for name in ("fp16", "int8") if built.settings.get(name) == "on"} == {f.lower() for f in flags}
    detailed = trt.ProfilingVerbosity.DETAILED
    assert trt.built_with["verbosity"] == (None if precision == "fp32" else detailed)


def test_layers_are_held_and_obeyed(board, graphs):
    layers = plain_layers()
    trt = board(layers)
    named = ("conv", "pad", "shape", "gather", "size", "constant")
    held = {**dict.fromkeys(named, "float32"), "conv": "float16", "never made": "float32"}
    built = build(graphs, precision="fp16", layer_types=held)
    assert trt.flags == ["FP16", "OBEY_PRECISION_CONSTRAINTS"]
    assert built.settings["held_layers"] == "3"
    told = {layer.name: (layer.precision, layer.output_types) for layer in layers if layer.precision is not None}
    assert told == {
        "conv": (DataType.HALF, {0: DataType.HALF}),
        "pad": (DataType.FLOAT, {0: DataType.FLOAT}),
        "pad_3": (DataType.FLOAT, {0: DataType.FLOAT}),
    }


def test_names_of_second_layers():
    assert node_to_hold("/a/Pad_3", {"/a/Pad": "float32"}, {"/a/Pad"}) == "/a/Pad"
    assert node_to_hold("/a/Pad_3", {"/a/Pad": "float32", "/a/Pad_3": "float16"}, set()) == "/a/Pad_3"
    assert node_to_hold("/a/Padding", {"/a/Pad": "float32"}, set()) is None


def test_a_node_with_a_number_is_no_second_layer_of_another():
    """An exporter numbers nodes as the importer numbers layers: Mul, Mul_1, Mul_2 are three nodes."""
    nodes = {"/b/Mul", "/b/Mul_1", "/b/Mul_2"}
    assert node_to_hold("/b/Mul_1", {"/b/Mul": "float32"}, nodes) is None
    assert node_to_hold("/b/Mul_7", {"/b/Mul": "float32"}, nodes) == "/b/Mul"
    assert node_to_hold("/b/Mul_1_9", {"/b/Mul_1": "float32"}, nodes) == "/b/Mul_1"


def test_held_layers_of_a_graph_with_numbered_nodes(board, tmp_path):
    names = ["Mul", "Mul_1", "Mul_2"]
    graph = numbered_nodes(tmp_path, names)
    assert node_names(graph) == set(names)
    layers = [Layer(name, "ELEMENTWISE", [Tensor(name, DataType.FLOAT)]) for name in (*names, "Mul_3")]
    board(layers)
    built = engine_from_graph(
        "tensorrt", graph, None, options=EngineOptions(precision="fp16", layer_types={"Mul": "float32"})
    )
    assert built.settings["held_layers"] == "2"
    assert [layer.name for layer in layers if layer.precision is not None] == ["Mul", "Mul_3"]


def numbered_nodes(folder, names):
    """lr + lr, times itself, … with these node names."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("lr", "sr")]
    tensors = ["lr", *(f"t{index}" for index in range(len(names) - 1)), "sr"]
    nodes = [helper.make_node("Mul", [a, a], [b], name=name) for a, b, name in zip(tensors, tensors[1:], names)]
    path = folder / "numbered.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:])), str(path))
    return path


def test_node_names_are_those_that_onnx_reads(graphs, tmp_path):
    for path in (graphs.fixed, graphs.dynamic):
        assert node_names(path) == {node.name for node in onnx.load(str(path)).graph.node if node.name}
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(graphs.fixed.read_bytes()[:-20])
    with pytest.raises(BadDeployment, match="cut.onnx is no ONNX graph"):
        node_names(cut)


def test_holding_nothing_is_an_error(board, graphs):
    board(plain_layers())
    with pytest.raises(CheckFailed, match="(?s)none of the 1 nodes to hold has a layer, such as 'other'"):
        build(graphs, precision="fp16", layer_types={"other": "float32"})
    with pytest.raises(UsageError, match="layer types int8 do not exist"):
        build(graphs, precision="fp16", layer_types={"conv": "int8"})


@pytest.mark.parametrize(
    ("options", "words"), [({"fast_fp16": False}, "no fast FP16"), ({"fast_int8": False}, "no fast INT8")]
)
def test_a_gpu_that_cannot_is_an_error(board, graphs, options, words):
    board(quantised_layers(), **options)
    with pytest.raises(EnvironmentFault, match=words):
        build(graphs, precision="int8")
    if "fast_fp16" in options:
        build(graphs, precision="int8", rest="float32")


@pytest.mark.parametrize(
    ("algorithm", "base"),
    [("EntropyCalibration2", "IInt8EntropyCalibrator2"), ("MinMaxCalibration", "IInt8MinMaxCalibrator")],
)
def test_the_calibration_cache_is_given_to_the_right_calibrator(board, graphs, tmp_path, algorithm, base):
    trt = board(plain_layers())
    path = cache_file(tmp_path, algorithm)
    before = path.read_bytes()
    built = build(graphs, precision="int8", calibration_cache=path)
    assert trt.built_with["cache"] == before and trt.built_with["base"] == base
    assert trt.flags == ["FP16", "INT8"] and built.settings["calibration_cache"] == path.name


def test_a_cache_that_tensorrt_does_not_accept_is_an_error(board, graphs, tmp_path):
    board(plain_layers(), accepts_cache=False)
    path = cache_file(tmp_path)
    before = path.read_bytes()
    built = build(graphs, precision="int8", calibration_cache=path)
    with pytest.raises(CheckFailed, match="did not accept the calibration cache .* asked for pictures of 'lr'"):
        write_engine(built, tmp_path / "engines", graphs.fixed, CONTRACT, SCALE)
    assert path.read_bytes() == before
    assert not list((tmp_path / "engines").glob("*.engine"))


def test_caches_that_do_not_fit(board, graphs, tmp_path):
    board(plain_layers())
    with pytest.raises(BadInput, match="(?s)is for TensorRT 8.6.1, here is 8.5.2.2"):
        build(graphs, precision="int8", calibration_cache=cache_file(tmp_path, version=(8, 6, 1)))
    empty = tmp_path / "empty"
    empty.write_text("TRT-8502-EntropyCalibration2\n")
    for path, words in ((empty, "holds no scales"), (tmp_path / "absent", "cannot read")):
        with pytest.raises(BadInput, match=words):
            build(graphs, precision="int8", calibration_cache=path)


def test_requests_that_contradict_themselves(board, graphs, tmp_path):
    path = cache_file(tmp_path)
    board(plain_layers())
    with pytest.raises(UsageError, match="needs scales, and the graph has no Q/DQ"):
        build(graphs, precision="int8")
    with pytest.raises(UsageError, match="given to an engine of precision fp16"):
        build(graphs, precision="fp16", calibration_cache=path)
    with pytest.raises(UsageError, match="fp32 was given 1 layer types, the calibration cache"):
        build(graphs, layer_types={"conv": "float32"}, calibration_cache=path)
    with pytest.raises(UsageError, match="there is no precision 'fp4'"):
        build(graphs, precision="fp4")
    for precision, label in (("bf16", "BF16"), ("fp8", "FP8")):
        with pytest.raises(UsageError, match=f"{label} came with tensorrt 10.0, and this is 8.5.2.2"):
            build(graphs, precision=precision)
    board(quantised_layers())
    with pytest.raises(UsageError, match="the graph has Q/DQ, so TensorRT would not read"):
        build(graphs, precision="int8", calibration_cache=path)
    with pytest.raises(UsageError, match="the graph has Q/DQ, and precision fp16"):
        build(graphs, precision="fp16")
    with pytest.raises(UsageError, match="fp32 was given a graph with 1 DequantizeLinear"):
        build(graphs)


def inspector(kind, weights):
    tensor = [{"Name": "x", "Dimensions": [1, 8, 8, 8], "Format/Datatype": kind}]
    layer = {
        "Name": "conv + relu", "LayerType": "CaskConvolution", "ParameterType": "Convolution", "Inputs": tensor,
        "Outputs": tensor, "Weights": {"Type": weights, "Count": 9}, "Bias": {"Type": "Float", "Count": 1},
    }  # fmt: skip
    return json.dumps({"Layers": [layer], "Bindings": ["lr", "sr"]})


INT8 = "Thirty-two wide channel vectorized row major Int8 format"
HALF = "Row major linear FP16 format"


def test_what_was_built_is_read_back(board, graphs):
    board(quantised_layers(), inspected=inspector(INT8, "Int8"))
    planned = {"conv": "int8", "relu": "float16"}
    built = build(graphs, precision="int8", planned=planned)
    assert built.refusal is None and built.settings["built"] == "int8 1"
    assert built.settings["products_found"] == "1 of 1" and "narrow_nodes_not_told" not in built.settings
    settings = build(graphs, precision="int8", planned={**planned, "hidden": "int8"}).settings
    assert settings["narrow_nodes_not_told"] == "1"
    assert built.listing is not None and built.listing.source == "engine inspector"


@pytest.mark.parametrize(
    ("asked", "kind", "weights", "refused"),
    [
        ("int8", HALF, "Half", True),
        ("float16", "Row major linear FP32", "Float", False),
        ("float32", HALF, "Half", True),
        ("float16", INT8, "Int8", True),
    ],
)
def test_the_flags_of_8_5_allow_wider_and_never_narrower(board, graphs, asked, kind, weights, refused):
    board(quantised_layers(), inspected=inspector(kind, weights))
    refusal = build(graphs, precision="int8", planned={"conv": asked}).refusal
    assert (refusal is not None) == refused
    if refusal is not None:
        assert f"conv: planned {asked}, runs in" in refusal.found and "(CaskConvolution conv + relu)" in refusal.found


@pytest.mark.parametrize("inspected", ['{"Layers": ["conv + relu"], "Bindings": []}', "no JSON"])
def test_a_refused_engine_is_kept_and_is_none_to_run(board, graphs, tmp_path, inspected):
    """An hour of building is not thrown away: the file is there to be looked at, and nothing takes it for an engine."""
    board(quantised_layers(), inspected=inspector(INT8, "Int8"))
    good = write_engine(build(graphs, precision="int8"), tmp_path, graphs.fixed, CONTRACT, SCALE)
    before = (tmp_path / good.file).read_bytes()
    board(quantised_layers(), inspected=inspected)
    with pytest.raises(BadInput, match=r"(?s)kept for a look at it, not for use: .*_int8\.engine\.refused"):
        write_engine(build(graphs, precision="int8"), tmp_path, graphs.fixed, CONTRACT, SCALE)
    refused = tmp_path / f"{good.file}.refused"
    assert refused.read_bytes() == b"plan" and manifests_in(tmp_path) == [good]
    assert (tmp_path / good.file).read_bytes() == before
    with pytest.raises(BadDeployment, match="(?s)was refused after its build: the engine inspector gave"):
        open_engine(refused)
    assert open_engine(refused, refused_too=True).settings["refused"]
    # The next engine that is good takes what was refused before away.
    board(quantised_layers(), inspected=inspector(INT8, "Int8"))
    write_engine(build(graphs, precision="int8"), tmp_path, graphs.fixed, CONTRACT, SCALE)
    assert sorted(path.name.split(".", 1)[1] for path in tmp_path.iterdir()) == ["engine", "json", "layers.json"]


def test_the_stand_in_has_only_names_of_8_5():
    trt = tensorrt_8_5([])
    listed = read_bindings("tensorrt_8_5")
    own = {"flags", "built_with", "DataType"}
    public = {name for name in vars(trt) if not name.startswith("_")} - own
    assert {name for name in public if listed.lookup("module", name) is None} == set()
    for name in ("BuilderFlag", "ProfilingVerbosity", "NetworkDefinitionCreationFlag", "LayerInformationFormat"):
        assert all(listed.lookup(name, member) is not None for member in getattr(trt, name).__members__), name
    for owner, instance in (("ILayer", Layer("x", "CONVOLUTION", [])), ("ITensor", Tensor("x", DataType.FLOAT))):
        names = {name for name in dir(instance) if not name.startswith("_")} - {"output_types"}
        assert {name for name in names if listed.lookup(owner, name) is None} == set(), owner


@pytest.fixture(scope="module")
def planned_files(tmp_path_factory):
    """A plan's forms for TensorRT 8: the Q/DQ graph, the float32 graph, the cache, and the plan itself."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from sr_deploy.precision.lower.calibration_cache import cache_of, write_cache
    from sr_deploy.precision.lower.tensorrt8 import layer_types, legacy_graph
    from tests.precision.small_graphs import residual, residual_plan

    folder = tmp_path_factory.mktemp("planned")
    model = residual()
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[:, :3].copy(), weight.name))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("lr", TensorProto.FLOAT, [1, 3, "height", "width"]))
    scales = dict.fromkeys(("head", "a", "b", "c", "d", "up"), float(np.float32(0.05)))
    plan = residual_plan(model, "float16", activation_scales=scales)
    onnx.save(model, str(folder / "fp32.onnx"))
    onnx.save(legacy_graph(model, plan, {}), str(folder / "legacy.onnx"))
    write_cache(folder / "cache", cache_of(model, plan, (8, 5, 2)))
    return folder, layer_types(model, plan), layer_types(model, plan, implicit=True)


def test_both_forms_of_a_plan_build_in_a_stand_in_that_reads_the_graph(monkeypatch, planned_files):
    """tests/engine/standin_8_5.py holds more of the documentation: Q/DQ, tables, flags that OBEY needs."""
    from tests.engine.standin_8_5 import stand_in

    folder, explicit, implicit = planned_files
    for name, held, cache in (("legacy", explicit, None), ("fp32", implicit, folder / "cache")):
        trt = stand_in()
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        monkeypatch.setattr(engine_tensorrt, "this_machine", lambda: types.SimpleNamespace(gpus=(XAVIER,)))
        logger_of.cache_clear()
        engine_from_graph(
            "tensorrt",
            folder / f"{name}.onnx",
            FIXED,
            options=EngineOptions(precision="int8", layer_types=held, calibration_cache=cache),
        )
        flags = next(set(call[1]) for call in trt.calls if call[0] == "build")
        assert {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"} <= flags
        told = {call[1:] for call in trt.calls if call[0] == "precision"}
        wanted = {"head_node"} if name == "legacy" else {"head_node", "sr_node"}
        assert {layer for layer, _ in told} == wanted
        assert (("calibration", 6) in trt.calls) == (name == "fp32")
    logger_of.cache_clear()
