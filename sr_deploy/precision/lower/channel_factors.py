"""Channels divided in front of 8 bits, and weights multiplied to match: a plan's ``channel_factors`` in the graph.

A convolution gives the same when channel c of its input is divided by f(c) and the weights that read it are multiplied
by f(c): Xiao et al., "SmoothQuant", ICML 2023. One scale then suits channels that differed twentyfold. Where the
channels come out of a convolution that nothing else reads, through functions with f(a·x) = a·f(x) for a > 0, the
division goes into its weights and bias and costs nothing: Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019, section 4.1. Elsewhere (SiLU, gates, sums) it is a product with a constant
vector in front of QuantizeLinear, which builders fuse with the elementwise nodes before it.

Factors are powers of two, so that nothing is rounded: the float32 graph gives the same to the last bit
(``proved_factors``).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Set, Union

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.number_formats import INT8
from sr_deploy.precision.grid import LEAST_HALF_SCALE
from sr_deploy.precision.tensors import CHANNEL_AXIS

#: Functions between two convolutions that a positive factor passes, channel by channel.
_HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu")


@dataclass(frozen=True)
class Factored:
    """A graph with its factors in it, and what goes with it.

    Attributes:
        model: float32; gives what the graph before gave.
        plan: of that model, without factors.
        weights: constant name → float32 array that replaces that of ``model``.
    """

    model: onnx.ModelProto
    plan: Plan
    weights: Mapping[str, np.ndarray]


def readers_in_int8(model: onnx.ModelProto, plan: Plan, tensor: str) -> List[onnx.NodeProto]:
    """The convolutions that read a tensor divided, where it has factors."""
    return [
        node
        for node in model.graph.node
        if node.op_type in CHANNEL_AXIS and node.input[0] == tensor and plan.nodes.get(node.name) == INT8.name
    ]


def weight_factors(model: onnx.ModelProto, plan: Plan) -> Dict[str, np.ndarray]:
    """Weight → what it is multiplied by, float32, to be broadcast over it.

    Args:
        model, plan: as ``factor_problems`` finds nothing wrong with.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return {
        node.input[1]: along_inputs(node, shapes[node.input[1]], factors)
        for name, factors in plan.channel_factors.items()
        for node in readers_in_int8(model, plan, name)
    }


def along_inputs(node: onnx.NodeProto, shape: Sequence[int], factors: Union[Sequence[float], np.ndarray]) -> np.ndarray:
    """Factors of the input channels as they lie in a convolution's weights of this shape, float32, to be broadcast."""
    values, ones = np.asarray(factors, np.float32), [1] * (len(shape) - 2)
    if node.op_type == "ConvTranspose":
        return values.reshape(-1, 1, *ones)
    # Weights are (outputs, inputs of a group, …): an output reads the inputs of its own group.
    groups = _groups(node)
    each = np.repeat(values.reshape(groups, -1), shape[0] // groups if groups > 1 else 1, axis=0)
    return each.reshape(*each.shape, *ones)


def _groups(node: onnx.NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "group"), 1)


def factor_problems(model: onnx.ModelProto, plan: Plan) -> List[str]:
    """What is wrong with a plan's factors, in words."""
    nodes = {name: node for node in model.graph.node for name in (*node.input, *node.output)}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    found: List[str] = []
    users: Dict[str, Set[Optional[str]]] = {}
    for node in model.graph.node:
        if node.op_type in CHANNEL_AXIS:
            divided = plan.nodes.get(node.name) == INT8.name and node.input[0] in plan.channel_factors
            users.setdefault(node.input[1], set()).add(node.input[0] if divided else None)
        elif plan.nodes.get(node.name) == INT8.name:
            both = [name for name in node.input if name in plan.channel_factors and name in plan.activation_scales]
            found += [f"{node.name!r} is an INT8 Add and reads {name!r}, which has channel factors" for name in both]
    for name, factors in plan.channel_factors.items():
        if name not in nodes:
            found.append(f"there is no tensor {name!r}, which has channel factors")
            continue
        readers = readers_in_int8(model, plan, name)
        if not readers:
            found.append(f"no INT8 convolution reads {name!r}, which has channel factors")
        for node in readers:
            channels = _input_channels(node, shapes.get(node.input[1], ()))
            if channels and len(factors) != channels:
                found.append(f"{node.name!r} reads {channels} channels, and {name!r} has {len(factors)} factors")
            if len(users[node.input[1]]) > 1:
                found.append(f"the weights {node.input[1]!r} are used on inputs of different channel factors")
    return found


def _input_channels(node: onnx.NodeProto, shape: Sequence[int]) -> int:
    if len(shape) < 2:
        return 0
    return shape[0] if node.op_type == "ConvTranspose" else shape[1] * _groups(node)


def with_factors(
    model: onnx.ModelProto, plan: Plan, weights: Mapping[str, np.ndarray], absorb: bool = True
) -> Factored:
    """The graph in which the channels are divided, and the plan and weights for it.

    Args:
        model: the float32 graph that the plan names. Not modified.
        plan: with factors or without, checked.
        weights: constant name → float32 array that replaces the graph's own.
        absorb: let the convolution before divide where that is exact. Its results, and what lies between, are others
            then; False leaves every tensor of the graph as it is and adds to them.
    """
    if not plan.channel_factors:
        return Factored(model, plan, weights)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    dividing = _Dividing(result, plan, weights, absorb)
    for name, factors in plan.channel_factors.items():
        dividing.divide(name, np.asarray(factors, np.float32))
    return dividing.done()


