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
    inner = "given/unclamped"
    for node in graph.node:
        node.input[:] = [{LR: contract.input_name, SR: inner}.get(name, name) for name in node.input]
        node.output[:] = [inner if name == SR else name for name in node.output]
    graph.input[0].name, graph.output[0].name = contract.input_name, contract.output_name
    bounds = []
    for role, value in (("black", 0.0), ("white", contract.value_range)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f"given/{role}"))
        bounds.append(f"given/{role}")
    graph.node.append(helper.make_node("Clip", [inner, *bounds], [contract.output_name], name="given/output/Clip"))
    model.producer_name, model.producer_version, model.ir_version = "srdeploy", "", _IR_VERSION
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    if size is not None:
        fixed = static_graph(path, size)
        onnx.checker.check_model(fixed)
        onnx.save(fixed, str(path))
    return Graph(Path(path), size, target.opset, {})
