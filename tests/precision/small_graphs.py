"""Small ONNX graphs by hand, for the tests of lowerings, checks and lint."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.core.deployment.plan import INT8_MAX, Plan


def graph(nodes: Sequence[onnx.NodeProto], constants: Dict[str, Any], opset: int = 17, inputs=None) -> onnx.ModelProto:
    """A model from "lr" (1, 4, h, w) to "sr"; floats of ``constants`` become float32."""
    tensors = []
    for name, value in constants.items():
        value = np.asarray(value)
        kept = value if value.dtype != np.float64 else value.astype(np.float32)
        tensors.append(numpy_helper.from_array(kept, name))
    reading = inputs or [helper.make_tensor_value_info("lr", TensorProto.FLOAT, [1, 4, "height", "width"])]
    made = helper.make_graph(
        list(nodes),
        "g",
        reading,
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["n", "c", "rows", "columns"])],
        tensors,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(operator: str, reads: str, writes: str, **attributes: Any) -> onnx.NodeProto:
    """``node("Conv", "x w", "y")``, named after its output."""
    return helper.make_node(operator, reads.split(), writes.split(), name=writes.split()[0] + "_node", **attributes)


def qdq(tensor: str, result: str, scale: str = "scale", zero: str = "zero", **attributes: Any) -> List[onnx.NodeProto]:
    """QuantizeLinear and DequantizeLinear from ``tensor`` to ``result``."""
    return [
        node("QuantizeLinear", f"{tensor} {scale} {zero}", f"{result}_q", **attributes),
        node("DequantizeLinear", f"{result}_q {scale} {zero}", result, **attributes),
    ]


def residual(opset: int = 17) -> onnx.ModelProto:
    """head → conv → PReLU → conv → + skip → conv (transposed) → PixelShuffle; "up" is the ConvTranspose."""
    rng = np.random.default_rng(0)
    constants = {
        "head_w": rng.normal(0, 0.3, (8, 4, 3, 3)), "w1": rng.normal(0, 0.2, (8, 8, 3, 3)), "b1": rng.normal(0, 1, 8),
        "w2": rng.normal(0, 0.2, (8, 8, 3, 3)), "up_w": rng.normal(0, 0.2, (8, 12, 2, 2)),
        "slope": rng.random((8, 1, 1)),
    }  # fmt: skip
    nodes = [
        node("Conv", "lr head_w", "head", pads=[1, 1, 1, 1]),
        node("Conv", "head w1 b1", "a", pads=[1, 1, 1, 1]),
        node("PRelu", "a slope", "b"),
        node("Conv", "b w2", "c", pads=[1, 1, 1, 1]),
        node("Add", "c head", "d"),
        node("ConvTranspose", "d up_w", "up", strides=[2, 2]),
        node("DepthToSpace", "up", "sr", blocksize=2),
    ]
    return graph(nodes, constants, opset)


def residual_plan(model: onnx.ModelProto, rest: str = "float32", **changes: Any) -> Plan:
    """Everything of ``residual`` in INT8 but head and shuffle; scales from the weights, 0.05 for activations."""
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    kinds = dict.fromkeys((n.name for n in model.graph.node), rest)
    kinds.update(dict.fromkeys(("a_node", "c_node", "d_node", "up_node"), "int8"))
    scales = {
        name: tuple((np.abs(weights[name]).max(axis) / INT8_MAX).astype(np.float32).tolist())
        for name, axis in (("w1", (1, 2, 3)), ("w2", (1, 2, 3)), ("up_w", (0, 2, 3)))
    }
    reasons = {"head_node": "head: it reads the picture", "sr_node": "tail"}
    fields = {
        "nodes": kinds, "rest": rest, "reasons": reasons, "weight_scales": scales,
        "activation_scales": dict.fromkeys(("head", "b", "d"), 0.05),
    }  # fmt: skip
    return Plan("int8", "0" * 64, **{**fields, **changes})
