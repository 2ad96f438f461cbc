"""A graph of half (or double) precision as one that computes in float32, from which every plan starts."""

from __future__ import annotations

from typing import Tuple

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from sr_deploy.graph.given.read import nodes_of, tensors_of

#: Types that become float32.
OTHER_FLOATS = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
#: Attributes that name an element type.
_TYPE_ATTRIBUTES = ("to", "dtype")


def other_floats(model: onnx.ModelProto) -> Tuple[str, ...]:
    """The names of the floating types other than float32 that weights and pictures have, such as "float16"."""
    found = {tensor.data_type for tensor in tensors_of(model.graph)}
    found |= {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    return tuple(TensorProto.DataType.Name(kind).lower() for kind in OTHER_FLOATS if kind in found)


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with every floating tensor in float32; ``model`` is not modified.

    Values are those that the narrower type has; what its arithmetic rounds or overflows on the way no longer does.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in tensors_of(result.graph):
        if tensor.data_type in OTHER_FLOATS:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in nodes_of(result.graph):
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i in OTHER_FLOATS:
                attribute.i = TensorProto.FLOAT
    for value in (*result.graph.input, *result.graph.output):
        if value.type.tensor_type.elem_type in OTHER_FLOATS:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del result.graph.value_info[:]
    return result
