"""A half graph computes in float16 where it may, in float32 where a node is pinned, and casts only at the borders."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.core.errors import CheckFailed, UsageError
from sr_deploy.graph.export import PIN_MARK
from sr_deploy.precision.lower.typed_graph import half_graph


def network(scale: float = 1.0, pinned: bool = False) -> onnx.ModelProto:
    """conv → relu → (pinned) conv → resize → clip, and a branch of shapes alone."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(0, 0.3, (4, 3, 3, 3)) * scale, "w2": rng.normal(0, 0.3, (4, 4, 3, 3)),
        "scales": np.array([1, 1, 2, 2]), "zero": np.array(0.0), "one": np.array(1.0),
    }  # fmt: skip
    constants = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()]
    constants.append(numpy_helper.from_array(np.array([3]), "axis"))
    nodes = [
        helper.make_node("Conv", ["lr", "w1"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="second", pads=[1, 1, 1, 1]),
        helper.make_node("Resize", ["c", "", "scales"], ["d"], name="up", mode="nearest"),
        helper.make_node("Shape", ["lr"], ["shape"], name="shape"),
        helper.make_node("Gather", ["shape", "axis"], ["width"], name="width"),
        helper.make_node("Cast", ["width"], ["width_float"], name="to_float", to=TensorProto.FLOAT),
        helper.make_node("Div", ["d", "width_float"], ["e"], name="div"),
        helper.make_node("Clip", ["e", "zero", "one"], ["sr"], name="clip"),
    ]
    if pinned:
        nodes[2].doc_string = f"{PIN_MARK} (test)"
    inputs = [helper.make_tensor_value_info("lr", TensorProto.FLOAT, [1, 3, "h", "w"])]
    outputs = [helper.make_tensor_value_info("sr", TensorProto.FLOAT, [1, 4, "oh", "ow"])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def types_of(model: onnx.ModelProto):
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types.update({t.name: t.data_type for t in model.graph.initializer})
    return types


def test_types_and_values():
    model = network()
    half = half_graph(model)
    onnx.checker.check_model(half, full_check=True)
    types = types_of(half)
    assert types["lr"] == types["sr"] == TensorProto.FLOAT
    assert {types[name] for name in "abcde"} == {TensorProto.FLOAT16}
    assert types["scales"] == TensorProto.FLOAT and types["width_float"] == TensorProto.FLOAT
    lr = np.random.default_rng(1).random((1, 3, 9, 12), dtype=np.float32)
    sessions = [onnxruntime.InferenceSession(one.SerializeToString()) for one in (model, half)]
    exact, rounded = (session.run(None, {"lr": lr})[0] for session in sessions)
    assert 0 < np.abs(exact - rounded).max() < 2e-3 and exact.std() > 0.01


def test_casts_only_at_the_borders():
    casts = [node.input[0] for node in half_graph(network()).graph.node if node.op_type == "Cast"]
    assert sorted(casts) == ["lr", "sr/float16", "width", "width_float"]


def test_pinned_nodes_stay_float32():
    half = half_graph(network(pinned=True))
    types = types_of(half)
    second = next(node for node in half.graph.node if node.name == "second")
    assert [types[name] for name in (*second.input, *second.output)] == [TensorProto.FLOAT] * 3
    assert second.doc_string.startswith(PIN_MARK)
    assert types["b"] == types["d"] == TensorProto.FLOAT16
    free = half_graph(network(pinned=True), keep_pinned=False)
    assert types_of(free)["c"] == TensorProto.FLOAT16


def test_unused_constants_are_gone_and_the_given_graph_is_not_modified():
    model = network()
    before = model.SerializeToString()
    half = half_graph(model)
    assert model.SerializeToString() == before
    assert {t.name for t in half.graph.initializer} == {
        "w1/float16", "w2/float16", "zero/float16", "one/float16", "scales", "axis",
    }  # fmt: skip


def test_a_constant_beyond_float16_is_an_error():
    with pytest.raises(CheckFailed, match="w1"):
        half_graph(network(scale=1e6))


def test_graphs_with_branches_are_refused():
    model = network()
    body = helper.make_graph([helper.make_node("Identity", ["lr"], ["x"])], "b", [], [])
    branch = helper.make_node("If", ["flag"], ["y"], name="branch", then_branch=body, else_branch=body)
    model.graph.node.extend([branch])
    with pytest.raises(UsageError, match="branch"):
        half_graph(model)
