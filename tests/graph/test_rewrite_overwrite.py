"""Channels that a network overwrites in place become a concatenation; what is no range of channels is left alone."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from sr_deploy.core.contract import IOContract
from sr_deploy.graph.export import graph_from_model
from sr_deploy.graph.rewrite import RewriteOptions, passes_named
from sr_deploy.graph.target import target_named

TRACED = (6, 8)


def overwritten(model: onnx.ModelProto, size=None):
    (one,) = passes_named("overwrite")
    return one.apply(model, RewriteOptions(size=size, traced=TRACED))


def operators(model: onnx.ModelProto):
    return [node.op_type for node in model.graph.node]


def assert_same(first: onnx.ModelProto, second: onnx.ModelProto, sizes=(TRACED, (5, 7), (1, 1))) -> None:
    sessions = [
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for model in (first, second)
    ]
    for size in sizes:
        x = torch.rand(1, 3, *size).numpy()
        outputs = [session.run(None, {session.get_inputs()[0].name: x})[0] for session in sessions]
        assert (outputs[0] == outputs[1]).all()


class Partial(nn.Module):
    """Convolves a range of its channels in place, three times."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 3, 1)
        self.first, self.middle, self.last = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))

    def forward(self, x):
        x = self.head(x)
        x[:, :2] = self.first(x[:, :2])
        x[:, 2:4, :, :] = torch.relu(self.middle(x[:, 2:4, :, :]))
        x[:, -2:] = x[:, -2:] + self.last(x[:, -2:])
        return self.tail(x)


class Strided(Partial):
    """Writes every other channel, and rows: no range of channels."""

    def forward(self, x):
        x = self.head(x)
        x[:, ::3] = self.first(x[:, ::3])
        x[:, :, :2] = x[:, :, :2] * 2.0
        return self.tail(x)


@pytest.mark.parametrize("size", [None, TRACED])
def test_a_range_of_channels_becomes_a_concatenation(tmp_path, size):
    path = tmp_path / "net.onnx"
    graph_from_model(Partial().eval(), IOContract(value_range=1.0), path, target_named("any"), size, TRACED, {})
    model = onnx.load(str(path))
    result = overwritten(model, size)
    assert (operators(model).count("ScatterND"), result.changed) == (3, 3)
    assert set(operators(result.model)) == {"Conv", "Slice", "Concat", "Relu", "Add", "Clip"}
    assert_same(model, result.model, (size,) if size else (TRACED, (5, 7), (1, 1)))


def test_what_is_no_range_of_channels_is_left_alone(tmp_path):
    path = tmp_path / "net.onnx"
    graph_from_model(Strided().eval(), IOContract(value_range=1.0), path, target_named("any"), None, TRACED, {})
    model = onnx.load(str(path))
    result = overwritten(model)
    assert operators(model).count("ScatterND") == 2
    assert (result.changed, result.model) == (0, model)
    assert overwritten(onnx.ModelProto()).changed == 0


@pytest.mark.parametrize("reduction", ["none", "add"])
def test_channels_that_are_turned_to_the_front(reduction):
    """The form of torch's newer exporter: the channels' axis first, indices from the tensor's own shape."""
    nodes = [
        helper.make_node("Shape", ["lr"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["count"], axis=0),
        helper.make_node("Range", ["zero", "count", "one"], ["all"]),
        helper.make_node("Slice", ["all", "from", "to", "axis"], ["range"]),
        helper.make_node("Unsqueeze", ["range", "end"], ["indices"]),
        helper.make_node("Slice", ["lr", "from", "to", "channels"], ["part"]),
        helper.make_node("Neg", ["part"], ["new"], name="new"),
        helper.make_node("Transpose", ["new"], ["new_turned"], perm=[1, 0, 2, 3]),
        helper.make_node("Transpose", ["lr"], ["turned"], perm=[1, 0, 2, 3]),
        helper.make_node("ScatterND", ["turned", "indices", "new_turned"], ["written"], reduction=reduction),
        helper.make_node("Transpose", ["written"], ["sr"], perm=[1, 0, 2, 3]),
    ]
    values = {"zero": 0, "one": 1, "from": [1], "to": [3], "axis": [0], "end": [-1], "channels": [1]}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, "h", "w"]) for name in ("lr", "sr")]
    stored = [numpy_helper.from_array(torch.tensor(value).numpy(), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = overwritten(model)
    assert result.changed == (1 if reduction == "none" else 0)
    if result.changed:
        assert operators(result.model) == ["Slice", "Neg", "Slice", "Concat"]
    assert_same(model, result.model)
