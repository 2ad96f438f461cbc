"""Q/DQ into a float32 graph, as a plan says, where TensorRT fuses it: of INT8, and of FP8 (E4M3).

In front of every convolution of 8 bits its input is quantised (per tensor, symmetric; channels that the plan has
factors for are divided before, see channel_factors.py), and its weights are stored in 8 bits with one scale for each
output channel. Nothing is put between a convolution and its activation, and nothing in front of a PixelShuffle. An INT8
Add reads its skip in 8 bits, so that convolution, bias, Add and the quantisation of the result become one kernel
(TensorRT developer guide, "Q/DQ placement recommendations").
"""

from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Sequence, Set, Tuple, Union

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.errors import BadDeployment
from sr_deploy.core.number_formats import FORMAT, INT8, QUANTISED, NumberFormat
from sr_deploy.precision.grid import LEAST_HALF_SCALE, float8_bytes, on_grid
from sr_deploy.precision.lower.channel_factors import factor_problems, with_factors
from sr_deploy.precision.tensors import CHANNEL_AXIS

#: Names of the formats that are read through Q/DQ.
NARROW = frozenset(one.name for one in QUANTISED)


def quantized_graph(model: onnx.ModelProto, plan: Plan, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The graph with its weights replaced and Q/DQ at every node of 8 bits; all scales are float32.

    FP8 came to ONNX with operator set 19: a graph that has it is declared so by ``typed_graph``.

    Args:
        model: the float32 graph that the plan names. Not modified.
        plan: see core/deployment/plan.py.
        weights: constant name → float32 array, from ``open_plan``.

    Raises:
        BadDeployment: the plan names a node, tensor or constant that the graph does not have, or lacks a scale.
    """
    check_plan(model, plan, weights)
    factored = with_factors(model, plan, weights)
    plan, weights = factored.plan, factored.weights
    result = onnx.ModelProto()
    result.CopyFrom(factored.model)
    graph = result.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    constants.update(weights)
    placed = _Placing(plan, constants)
    nodes: List[onnx.NodeProto] = []
    for node in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        dtype = plan.nodes.get(node.name)
        if dtype in NARROW:
            nodes.extend(placed.before(copy, FORMAT[dtype]))
        nodes.append(copy)
    used = {name for node in nodes for name in node.input}
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    stored = {name: numpy_helper.from_array(np.asarray(value, order="C"), name) for name, value in constants.items()}
    graph.initializer.extend(tensor for name, tensor in {**stored, **placed.constants}.items() if name in used)
    return result


def check_plan(model: onnx.ModelProto, plan: Plan, weights: Mapping[str, np.ndarray]) -> None:
    """Refuse a plan that does not fit the graph.

    Raises:
        BadDeployment: naming the nodes, tensors or constants, and what was wanted.
    """
    by_name = {node.name: node for node in model.graph.node}
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    problems = [f"there is no node {name!r}" for name in plan.nodes if name not in by_name]
    narrow = [name for name in plan.quantised if name in by_name]
    problems += [problem for name in narrow for problem in _problems(by_name[name], plan, shapes)]
    problems += _mixed_weights([by_name[name] for name in narrow], plan)
    problems += factor_problems(model, plan)
    if plan.rest == "float16":
        # Scales that float16 cannot hold would become 0 or infinite in the typed graph.
        scales = [
            *plan.activation_scales.items(),
            *plan.float8_scales.items(),
            *((n, s) for n, some in plan.weight_scales.items() for s in some),
        ]
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


def _problems(node: onnx.NodeProto, plan: Plan, shapes: Mapping[str, Tuple[int, ...]]) -> List[str]:
    """What is wrong with one node of 8 bits, in words."""
    name, one = node.name, FORMAT[plan.nodes[node.name]]
    scales = plan.scales_of(one.name)
    if node.op_type in CHANNEL_AXIS:
        weight = node.input[1]
        if weight not in shapes:
            return [f"{name!r} has no constant weights: {weight!r} is made by a node"]
        missing = [] if node.input[0] in scales else [f"{name!r} reads {node.input[0]!r}, which has no scale"]
        if len(plan.weight_scales.get(weight, ())) != shapes[weight][CHANNEL_AXIS[node.op_type]]:
            missing.append(
                f"{name!r} wants {shapes[weight][CHANNEL_AXIS[node.op_type]]} scales for its weights {weight!r}"
            )
        return missing
    if node.op_type == "Add" and one is INT8:
        return (
            []
            if any(t in scales for t in node.input)
            else [f"{name!r} is an INT8 Add and none of its inputs has a scale"]
        )
    return [f"{name!r} is a {node.op_type}, which does not run in {one.label} here"]


def _mixed_weights(nodes: Sequence[onnx.NodeProto], plan: Plan) -> List[str]:
    """Weights that nodes of several 8-bit formats use: they have scales for one only."""
    kinds: Dict[str, Set[str]] = {}
    for node in nodes:
        if node.op_type in CHANNEL_AXIS:
            kinds.setdefault(node.input[1], set()).add(plan.nodes[node.name])
    return [
        f"the weights {name!r} are used in {' and '.join(sorted(some))}"
        for name, some in kinds.items()
        if len(some) > 1
    ]


def quantized_weights(
    values: np.ndarray, scales: Union[Sequence[float], np.ndarray], axis: int, one: NumberFormat = INT8
) -> np.ndarray:
    """Weights in units of their scales, as a format holds them.

    Args:
        values: float32 weights.
        scales: one for each index of ``axis``.
        axis: of the output channels.
        one: INT8 or FLOAT8.

    Returns:
        float64: of INT8 ``clip(round(values / scale), -127, 127)``, rounded half to even; see ``on_grid``.
    """
    shape = [1] * values.ndim
    shape[axis] = -1
    return on_grid(np.asarray(values, np.float64) / np.asarray(scales, np.float64).reshape(shape), one)


def _stored(name: str, values: np.ndarray, one: NumberFormat) -> onnx.TensorProto:
    """A constant of an 8-bit format, of values on its grid."""
    if one is INT8:
        return numpy_helper.from_array(np.asarray(values, np.int8, order="C"), name)
    return onnx.TensorProto(name=name, data_type=one.onnx_type, dims=values.shape, raw_data=float8_bytes(values))


class _Placing:
    """What has been quantised so far: each tensor and each constant once in each format."""

    def __init__(self, plan: Plan, floats: Mapping[str, np.ndarray]) -> None:
        self.plan, self.floats = plan, floats
        self.constants: Dict[str, onnx.TensorProto] = {}
        self.done: Dict[Tuple[str, str], str] = {}

    def before(self, node: onnx.NodeProto, one: NumberFormat) -> List[onnx.NodeProto]:
        """The nodes to put in front of ``node``, whose inputs are changed to read them."""
        added: List[onnx.NodeProto] = []
        scales = self.plan.scales_of(one.name)
        if node.op_type == "Add":
            wanted = [index for index, name in enumerate(node.input) if name in scales]
        else:
            wanted = [0]
            name, made = self._weight(node.input[1], CHANNEL_AXIS[node.op_type], one)
            node.input[1] = name
            added += made
        for index in wanted:
            name, made = self._activation(node.input[index], scales, one)
            node.input[index] = name
            added += made
        return added

    def _activation(
        self, tensor: str, scales: Mapping[str, float], one: NumberFormat
    ) -> Tuple[str, List[onnx.NodeProto]]:
        if (tensor, one.name) in self.done:
            return self.done[tensor, one.name], []
        return self._pair(tensor, np.asarray(np.float32(scales[tensor])), None, one, quantize=tensor)

    def _weight(self, constant: str, axis: int, one: NumberFormat) -> Tuple[str, List[onnx.NodeProto]]:
        if (constant, one.name) in self.done:
            return self.done[constant, one.name], []
        scales = np.asarray(self.plan.weight_scales[constant], np.float32)
        stored = f"{constant}/{one.name}"
        self.constants[stored] = _stored(stored, quantized_weights(self.floats[constant], scales, axis, one), one)
        return self._pair(constant, scales, axis, one, stored=stored)

    def _pair(
        self,
        name: str,
        scale: np.ndarray,
        axis: Optional[int],
        one: NumberFormat,
        quantize: Optional[str] = None,
        stored: Optional[str] = None,
    ) -> Tuple[str, List[onnx.NodeProto]]:
        """QuantizeLinear of a tensor (unless it is stored in 8 bits) and DequantizeLinear, with their constants."""
        # A tensor may be read in both formats; the one that all TensorRTs have takes the plain names.
        own = name if one is INT8 else f"{name}/{one.label.lower()}"
        parameters = [f"{own}/scale", f"{own}/zero_point"]
        self.constants[parameters[0]] = numpy_helper.from_array(scale, parameters[0])
        self.constants[parameters[1]] = _stored(parameters[1], np.zeros(scale.shape), one)
        made = []
        source = stored or f"{own}/quantized"
        if quantize is not None:
            made.append(helper.make_node("QuantizeLinear", [quantize, *parameters], [source], name=f"{own}/quantize"))
        self.done[name, one.name] = f"{own}/dequantized"
        back = helper.make_node(
            "DequantizeLinear", [source, *parameters], [f"{own}/dequantized"], name=f"{own}/dequantize"
        )
        if axis is not None:
            back.attribute.append(helper.make_attribute("axis", axis))
        return f"{own}/dequantized", [*made, back]
