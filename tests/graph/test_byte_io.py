"""8-bit pictures in and out: the same pixels as when the host converts, in every step that follows the graph."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadImage, UsageError
from sr_deploy.core.media.image import Picture, from_network, to_network
from sr_deploy.core.media.sample import sample_for, sample_input
from sr_deploy.core.tolerance import difference_beyond_rounding
from sr_deploy.graph.byte_io import IO_PREFIX, byte_graph, takes_bytes
from sr_deploy.graph.census import census_of, graph_signature
from sr_deploy.graph.rewrite import PASSES, RewriteOptions, rewrite
from sr_deploy.graph.rewrite.report import pinned_nodes
from sr_deploy.graph.rewrite.streaming import apply_streaming
from sr_deploy.graph.specialise import static_graph
from sr_deploy.pipeline.engines.strips import prove_seams
from sr_deploy.pipeline.export import ExportOptions, contract_of, export_deployment
from sr_deploy.run.base import upscale
from sr_deploy.run.onnxruntime import runner_from_graph
from sr_deploy.run.parity import compare
from tests.small_network import CONTRACT, SCALE, small_graphs

BYTES = contract_of(1.0, "uint8")
SIZES = ((8, 10), (9, 7), (16, 13))


def picture_of(size, seed=0):
    return Picture(sample_for(BYTES, size, lambda edges, white: sample_input(edges, white, seed))[0])


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """The small network in floats, and the same with bytes at both ends."""
    floats = small_graphs(tmp_path_factory.mktemp("small")).dynamic
    path = floats.with_name("bytes.onnx")
    onnx.save(byte_graph(onnx.load(str(floats)), 1.0), str(path))
    return floats, path


def identity_graph(value_range, gain=1.0):
    """y = clip(gain · x), so that every value that is to be rounded is known."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, "height", "width"]) for n in ("lr", "sr")]
    nodes = [helper.make_node("Mul", ["lr", "gain"], ["x"]), helper.make_node("Clip", ["x", "low", "high"], ["sr"])]
    constants = {"gain": gain, "low": 0.0, "high": value_range}
    tensors = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "identity", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def ramp():
    """Every value of 8 bits in every channel, (1, 16, 16, 3)."""
    return np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)


@pytest.mark.parametrize("value_range", [1.0, 255.0])
def test_every_value_comes_back_and_halves_go_to_the_even_neighbour(tmp_path, value_range):
    same, half, double = (tmp_path / name for name in ("same.onnx", "half.onnx", "double.onnx"))
    for path, gain in ((same, 1.0), (half, 0.5), (double, 2.0)):
        onnx.save(byte_graph(identity_graph(value_range, gain), value_range), str(path))
    results = [upscale(runner_from_graph(path, BYTES, 1, threads=1), ramp()) for path in (same, half, double)]
    assert all(result.dtype == np.uint8 for result in results)
    assert np.array_equal(results[0], ramp())
    if value_range == 255.0:  # exact halves: 0.5 → 0, 1.5 → 2, 2.5 → 2
        assert np.array_equal(results[1].ravel()[:18:3], [0, 0, 1, 2, 2, 2])
        assert np.array_equal(results[1], np.rint(ramp() / 2.0).astype(np.uint8))
    assert np.array_equal(results[2], np.minimum(ramp().astype(int) * 2, 255))  # limited, no wrap-around


def test_the_nodes_at_the_ends(graphs):
    model = onnx.load(str(graphs[1]))
    io = [node for node in model.graph.node if node.name.startswith(IO_PREFIX)]
    names = [node.name[len(IO_PREFIX) :] for node in io]
    assert names == [
        "input_cast", "input_layout", "input_scale", "output_scale", "output_round", "output_layout", "output_cast",
    ]  # fmt: skip
    assert set(pinned_nodes(graphs[1])) == {node.name for node in io}
    # TensorRT takes uint8 at the network's ends only: nothing between the two casts may be of that type.
    assert (io[0].input[0], io[-1].output[0]) == ("lr", "sr")
    inner = onnx.shape_inference.infer_shapes(model).graph.value_info
    assert all(value.type.tensor_type.elem_type != TensorProto.UINT8 for value in inner)
    signature = graph_signature(graphs[1])
    assert signature.inputs == ("lr: UINT8 1xheightxwidthx3",)
    assert signature.outputs[0].startswith("sr: UINT8 1x") and signature.outputs[0].endswith("x3")
    with pytest.raises(ValueError, match="already"):
        byte_graph(model, 1.0)


