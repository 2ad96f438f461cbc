"""The two ends of a given graph: which tensors are the pictures, how they are laid out, and one form for all of them.

lr (1, 3, H, W) RGB ─ [Gather: BGR] ─ [Transpose: NHWC] ─ [Reshape: no batch] ─ graph ─ the same backwards ─ sr
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from typing_extensions import Literal

from sr_deploy.core.contract import Size
from sr_deploy.core.errors import BadInput
from sr_deploy.core.text import plain
from sr_deploy.graph.given.read import GivenFile, opset_of

Axes = Literal["NCHW", "NHWC"]
Order = Literal["rgb", "bgr"]
#: What a picture's tensor may hold.
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
#: The form of the file; ONNX Runtime and TensorRT of the time of operator sets 16 and 17 read it.
_IR_VERSION = 8
#: From this operator set on, Squeeze and Unsqueeze take their axes as an input.
AXES_AS_INPUT = 13
#: The names of all nodes and constants that this file adds begin so.
_PREFIX = "given"
LR, SR = "lr", "sr"


@dataclass(frozen=True)
class End:
    """One end of a given graph.

    Attributes:
        name: of the tensor.
        axes: "NCHW" or "NHWC".
        batch: whether there is a batch axis.
        batch_size: how many pictures the graph is fixed to; None: any.
        size: (height, width) that the graph is fixed to, each None where it is free.
    """

    name: str
    axes: Axes
    batch: bool
    batch_size: Optional[int]
    size: Tuple[Optional[int], Optional[int]]

    def __str__(self) -> str:
        axes = self.axes if self.batch else self.axes[1:]
        where = {"N": self.batch_size, "C": 3, "H": self.size[0], "W": self.size[1]}
        return f"{plain(self.name, 100)} ({', '.join(str(where[axis] or axis) for axis in axes)})"


def input_ends(given: GivenFile, model: onnx.ModelProto) -> Tuple[End, ...]:
    """The picture that goes in; several where the graph does not say which axis holds the channels.

    Raises:
        BadInput: none or several inputs, another type, or a shape that is no colour picture's.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    return _ends(given, _only(given, inputs, "input"))


