"""Each rule of the importer of TensorRT 8.5, with a graph that breaks it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from sr_deploy.precision.lower.tensorrt8_importer import check_legacy
from tests.precision.small_graphs import graph, node, qdq

WEIGHTS = np.random.default_rng(0).normal(0, 1, (6, 4, 3, 3))
GOOD = {"scale": 0.1, "zero": np.int8(0), "w": WEIGHTS, "w_scale": np.full(6, 0.1), "w_zero": np.zeros(6, np.int8)}


def convolution(weight_axis: int = 0, operator: str = "Conv"):
    return [
        *qdq("lr", "x"),
        *qdq("w", "wq", "w_scale", "w_zero", axis=weight_axis),
        node(operator, "x wq", "sr"),
    ]


def found(nodes, constants=GOOD, **options):
    return [str(one) for one in check_legacy(graph(nodes, constants, **options))]


def test_a_graph_that_keeps_the_rules():
    assert found(convolution()) == []
    transposed = {**GOOD, "w": np.ones((4, 6, 2, 2))}
    assert found(convolution(1, "ConvTranspose"), transposed) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"zero": np.int8(1)}, "node 'x_q_node' (QuantizeLinear): a zero point [1]; wanted all 0"),
        ({"zero": np.uint8(0)}, "a zero point of type UINT8; wanted INT8"),
        ({"zero": np.zeros(2, np.int8)}, "1 scales and 2 zero points"),
        ({"scale": np.float16(0.1)}, "a scale of type FLOAT16; wanted FLOAT"),
        ({"scale": -0.1}, "finite scales above 0"),
        ({"scale": np.nan}, "finite scales above 0"),
        ({"w_scale": np.array([0.1, 0.1, 0.0, 0.1, 0.1, 0.1])}, "node 'wq_q_node' (QuantizeLinear): scales [0.1"),
        (
            {"scale": np.full(4, 0.1), "zero": np.zeros(4, np.int8)},
            "4 scales for the activation 'lr'; wanted one scale",
        ),
        ({"w_scale": np.full(4, 0.1), "w_zero": np.zeros(4, np.int8)}, "4 scales along axis 0 of weights (6, 4, 3, 3)"),
        ({"w": WEIGHTS.astype(np.float16)}, "'w' is FLOAT16; wanted float32 data"),
    ],
)
def test_rules_of_q_and_dq(changed, words):
    lines = found(convolution(), {**GOOD, **changed})
    assert any(words in line for line in lines), lines


def test_the_axis_is_that_of_the_output_channels():
    square = {**GOOD, "w": np.ones((6, 6, 3, 3))}
    assert any(
        "axis 1 for the weights of 'sr_node' (Conv); wanted axis 0" in line for line in found(convolution(1), square)
    )
    lines = found(convolution(0, "ConvTranspose"), square)
    assert any("axis 0 for the weights of 'sr_node' (ConvTranspose); wanted axis 1" in line for line in lines)


def test_the_axis_of_matrix_products():
    for reader, axis in (
        (node("Gemm", "x wq", "sr", transB=1), 0),
        (node("Gemm", "x wq", "sr"), 1),
        (node("MatMul", "x wq", "sr"), 1),
    ):
        square = {**GOOD, "w": np.ones((6, 6))}
        for given in (0, 1):
            nodes = [*qdq("lr", "x"), *qdq("w", "wq", "w_scale", "w_zero", axis=given), reader]
            assert (found(nodes, square) == []) == (given == axis), (reader.op_type, axis, given)


def test_scales_for_channels_of_something_else():
    nodes = [*qdq("w", "wq", "w_scale", "w_zero", axis=0), node("Mul", "lr wq", "sr")]
    assert any("weights with 6 scales read by 'sr_node' (Mul)" in line for line in found(nodes))


def test_the_zero_point_is_not_optional():
    nodes = [node("QuantizeLinear", "lr scale", "q"), node("DequantizeLinear", "q scale zero", "sr")]
    assert found(nodes) == ["node 'q_node' (QuantizeLinear): 2 inputs; wanted three: data, scale and zero point"]


def test_scales_and_zero_points_are_constants():
    nodes = [node("Relu", "scale", "s"), node("Identity", "zero", "z"), *qdq("lr", "sr", "s", "z")]
    lines = found(nodes)
    assert any("the scale 's' is computed; wanted a constant" in line for line in lines)
    assert any("the zero point 'z' is computed; wanted a constant" in line for line in lines)


def test_weights_stored_in_8_bits_are_refused():
    nodes = [node("DequantizeLinear", "w w_scale w_zero", "wq", axis=0), node("Conv", "lr wq", "sr")]
    lines = found(nodes, {**GOOD, "w": np.ones((6, 4, 3, 3), np.int8)})
    assert lines == [
        "node 'wq_node' (DequantizeLinear): 'w' is a constant of type INT8; wanted a float32 constant, "
        "QuantizeLinear, then DequantizeLinear"
    ]


def test_uint8_input_is_refused():
    pixels = [helper.make_tensor_value_info("lr", TensorProto.UINT8, [1, 4, 8, 8])]
    lines = found([node("DequantizeLinear", "lr scale zero", "sr")], inputs=pixels)
    assert any("'lr' is UINT8" in line for line in lines)


@pytest.mark.parametrize(
    ("nodes", "constants", "words"),
    [
        ([node("DFT", "lr", "sr", axis=2)], {}, "(DFT): an operator without importer"),
        ([node("LayerNormalization", "lr w", "sr")], {"w": np.ones(4)}, "(LayerNormalization): an operator without"),
        ([node("Mod", "lr w", "sr", fmod=1)], {"w": 2.0}, "(Mod): an operator without importer"),
        ([node("QLinearMatMul", "lr", "sr")], {}, "(QLinearMatMul): an operator without importer"),
        ([helper.make_node("Resize", ["lr", "", "s"], ["sr"], name="up", mode="cubic")], {"s": np.ones(4)},
         "node 'up' (Resize): mode 'cubic'; wanted one of linear, nearest, or a convolution"),
        ([helper.make_node("Resize", ["lr", "r", "s"], ["sr"], coordinate_transformation_mode="tf_crop_and_resize")],
         {"r": np.ones(8), "s": np.ones(4)}, "coordinate_transformation_mode 'tf_crop_and_resize'"),
        ([node("Relu", "lr", "s"), node("InstanceNormalization", "lr s b", "sr")], {"b": np.ones(4)},
         "(InstanceNormalization): scale is 's', which is computed; wanted a constant of the file"),
        ([node("Relu", "lr", "w"), node("Conv", "lr w", "sr")], {}, "weights 'w', which are computed"),
        ([node("Shape", "lr", "s"), node("Unsqueeze", "lr s", "sr")], {}, "axes is 's', which is computed"),
        ([node("MaxPool", "lr", "sr i", kernel_shape=[2, 2])], {}, "the output Indices"),
        ([node("Cast", "lr", "n", to=TensorProto.FLOAT), node("Range", "zero n one", "sr")],
         {"zero": 0.0, "one": 1.0}, "floating-point inputs that are computed"),
        ([helper.make_node("FusedConv", ["lr"], ["sr"], name="x", domain="com.microsoft")], {}, "'com.microsoft'"),
        ([node("Add", "lr big", "sr")], {"big": np.ones(4, np.uint64)}, "'big' is UINT64"),
    ],
)  # fmt: skip
def test_operators(nodes, constants, words):
    lines = found(nodes, constants)
    assert any(words in line for line in lines), lines


@pytest.mark.parametrize(
    ("node_", "constants"),
    [
        (helper.make_node("Resize", ["lr", "", "s"], ["sr"], mode="linear"), {"s": np.ones(4)}),
        (node("InstanceNormalization", "lr s b", "sr"), {"s": np.ones(4), "b": np.ones(4)}),
        (node("MaxPool", "lr", "sr", kernel_shape=[2, 2]), {}),
        (node("Range", "zero one one", "sr"), {"zero": 0.0, "one": 1.0}),
    ],
)
def test_their_good_forms_pass(node_, constants):
    assert found([node_], constants) == []


def test_versions_of_the_file():
    model = graph([node("Relu", "lr", "sr")], {}, opset=18)
    model.ir_version = 9
    assert [str(one) for one in check_legacy(model)] == [
        "the file: operator set 18; wanted at most 17", "the file: IR version 9; wanted at most 8",
    ]  # fmt: skip


def test_branches_are_looked_into():
    inner = helper.make_graph([node("DFT", "lr", "f", axis=2)], "inner", [], [])
    branch = helper.make_node("If", ["c"], ["sr"], name="if", then_branch=inner, else_branch=inner)
    lines = found([branch], {"c": np.array(True)})
    assert len(lines) == 2 and "'f_node' (DFT)" in lines[0]


def test_constant_nodes_count_as_constants():
    value = helper.make_tensor("v", TensorProto.FLOAT, [], [0.1])
    nodes = [helper.make_node("Constant", [], ["scale"], value=value), *qdq("lr", "sr")]
    assert found(nodes, {"zero": np.int8(0)}) == []
