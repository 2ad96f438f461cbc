"""The form of a plan for TensorRT 8.5 and 8.6: Q/DQ in a float32 graph, and layer precisions beside it.

These releases know no float16 graph with float32 islands. The graph stays float32 with Q/DQ of float32 scales, the
builder gets the flags FP16 and INT8, and the layers that must not be lowered are named to it, with
OBEY_PRECISION_CONSTRAINTS (engine/tensorrt8.py). What their importer takes is in precision/lower/tensorrt8_importer.py.
"""

from __future__ import annotations

from typing import Dict, List, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.errors import CheckFailed
from sr_deploy.core.number_formats import FLOAT16, FLOAT32, FORMAT, INT8
from sr_deploy.precision.lower.channel_factors import with_factors
from sr_deploy.precision.lower.quantize import quantized_graph
from sr_deploy.precision.lower.tensorrt8_importer import NEWEST_IR, check_legacy
from sr_deploy.precision.tensors import element_types

#: Operators that multiply and add: where a narrower type saves time.
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def legacy_graph(model: onnx.ModelProto, plan: Plan, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The graph with Q/DQ as the importer of TensorRT 8.5 takes them.

    Weights are float32 constants, QuantizeLinear and DequantizeLinear with one scale for each output channel (axis 0,
    ConvTranspose axis 1). They are stored rounded already, as exact multiples of their scales, so this graph and the
    typed one hold the same numbers.

    Args:
        model: the float32 graph that the plan names, operator set up to 17. Not modified.
        plan: see core/deployment/plan.py.
        weights: constant name → float32 array, from ``open_plan``.

    Raises:
        BadDeployment: the plan does not fit the graph.
        CheckFailed: the plan has types that TensorRT 8 does not, or the result breaks a rule of the importer; the
            message names nodes and rules.
    """
    older = (INT8.name, FLOAT16.name, FLOAT32.name)
    newer = [FORMAT[name].label for name in plan.formats if name not in older]
    if newer:
        found = f"the plan has {' and '.join(newer)}, which TensorRT 8 does not"
        raise CheckFailed(found, "a plan of " + ", ".join(older), "srdeploy build DIR --precision int8 or fp16")
    result = quantized_graph(model, plan, weights)
    _quantise_weights_in_the_graph(result)
    result.ir_version = min(result.ir_version, NEWEST_IR)
    violations = check_legacy(result)
    if violations:
        raise CheckFailed(
            "TensorRT 8.5 cannot take this graph\n  " + "\n  ".join(map(str, violations[:8])),
            "a graph that its importer takes",
            "export the network with --target xavier-nx",
        )
    return result


def _quantise_weights_in_the_graph(model: onnx.ModelProto) -> None:
    """Let DequantizeLinear of an 8-bit constant read QuantizeLinear of a float32 constant instead."""
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    nodes: List[onnx.NodeProto] = []
    for node in graph.node:
        stored = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if stored is not None and stored.data_type == TensorProto.INT8:
            scales = numpy_helper.to_array(constants[node.input[1]])
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            steps = numpy_helper.to_array(stored).astype(np.float32)
            shape = [1] * steps.ndim
            shape[axis] = -1
            name = f"{stored.name}/float32"
            quantised = f"{stored.name}/quantized"
            graph.initializer.append(numpy_helper.from_array(steps * scales.reshape(shape), name))
            nodes.append(
                helper.make_node(
                    "QuantizeLinear", [name, *node.input[1:]], [quantised], name=f"{name}/quantize", axis=axis
                )
            )
            node.input[0] = quantised
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    used = {name for node in kept for name in node.input}
    initializers = [t for t in graph.initializer if t.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(initializers)


def layer_types(model: onnx.ModelProto, plan: Plan, implicit: bool = False) -> Dict[str, str]:
    """Which layers a weakly typed TensorRT must be held to, and their types.

    Of a Q/DQ graph these are the float32 nodes, and the float16 nodes that multiply: TensorRT may run those in float32
    where it finds that faster, which is not what was planned. The other float16 nodes are left free, because holding
    the activation behind an INT8 convolution would keep the two from fusing; without Q/DQ they cannot become INT8. With
    a calibration cache they could, so there every node with a reason is held. What computes with sizes alone, such as a
    matrix made from the picture's width, stands in no plan and stays float32.

    Args:
        model: the float32 graph of the plan.
        plan: see core/deployment/plan.py.
        implicit: the engine is built with a calibration cache, from the graph without Q/DQ.

    Returns:
        Node name → "float16" or "float32", in the graph's order. Empty where TensorRT has no choice: nothing is
        float16, so that flag is off.
    """
    if implicit:
        made = with_factors(model, plan, {}, absorb=False)
        model, plan = made.model, made.plan
    if not implicit and "float16" not in plan.nodes.values() and plan.rest == "float32":
        return {}
    floats = {name for name, kind in element_types(model).items() if kind == TensorProto.FLOAT}
    held: Dict[str, str] = {}
    for node in model.graph.node:
        kind = plan.nodes.get(node.name)
        if kind is None and node.op_type != "Constant" and floats.intersection(node.output):
            held[node.name] = "float32"
        elif kind in ("float16", "float32"):
            lowered = kind == "float32" and plan.rest == "float16"
            reasoned = node.name in plan.reasons and (implicit or kind == "float32")
            if lowered or reasoned or node.op_type in PRODUCTS:
                held[node.name] = kind
    return held
