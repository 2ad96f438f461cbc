"""Two graphs compared in float64, where rounding cannot hide a seam or be mistaken for one.

In float32 some networks amplify rounding: SPAN-tiny on white noise is off by up to 0.6 of 255 from its own float64.
"""

from __future__ import annotations

from typing import List, cast

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from sr_deploy.graph.byte_io import IO_PREFIX


def double_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph as one that computes in float64 throughout; ``model`` is not modified.

    One with 8-bit output (graph/byte_io.py) gives float64 before the rounding, which would hide what is to be seen.
    """
    double = onnx.ModelProto()
    double.CopyFrom(model)
    attributes = [(node, attribute) for node in double.graph.node for attribute in node.attribute]
    tensors = [*double.graph.initializer, *(attribute.t for _, attribute in attributes if attribute.name == "value")]
    resizes = [node for node in double.graph.node if node.op_type == "Resize"]
    scales = {name for node in resizes for name in node.input[1:3]}  # ONNX wants these in float32
    for tensor in tensors:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in scales:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for node, attribute in attributes:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.DOUBLE
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.UINT8:
            attribute.i = TensorProto.DOUBLE
    for node in double.graph.node:
        if node.op_type == "Round" and node.name.startswith(IO_PREFIX):
            node.op_type = "Identity"
    for value in [*double.graph.input, *double.graph.output]:
        if value in double.graph.output or value.type.tensor_type.elem_type != TensorProto.UINT8:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    del double.graph.value_info[:]
    return double


def difference_in_float64(first: onnx.ModelProto, second: onnx.ModelProto, lr: np.ndarray) -> float:
    """The largest difference of two static float32 graphs of one input, computed in float64 by ONNX's reference.

    Args:
        first, second: the graphs, both of the shape of ``lr``.
        lr: as both take it: floats (1, 3, H, W) or uint8 (1, H, W, 3); small, for the reference is slow.
    """
    outputs = []
    for model in (first, second):
        fed = {model.graph.input[0].name: lr if lr.dtype == np.uint8 else lr.astype(np.float64)}
        # A dict only where intermediate results are asked for.
        made = cast(List[np.ndarray], ReferenceEvaluator(double_graph(model)).run(None, fed))
        outputs.append(made[0])
    return float(np.abs(outputs[0] - outputs[1]).max())
