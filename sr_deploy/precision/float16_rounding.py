"""A graph of 16-bit floats in ONNX Runtime on the CPU, with every such result really rounded.

Float16: the CPU has few kernels. ONNX Runtime computes such nodes in float32 with casts around them, and then drops the
casts between two of them, whatever the optimisation level: nothing is rounded and nothing overflows on the way (seen
with 1.31). Two Identity nodes behind each float16 result, which it does run in float16, keep the casts apart.

Bfloat16: the CPU has no kernels but Cast. Such nodes become float32 ones, each followed by a Cast to bfloat16 (rounded
half to even) and back; ONNX Runtime keeps such a pair at every level of optimisation.

What is simulated: each node reads 16 bits, computes in float32, and rounds once. Engines with float32 accumulation do
the same; where they fuse nodes they round less often.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, List, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from sr_deploy.precision.tensors import element_types


def rounded_graph(model: onnx.ModelProto, exposed: Iterable[str] = ()) -> onnx.ModelProto:
    """The same graph with two Identity nodes behind every float16 tensor that a node makes, and bfloat16 simulated.

    Run it with ``rounding_session``: optimisation would take the nodes behind float16 out again.

    Args:
        model: typed, from ``half_graph`` or ``typed_graph``; not modified. Without subgraphs.
        exposed: tensors that become outputs too.
    """
    result = bfloat16_simulated(model)
    _put_behind(result, element_types(result), TensorProto.FLOAT16, _kept_apart)
    have = {value.name for value in result.graph.output}
    result.graph.output.extend(onnx.ValueInfoProto(name=name) for name in exposed if name not in have)
    return result


def bfloat16_simulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph without bfloat16: float32 nodes, the results of which are rounded to it; for runtimes that have no
    kernels for it. Exact where they accumulate in float32.

    Args:
        model: typed, from ``typed_graph``; not modified. Without subgraphs.
    """
    kinds = element_types(model)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if TensorProto.BFLOAT16 not in kinds.values():
        return result
    for tensor in result.graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            upper = np.frombuffer(tensor.raw_data, "<u2").astype(np.uint32) << 16
            tensor.data_type, tensor.raw_data = TensorProto.FLOAT, upper.astype("<u4").tobytes()
    for node in result.graph.node:
        if node.op_type == "Cast" and kinds.get(node.output[0]) == TensorProto.BFLOAT16:
            next(attribute for attribute in node.attribute if attribute.name == "to").i = TensorProto.FLOAT
    _put_behind(result, kinds, TensorProto.BFLOAT16, _rounded_by_casts)
    return result


def _kept_apart(computed: str, name: str) -> List[onnx.NodeProto]:
    between = f"{name}/between"
    return [
        helper.make_node("Identity", [computed], [between], name=between),
        helper.make_node("Identity", [between], [name], name=f"{name}/rounded"),
    ]


def _rounded_by_casts(computed: str, name: str) -> List[onnx.NodeProto]:
    between = f"{name}/bfloat16"
    return [
        helper.make_node("Cast", [computed], [between], name=between, to=TensorProto.BFLOAT16),
        helper.make_node("Cast", [between], [name], name=f"{name}/rounded", to=TensorProto.FLOAT),
    ]


def _put_behind(
    model: onnx.ModelProto, kinds: Mapping[str, int], kind: int, behind: Callable[[str, str], List[onnx.NodeProto]]
) -> None:
    """Between each node and its outputs of type ``kind``, the nodes that ``behind(computed, output)`` makes."""
    nodes: List[onnx.NodeProto] = []
    for old in model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(old)
        nodes.append(node)
        for index, name in enumerate(node.output):
            if kinds.get(name) == kind:
                node.output[index] = f"{name}/computed"
                nodes.extend(behind(node.output[index], name))
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)


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
