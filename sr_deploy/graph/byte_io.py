"""8-bit pictures at both ends of a graph: a quarter of float32's bytes cross the bus.

    lr uint8 (1, H, W, 3) ── Cast ── Transpose ── Mul ── network ── Mul ── Round ── Transpose ── Cast ── sr uint8 NHWC

The scalings are left out where the network's white is 255. The constants and the order are those of core/image, so the
picture is the same to the bit as when the host converts: white is scaled in float32, and halves are rounded to even, as
ONNX defines Round and numpy defines rint. The network's own clamp stands before the rounding.

The casts are the outermost nodes because TensorRT takes uint8 only there ("TensorRT does not support UINT8 types for
intermediate tensors"; from 8.5 on, uint8 ↔ float32 and float16). All nodes are named ``io/…`` and pinned to float32:
float16 has no value between 128 and 255 that is finer than an eighth of a step, too coarse to round from.
"""

from __future__ import annotations

from typing import Any, List, Tuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.graph.export import PIN_MARK

#: The names of all nodes that this file writes begin so.
IO_PREFIX = "io/"
REASON = "8-bit input and output"


def takes_bytes(model: onnx.ModelProto) -> bool:
    """Whether the graph's input is uint8 (1, H, W, 3)."""
    return bool(model.graph.input) and model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8


def with_inner_ends(model: onnx.ModelProto) -> Tuple[onnx.ModelProto, str, str]:
    """A copy whose nodes read and give tensors of other names, so that nodes fit between them and the graph's ends.

    Returns:
        The copy, and what its nodes read and give.

    Raises:
        ValueError: the graph takes bytes already.
    """
    if takes_bytes(model):
        raise ValueError("the graph takes uint8 already")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    lr, sr = result.graph.input[0].name, result.graph.output[0].name
    inner_lr, inner_sr = IO_PREFIX + lr, IO_PREFIX + sr
    for node in result.graph.node:
        node.input[:] = [{lr: inner_lr, sr: inner_sr}.get(name, name) for name in node.input]
        node.output[:] = [inner_sr if name == sr else name for name in node.output]
    return result, inner_lr, inner_sr


def byte_graph(model: onnx.ModelProto, value_range: float) -> onnx.ModelProto:
    """The graph with uint8 (1, H, W, 3) input and output of the same names; ``model`` is not modified.

    Args:
        model: one float32 input (1, 3, H, W) and one output (1, 3, scale·H, scale·W), clamped to ``0…value_range``.
        value_range: the value of white in the network, 1 or 255.

    Raises:
        ValueError: the graph takes bytes already.
    """
    result, inner_lr, inner_sr = with_inner_ends(model)
    graph = result.graph
    lr, sr = graph.input[0], graph.output[0]
    nodes = list(graph.node)
    white = value_range != 255
    before = [
        _node("Cast", "input_cast", to=TensorProto.FLOAT),
        _node("Transpose", "input_layout", perm=[0, 3, 1, 2]),
        *([_node("Mul", "input_scale", _constant(graph, "to_network", value_range / 255))] if white else []),
    ]
    after = [
        *([_node("Mul", "output_scale", _constant(graph, "to_pixels", 255 / value_range))] if white else []),
        _node("Round", "output_round"),
        _node("Transpose", "output_layout", perm=[0, 2, 3, 1]),
        _node("Cast", "output_cast", to=TensorProto.UINT8),
    ]
    _chain(before, lr.name, inner_lr)
    _chain(after, inner_sr, sr.name)
    del graph.node[:], graph.value_info[:]
    graph.node.extend([*before, *nodes, *after])
    for value in (lr, sr):
        kind = value.type.tensor_type
        kind.elem_type = TensorProto.UINT8
        dims = [onnx.TensorShapeProto.Dimension() for _ in kind.shape.dim]
        for dim, old in zip(dims, (kind.shape.dim[i] for i in (0, 2, 3, 1))):
            dim.CopyFrom(old)
        del kind.shape.dim[:]
        kind.shape.dim.extend(dims)
    onnx.checker.check_model(result)
    return result


def without_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph of ``byte_graph`` that gives float32 in 0…255 before it is rounded; any other graph as it is.

    Args:
        model: with the nodes of ``byte_graph``, between and beside which others may have been put. Not modified.
    """
    last = {role: IO_PREFIX + role for role in ("output_round", "output_layout", "output_cast")}
    nodes = {node.name: node for node in model.graph.node if node.name in last.values()}
    # Of planes other nodes stand between the rounding and the cast.
    if len(nodes) < len(last) or nodes[last["output_layout"]].input[0] != nodes[last["output_round"]].output[0]:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for node in result.graph.node:
        if node.name in (last["output_round"], last["output_cast"]):
            node.op_type = "Identity"
            del node.attribute[:]
    result.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    return result


def _node(operator: str, role: str, *constants: str, **attributes: Any) -> onnx.NodeProto:
    """A pinned node; ``_chain`` gives it its tensors."""
    node = helper.make_node(operator, ["", *constants], [""], name=IO_PREFIX + role, **attributes)
    node.doc_string = f"{PIN_MARK} ({REASON})"
    return node


def _chain(nodes: List[onnx.NodeProto], first: str, last: str) -> None:
    """Let each node read what the one before it made."""
    tensor = first
    for node in nodes:
        node.input[0] = tensor
        tensor = last if node is nodes[-1] else f"{node.name}_output"
        node.output[0] = tensor


def _constant(graph: onnx.GraphProto, role: str, value: float) -> str:
    """A float32 number, rounded as core/image rounds it."""
    name = f"{IO_PREFIX}{role}"
    graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    return name
