"""A graph without what training tools leave in it: nodes that pass a tensor on, constants that are computed."""

from __future__ import annotations

import logging
from typing import Dict

import numpy as np
import onnx
from onnx import helper, numpy_helper

#: Nodes whose first output is their first input when a network is run.
_PASSING = ("Identity", "Dropout")


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with constants computed once, branches of a known condition taken, and passing nodes left out.

    Args:
        model: one input, one output; not modified. It has been run before: what is constant is computed here.
    """
    import onnxruntime
    from onnx_graphsurgeon.logger import G_LOGGER as SURGEON
    from polygraphy.backend.onnx import fold_constants
    from polygraphy.logger import G_LOGGER

    result = without_passing(with_whole_shapes(model))
    # ONNX Runtime computes the constants; its remarks on the graph are not for the user.
    onnxruntime.set_default_logger_severity(3)
    # graphsurgeon has a logger of its own, which writes to stdout, where results belong.
    severity, SURGEON.severity = SURGEON.severity, SURGEON.CRITICAL
    try:
        with G_LOGGER.verbosity(logging.CRITICAL):
            result = fold_constants(result, allow_onnxruntime_shape_inference=False)
    finally:
        SURGEON.severity = severity
    return without_passing(result)


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
