"""Q/DQ lies where TensorRT fuses it, and the graph computes what the plan's numbers say."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sr_deploy.core.errors import BadDeployment
from sr_deploy.precision.evaluate import computing
from sr_deploy.precision.lower.quantize import quantized_graph, quantized_weights
from tests.precision.small_graphs import graph, node, residual, residual_plan

RNG = np.random.default_rng(3)


def wiring(model: onnx.ModelProto):
    """Tensor → the node that makes it, and tensor → operators that read it."""
    maker = {name: node for node in model.graph.node for name in node.output}
    readers = {}
    for one in model.graph.node:
        for name in one.input:
            readers.setdefault(name, []).append(one)
    return maker, readers


def constants_of(model: onnx.ModelProto):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def by_name(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(one for one in model.graph.node if one.name == name)


@pytest.fixture
def model():
    return residual()


@pytest.fixture
def quantized(model):
    result = quantized_graph(model, residual_plan(model), {})
    onnx.checker.check_model(result, full_check=True)
    return result


def test_the_places(quantized):
    maker, readers = wiring(quantized)
    pairs = {n.input[0] for n in quantized.graph.node if n.op_type == "QuantizeLinear"}
    assert pairs == {"head", "b", "d"}, "one pair for each tensor that INT8 nodes read"
    for name in ("a_node", "c_node", "up_node"):
        one = by_name(quantized, name)
        assert [maker[tensor].op_type for tensor in one.input[:2]] == ["DequantizeLinear"] * 2, name
    assert by_name(quantized, "a_node").input[2] == "b1", "biases stay floats"
    head = by_name(quantized, "head_node")
    assert list(head.input) == ["lr", "head_w"]
    assert [r.op_type for r in readers["a"]] == ["PRelu"], "nothing between a convolution and its activation"
    assert [r.op_type for r in readers["up"]] == ["DepthToSpace"], "nothing in front of the shuffle"


def test_an_int8_add_reads_its_skip_in_8_bits_and_the_convolution_directly(quantized):
    add = by_name(quantized, "d_node")
    assert list(add.input) == ["c", "head/dequantized"]
    assert by_name(quantized, "a_node").input[0] == "head/dequantized", "one pair serves both readers"


def test_weights_are_stored_in_8_bits_without_minus_128(model, quantized):
    plan, values, stored = residual_plan(model), constants_of(model), constants_of(quantized)
    maker, _ = wiring(quantized)
    for name, axis in (("w1", 0), ("w2", 0), ("up_w", 1)):
        whole = stored[f"{name}/int8"]
        assert whole.dtype == np.int8 and whole.shape == values[name].shape and name not in stored
        others = tuple(index for index in range(4) if index != axis)
        assert (np.abs(whole.astype(int)).max(axis=others) == 127).all(), "every channel uses its whole range"
        dequantize = maker[f"{name}/dequantized"]
        assert [a.i for a in dequantize.attribute if a.name == "axis"] == [axis]
        scales = stored[dequantize.input[1]]
        assert scales.tolist() == [np.float32(one) for one in plan.weight_scales[name]]
        assert stored[dequantize.input[2]].dtype == np.int8 and not stored[dequantize.input[2]].any()


@pytest.mark.parametrize("axis", [0, 1])
def test_quantised_weights_are_clipped_and_rounded_half_to_even(axis):
    values = np.float32([[0.5, 1.5, 2.5, -0.5], [-300, 300, 127.4, -127.6]])
    scales = np.ones(values.shape[axis])
    expected = [[0, 2, 2, 0], [-127, 127, 127, -127]]
    assert quantized_weights(values, scales, axis).tolist() == expected
    assert quantized_weights(values * 0.25, scales * 0.25, axis).tolist() == expected


def fake(x: np.ndarray, scale: float) -> np.ndarray:
    return np.clip(np.rint(x / np.float32(scale)), -128, 127).astype(np.float64) * np.float32(scale)


def convolved(x: np.ndarray, weights: np.ndarray, bias=0.0) -> np.ndarray:
    """3×3 with a border of zeros, (C, H, W) in float64."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    return np.einsum("chwij,ocij->ohw", windows, weights) + np.reshape(bias, (-1, 1, 1))


