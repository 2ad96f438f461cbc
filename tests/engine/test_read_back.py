"""What was built against what was planned: real TensorRT-RTX engines, and the inspector's JSON in its forms."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sr_deploy.core.errors import BadDeployment, CheckFailed
from sr_deploy.engine.built import write_engine
from sr_deploy.engine.layers import NetworkLayer
from sr_deploy.engine.listing import Layer, Listing, Tensor, summary
from sr_deploy.engine.listing_parse import listing_from_inspector
from sr_deploy.engine.manifest import open_engine
from sr_deploy.engine.options import EngineOptions
from sr_deploy.engine.read_back import read_back
from sr_deploy.engine.tensorrt import engine_from_graph
from tests.precision.small_graphs import graph, node
from tests.small_network import CONTRACT, SCALE

RTX = "tensorrt-rtx"
INT8 = "Thirty-two wide channel vectorized row major Int8 format"
HALF = "Channel major FP16 format where channel % 8 == 0"
FLOAT = "Row major linear FP32"


def product(name, computes="float16", weighted=True):
    return NetworkLayer(name, "CONVOLUTION", (name,), computes, True, weighted)


def old(name, kind, reads, writes, weights=None, parameter=""):
    """A layer as TensorRT up to 10 tells of it."""
    layer = {
        "Name": name, "LayerType": kind, "ParameterType": parameter,
        "Inputs": [{"Name": "i", "Dimensions": [1, 8, 8, 8], "Format/Datatype": reads}],
        "Outputs": [{"Name": "o", "Dimensions": [1, 8, 8, 8], "Format/Datatype": writes}],
    }  # fmt: skip
    return {**layer, "Weights": {"Type": weights, "Count": 576}} if weights else layer


def inspected(layers, products):
    return listing_from_inspector(json.dumps({"Layers": layers, "Bindings": ["lr", "sr"]}), products)


def judged(entries, layers, planned=None, strong=True):
    return read_back(inspected(entries, [layer.name for layer in layers]), layers, planned or {}, strong, "the graph")


# Not refused: input and output types of layers without a product.


def test_a_layernorm_island_becomes_one_kernel_with_float16_at_both_ends():
    """TensorRT's form of it, as `CastMeanSubMul…Cast` of the Myelin compiler."""
    entries = [
        old("c", "gemm", HALF, HALF, "Half"),
        {**old("__myl_CastMeanSubMulMeanAddSqrtDivMulMulAddCast_myl0_2", "kgen", HALF, HALF),
         "Metadata": "[ONNX Layer: cast]\x1e[ONNX Layer: norm]\x1e[ONNX Layer: back]"},
    ]  # fmt: skip
    read = judged(entries, [product("c")], {"c": "float16", "norm": "float32"})
    assert read.refusal is None and read.warnings == ()
    assert read.settings == {"built": "float16 1", "products_found": "1 of 1", "io_narrower_than_planned": "1"}


def test_dequantize_with_silu_and_an_int8_add_of_8_5():
    entries = [
        old("c + skip", "CaskConvolution", INT8, INT8, "Int8", "Convolution"),
        old("PWN(PWN(/a/Sigmoid), /a/Mul)", "PointWiseV2", INT8, HALF),
        old("add", "ElementWise", INT8, INT8),
    ]
    planned = {"c": "int8", "skip": "int8", "/a/Sigmoid": "float16", "/a/Mul": "float16", "add": "float16"}
    for strong in (True, False):
        read = judged(entries, [product("c", "int8")], planned, strong)
        assert read.refusal is None and read.settings["built"] == "int8 1"


def test_types_of_products_follow_their_weights_not_their_ends():
    """A cast before a product and one after it are fused with it."""
    entries = [old("c", "runtime_fusion", HALF, HALF, "Float"), old("d", "CaskConvolution", INT8, FLOAT, "Int8")]
    read = judged(entries, [product("c", "float32"), product("d", "int8")])
    assert read.refusal is None and read.settings["built"] == "int8 1, float32 1"


# Refused.


@pytest.mark.parametrize(
    ("planned", "reads", "weights", "words"),
    [
        ("float32", HALF, "Half", "c: planned float32, runs in float16 (CaskConvolution c)"),
        ("float16", INT8, "Int8", "c: planned float16, runs in int8"),
        ("float32", FLOAT, "Int8", "c: planned float32, runs in int8"),
    ],
)
def test_a_product_narrower_than_planned_is_refused(planned, reads, weights, words):
    read = judged([old("c", "CaskConvolution", reads, HALF, weights)], [product("c", planned)])
    assert isinstance(read.refusal, CheckFailed) and words in read.refusal.found


