"""Types of a network's layers against the plan, with real RTX networks. Of the engine: test_read_back.py."""

from __future__ import annotations

import onnx
import pytest

from sr_deploy.core.errors import CheckFailed, UsageError
from sr_deploy.engine.built import write_engine
from sr_deploy.engine.flavour import logger_of
from sr_deploy.engine.layers import NetworkLayer, check_network, differences, network_layers
from sr_deploy.engine.manifest import open_engine
from sr_deploy.engine.options import EngineOptions
from sr_deploy.engine.tensorrt import engine_from_graph, is_strongly_typed
from tests.small_network import CONTRACT, SCALE

RTX = "tensorrt-rtx"
FIXED = ((8, 8),) * 3


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """A network of three convolutions in three forms, and its INT8 plan."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    from onnx import TensorProto, helper

    from sr_deploy.precision.lower.typed_graph import half_graph, typed_graph
    from tests.precision.small_graphs import residual, residual_plan

    model = residual()
    # The engine wants a picture of three channels.
    weight = model.graph.initializer[0]
    values = onnx.numpy_helper.to_array(weight)[:, :3]
    weight.CopyFrom(onnx.numpy_helper.from_array(values.copy(), weight.name))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("lr", TensorProto.FLOAT, [1, 3, "height", "width"]))
    plan = residual_plan(model, "float16")
    folder = tmp_path_factory.mktemp("typed")
    for name, form in (("fp32", model), ("fp16", half_graph(model)), ("int8", typed_graph(model, plan, {}))):
        onnx.save(form, str(folder / f"{name}.onnx"))
    return folder, plan


def build(typed, form, **options):
    return engine_from_graph(RTX, typed[0] / f"{form}.onnx", FIXED, ("8.6",), EngineOptions(**options))


def test_rtx_is_strongly_typed_and_takes_no_layer_types(typed, tmp_path):
    assert is_strongly_typed(RTX)
    for options in ({"layer_types": {"a_node": "float32"}}, {"calibration_cache": tmp_path / "c"}):
        with pytest.raises(UsageError, match="takes its types from the graph"):
            build(typed, "int8", precision="int8", **options)


@pytest.mark.parametrize(
    ("form", "precision", "products"),
    [
        ("fp16", "fp16", "float16 4"),
        ("int8", "int8", "int8 3, float16 1"),
        ("int8", "auto", "int8 3, float16 1"),
        ("fp16", "auto", "float16 4"),
    ],
)
def test_rtx_builds_typed_graphs_as_planned(typed, tmp_path, form, precision, products):
    built = build(typed, form, precision=precision, planned=typed[1].nodes if form == "int8" else {})
    assert built.settings["products"] == products and built.settings["products_found"] == "4 of 4"
    # TensorRT-RTX 1.7.1 computes no ConvTranspose in INT8: as exact as planned, and said.
    words = "1 of 4 products run in a wider type than planned: up_node: planned int8, runs in float16"
    assert any(words in line for line in built.warnings) == (form == "int8")
    assert built.settings["built"] == ("int8 2, float16 2" if form == "int8" else "float16 4")
    manifest = write_engine(built, tmp_path, typed[0] / "fp32.onnx", CONTRACT, SCALE)
    assert manifest.file == f"tensorrt-rtx_8x8_sm86_{precision}.engine"
    assert open_engine(tmp_path / manifest.file).precision == precision


@pytest.mark.parametrize(
    ("form", "precision"), [("fp32", "fp16"), ("fp32", "int8"), ("fp16", "fp32"), ("fp16", "int8"), ("int8", "fp32"),
                            ("int8", "fp16")]
)  # fmt: skip
def test_a_graph_of_other_types_than_asked_is_refused(typed, form, precision):
    with pytest.raises(UsageError, match=f"precision {precision} was asked for, and the products of"):
        build(typed, form, precision=precision)


@pytest.mark.parametrize(
    ("planned", "words"),
    [
        ({"head_node": "int8"}, r"head_node \(CONVOLUTION\): planned int8, runs in float16"),
        ({"head_node": "float32"}, r"head_node \(CONVOLUTION\): planned float32, runs in float16"),
        ({"up_node": "float16"}, r"up_node \(DECONVOLUTION\): planned float16, runs in int8"),
        ({"b_node": "float32"}, r"b_node \(PARAMETRIC_RELU\): planned float32, runs in float16"),
    ],
)
def test_layers_that_are_not_as_planned_are_named(typed, planned, words):
    with pytest.raises(CheckFailed, match=words):
        build(typed, "int8", precision="int8", planned={**typed[1].nodes, **planned})


def test_onnxruntime_records_the_precision_of_its_graph(typed, tmp_path):
    import numpy as np

    from sr_deploy.engine.manifest import engine_name
    from sr_deploy.engine.onnxruntime import CPU, open_session
    from sr_deploy.engine.onnxruntime import engine_from_graph as onnxruntime_engine

    path = onnxruntime_engine(typed[0] / "int8.onnx", tmp_path, CONTRACT, SCALE, precision="int8")
    assert path.name == "onnxruntime_dynamic_int8.onnx" == engine_name("onnxruntime", None, precision="int8")
    assert open_engine(path).precision == "int8"
    lr = np.random.default_rng(0).random((1, 3, 6, 9), dtype=np.float32)
    import onnxruntime

    made, graph = (open_session(p, onnxruntime.SessionOptions(), CPU) for p in (path, typed[0] / "fp32.onnx"))
    difference = np.abs(made.run(None, {"lr": lr})[0] - graph.run(None, {"lr": lr})[0]).max()
    assert 0 < difference < 1


def layer(computes, product=True, nodes=("a",), kind="CONVOLUTION"):
    return NetworkLayer("+".join(nodes), kind, nodes, computes, product)


@pytest.mark.parametrize(
    ("one", "planned", "is_different"),
    [
        (layer("int8"), {"a": "int8"}, False),
        (layer("float16"), {"a": "int8"}, True),
        (layer("float32"), {"a": "float16"}, True),
        (layer("float32", product=False), {"a": "float16"}, False),
        (layer("float16", product=False), {"a": "float32"}, True),
        (layer("int8", nodes=("a", "b")), {"a": "int8", "b": "float16"}, False),
        (layer(None), {"a": "int8"}, False),
        (layer("float16"), {"other": "int8"}, False),
        (layer("float32", False, kind="QUANTIZE"), {"a": "int8"}, False),
    ],
)
def test_what_counts_as_a_difference(one, planned, is_different):
    assert bool(differences([one], planned)) == is_different


def test_many_differences_are_counted():
    layers = tuple(layer("float32", nodes=(f"n{i}",)) for i in range(11))
    with pytest.raises(CheckFailed, match="(?s)11 layers of x do not run as planned.*and 3 more"):
        check_network(layers, "auto", {f"n{i}": "int8" for i in range(11)}, "x")


def test_products_are_known_with_their_constants(typed):
    """A factor that comes from a constant through Q/DQ and casts is one: the read-back goes by the weights' type."""
    products = {layer.name: layer for layer in parsed(typed[0] / "int8.onnx") if layer.product}
    assert {name: layer.computes for name, layer in products.items()} == {
        "head_node": "float16", "a_node": "int8", "c_node": "int8", "up_node": "int8",
    }  # fmt: skip
    assert all(layer.weighted for layer in products.values())
    assert all(layer.nodes == (name,) for name, layer in products.items())


def parsed(path):
    import tensorrt_rtx as trt

    logger = logger_of(RTX)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path))
    return network_layers(network)