def test_numbers_equal_a_reference_in_numpy(model):
    plan = residual_plan(model)
    lr = RNG.normal(0, 1, (1, 4, 7, 9)).astype(np.float32)
    c = {name: value.astype(np.float64) for name, value in constants_of(model).items()}
    for name, axis in (("w1", 0), ("w2", 0), ("up_w", 1)):
        shape = [1] * 4
        shape[axis] = -1
        scales = np.reshape(np.float32(plan.weight_scales[name]), shape).astype(np.float64)
        c[name] = np.clip(np.rint(c[name] / scales), -127, 127) * scales
    head = convolved(lr[0].astype(np.float64), c["head_w"]).astype(np.float32)
    a = convolved(fake(head, 0.05), c["w1"], c["b1"])
    b = np.where(a > 0, a, a * c["slope"]).astype(np.float32)
    d = (convolved(fake(b, 0.05), c["w2"]) + fake(head, 0.05)).astype(np.float32)
    up = np.einsum("chw,coij->ohiwj", fake(d, 0.05), c["up_w"]).reshape(12, 14, 18)
    expected = up.reshape(2, 2, 3, 14, 18).transpose(2, 3, 0, 4, 1).reshape(3, 28, 36)
    got = computing(quantized_graph(model, plan, {}), 1)(lr)[0]
    assert got.std() > 0.1
    assert np.abs(got - expected).max() < 1e-4
    plain = computing(model, 1)(lr)[0]
    assert np.abs(plain - expected).max() > 0.05, "the rounding is not nothing"


def test_replaced_weights_are_the_ones_that_are_quantised(model):
    plan = residual_plan(model)
    changed = constants_of(model)["w1"] * 0.5
    result = constants_of(quantized_graph(model, plan, {"w1": changed, "b1": np.ones(8, np.float32)}))
    assert np.array_equal(result["w1/int8"], quantized_weights(changed, plan.weight_scales["w1"], 0))
    assert np.array_equal(result["b1"], np.ones(8))


def test_the_given_graph_stays_as_it_is(model):
    before = model.SerializeToString()
    quantized_graph(model, residual_plan(model), {})
    assert model.SerializeToString() == before


def test_a_shared_weight_is_stored_once():
    weights = RNG.normal(0, 0.3, (4, 4, 3, 3))
    pads = {"pads": [1, 1, 1, 1]}
    model = graph([node("Conv", "lr w", "x", **pads), node("Conv", "x w", "sr", **pads)], {"w": weights})
    scales = tuple((np.abs(weights).max((1, 2, 3)) / 127).tolist())
    plan = residual_plan(
        residual(), nodes={"x_node": "int8", "sr_node": "int8"}, weight_scales={"w": scales}, reasons={},
        activation_scales={"lr": 0.02, "x": 0.05},
    )  # fmt: skip
    result = quantized_graph(model, plan, {})
    assert sum(n.op_type == "DequantizeLinear" for n in result.graph.node) == 3
    assert {n.input[1] for n in result.graph.node if n.op_type == "Conv"} == {"w/dequantized"}


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"nodes": {"ghost": "float16"}}, "no node 'ghost'"),
        ({"nodes": {"b_node": "int8"}}, "PRelu, which does not run in INT8"),
        ({"nodes": {"sr_node": "int8"}}, "DepthToSpace"),
        ({"activation_scales": {"head": 0.05, "b": 0.05}}, "'up_node' reads 'd', which has no scale"),
        ({"activation_scales": {"b": 0.05, "d": 0.05}}, "'d_node' is an INT8 Add and none of its inputs"),
        ({"weight_scales": {}}, "'a_node' wants 8 scales"),
        ({"weight_scales": {"w1": (0.1,) * 7, "w2": (0.1,) * 8, "up_w": (0.1,) * 12}}, "'a_node' wants 8 scales"),
        ({"weight_scales": {"w1": (0.1,) * 8, "w2": (0.1,) * 8, "up_w": (0.1,) * 8}}, "'up_node' wants 12 scales"),
        ({"rest": "float16", "activation_scales": dict.fromkeys(("head", "b", "d"), 1e-9)}, "float16"),
        ({"rest": "float16", "activation_scales": dict.fromkeys(("head", "b", "d"), 1e6)}, "float16"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_its_names(model, changes, complaint):
    with pytest.raises(BadDeployment, match=complaint):
        quantized_graph(model, residual_plan(model, **changes), {})


def test_weights_that_do_not_fit_are_refused(model):
    plan = residual_plan(model)
    for weights in ({"w1": np.zeros((8, 8, 1, 1), np.float32)}, {"ghost": np.zeros(3, np.float32)}):
        with pytest.raises(BadDeployment, match=next(iter(weights))):
            quantized_graph(model, plan, weights)


def test_a_weight_that_is_made_by_a_node_cannot_run_in_8_bits():
    model = graph([node("Relu", "w0", "w"), node("Conv", "lr w", "sr")], {"w0": RNG.normal(0, 1, (4, 4, 1, 1))})
    plan = dataclasses.replace(
        residual_plan(residual()), nodes={"sr_node": "int8"}, weight_scales={}, activation_scales={"lr": 0.1}
    )
    with pytest.raises(BadDeployment, match="'w' is made by a node"):
        quantized_graph(model, plan, {})