def test_one_of_many_in_a_wider_type_is_a_warning_and_all_are_a_refusal():
    layers = [product("c", "int8"), product("d", "int8")]
    entries = [old("c", "CaskConvolution", INT8, HALF, "Int8"), old("d", "CaskConvolution", HALF, HALF, "Half")]
    read = judged(entries, layers)
    assert read.refusal is None and read.settings["built"] == "int8 1, float16 1"
    assert read.warnings == (
        "1 of 2 products run in a wider type than planned: d: planned int8, runs in float16 (CaskConvolution d)",
    )
    none = judged([old(name, "CaskConvolution", HALF, HALF, "Half") for name in "cd"], layers)
    assert none.refusal is not None and "2 layers of the engine of the graph" in none.refusal.found


def test_finding_no_product_is_an_error():
    entries = [old("__myl_Something_0", "kgen", HALF, HALF)]
    read = judged(entries, [product("c"), product("d")])
    assert read.refusal is not None
    assert "names none of the 2 products of the graph: it lists 1 layers" in read.refusal.found
    # TensorRT 8 hides all nodes of a Myelin region in one layer, named after its ends: not told, and not refused.
    opaque = judged([old("{ForeignNode[/a/MatMul.../z/Add]}", "Myelin", HALF, HALF)], [product("c")])
    assert opaque.refusal is None and "1 of 1 products are named by no layer" in opaque.warnings[0]
    # A graph without products has none to find.
    assert judged(entries, []).refusal is None


def test_products_that_are_not_told_and_lines_that_are_not_read_are_warnings():
    (layer,) = inspected([old("c", "gemm", HALF, HALF, "Half")], []).layers
    listing = Listing("builder's log", (layer,), ("c", "d"), ("odd",))
    read = read_back(listing, [product("c"), product("d")], {}, True, "the graph")
    assert read.settings["products_found"] == "1 of 2" and read.refusal is None
    assert any("1 of 2 products are named by no layer, so their types are not known: d" in w for w in read.warnings)
    assert any("1 lines of the builder's log could not be read as layers, the first: odd" in w for w in read.warnings)


@pytest.mark.parametrize(
    ("planned", "refused"), [("float32", False), ("float16", False), ("int8", True)]
)  # fmt: skip
def test_a_product_in_a_pointwise_kernel_of_two_types_is_one_of_them(planned, refused):
    """Attention's small products: both types are in the kernel, for a cast was fused too."""
    kernel = Layer(
        "__myl_CastMulMulAdd", "kgen", ("c",),
        (Tensor("q", (6, 64, 4), "float32"), Tensor("k", (6, 64, 4), "float16")), (),
        (Tensor("s", (6, 64, 64), "float32"),),
    )  # fmt: skip
    read = read_back(Listing("builder's log", (kernel,), ("c",)), [product("c", planned, False)], {}, True, "g")
    assert (read.refusal is not None) == refused
    assert read.settings["built"] == "float16 or float32 1"


# Real builds.


@pytest.fixture
def rtx():
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


def island():
    """conv in float16, LayerNorm in float32 between two casts, conv in float16."""
    rng = np.random.default_rng(0)
    constants = {
        "w1": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float16),
        "w2": rng.normal(0, 0.3, (3, 8, 3, 3)).astype(np.float16),
        "g": np.ones(8, np.float32), "b": np.zeros(8, np.float32),
    }  # fmt: skip
    nodes = [
        node("Cast", "lr", "half", to=TensorProto.FLOAT16),
        node("Conv", "half w1", "c", pads=[1, 1, 1, 1]),
        node("Transpose", "c", "rows", perm=[0, 2, 3, 1]),
        node("Cast", "rows", "wide", to=TensorProto.FLOAT),
        node("LayerNormalization", "wide g b", "norm", axis=-1),
        node("Cast", "norm", "narrow", to=TensorProto.FLOAT16),
        node("Transpose", "narrow", "back", perm=[0, 3, 1, 2]),
        node("Conv", "back w2", "d", pads=[1, 1, 1, 1]),
        node("Cast", "d", "sr", to=TensorProto.FLOAT),
    ]
    return graph(nodes, constants, 17, [helper.make_tensor_value_info("lr", TensorProto.FLOAT, [1, 3, "h", "w"])])


def test_rtx_a_layernorm_island_is_built_and_read_back_without_a_gpu(rtx, tmp_path):
    onnx.save(island(), str(tmp_path / "island.onnx"))
    planned = {"c_node": "float16", "norm_node": "float32", "d_node": "float16"}
    built = engine_from_graph(
        RTX, tmp_path / "island.onnx", ((16, 16),) * 3, ("8.6",), EngineOptions(precision="fp16", planned=planned)
    )
    assert built.refusal is None and built.settings["built"] == "float16 2"
    assert built.settings["products_found"] == "2 of 2"
    # The kernel of the LayerNorm reads and writes float16: what the read-back must not take for its type.
    (norm,) = [layer for layer in built.listing.layers if "norm_node" in layer.nodes]
    assert {tensor.type for tensor in (*norm.inputs, *norm.outputs)} == {"float16"}


