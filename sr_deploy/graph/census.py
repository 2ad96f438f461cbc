"""Counting a graph: operators, parameters, multiply-accumulates, tensor sizes."""

from __future__ import annotations

import functools
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

import onnx

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.contract import Size, format_size, size_in
from sr_deploy.core.errors import BadDeployment
from sr_deploy.core.text import plain
from sr_deploy.graph.specialise import layout_of, load_graph, static_graph

_UINT8 = onnx.TensorProto.UINT8


class Uncountable(BadDeployment):
    """The shapes of a graph do not follow from the size of its input: what was traced at another size, mostly."""


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
        peak_activation_bytes: the most that is alive at once when the nodes run in the graph's order, each result kept
            until its last use; what a runtime needs at least, before any in-place or fused execution.
        moved_bytes: activations read and written by all nodes, each node by itself, without fusion or cache.
    """

    size: Size
    operators: Dict[str, int]
    dtypes: Dict[str, int]
    parameters: int
    macs: int
    largest_tensor_bytes: int
    peak_activation_bytes: int
    moved_bytes: int


@dataclass(frozen=True)
class Signature:
    """What a graph says of itself: operator set, and its inputs and outputs as text, "lr: FLOAT 1x3xheightxwidth"."""

    opset: int
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    fixed_size: Optional[Size]


def graph_signature(path: Path) -> Signature:
    """Read the operator set, inputs and outputs of the graph in ``path``.

    Raises:
        BadDeployment: the file is not ONNX.
    """
    model = load_graph(path)
    dims = model.graph.input[0].type.tensor_type.shape.dim if model.graph.input else []
    fixed = len(dims) == 4 and all(d.HasField("dim_value") for d in dims)
    height, width = size_in(layout_of(model), tuple(d.dim_value for d in dims)) if fixed else (None, None)
    return Signature(
        opset=next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0),
        inputs=tuple(_value_text(v) for v in model.graph.input),
        outputs=tuple(_value_text(v) for v in model.graph.output),
        fixed_size=(height, width) if height is not None and width is not None else None,
    )


def _value_text(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    shape = "x".join(str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)
    return f"{value.name}: {onnx.TensorProto.DataType.Name(tensor.elem_type)} {shape}"


def census_of(path: Path, size: Size) -> Census:
    """Count the graph in ``path`` at an input of ``size`` (height, width).

    Raises:
        BadDeployment: the file is not ONNX, or the graph is fixed to another size.
        Uncountable: a shape does not follow from the size.
    """
    load_graph(path)
    return _census(path, sha256_of(path), size)


@functools.lru_cache(maxsize=4)
def _census(path: Path, sha256: str, size: Size) -> Census:
    """The census of a file with that content: export asks twice for the graph that it has rewritten."""
    original = load_graph(path)
    model = onnx.shape_inference.infer_shapes(static_graph(path, size), data_prop=True)
    shapes = shapes_of(model)
    macs = sum(_macs_at(size, node, shapes) for node in model.graph.node)
    single = {v.name for v in (*model.graph.input, *model.graph.output) if v.type.tensor_type.elem_type == _UINT8}
    names = {name for node in model.graph.node for name in node.output} | {value.name for value in model.graph.input}
    sizes = {name: (1 if name in single else 4) * math.prod(shapes[name]) for name in names & shapes.keys()}
    return Census(
        size=size,
        operators=dict(
            sorted(Counter(node.op_type for node in original.graph.node if node.op_type != "Constant").items())
        ),
        dtypes=dict(Counter(onnx.TensorProto.DataType.Name(t.data_type) for t in original.graph.initializer)),
        parameters=parameters_of(original),
        macs=macs,
        largest_tensor_bytes=max(sizes.values(), default=0),
        peak_activation_bytes=_peak(model, sizes),
        moved_bytes=sum(sizes.get(name, 0) for node in model.graph.node for name in (*node.input, *node.output)),
    )


def _macs_at(size: Size, node: onnx.NodeProto, shapes: Mapping[str, Tuple[int, ...]]) -> int:
    """``node_macs``, raising Uncountable."""
    try:
        return node_macs(node, shapes)
    except KeyError as error:
        raise Uncountable(
            f"the shape of {plain(str(error.args[0]), 100)} does not follow from an input of {format_size(size)}",
            "a graph whose shapes follow from the size of its picture",
            "export it for the sizes that you need: srdeploy export … --size HxW",
        ) from error


def _peak(model: onnx.ModelProto, sizes: Mapping[str, int]) -> int:
    """The most bytes alive at once, running the nodes in order; ``sizes`` gives the bytes of every activation."""
    last_use: Dict[str, int] = {}
    for index, node in enumerate(model.graph.node):
        last_use.update(dict.fromkeys(node.input, index))
    alive = {value.name for value in model.graph.input}
    peak = 0
    for index, node in enumerate(model.graph.node):
        alive.update(node.output)
        peak = max(peak, sum(sizes.get(name, 0) for name in alive))
        alive = {name for name in alive if last_use.get(name, len(model.graph.node)) > index}
    return peak


def parameters_of(model: onnx.ModelProto) -> int:
    """The number of floating-point values in constants of more than one element."""
    tensors = list(model.graph.initializer)
    tensors += [
        a.t for node in model.graph.node if node.op_type == "Constant" for a in node.attribute if a.name == "value"
    ]
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


def shapes_of(model: onnx.ModelProto) -> Dict[str, Tuple[int, ...]]:
    """Tensor → shape, of every tensor whose shape the model says in full."""
    found: Dict[str, Tuple[int, ...]] = {t.name: tuple(t.dims) for t in model.graph.initializer}
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        dims: List[Optional[int]] = [
            d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim
        ]
        if value.type.tensor_type.HasField("shape") and None not in dims:
            found[value.name] = tuple(d for d in dims if d is not None)
    return found


@dataclass(frozen=True)
class Work:
    """What one node does for one input: multiply-accumulates, and how many values of activations it reads."""

    macs: int
    values_read: int


def work_by_node(path: Path, size: Size) -> Dict[str, Work]:
    """Node name → its work at an input of ``size``, of the nodes that multiply.

    Raises:
        BadDeployment, Uncountable: as for ``census_of``.
    """
    model = onnx.shape_inference.infer_shapes(static_graph(path, size), data_prop=True)
    shapes = shapes_of(model)
    constants = {t.name for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        macs = _macs_at(size, node, shapes)
        if macs:
            read = sum(math.prod(shapes.get(name, ())) for name in node.input if name and name not in constants)
            found[node.name] = Work(macs, read)
    return found
