"""A float16 graph in ONNX Runtime on the CPU, with every float16 result really rounded.

The CPU has few float16 kernels. ONNX Runtime computes such nodes in float32 with casts around them, and then drops the
casts between two of them, whatever the optimisation level: nothing is rounded and nothing overflows on the way (seen
with 1.31). Two Identity nodes behind each float16 result, which it does run in float16, keep the casts apart.

What is simulated: each node reads float16, computes in float32, and rounds once. Engines with float32 accumulation do
the same; where they fuse nodes they round less often.
"""

from __future__ import annotations

from typing import Any, Iterable, List

import onnx
from onnx import TensorProto, helper

from sr_deploy.precision.tensors import element_types


def rounded_graph(model: onnx.ModelProto, exposed: Iterable[str] = ()) -> onnx.ModelProto:
    """The same graph with two Identity nodes behind every float16 tensor that a node makes.

    Run it with ``rounding_session``: optimisation would take them out again.

    Args:
        model: typed, from ``half_graph`` or ``typed_graph``; not modified. Without subgraphs.
        exposed: tensors that become outputs too.
    """
    kinds = element_types(model)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    nodes: List[onnx.NodeProto] = []
    for node in result.graph.node:
        behind: List[onnx.NodeProto] = []
        for index, name in enumerate(node.output):
            if kinds.get(name) != TensorProto.FLOAT16:
                continue
            computed, between = f"{name}/computed", f"{name}/between"
            node.output[index] = computed
            behind.append(helper.make_node("Identity", [computed], [between], name=between))
            behind.append(helper.make_node("Identity", [between], [name], name=f"{name}/rounded"))
        nodes.extend([node, *behind])
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del result.graph.node[:], result.graph.value_info[:]
    result.graph.node.extend(copies)
    have = {value.name for value in result.graph.output}
    result.graph.output.extend(onnx.ValueInfoProto(name=name) for name in exposed if name not in have)
    return result


def rounding_session(model: onnx.ModelProto, threads: int = 0) -> Any:
    """An ONNX Runtime session on the CPU that runs a graph node by node as it is written.

    Args:
        model: from ``rounded_graph``; a graph without float16 too.
        threads: of ONNX Runtime; 0 lets it choose.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
