"""The listing of layers: lines of the builder's log, the inspector's JSON of each release, figures, the file."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_deploy.core.errors import BadDeployment, BadInput
from sr_deploy.engine.flavour import logger_of
from sr_deploy.engine.listing import (
    Layer,
    Listing,
    Tensor,
    layer_facts,
    listing_path,
    listing_text,
    open_listing,
    summary,
)
from sr_deploy.engine.listing_parse import (
    is_listing,
    listing_from_inspector,
    listing_from_log,
    nodes_of_layer,
    type_in,
)
from sr_deploy.engine.options import EngineOptions
from sr_deploy.engine.tensorrt import engine_from_graph

RTX = "tensorrt-rtx"
UNIT = "\x1f"
#: As the builder writes them: the last has brackets in its own words.
FORMATS = (
    "(Linear) Row major linear format",
    "(NHWC) Channel major format",
    "(Arbitrary) Format with stride order = [5,0,4,3,2,1]",
)


def written(tensors):
    """Tensors in the builder's words."""
    words = {"float16": "Half", "float32": "Float", "int8": "Int8", "int32": "Int32"}
    parts = []
    for place, tensor in enumerate(tensors):
        shape = ",".join(map(str, tensor.shape))
        parts.append(
            f" {{ Name: {tensor.name}, Dimensions: [{shape}], Strides: [{shape}], StrideOrder: [{shape}], "
            f"Datatype: {words[tensor.type]}, Format: {FORMATS[place % 3]} }}"
        )
    return "[" + ",".join(parts) + "]"


def line(layer):
    """A layer in the builder's words."""
    nodes = UNIT.join(f"[ONNX Layer: {node}]" for node in layer.nodes)
    return (
        f"Name: {layer.name}, LayerType: {layer.kind}, Inputs: {written(layer.inputs)}, "
        f"Constants: {written(layer.constants)}, Outputs: {written(layer.outputs)}, TacticName: x, StreamId: 0, "
        f"Metadata: {nodes}"
    )


def message(*lines):
    return "Layers:\n" + "\n".join(lines) + "\n\nI/O Tensors:\n Name: lr, IOMode: Input, DataType: Float\n"


def conv(name="c", shape=(1, 8, 4, 4), kind="correlation", types=("float16", "float16"), weights="float16"):
    return Layer(
        f"{name}_myl0_1", kind, (name,), (Tensor("x", shape, types[0]),), (Tensor("w", (8, 8, 3, 3), weights),),
        (Tensor("y", shape, types[1]),),
    )  # fmt: skip


names = st.text(alphabet="ab/_.,:;{}[]()+ |'\"\\\x1e日", min_size=1, max_size=30).map(lambda text: f"n{text}n")
tensors = st.lists(
    st.builds(
        Tensor,
        names,
        st.lists(st.integers(-1, 4096), max_size=5).map(tuple),
        st.sampled_from(["float16", "float32", "int8", "int32"]),
    ),
    max_size=3,
).map(tuple)


@settings(max_examples=150, deadline=None)
@given(name=names, inputs=tensors, constants=tensors, outputs=tensors, node=names)
def test_names_may_hold_commas_braces_and_brackets(name, inputs, constants, outputs, node):
    node = node.replace("\x1e", "")  # separates nodes
    layer = Layer(name, "kgen", (node,), inputs, constants, outputs)
    listing = listing_from_log([message(line(layer), line(conv()))], [])
    assert listing.layers == (layer, conv()) and listing.unread == ()


def test_odd_lines_are_counted_and_kept_and_do_not_crash():
    good = line(conv())
    odd = (
        "Name: x, LayerType",
        good.replace("Datatype: Half", "Datatype:"),
        good.replace("Outputs: [ {", "Outputs: [ <"),
        good.replace("Inputs: ", "Reads: "),
        good[:120],
        "something else entirely",
    )
    listing = listing_from_log([message(good, *odd, good)], ["c"])
    assert listing.layers == (conv(), conv())
    assert listing.unread == odd and summary(listing)["unread_lines"] == len(odd)
    assert listing_from_log([message("nonsense, LayerType: kgen")], []).unread == ("nonsense, LayerType: kgen",)
    assert listing_from_log([], []) is None


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=200), cut=st.integers(0, 600))
def test_no_text_crashes_the_parser(text, cut):
    broken = line(conv())[:cut] + text
    listing = listing_from_log([f"Layers:\n{broken}"], [])
    assert listing.layers or listing.unread or not broken.strip()


