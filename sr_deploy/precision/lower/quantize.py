"""Q/DQ into a float32 graph, as a plan says, where TensorRT fuses it.

In front of every INT8 convolution or matrix product its input is quantised (per tensor, symmetric), and its weights are
stored in 8 bits with one scale for each output channel. Nothing is put between a convolution and its activation, and
nothing in front of a PixelShuffle. An INT8 Add reads its skip in 8 bits, so that convolution, bias, Add and the
quantisation of the result become one kernel (TensorRT developer guide, "Q/DQ placement recommendations").
"""

from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sr_deploy.core.deployment.plan import INT8_MAX, Plan
from sr_deploy.core.errors import BadDeployment

#: The least scale in float16: subnormal, yet still with 4 bits, so that rounding it up costs little range.
LEAST_HALF_SCALE = 2.0**-20
#: Operators with weights that can run in INT8, and the axis of the output channels in their weights.
CHANNEL_AXIS: Mapping[str, int] = {"Conv": 0, "ConvTranspose": 1}


def quantized_graph(model: onnx.ModelProto, plan: Plan, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The graph with its weights replaced and Q/DQ at every INT8 node; all scales are float32.

    Args:
        model: the float32 graph that the plan names. Not modified.
        plan: see core/deployment/plan.py.
        weights: constant name → float32 array, from ``open_plan``.

    Raises:
        BadDeployment: the plan names a node, tensor or constant that the graph does not have, or lacks a scale.
    """
    check_plan(model, plan, weights)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    constants.update(weights)
    placed = _Placing(plan, constants)
    nodes: List[onnx.NodeProto] = []
    for node in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if plan.nodes.get(node.name) == "int8":
            nodes.extend(placed.before(copy))
        nodes.append(copy)
    used = {name for node in nodes for name in node.input}
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, order="C"), name)
        for name, value in {**constants, **placed.constants}.items()
        if name in used
    )
    return result


def check_plan(model: onnx.ModelProto, plan: Plan, weights: Mapping[str, np.ndarray]) -> None:
    """Refuse a plan that does not fit the graph.

    Raises:
        BadDeployment: naming the nodes, tensors or constants, and what was wanted.
    """
    by_name = {node.name: node for node in model.graph.node}
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    problems = [f"there is no node {name!r}" for name in plan.nodes if name not in by_name]
    for name in plan.nodes_of("int8"):
        node = by_name.get(name)
        if node is None:
            continue
        if node.op_type in CHANNEL_AXIS:
            tensors, weight = [node.input[0]], node.input[1]
            if weight not in shapes:
                problems.append(f"{name!r} has no constant weights: {weight!r} is made by a node")
                continue
            channels = shapes[weight][CHANNEL_AXIS[node.op_type]]
            if len(plan.weight_scales.get(weight, ())) != channels:
                problems.append(f"{name!r} wants {channels} scales for its weights {weight!r}")
        elif node.op_type == "Add":
            tensors = [t for t in node.input if t in plan.activation_scales]
            if not tensors:
                problems.append(f"{name!r} is an INT8 Add and none of its inputs has a scale")
        else:
            problems.append(f"{name!r} is a {node.op_type}, which does not run in INT8 here")
            continue
        problems += [f"{name!r} reads {t!r}, which has no scale" for t in tensors if t not in plan.activation_scales]
    if plan.rest == "float16":
        # Scales that float16 cannot hold would become 0 or infinite in the typed graph.
        scales = [*plan.activation_scales.items(), *((n, s) for n, some in plan.weight_scales.items() for s in some)]
        most = float(np.finfo(np.float16).max)
        bad = [(name, scale) for name, scale in scales if not LEAST_HALF_SCALE <= scale <= most]
        problems += [f"float16 cannot hold the scale {scale:g} of {name!r}" for name, scale in bad]
    problems += [
        f"weights {name!r}: {value.shape} for {shapes.get(name)}"
        for name, value in weights.items()
        if shapes.get(name) != tuple(value.shape)
    ]
    if problems:
        raise BadDeployment(
            "the plan does not fit the graph: " + "; ".join(problems[:4]),
            "a plan made for this graph",
            "make it again with srdeploy build DIR --precision int8",
        )


def quantized_weights(values: np.ndarray, scales: Union[Sequence[float], np.ndarray], axis: int) -> np.ndarray:
    """Weights as 8-bit numbers.

    Args:
        values: float32 weights.
        scales: one for each index of ``axis``.
        axis: of the output channels.

    Returns:
        int8, ``clip(round(values / scale), -127, 127)``, rounded half to even.
    """
    shape = [1] * values.ndim
    shape[axis] = -1
    steps = np.asarray(values, np.float64) / np.asarray(scales, np.float64).reshape(shape)
    return np.clip(np.rint(steps), -INT8_MAX, INT8_MAX).astype(np.int8)


class _Placing:
    """What has been quantised so far: each tensor and each constant once."""

    def __init__(self, plan: Plan, constants: Mapping[str, np.ndarray]) -> None:
        self.plan, self.floats = plan, constants
        self.constants: Dict[str, np.ndarray] = {}
        self.done: Dict[str, str] = {}

    def before(self, node: onnx.NodeProto) -> List[onnx.NodeProto]:
        """The nodes to put in front of ``node``, whose inputs are changed to read them."""
        added: List[onnx.NodeProto] = []
        if node.op_type == "Add":
            wanted = [index for index, name in enumerate(node.input) if name in self.plan.activation_scales]
        else:
            wanted = [0]
            name, made = self._weight(node.input[1], CHANNEL_AXIS[node.op_type])
            node.input[1] = name
            added += made
        for index in wanted:
            name, made = self._activation(node.input[index])
            node.input[index] = name
            added += made
        return added

    def _activation(self, tensor: str) -> Tuple[str, List[onnx.NodeProto]]:
        if tensor in self.done:
            return self.done[tensor], []
        scale = np.float32(self.plan.activation_scales[tensor])
        return self._pair(tensor, np.asarray(scale), None, quantize=tensor)

    def _weight(self, constant: str, axis: int) -> Tuple[str, List[onnx.NodeProto]]:
        if constant in self.done:
            return self.done[constant], []
        scales = np.asarray(self.plan.weight_scales[constant], np.float32)
        stored = f"{constant}/int8"
        self.constants[stored] = quantized_weights(self.floats[constant], scales, axis)
        return self._pair(constant, scales, axis, stored=stored)

    def _pair(
        self,
        name: str,
        scale: np.ndarray,
        axis: Optional[int],
        quantize: Optional[str] = None,
        stored: Optional[str] = None,
    ) -> Tuple[str, List[onnx.NodeProto]]:
        """QuantizeLinear of a tensor (unless it is stored in 8 bits) and DequantizeLinear, with their constants."""
        parameters = [f"{name}/scale", f"{name}/zero_point"]
        self.constants[parameters[0]] = scale
        self.constants[parameters[1]] = np.zeros(scale.shape, np.int8)
        made = []
        source = stored or f"{name}/quantized"
        if quantize is not None:
            made.append(helper.make_node("QuantizeLinear", [quantize, *parameters], [source], name=f"{name}/quantize"))
        self.done[name] = f"{name}/dequantized"
        back = helper.make_node("DequantizeLinear", [source, *parameters], [self.done[name]], name=f"{name}/dequantize")
        if axis is not None:
            back.attribute.append(helper.make_attribute("axis", axis))
        return self.done[name], [*made, back]
