"""What the tensors of a graph are: their element types, and which of them follow from the picture."""

from __future__ import annotations

from typing import Dict, Mapping, Set, Tuple

import onnx

from sr_deploy.core.number_formats import FORMATS

#: Operators with weights that can run in 8 bits, and the axis of the output channels in their weights.
CHANNEL_AXIS: Mapping[str, int] = {"Conv": 0, "ConvTranspose": 1}

_FLOATS = tuple(one.onnx_type for one in FORMATS if one.floating)


def element_types(model: onnx.ModelProto) -> Dict[str, int]:
    """Tensor name → TensorProto data type, of constants and of every tensor that shape inference knows."""
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for value in [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]:
        types[value.name] = value.type.tensor_type.elem_type
    return types


def following_picture(model: onnx.ModelProto) -> Dict[str, None]:
    """Names of the tensors whose values, and not only their shapes, follow from the picture, in the graph's order.

    A dict, because it keeps that order and is as quick to ask as a set.
    """
    constants: Set[str] = {tensor.name for tensor in model.graph.initializer}
    found: Dict[str, None] = {value.name: None for value in model.graph.input if value.name not in constants}
    for node in model.graph.node:
        # A size follows from the picture's shape alone.
        if node.op_type not in ("Shape", "Size") and any(name in found for name in node.input):
            found.update((name, None) for name in node.output if name)
    return found


def floating_activations(model: onnx.ModelProto) -> Tuple[str, ...]:
    """Names of the float tensors that follow from the picture, in the graph's order, its input first."""
    types = element_types(model)
    return tuple(name for name in following_picture(model) if types.get(name) in _FLOATS)


def floating_nodes(model: onnx.ModelProto) -> Tuple[str, ...]:
    """Names of the nodes that make such a tensor, in the graph's order."""
    floats = set(floating_activations(model))
    return tuple(node.name for node in model.graph.node if floats.intersection(node.output))