def test_the_log_of_tensorrt_10():
    """As Torch-TensorRT's documentation shows it: another word for the type, constants among the inputs."""
    text = (
        "Name: __myl_MulSum_myl0_0, LayerType: kgen, Inputs: [ { Name: __mye116_dconst, Dimensions: [10,10], "
        "Format/Datatype: Float }, { Name: x, Dimensions: [10,1], Format/Datatype: Half }], Outputs: [ { Name: "
        "__myln_k_arg__bb1_2, Dimensions: [1,10], Format/Datatype: Float }], TacticName: __myl_MulSum_0xfa6c, "
        "StreamId: 0, Metadata: "
    )
    listing = listing_from_log([message(text)], [])
    (layer,) = listing.layers
    assert layer.constants == (Tensor("__mye116_dconst", (10, 10), "float32"),) and listing.unread == ()
    assert layer.inputs == (Tensor("x", (10, 1), "float16"),) and layer.outputs[0].shape == (1, 10)
    classic = (
        "Name: a + b, LayerType: CaskConvolution, Inputs: [ { Name: x, Location: Device, Dimensions: [1,8,4,4], "
        "Format/Datatype: Channel major FP16 format where channel % 8 == 0 }], Outputs: [], ParameterType: Convolution"
    )
    (layer,) = listing_from_log([message(classic)], []).layers
    assert layer.nodes == ("a", "b") and layer.inputs == (Tensor("x", (1, 8, 4, 4), "float16"),)


def test_what_is_a_listing():
    assert is_listing(message(line(conv())))
    for text in ("Layer: x Host Persistent: 80 bytes", "Layers:\n", "the LayerType: kgen"):
        assert not is_listing(text)


def test_nodes_of_fused_layers():
    assert nodes_of_layer("/a/Conv + /a/Relu", "") == ("/a/Conv", "/a/Relu")
    assert nodes_of_layer("PWN(PWN(/a/Sigmoid), /a/Mul)", None) == ("/a/Sigmoid", "/a/Mul")
    for between in ("\x1e", UNIT, ""):
        told = between.join(["[ONNX Layer: /a/Conv]", "[ONNX Layer: /a/Relu]", "[ONNX Layer: /a/Conv]"])
        assert nodes_of_layer("__myl_Conv_0", told) == ("/a/Conv", "/a/Relu")
    # TensorRT-RTX appends how it computes a node.
    assert nodes_of_layer("__myl_0", "[ONNX Layer: /a[0]/Conv]__gemm_from_conv1x1") == ("/a[0]/Conv",)


@pytest.mark.parametrize(
    ("words", "name"),
    [("Half", "float16"), ("Channel major FP16 format where channel % 8 == 0", "float16"), ("Float", "float32"),
     ("Row major linear FP32", "float32"), ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
     ("UInt8", "uint8"), ("BFloat16", "bfloat16"), ("FP8", "float8"), ("Int64", "int64"), ("E8M0", "unknown"),
     ("", "unknown")],
)  # fmt: skip
def test_words_for_types(words, name):
    assert type_in(words) == name


INT8 = "Thirty-two wide channel vectorized row major Int8 format"


def test_the_inspector_up_to_tensorrt_10():
    tensor = {"Name": "i", "Location": "Device", "Dimensions": [1, 8, 8, 8], "Format/Datatype": INT8}
    layer = {
        "Name": "a + b", "LayerType": "CaskConvolution", "Inputs": [tensor], "Outputs": [tensor],
        "ParameterType": "Convolution", "Weights": {"Type": "Int8", "Count": 576},
    }  # fmt: skip
    listing = listing_from_inspector(json.dumps({"Layers": [layer], "Bindings": ["lr", "sr"]}), ["a"])
    (only,) = listing.layers
    assert only.nodes == ("a", "b") and only.constants == (Tensor("weights", (576,), "int8"),)
    assert only.inputs == only.outputs == (Tensor("i", (1, 8, 8, 8), "int8"),)
    assert listing.product_layers() == {"a": only} and listing.bytes_moved == 2 * 512
    layer = {**layer, "LayerType": "ConvActPool", "ConvWeights": layer.pop("Weights")}
    pooled = listing_from_inspector(json.dumps({"Layers": [layer]}), ["a"]).layers[0]
    assert pooled.constants == only.constants


