"""A given network as the graph that a deployment holds: the target's operator set, its output clamped."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sr_deploy.core.contract import IOContract, Size
from sr_deploy.core.errors import BadInput
from sr_deploy.core.text import plain
from sr_deploy.graph.export import Graph
from sr_deploy.graph.given.ends import LR, SR, name_nodes
from sr_deploy.graph.given.network import GivenNetwork
from sr_deploy.graph.given.operators import named
from sr_deploy.graph.given.opset import at_opset
from sr_deploy.graph.given.read import nodes_of
from sr_deploy.graph.given.tidy import tidy
from sr_deploy.graph.specialise import static_graph
from sr_deploy.graph.target import Target

#: What the exporter writes for operator sets 16 and 17; ONNX Runtime and TensorRT of their time read it.
_IR_VERSION = 8


def graph_from_given(
    network: GivenNetwork, contract: IOContract, path: Path, target: Target, size: Optional[Size]
) -> Graph:
    """Write the graph as ``graph_from_model`` writes a module's.

    Args:
        network: from ``network_from_onnx``.
        contract: names and value range of both tensors.
        path: the file to write.
        target: gives the operator set.
        size: the fixed input (height, width); None: free.

    Raises:
        BadInput: a node has no form in the target's operator set, or the target's parser lacks its operator.
    """
    model = tidy(at_opset(network.model, target.opset))
    graph = model.graph
    name_nodes(graph)
    lacking = [named(node) for node in nodes_of(graph) if node.op_type in target.forbidden]
    if lacking:
        raise BadInput(
            f"{plain(network.file.path.name)} has {', '.join(lacking[:5])}, which {target.about} cannot parse",
            "operators that the target has",
            "replace them in the network and export it again, or choose another --target",
        )
    clamped = _is_clamped(graph, contract.value_range)
    inner = contract.output_name if clamped else _free(graph, "given/unclamped")
    for node in graph.node:
        node.input[:] = [{LR: contract.input_name, SR: inner}.get(name, name) for name in node.input]
        node.output[:] = [inner if name == SR else name for name in node.output]
    graph.input[0].name, graph.output[0].name = contract.input_name, contract.output_name
    if not clamped:
        _add_clamp(graph, inner, contract)
    model.producer_name, model.producer_version, model.ir_version = "srdeploy", "", _IR_VERSION
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    if size is not None:
        fixed = static_graph(path, size)
        onnx.checker.check_model(fixed)
        onnx.save(fixed, str(path))
    return Graph(Path(path), size, target.opset, {})


def _is_clamped(graph: onnx.GraphProto, white: float) -> bool:
    """Whether the graph ends in the very limits that an export adds: it was one."""
    last = next((node for node in graph.node if SR in node.output), None)
    if last is None or last.op_type != "Clip" or any(SR in node.input for node in graph.node):
        return False
    constants = {tensor.name: tensor for tensor in graph.initializer}
    limits = [numpy_helper.to_array(constants[name]) for name in last.input[1:] if name in constants]
    return len(limits) == 2 and [float(limit) for limit in limits if limit.size == 1] == [0.0, white]


def _add_clamp(graph: onnx.GraphProto, inner: str, contract: IOContract) -> None:
    """Limit ``inner`` to 0…white."""
    bounds = []
    for role, value in (("black", 0.0), ("white", contract.value_range)):
        bounds.append(_free(graph, f"given/{role}"))
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), bounds[-1]))
    name = _free(graph, "given/output/Clip")
    graph.node.append(helper.make_node("Clip", [inner, *bounds], [contract.output_name], name=name))


def _free(graph: onnx.GraphProto, name: str) -> str:
    """A name that no node and no tensor of the graph has: a graph that was given before has ours."""
    taken = {tensor.name for tensor in graph.initializer} | {node.name for node in graph.node}
    taken.update(value for node in graph.node for value in (*node.input, *node.output))
    unique, number = name, 1
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique
