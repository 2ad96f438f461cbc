"""Counting a graph: operators, parameters, multiply-accumulates, tensor sizes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

import onnx

from sr_deploy.core.contract import Size
from sr_deploy.graph.specialise import static_graph


@dataclass(frozen=True)
class Census:
    """What a graph holds, for one input size.

    Attributes:
        size: the input (height, width) it was counted at.
        operators: operator → how many nodes.
        dtypes: element type → how many weight tensors.
        parameters: weights of convolutions and matrix products and all other floating-point constants with more than
            one element that the dynamic graph holds.
        macs: multiply-accumulates of Conv, ConvTranspose, Gemm and MatMul; additions, activations, pooling and
            resizing are not counted (the convention of the published SR tables).
        largest_tensor_bytes: the largest activation, in bytes.
    """

    size: Size
    operators: Dict[str, int]
    dtypes: Dict[str, int]
    parameters: int
    macs: int
    largest_tensor_bytes: int


def census_of(path: Path, size: Size) -> Census:
    """Count the graph in ``path`` at an input of ``size`` (height, width).

    Raises:
        BadDeployment: the graph is fixed to another size.
    """
    original = onnx.load(str(path))
    model = onnx.shape_inference.infer_shapes(static_graph(path, size), data_prop=True)
    shapes = _shapes(model)
    macs = sum(node_macs(node, shapes) for node in model.graph.node)
    activations = [math.prod(shapes[name]) for node in model.graph.node for name in node.output if name in shapes]
    return Census(
        size=size,
        operators=dict(sorted(Counter(node.op_type for node in original.graph.node if node.op_type != "Constant").items())),
        dtypes=dict(Counter(onnx.TensorProto.DataType.Name(t.data_type) for t in original.graph.initializer)),
        parameters=parameters_of(original),
        macs=macs,
        largest_tensor_bytes=4 * max(activations, default=0),
    )


def parameters_of(model: onnx.ModelProto) -> int:
    """The number of floating-point values in constants of more than one element."""
    tensors = list(model.graph.initializer)
    tensors += [a.t for node in model.graph.node if node.op_type == "Constant" for a in node.attribute if a.name == "value"]
    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
    counts = (math.prod(t.dims) for t in tensors if t.data_type in floating)
    return sum(count for count in counts if count > 1)


def node_macs(node: onnx.NodeProto, shapes: Mapping[str, Tuple[int, ...]]) -> int:
    """Multiply-accumulates of one node; 0 for operators that have none.

    Raises:
        KeyError: a shape that the count needs is not known.
    """
    if node.op_type == "Conv":
        weight, out = shapes[node.input[1]], shapes[node.output[0]]
        return math.prod(out) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        weight, source = shapes[node.input[1]], shapes[node.input[0]]
        return math.prod(source) * math.prod(weight[1:])
    if node.op_type in ("MatMul", "Gemm"):
        first, out = shapes[node.input[0]], shapes[node.output[0]]
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return math.prod(out) * (first[0] if transposed else first[-1])
    return 0


def _shapes(model: onnx.ModelProto) -> Dict[str, Tuple[int, ...]]:
    """Every tensor whose shape is fully known."""
    found: Dict[str, Tuple[int, ...]] = {t.name: tuple(t.dims) for t in model.graph.initializer}
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        dims: List[Optional[int]] = [
            d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim
        ]
        if value.type.tensor_type.HasField("shape") and None not in dims:
            found[value.name] = tuple(d for d in dims if d is not None)
    return found