@pytest.mark.parametrize("key", ["DataType", "Datatype"])
def test_the_inspector_of_tensorrt_11_and_of_myelin(key):
    tensor = {"Name": "i", "Dimensions": [1, 8, 8, 8], "Format": "NHWC8", key: "Half"}
    layer = {
        "Name": "__myl_CorrSilu_myl0_2", "LayerType": "runtime_fusion", "Inputs": [tensor], "Outputs": [tensor],
        "Constants": [{"Name": "w", "Dimensions": [8, 8, 3, 3], key: "Half"}],
        "Metadata": "[ONNX Layer: a]\x1e[ONNX Layer: b]",
    }  # fmt: skip
    listing = listing_from_inspector(json.dumps({"Layers": [layer], "I/O Tensors": ["lr", "sr"]}), ["a"])
    assert summary(listing)["products"] == {"float16 → float16": 1}
    assert listing.layers[0].constants == (Tensor("w", (8, 8, 3, 3), "float16"),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no JSON", "gave no JSON"),
        ("[]", "JSON without layers"),
        ('{"Bindings": []}', "JSON without layers"),
        ('{"Layers": ["a", "b"]}', "names of layers only"),
    ],
)
def test_what_the_inspector_may_say_instead(text, words):
    with pytest.raises(BadInput, match=words):
        listing_from_inspector(text, [])


@pytest.mark.parametrize("oddity", [{"Inputs": 7}, {"Weights": {"Count": "x"}}, {"Metadata": 3}, {"Outputs": ["y"]},
                                    {"Inputs": [{"Dimensions": ["a"]}]}])  # fmt: skip
def test_odd_fields_of_the_inspector_do_not_crash(oddity):
    listing = listing_from_inspector(json.dumps({"Layers": [{"Name": "a", "LayerType": "conv", **oddity}]}), ["a"])
    assert len(listing.layers) == 1


def test_what_a_layer_moves():
    shape = (1, 8, 4, 4)
    twice = Layer("l", "kgen", (), (Tensor("x", shape, "float16"),) * 2, (), (Tensor("y", shape, "float32"),))
    assert (twice.bytes_read, twice.bytes_written, twice.bytes_moved) == (256, 512, 768)
    unknown = dataclasses.replace(twice, outputs=(Tensor("y", (1, 8, -1, 4), "float32"),))
    assert unknown.bytes_written is None and unknown.bytes_moved is None
    wait = Layer("w", "wait", (), (), (), ())
    listing = Listing("builder's log", (twice, wait, unknown), ())
    assert listing.kernels == 2 and listing.bytes_moved is None
    assert Listing("builder's log", (twice, wait), ()).bytes_moved == 768
    assert Tensor("x", (3,), "fp4").bytes == 2 and Tensor("x", (3,), "unknown").bytes is None


def test_the_layer_that_computes_a_product():
    padding = Layer("pad", "kgen", ("lr/cast", "c"), (), (), ())
    behind = Layer("slice", "kgen", ("c", "Slice"), (), (), ())
    listing = Listing("builder's log", (padding, conv(), behind), ("c", "gone"))
    assert listing.product_layers() == {"c": conv()}
    facts = summary(listing)
    assert (facts["products_in_graph"], facts["products_found"]) == (2, 1)
    # A small product becomes part of a pointwise kernel, and no layer of a product's kind names it.
    assert Listing("builder's log", (padding, behind), ("c",)).product_layers() == {"c": behind}
    assert [one["products"] for one in layer_facts(listing)] == [["c"], [], []]