def output_value(given: GivenFile, model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The picture that comes out; its layout only running the graph tells.

    Raises:
        BadInput: several outputs, or one of another type.
    """
    return _only(given, list(model.graph.output), "output")


def _only(given: GivenFile, values: List[onnx.ValueInfoProto], what: str) -> onnx.ValueInfoProto:
    listed = ", ".join(_described(value) for value in values[:6])
    if len(values) != 1:
        raise BadInput(
            f"{plain(str(given.path))} has {len(values)} {what}s: {listed}",
            f"one {what}: one picture in, one larger picture out",
            "export the network with one picture in and one picture out",
        )
    if values[0].type.tensor_type.elem_type not in _FLOATS:
        raise BadInput(
            f"{plain(str(given.path))} has the {what} {listed}",
            "a picture of floats",
            "export the network without what converts pixels: srdeploy export --io uint8 puts that into the graph",
        )
    return values[0]


def _described(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    shape = ", ".join(plain(str(dim.dim_value or dim.dim_param or "?"), 40) for dim in list(dims)[:8])
    return f"{plain(value.name, 100)} {TensorProto.DataType.Name(value.type.tensor_type.elem_type)} ({shape})"


def _ends(given: GivenFile, value: onnx.ValueInfoProto) -> Tuple[End, ...]:
    dims = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
            for dim in value.type.tensor_type.shape.dim]  # fmt: skip
    batch = len(dims) == 4
    inner = dims[1:] if batch else dims
    found: Tuple[Axes, ...] = ()
    if len(inner) == 3:
        unsaid = inner == [None] * 3
        found = ("NCHW", "NHWC") if unsaid else ("NHWC",) if inner[2] == 3 and inner[0] != 3 else ("NCHW",)
        found = found if unsaid or 3 in (inner[0], inner[2]) or inner[0] is None else ()
    if not found:
        raise BadInput(
            f"{plain(str(given.path))} has the input {_described(value)}",
            "a picture of three channels: (N, 3, H, W) or (N, H, W, 3)",
            "networks of one channel, or of several pictures at once, are not supported",
        )
    first = dims[0] if batch else None
    sizes = {"NCHW": (inner[1], inner[2]), "NHWC": (inner[0], inner[1])}
    return tuple(End(value.name, axes, batch, first, sizes[axes]) for axes in found)


def with_ends(model: onnx.ModelProto, lr: End, sr: End, order: Order, size: Optional[Size]) -> onnx.ModelProto:
    """The graph between ``lr`` float32 (1, 3, H, W) RGB and ``sr`` of the same form; ``model`` is not modified.

    Args:
        model: floats in float32.
        lr, sr: its two ends.
        order: of its channels, at both ends.
        size: the input (height, width) to fix; None: free, whatever the graph says of itself.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    _free_names(graph, (lr.name, sr.name))
    opset = opset_of(model)
    nodes = _added(graph, lr, order, opset, True)
    after = _added(graph, sr, order, opset, False)
    old = list(graph.node)
    del graph.node[:], graph.value_info[:], graph.input[:], graph.output[:]
    graph.node.extend([*nodes, *old, *after])
    _cancel_transposes(graph)
    height, width = size or ("height", "width")
    out: List[Union[str, int, None]] = [1, 3, "out_height", "out_width"] if size is None else [1, 3, None, None]
    graph.input.append(helper.make_tensor_value_info(LR, TensorProto.FLOAT, [1, 3, height, width]))
    graph.output.append(helper.make_tensor_value_info(SR, TensorProto.FLOAT, out))
    name_nodes(graph)
    # Before version 4, weights had to be listed as inputs, which they are not here.
    result.ir_version = max(result.ir_version, _IR_VERSION)
    return result


def _free_names(graph: onnx.GraphProto, ends: Tuple[str, ...]) -> None:
    """Give other names to the graph's own tensors ``lr`` and ``sr``, and to a picture that is used on its way out."""
    for node in graph.node:
        node.input[:] = [f"{_PREFIX}/{name}" if name in (LR, SR) else name for name in node.input]
        node.output[:] = [f"{_PREFIX}/{name}" if name in (LR, SR) else name for name in node.output]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    _free_names(inner, ends)
    for tensor in graph.initializer:
        if tensor.name in (LR, SR):
            tensor.name = f"{_PREFIX}/{tensor.name}"


def _added(graph: onnx.GraphProto, end: End, order: Order, opset: int, into: bool) -> List[onnx.NodeProto]:
    """The nodes between our form and the graph's at one end; Identity where they are the same."""
    own = f"{_PREFIX}/{end.name}" if end.name in (LR, SR) else end.name
    source, result = (LR, own) if into else (own, SR)
    steps: List[Tuple[str, List[str], Dict[str, Any]]] = []
    if order == "bgr":
        steps.append(("Gather", [_constant(graph, "channels", np.array([2, 1, 0], np.int64))], {"axis": 1}))
    if end.axes == "NHWC":
        steps.append(("Transpose", [], {"perm": [0, 2, 3, 1] if into else [0, 3, 1, 2]}))
    if not end.batch:
        operator = "Squeeze" if into else "Unsqueeze"
        if opset >= AXES_AS_INPUT:
            steps.append((operator, [_constant(graph, "batch", np.array([0], np.int64))], {}))
        else:
            steps.append((operator, [], {"axes": [0]}))
    if not into:
        steps.reverse()
    nodes, tensor, place = [], source, "input" if into else "output"
    steps = steps or [("Identity", [], {})]
    for number, (operator, constants, attributes) in enumerate(steps):
        out = result if number == len(steps) - 1 else f"{_PREFIX}/{place}_{number}"
        name = f"{_PREFIX}/{place}/{operator}"
        nodes.append(helper.make_node(operator, [tensor, *constants], [out], name=name, **attributes))
        tensor = out
    return nodes


def _constant(graph: onnx.GraphProto, role: str, value: np.ndarray) -> str:
    name = f"{_PREFIX}/{role}"
    if all(tensor.name != name for tensor in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def _cancel_transposes(graph: onnx.GraphProto) -> None:
    """Let readers of a Transpose that undoes the one before it read what that one read."""
    makers = {node.output[0]: node for node in graph.node if node.op_type == "Transpose"}
    aliases = {}
    for node in makers.values():
        before = makers.get(node.input[0])
        if before is not None and [_perm(before)[axis] for axis in _perm(node)] == list(range(len(_perm(node)))):
            aliases[node.output[0]] = before.input[0]
    for node in graph.node:
        if node.op_type == "Transpose" and node.output[0] in aliases and node.output[0] == SR:
            node.op_type, node.input[0] = "Identity", aliases[node.output[0]]
            del node.attribute[:]
            continue
        node.input[:] = [aliases.get(name, name) for name in node.input]


def _perm(node: onnx.NodeProto) -> List[int]:
    return next((list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), [])


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own: plans, pins and proofs speak of nodes by name. Their remarks go."""
    taken = set()
    for number, node in enumerate(graph.node):
        name = plain(node.name, 200) or f"{node.op_type}_{number}"
        while name in taken:
            name = f"{name}_{number}"
        taken.add(name)
        node.name, node.doc_string = name, ""
