"""The reach of a graph by experiment: one row of the input is changed, and it is looked where the output changes.

With its trained weights a network's outermost pixels count for less than a rounding error. So the experiment is made
on the same graph with random weights whose convolutions keep the size of their input: there the influence of a pixel at
the border of the receptive field falls by a square root of the window for each convolution, not by orders of magnitude.
"""

from __future__ import annotations

from typing import List

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from sr_deploy.core.contract import IOContract, Size
from sr_deploy.core.media.sample import sample_for
from sr_deploy.graph.byte_io import IO_PREFIX

_SEED = 0
#: ONNX Runtime's log level that shows nothing short of its own end.
_ONLY_FATAL = 4


def unit_gain(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with random convolutions of gain one, and without what hides a small change: clamps and rounding."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    generator = np.random.default_rng(_SEED)
    weights = {node.input[1] for node in result.graph.node if node.op_type in ("Conv", "ConvTranspose")}
    for tensor in result.graph.initializer:
        if tensor.name in weights and tensor.data_type == TensorProto.FLOAT:
            shape = tuple(tensor.dims)
            gain = 1.0 / np.sqrt(np.prod(shape[1:]))
            value = generator.standard_normal(shape, np.float32) * np.float32(gain)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    for node in result.graph.node:
        if node.op_type == "Clip" or (node.op_type == "Round" and node.name.startswith(IO_PREFIX)):
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
        for attribute in node.attribute if node.op_type == "Cast" else ():
            if attribute.name == "to" and attribute.i == TensorProto.UINT8:
                attribute.i = TensorProto.FLOAT
    for value in result.graph.output:
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    return result


def seen_reach(model: onnx.ModelProto, contract: IOContract, sizes: List[Size]) -> int:
    """The largest distance, in pixels of the input, at which a changed row or column changed the output.

    Args:
        model: takes each of ``sizes``.
        contract: of the graph.
        sizes: one to change rows of, one to change columns of: (height, width).
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ONLY_FATAL
    probed = unit_gain(model).SerializeToString()
    session = onnxruntime.InferenceSession(probed, options, providers=["CPUExecutionProvider"])
    farthest = 0
    for axis, size in enumerate(sizes):
        lr = sample_for(contract, size)
        place = [slice(None)] * 4
        middle = size[axis] // 2
        place[contract.row_axis + axis] = slice(middle, middle + 1)
        other = lr.copy()
        other[tuple(place)] = contract.value_range - other[tuple(place)]
        before, after = (session.run(None, {contract.input_name: fed})[0] for fed in (lr, other))
        # A graph may overflow with random weights: NaN that stays NaN tells nothing.
        different = (before != after) & ~(np.isnan(before) & np.isnan(after))
        changed = np.any(different, axis=tuple(a for a in range(4) if a != contract.row_axis + axis))
        rows = np.flatnonzero(changed) // (len(changed) // size[axis])
        farthest = max(farthest, int(np.max(np.abs(rows - middle), initial=0)))
    return farthest