def test_the_file_and_what_it_refuses(tmp_path):
    engine = tmp_path / "x.engine"
    listing = Listing("builder's log", (conv(), conv("d", (1, 8, -1, -1))), ("c", "d"), ("odd",))
    assert open_listing(engine, "0" * 64) is None
    path = listing_path(engine)
    assert path.name == "x.layers.json"
    path.write_text(listing_text(listing, "0" * 64))
    assert open_listing(engine, "0" * 64) == listing
    with pytest.raises(BadDeployment, match="is the listing of another engine"):
        open_listing(engine, "1" * 64)
    good = json.loads(path.read_text())
    for change in (
        {"schema": 2}, {"layers": 3}, {"layers": [{}]}, {"products": "c"}, {"unread": [1]}, {"source": None},
        {"layers": [{**good["layers"][0], "inputs": [{"name": "x", "shape": [1.5], "type": "int8"}]}]},
        {"layers": [{**good["layers"][0], "inputs": [{"name": "x", "shape": [-7], "type": "int8"}]}]},
        {"layers": [{**good["layers"][0], "kind": 4}]},
    ):  # fmt: skip
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(BadDeployment, match=r"x\.layers\.json"):
            open_listing(engine, "0" * 64)
    for text in ("", "[]", "{", '{"schema": 1}'):
        path.write_text(text)
        with pytest.raises(BadDeployment, match=r"x\.layers\.json"):
            open_listing(engine, "0" * 64)


def plain_figures(texts):
    """Kernels and bytes moved of a raw log, computed in the plainest way and with none of the product's code."""
    width = {"Half": 2, "Float": 4, "Int8": 1, "UInt8": 1, "Int32": 4, "Int64": 8, "Bool": 1}
    kernels = moved = 0
    for text in (one for whole in texts for one in whole.split("\n") if "LayerType: " in one):
        kernels += not re.search("LayerType: (signal|wait)", text)
        reads = re.search(r"Inputs: \[(.*?)\](?=, (?:Constants|Outputs))", text).group(1)
        writes = re.search(r"Outputs: \[(.*?)\](?=, TacticName)", text).group(1)
        for part, once in ((reads, True), (writes, False)):
            found = re.findall(r"\{ Name: (.*?), Dimensions: \[([\d,]*)\].*?Datatype: (\w+)", part)
            for _, shape, kind in {one[0]: one for one in found}.values() if once else found:
                count = 1
                for extent in filter(None, shape.split(",")):
                    count *= int(extent)
                moved += count * width[kind]
    return kernels, moved


def test_figures_of_a_small_graph_equal_a_plain_computation(graphs):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    built = engine_from_graph(RTX, graphs.dynamic, ((16, 24),) * 3, ("8.6",))
    raw = logger_of(RTX).messages.listings
    assert len(raw) == 1 and (built.listing.kernels, built.listing.bytes_moved) == plain_figures(raw)
    # Two convolutions of the network: 3 → 8 → 12 channels of 16 × 24 float32, and the shuffle behind them.
    assert summary(built.listing)["products"] == {"float32 → float32": 2}
    assert built.listing.bytes_moved >= 4 * 16 * 24 * (3 + 8 + 8 + 12)


@pytest.mark.parametrize(
    ("checkpoint", "kernels", "megabytes"), [("span_ch26_x4.pth", 30, 77.6), ("efdn_x4.pth", 86, 286.6)]
)
def test_figures_of_networks_equal_those_of_another_program(
    assets, shared_export, tmp_path, checkpoint, kernels, megabytes
):
    """The program beside the checkpoints reads the same builder's log; it knows nothing of this package."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    from sr_deploy.precision.lower.typed_graph import half_graph

    folder = shared_export(checkpoint)
    half = tmp_path / "half.onnx"
    onnx.save(half_graph(onnx.load(str(folder / "model.onnx"))), str(half))
    listing = engine_from_graph(RTX, half, ((144, 144),) * 3, ("8.6",), EngineOptions(precision="fp16")).listing
    assert (listing.kernels, round(listing.bytes_moved / 1e6, 1)) == (kernels, megabytes) and not listing.unread
    facts = summary(listing)
    assert facts["products_found"] == facts["products_in_graph"] == sum(facts["products"].values())
    program = assets / "tools" / "rtx_layers.py"
    if not program.is_file():
        pytest.skip(f"there is no {program}")
    told = subprocess.run(
        [sys.executable, str(program), str(half), "--size", "144"], capture_output=True, text=True, check=True
    ).stdout
    assert told.startswith(f"{kernels} kernels") and f"layers read and write {megabytes} MB" in told
