"""A rounded graph gives what float16 arithmetic in numpy gives; the plain one does not."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.precision.float16_rounding import rounded_graph, rounding_session
from sr_deploy.precision.lower.typed_graph import half_graph
from tests.small_network import small_graphs, small_network


def chain() -> onnx.ModelProto:
    """relu(((x + 1000) - 1000) · 3): the sum loses ten bits in float16."""
    constants = [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in (("big", 1000.0), ("three", 3.0))]
    nodes = [
        helper.make_node("Add", ["lr", "big"], ["a"], name="add"),
        helper.make_node("Sub", ["a", "big"], ["b"], name="sub"),
        helper.make_node("Mul", ["b", "three"], ["c"], name="mul"),
        helper.make_node("Relu", ["c"], ["sr"], name="relu"),
    ]
    value = helper.make_tensor_value_info
    ends = [value("lr", TensorProto.FLOAT, [1, 3, "h", "w"])], [value("sr", TensorProto.FLOAT, [1, 3, "h", "w"])]
    graph = helper.make_graph(nodes, "g", *ends, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_every_node_rounds():
    half = half_graph(chain())
    lr = np.random.default_rng(0).random((1, 3, 5, 7), dtype=np.float32)
    f16 = np.float16
    expected = np.maximum((lr.astype(f16) + f16(1000) - f16(1000)) * f16(3), f16(0)).astype(np.float32)
    assert np.abs(expected - 3 * lr).max() > 0.1
    before = half.SerializeToString()
    assert np.array_equal(rounding_session(rounded_graph(half)).run(None, {"lr": lr})[0], expected)
    assert half.SerializeToString() == before


def test_overflow_is_seen_and_tensors_can_be_read():
    model = rounded_graph(half_graph(chain()), ["a"])
    lr = np.full((1, 3, 2, 2), 65000.0, np.float32)
    sr, a = rounding_session(model).run(["sr", "a"], {"lr": lr})
    assert a.dtype == np.float16 and np.isinf(a).all() and np.isinf(sr).all()


def test_a_network_is_as_close_as_its_layers_rounded_in_pytorch(tmp_path):
    model = half_graph(onnx.load(str(small_graphs(tmp_path).dynamic)))
    lr = np.random.default_rng(1).random((1, 3, 9, 11), dtype=np.float32)
    sr = rounding_session(rounded_graph(model), threads=1).run(None, {"lr": lr})[0]

    def half(tensor):
        return tensor.half().float()

    network = small_network()
    now = half(torch.from_numpy(lr))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(half(parameter))
        for layer in network:
            now = half(layer(now))
    # The order of a sum may move a value to the next float16 number, now and then.
    assert np.mean(sr == now.numpy()) > 0.98 and np.abs(sr - now.numpy()).max() <= 2**-10