class _Dividing:
    """The graph, its plan and its constants while channels are divided, one tensor after the other."""

    def __init__(self, model: onnx.ModelProto, plan: Plan, weights: Mapping[str, np.ndarray], absorb: bool) -> None:
        self.model, self.plan, self.absorb = model, plan, absorb
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.constants.update(weights)
        self.weights: Dict[str, np.ndarray] = dict(weights)
        self.weight_scales = dict(plan.weight_scales)
        self.scales = dict(plan.activation_scales)
        self.nodes = dict(plan.nodes)
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.readers: Dict[str, List[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in model.graph.output}
        self.before: Dict[str, List[onnx.NodeProto]] = {}

    def divide(self, name: str, factors: np.ndarray) -> None:
        """Let the INT8 convolutions that read ``name`` read it divided by ``factors``."""
        readers = readers_in_int8(self.model, self.plan, name)
        for weight, node in {node.input[1]: node for node in readers}.items():
            self._set(weight, self.constants[weight] * along_inputs(node, self.constants[weight].shape, factors))
        maker = self._absorbing(name, readers) if self.absorb else None
        if maker is None or not self._absorbed(maker, factors):
            self._multiply(name, readers, factors)

    def _set(self, name: str, values: np.ndarray) -> None:
        self.constants[name] = self.weights[name] = values.astype(np.float32)

    def _multiply(self, name: str, readers: Sequence[onnx.NodeProto], factors: np.ndarray) -> None:
        """A product with the inverse factors in front of the readers."""
        divided, inverse = f"{name}/divided", f"{name}/inverse_factors"
        self.model.graph.initializer.append(numpy_helper.from_array((1.0 / factors).reshape(-1, 1, 1), inverse))
        node = helper.make_node("Mul", [name, inverse], [divided], name=f"{name}/divide")
        self.before.setdefault(readers[0].name, []).append(node)
        self.nodes[node.name] = self.plan.rest
        self.scales[divided] = self.scales.pop(name)
        for reader in readers:
            reader.input[0] = divided

    def _absorbing(self, name: str, readers: Sequence[onnx.NodeProto]) -> Optional[onnx.NodeProto]:
        """The convolution whose results are this tensor, but for functions that factors pass; None where anything else
        reads one of them."""
        if len(self.readers[name]) != len(readers):
            return None
        while name in self.makers and name not in self.outputs:
            maker = self.makers[name]
            if maker.op_type in CHANNEL_AXIS:
                return maker if self._is_own(maker) else None
            if maker.op_type not in _HOMOGENEOUS or len(self.readers[maker.input[0]]) != 1:
                return None
            name = maker.input[0]
        return None

    def _is_own(self, node: onnx.NodeProto) -> bool:
        """Whether its weights and bias are constants that nothing else uses, of one group."""
        return (node.op_type == "Conv" or _groups(node) == 1) and all(
            name in self.constants and len(self.readers[name]) == 1 for name in node.input[1:] if name
        )

    def _absorbed(self, node: onnx.NodeProto, factors: np.ndarray) -> bool:
        """Divide in the weights and the bias of ``node``; False where a scale of its weights would leave its type."""
        weight, axis = node.input[1], CHANNEL_AXIS[node.op_type]
        if weight in self.weight_scales:
            scales = np.asarray(self.weight_scales[weight]) / factors
            least = LEAST_HALF_SCALE if self.plan.rest == "float16" else float(np.finfo(np.float32).tiny)
            most = float(np.finfo(np.float16 if self.plan.rest == "float16" else np.float32).max)
            if scales.min() < least or scales.max() > most:
                return False
            self.weight_scales[weight] = tuple(scales.tolist())
        shape = [1] * self.constants[weight].ndim
        shape[axis] = -1
        self._set(weight, self.constants[weight] / factors.reshape(shape))
        if len(node.input) > 2 and node.input[2]:
            self._set(node.input[2], self.constants[node.input[2]] / factors)
        return True

    def done(self) -> Factored:
        """The graph, its plan and its weights."""
        nodes = [one for node in self.model.graph.node for one in (*self.before.get(node.name, ()), node)]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.model.graph.node[:], self.model.graph.value_info[:]
        self.model.graph.node.extend(copies)
        plan = dataclasses.replace(
            self.plan,
            nodes=self.nodes,
            activation_scales=self.scales,
            weight_scales=self.weight_scales,
            channel_factors={},
        )
        return Factored(self.model, plan, self.weights)


def factored_floats(model: onnx.ModelProto, plan: Plan, absorb: bool = True) -> onnx.ModelProto:
    """The float32 graph with a plan's factors in it, and its own weights: it gives what ``model`` gives. Without
    ``absorb`` it is what a calibration cache of the plan is for: the tensors of ``model``, and those divided."""
    made = with_factors(model, plan, {}, absorb)
    for tensor in made.model.graph.initializer:
        if tensor.name in made.weights:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(made.weights[tensor.name]), tensor.name))
    return made.model