def test_the_pixels_are_those_that_the_host_would_make(graphs):
    floats = runner_from_graph(graphs[0], CONTRACT, SCALE, threads=1)
    pixels = runner_from_graph(graphs[1], BYTES, SCALE, threads=1)
    for size in SIZES:
        picture = picture_of(size, seed=3)
        expected = from_network(upscale(floats, to_network(picture, CONTRACT)), CONTRACT, picture)
        found = from_network(upscale(pixels, to_network(picture, BYTES)), BYTES, picture)
        assert np.array_equal(found.pixels, expected.pixels)
    assert pixels.describe()["io"] == "uint8 NHWC" and "io" not in floats.describe()


@pytest.mark.parametrize("colour", ["RGB", "BGR"])
def test_grey_and_channel_order(graphs, colour):
    contracts = [dataclasses.replace(contract, colour=colour) for contract in (CONTRACT, BYTES)]
    runners = [runner_from_graph(path, one, SCALE, threads=1) for path, one in zip(graphs, contracts)]
    for picture in (picture_of((8, 10)), Picture(picture_of((8, 10)).pixels[:, :, :1])):
        made = [
            from_network(upscale(runner, to_network(picture, contract)), contract, picture).pixels.astype(int)
            for runner, contract in zip(runners, contracts)
        ]
        # Grey is the luma of three channels, which here have been rounded before.
        assert np.abs(made[0] - made[1]).max() <= (0 if picture.kind == "rgb" else 1)


def test_sixteen_bits_are_refused():
    deep = Picture(np.zeros((4, 5, 3), np.uint16))
    with pytest.raises(BadImage, match="(?s)16 bits.*--io uint8"):
        to_network(deep, BYTES)


def test_passes_streaming_and_fixed_sizes_leave_the_ends_alone(graphs):
    size = (24, 14)
    fixed = static_graph(graphs[1], size)
    assert takes_bytes(fixed)
    lr = sample_for(BYTES, size)
    expected = upscale(runner_from_graph(graphs[1], BYTES, SCALE, threads=1), lr)
    rewritten, _ = rewrite(onnx.load(str(graphs[1])), PASSES, RewriteOptions())
    streamed = apply_streaming(fixed, RewriteOptions(size=size, strips=4))
    assert streamed.changed
    for number, model in enumerate((fixed, rewritten, streamed.model)):
        path = graphs[1].with_name(f"form{number}.onnx")
        onnx.save(model, str(path))
        assert {"io/input_cast", "io/output_cast"} <= {node.name for node in model.graph.node}
        actual = upscale(runner_from_graph(path, BYTES, SCALE, threads=1), lr)
        assert difference_beyond_rounding(actual, expected) < 0.01
    census = census_of(graphs[1], size)
    assert census.macs == census_of(graphs[0], size).macs
    assert census.largest_tensor_bytes == census_of(graphs[0], size).largest_tensor_bytes


def test_a_seam_of_less_than_half_a_step_shows(graphs):
    """The proof of streaming looks at the values before they are rounded."""
    from sr_deploy.core.contract import SizeRules
    from sr_deploy.graph.exact import difference_in_float64

    assert prove_seams(graphs[1], BYTES, SizeRules()) < 1e-6
    first = static_graph(graphs[1], (8, 10))
    second = onnx.ModelProto()
    second.CopyFrom(first)
    bias = next(t for t in second.graph.initializer if t.name.endswith("2.bias"))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.2 / 255), bias.name))
    assert difference_in_float64(first, second, sample_for(BYTES, (8, 10))) == pytest.approx(0.2, abs=0.01)


def test_differences_beyond_rounding():
    exact = np.array([[10.4, 11.5, 12.0]])
    assert difference_beyond_rounding(np.array([[10, 12, 12]], np.uint8), exact) == 0.0
    assert difference_beyond_rounding(np.array([[10, 11, 12]], np.uint8), exact) == 0.0  # a tie may go either way
    assert difference_beyond_rounding(np.array([[11, 12, 12]], np.uint8), exact) == pytest.approx(0.1)
    flat = np.full((1, 10, 10, 3), 7, np.uint8)
    assert difference_beyond_rounding(flat, flat + np.uint8(1)) == 1.0  # all of them: not a tie
    once = flat.copy()
    once[0, 0, 0, 0] = 8
    assert difference_beyond_rounding(flat, once) == pytest.approx(1 / 300)
    assert difference_beyond_rounding(flat, np.full(flat.shape, np.nan)) == float("inf")


