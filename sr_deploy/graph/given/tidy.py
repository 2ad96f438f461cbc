"""A graph without what training tools leave in it: nodes that pass a tensor on, constants that are computed."""

from __future__ import annotations

from typing import Dict

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sr_deploy.graph.given.read import nodes_of
from sr_deploy.graph.specialise import with_constants_folded

#: Nodes whose first output is their first input when a network is run.
_PASSING = ("Identity", "Dropout")


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with constants computed once, branches of a known condition taken, and passing nodes left out.

    Args:
        model: one input, one output; not modified. It has been run before: what is constant is computed here.
    """
    result = with_constants_folded(without_passing(with_whole_shapes(model)))
    return with_short_slopes(without_passing(result))


def with_short_slopes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Slopes of PRelu of shape (1, C, 1, 1) as (C, 1, 1), which broadcasts alike: the form that rewriting looks for."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in result.graph.initializer}
    for node in result.graph.node:
        slope = stored.get(node.input[1]) if node.op_type == "PRelu" else None
        if slope is None or len(slope.dims) != 4 or slope.dims[0] != 1:
            continue
        name = f"{slope.name}/slope"
        if name not in stored:
            result.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(slope)[0], name))
            stored[name] = result.graph.initializer[-1]
        node.input[1] = name
    read = {name for node in nodes_of(result.graph) for name in node.input}
    kept = [onnx.TensorProto.FromString(t.SerializeToString()) for t in result.graph.initializer if t.name in read]
    del result.graph.initializer[:]
    result.graph.initializer.extend(kept)
    return result


def with_whole_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with a Slice behind each Shape that gives a part of a shape (operator set 15 on).

    graphsurgeon computes such a Shape as if it gave the whole, and TensorRT 8.5 reads it so.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph, nodes = result.graph, []
    for node in graph.node:
        nodes.append(node)
        bounds = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type != "Shape" or not bounds:
            continue
        out = node.output[0]
        node.output[0] = f"{out}/whole"
        ends = (bounds.get("start", 0), bounds.get("end", np.iinfo(np.int64).max), 0)
        names = [f"{out}/{role}" for role in ("start", "end", "axis")]
        graph.initializer.extend(numpy_helper.from_array(np.array([v], np.int64), n) for n, v in zip(names, ends))
        nodes.append(helper.make_node("Slice", [node.output[0], *names], [out], name=f"{node.name}/part"))
        del node.attribute[:]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return result


def without_passing(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without Identity and Dropout; one between input and output stays."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    ends = {value.name for value in (*graph.input, *graph.output)}
    makers = {name: node for node in graph.node for name in node.output}
    renamed: Dict[str, str] = {}
    kept = []
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        if node.op_type not in _PASSING or node.domain not in ("", "ai.onnx"):
            kept.append(node)
            continue
        source, out = node.input[0], node.output[0]
        if out not in ends:
            renamed[out] = source
        elif source in makers and source not in ends:
            # What made the tensor makes the output itself; whoever read it before, or will, reads the output.
            renamed[source] = out
            for other in kept:
                other.output[:] = [out if name == source else name for name in other.output]
                other.input[:] = [out if name == source else name for name in other.input]
        else:
            kept.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(copies)
    _rename_in_branches(graph, renamed)
    return result


def _rename_in_branches(graph: onnx.GraphProto, renamed: Dict[str, str]) -> None:
    """Branches read tensors of the graph around them by name."""
    if not renamed:
        return
    waiting = [each for node in graph.node for one in node.attribute for each in (one.g, *one.graphs) if each.node]
    while waiting:
        inner = waiting.pop()
        for node in inner.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            waiting += [each for one in node.attribute for each in (one.g, *one.graphs) if each.node]