def test_rtx_a_plan_that_the_engine_does_not_keep_is_refused_after_it_is_saved(rtx, tmp_path, monkeypatch):
    """The builder is made to lie about one product: the engine is kept under another name and cannot be opened."""
    import sr_deploy.engine.tensorrt as engine_tensorrt

    onnx.save(island(), str(tmp_path / "island.onnx"))
    true = engine_tensorrt.listing_of

    def narrower(*arguments):
        listing = true(*arguments)
        layers = []
        for layer in listing.layers:
            constants = tuple(dataclasses.replace(one, type="int8") for one in layer.constants)
            layers.append(dataclasses.replace(layer, constants=constants) if "d_node" in layer.nodes else layer)
        return dataclasses.replace(listing, layers=tuple(layers))

    monkeypatch.setattr(engine_tensorrt, "listing_of", narrower)
    built = engine_from_graph(RTX, tmp_path / "island.onnx", ((16, 16),) * 3, ("8.6",), EngineOptions(precision="fp16"))
    with pytest.raises(CheckFailed, match="(?s)d_node: planned float16, runs in int8.*kept for a look at it"):
        write_engine(built, tmp_path / "engines", tmp_path / "island.onnx", CONTRACT, SCALE)
    (refused,) = (tmp_path / "engines").glob("*.refused")
    assert refused.read_bytes() == built.plan and not list((tmp_path / "engines").glob("*.engine"))
    with pytest.raises(BadDeployment, match="was refused after its build"):
        open_engine(refused)
    # Not even when its files are given the names of an engine.
    for path in (tmp_path / "engines").iterdir():
        path.rename(path.with_name(path.name.replace(".engine.refused", ".engine").replace(".engine.json", ".json")))
    with pytest.raises(BadDeployment, match="was refused after its build"):
        open_engine(next((tmp_path / "engines").glob("*.engine")))


@pytest.fixture(scope="module")
def eight_bits(tmp_path_factory):
    """Three convolutions, the two inner ones in INT8."""
    from sr_deploy.precision.lower.typed_graph import typed_graph
    from tests.precision.small_graphs import residual, residual_plan

    model = residual()
    weight = model.graph.initializer[0]
    values = onnx.numpy_helper.to_array(weight)[:, :3]
    weight.CopyFrom(onnx.numpy_helper.from_array(values.copy(), weight.name))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("lr", TensorProto.FLOAT, [1, 3, "h", "w"]))
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    onnx.save(typed_graph(model, residual_plan(model, "float16"), {}), str(path))
    return path


def test_rtx_every_product_is_found_in_int8(rtx, eight_bits):
    """Myelin calls them correlation and deconv and spells the type Datatype: 0 of 4 were found before."""
    listing = engine_from_graph(RTX, eight_bits, ((16, 16),) * 3, ("8.6",), EngineOptions(precision="int8")).listing
    assert summary(listing)["products"] == {"int8 → float32": 2, "float16 → float16": 2}
    assert listing.products == ("head_node", "a_node", "c_node", "up_node")


def test_rtx_an_int8_engine_without_int8_in_it_is_refused(rtx, eight_bits):
    """For SM75 TensorRT-RTX 1.7.1 computes everything in float16."""
    refusal = engine_from_graph(RTX, eight_bits, ((16, 16),) * 3, ("7.5",), EngineOptions(precision="int8")).refusal
    assert refusal is not None and "a_node: planned int8, runs in float16" in refusal.found


def test_rtx_without_a_listing_says_so(rtx, eight_bits, monkeypatch):
    import sr_deploy.engine.flavour as flavour

    monkeypatch.setattr(flavour, "is_listing", lambda text: False)
    built = engine_from_graph(RTX, eight_bits, ((16, 16),) * 3, ("8.6",), EngineOptions(precision="int8"))
    assert built.listing is None and built.refusal is None
    assert any("lists no layers here, so the engine was not held against its graph" in w for w in built.warnings)


def test_detailed_verbosity_changes_neither_the_engines_size_nor_its_memory(rtx, graphs):
    import tensorrt_rtx as trt

    from sr_deploy.engine.flavour import collected, logger_of

    sizes = []
    for verbosity in (trt.ProfilingVerbosity.DETAILED, trt.ProfilingVerbosity.LAYER_NAMES_ONLY):
        with collected(RTX) as messages:
            builder = trt.Builder(logger_of(RTX))
            network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
            assert trt.OnnxParser(network, logger_of(RTX)).parse_from_file(str(graphs.fixed))
            config = builder.create_builder_config()
            config.profiling_verbosity = verbosity
            config.num_compute_capabilities = 1
            config.set_compute_capability(trt.ComputeCapability.SM86, 0)
            sizes.append((len(bytes(builder.build_serialized_network(network, config))), dict(messages.memory)))
    assert sizes[0] == sizes[1]