def test_a_wrong_graph_is_found(graphs, tmp_path):
    """A quarter of a step too bright everywhere: rounding does not hide it."""
    from sr_deploy.run.torch import TorchRunner
    from tests.small_network import small_network

    good = compare(runner_from_graph(graphs[1], BYTES, SCALE), TorchRunner(small_network()), SIZES, BYTES, 1.0)
    assert max(good.values()) < 0.001
    model = onnx.load(str(graphs[1]))
    bias = next(t for t in model.graph.initializer if t.name.endswith("2.bias"))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.25 / 255), bias.name))
    onnx.save(model, str(tmp_path / "bright.onnx"))
    runner = runner_from_graph(tmp_path / "bright.onnx", BYTES, SCALE)
    assert min(compare(runner, TorchRunner(small_network()), SIZES, BYTES, 1.0).values()) > 0.1
    plain = runner_from_graph(graphs[1], BYTES, SCALE)
    assert min(compare(runner, plain, SIZES, BYTES).values()) > 0.1


def test_tensorrt_takes_the_bytes(graphs, tmp_path):
    """TensorRT-RTX builds it, fixed and for a range of sizes, and the engine's tensors are uint8 NHWC."""
    trt = pytest.importorskip("tensorrt_rtx")
    from sr_deploy.core.errors import BadDeployment
    from sr_deploy.engine.built import write_engine
    from sr_deploy.engine.tensorrt import engine_from_graph

    for profile in (((8, 10),) * 3, ((8, 8), (16, 16), (32, 24))):
        built = engine_from_graph("tensorrt-rtx", graphs[1], profile, ("8.6",))
        manifest = write_engine(built, tmp_path, graphs[1], BYTES, SCALE)
        assert (manifest.contract.dtype, manifest.contract.layout, manifest.profile) == ("uint8", "NHWC", profile)
    with pytest.raises(BadDeployment, match="(?s)of 8x10 only, not 9x10"):
        fixed = tmp_path / "fixed.onnx"
        onnx.save(static_graph(graphs[1], (8, 10)), str(fixed))
        engine_from_graph("tensorrt-rtx", fixed, ((9, 10),) * 3, ("8.6",))
    assert trt.uint8 != trt.float32


def test_contract_of_both_forms():
    assert contract_of(1.0, "float32") == IOContract(1.0)
    assert (BYTES.value_range, BYTES.layout, BYTES.dtype) == (255.0, "NHWC", "uint8")
    assert (BYTES.shape((4, 5)), IOContract(1.0).shape((4, 5))) == ((1, 4, 5, 3), (1, 3, 4, 5))
    assert BYTES.is_known and not dataclasses.replace(BYTES, layout="NCHW").is_known
    assert not dataclasses.replace(BYTES, value_range=1.0).is_known


def test_the_commands_follow_the_contract(srdeploy, assets, tmp_path):
    """export, build, run, verify and bench of one network, against its float form."""
    import cv2

    weights, lr = assets / "weights" / "span_ch26_x4.pth", tmp_path / "lr.png"
    for name, io in (("floats", "float32"), ("bytes", "uint8")):
        outcome = srdeploy("export", weights, "-o", tmp_path / name, "--io", io)
        assert outcome.code == 0, outcome.err
    cv2.imwrite(str(lr), sample_for(BYTES, (18, 15))[0])
    built = srdeploy("build", tmp_path / "bytes", "--size", "18x15", "--backend", "onnxruntime")
    assert built.code == 0, built.err
    for name in ("floats", "bytes"):
        outcome = srdeploy("run", tmp_path / name, "-i", lr, "-o", tmp_path / f"{name}_sr")
        assert outcome.code == 0, outcome.err
    made = [cv2.imread(str(tmp_path / f"{name}_sr" / "lr.png")) for name in ("floats", "bytes")]
    assert made[0].shape == (72, 60, 3) and np.array_equal(*made)
    short = ("--size", "18x15", "--seconds", "0", "--iterations", "2", "--json")
    out = srdeploy("bench", tmp_path / "bytes", *short)
    assert out.code == 0, out.err
    (point,) = json.loads(out.out)["points"]
    assert (point["input_bytes"], point["output_bytes"], point["description"]["io"]) == (810, 12960, "uint8 NHWC")
    for folder in ("lr", "hr"):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / "lr" / "a.png"), sample_for(BYTES, (18, 15))[0])
    cv2.imwrite(str(tmp_path / "hr" / "a.png"), made[0])
    verified = srdeploy("verify", tmp_path / "bytes", "--lr", tmp_path / "lr", "--hr", tmp_path / "hr")
    assert verified.code == 0, verified.err + verified.out
    inspected = srdeploy("inspect", tmp_path / "bytes", "--json")
    assert '"dtype": "uint8"' in inspected.out and '"layout": "NHWC"' in inspected.out


def test_an_unknown_io_is_a_usage_error(assets, tmp_path):
    options = ExportOptions(assets / "weights" / "span_ch26_x4.pth", tmp_path / "net", io="uint16")
    with pytest.raises(UsageError, match="(?s)--io 'uint16'.*float32, uint8, nv12, p010"):
        export_deployment(options)
    assert not (tmp_path / "net").exists()
