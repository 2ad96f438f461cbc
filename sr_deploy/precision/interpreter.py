"""An exported float32 graph as a differentiable torch module, with the Q/DQ of a plan where there is one.

What it computes is what ``quantize.quantized_graph`` writes: nodes of 8 bits read quantised inputs and weights, INT8
Adds a quantised skip, and all else is float32.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Callable, Dict, FrozenSet, Generator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.errors import UsageError
from sr_deploy.core.number_formats import FORMAT, INT8, QUANTISED, NumberFormat
from sr_deploy.graph.operators import FUNCTIONS
from sr_deploy.precision.fit.fake_quant import quantised_activation, quantised_weight
from sr_deploy.precision.lower.channel_factors import weight_factors
from sr_deploy.precision.lower.quantize import NARROW, check_plan
from sr_deploy.precision.tensors import CHANNEL_AXIS, following_picture

#: Inputs of an operator that training may change. Other constants (means, limits, Fourier matrices) stay.
_TRAINED_INPUTS: Mapping[str, Tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (1,),
    "PRelu": (1,),
}
#: Name of a quantised tensor or constant, and of the format that it is read in.
Key = Tuple[str, str]
#: What is asked for a node's result, given its inputs and what computes it.
Visitor = Callable[[onnx.NodeProto, List[Any], Callable[[], Any]], Any]
#: A run, node by node: (node, its inputs, its result).
Walk = Generator[Tuple[onnx.NodeProto, List[Any], Any], Any, None]
#: Input shapes whose size arithmetic is kept.
_KEPT_SHAPES = 32


@dataclass(frozen=True)
class _Step:
    """One node, ready to run.

    Attributes:
        node: as the graph has it.
        function: of operators.FUNCTIONS.
        attributes: plain values.
        follows_picture: whether its values follow from the picture, and not from its size alone.
        frees: tensors that no later node reads.
        quantised: inputs that are read in 8 bits: index → axis of the output channels; None for an activation.
        format: the 8-bit format; of no meaning where nothing is quantised.
    """

    node: onnx.NodeProto
    function: Callable[..., Any]
    attributes: Mapping[str, Any]
    follows_picture: bool
    frees: Tuple[str, ...]
    quantised: Mapping[int, Optional[int]]
    format: NumberFormat = INT8

    def key(self, index: int) -> Key:
        """Of a quantised input: the name of the tensor or constant, and the format's."""
        return self.node.input[index], self.format.name


class GraphModule(nn.Module):
    """The graph as a function of a picture, (N, 3, H, W) → (N, 3, s·H, s·W), in the units of the graph.

    Batches of more than one work where the graph does not fix the batch; see ``takes_batches``.

    Attributes:
        constants: floating constant → parameter. Weights, biases and slopes of PReLU ask for gradients, unless the node
            is pinned to float32 by the exporter.
        scales: (quantised tensor, format) → scale, shape (); (quantised constant, format) → scales, one for each output
            channel.
        factors: weight of an INT8 convolution whose input has channel factors → what its constant is multiplied by
            before it is quantised, to be broadcast. Constants are without it, so that a training's rate means the same
            for all.
        stretches: the same → factor on its scale, which starts at 1 and is what training changes, so that one rate
            suits scales of all magnitudes.

    Args:
        model: the float32 graph.
        plan: None runs everything in float32.
        weights: constant name → array that replaces the graph's own.

    Raises:
        UsageError: an operator that is not known here; the message names node and operator.
        BadDeployment: the plan does not fit the graph.
    """

    def __init__(
        self, model: onnx.ModelProto, plan: Optional[Plan] = None, weights: Optional[Mapping[str, np.ndarray]] = None
    ) -> None:
        super().__init__()
        weights = weights or {}
        if plan is not None:
            check_plan(model, plan, weights)
        self.input, self.output = model.graph.input[0].name, model.graph.output[0].name
        self.steps = _steps(model, plan)
        self._last = next(step for step in self.steps if self.output in step.node.output)
        self._fixed: Dict[str, Tensor] = {}
        self.constants: Dict[str, nn.Parameter] = {}
        self.scales: Dict[Key, nn.Parameter] = {}
        self.stretches: Dict[Key, nn.Parameter] = {}
        self._kept: Dict[Tuple[int, ...], Dict[str, Tensor]] = {}
        self.factors = {} if plan is None else weight_factors(model, plan)
        #: Weight → the name of the buffer with its factors.
        self._multiplied: Dict[str, str] = {}
        #: Tensor → the name of the buffer with what INT8 convolutions read it multiplied by, (channels, 1, 1).
        self._inverse: Dict[str, str] = {}
        trained = _trained(self.steps)
        for tensor in model.graph.initializer:
            values = np.array(weights.get(tensor.name, numpy_helper.to_array(tensor)))
            value = torch.from_numpy(values)
            if not value.is_floating_point():
                self._fixed[tensor.name] = value
                continue
            self.constants[tensor.name] = self._parameter(value, tensor.name in trained)
        if plan is not None:
            self._add_scales(plan)

    def _parameter(self, value: Tensor, trained: bool) -> nn.Parameter:
        # Names of tensors hold dots and slashes, which a module does not take: parameters are numbered.
        parameter = nn.Parameter(value, requires_grad=trained)
        self.register_parameter(f"p{len(self._parameters)}", parameter)
        return parameter

    def _add_scales(self, plan: Plan) -> None:
        for number, (name, values) in enumerate(self.factors.items()):
            self._multiplied[name] = f"factors{number}"
            self.register_buffer(self._multiplied[name], torch.from_numpy(values.copy()), persistent=False)
        for number, (name, factors) in enumerate(plan.channel_factors.items()):
            self._inverse[name] = f"inverse{number}"
            inverse = 1.0 / torch.tensor(factors, dtype=torch.float32).reshape(-1, 1, 1)
            self.register_buffer(self._inverse[name], inverse, persistent=False)
        for step in self.steps:
            for index, axis in step.quantised.items():
                key = step.key(index)
                if key not in self.scales:
                    known = plan.scales_of(step.format.name) if axis is None else plan.weight_scales
                    scale = torch.tensor(known[key[0]], dtype=torch.float32)
                    self.scales[key] = self._parameter(scale, False)
                    self.stretches[key] = self._parameter(torch.ones_like(scale), True)

    def scale(self, key: Key) -> Tensor:
        """The scale of a quantised tensor or constant as it is now."""
        return self.stretches[key] * self.scales[key]

    def quantised_constant(self, name: str, axis: int, one: NumberFormat) -> Tensor:
        """A constant as the nodes of an 8-bit format read it."""
        return quantised_weight(self.multiplied(name, self.constants[name]), self.scale((name, one.name)), axis, one)

    def multiplied(self, name: str, weight: Tensor) -> Tensor:
        """A convolution's weights with its channel factors: what belongs to the input as the module reads it."""
        return weight * getattr(self, self._multiplied[name]) if name in self._multiplied else weight

    def without_factors(self, name: str, weight: Tensor) -> Tensor:
        """The inverse of ``multiplied``; factors are powers of two, so there and back is exact."""
        return weight / getattr(self, self._multiplied[name]) if name in self._multiplied else weight

    def forward(self, picture: Tensor) -> Tensor:
        """The graph's output."""
        return self.tensors(picture, (self.output,))[self.output]

    def tensors(self, picture: Tensor, wanted: Sequence[str], visit: Optional[Visitor] = None) -> Dict[str, Tensor]:
        """Some tensors by name, computed in one run that ends at the last of them.

        Args:
            picture: (N, 3, H, W).
            wanted: names of tensors.
            visit: see ``walk``.
        """
        found: Dict[str, Tensor] = {name: picture for name in wanted if name == self.input}
        missing = set(wanted) - found.keys()
        if not missing:
            return found
        for node, _, result in self.walk(picture, visit):
            outputs = result if isinstance(result, tuple) else (result,)
            found.update((name, value) for name, value in zip(node.output, outputs) if name in missing)
            missing.difference_update(node.output)
            if not missing:
                return found
        raise KeyError(f"the graph does not compute {sorted(missing)} from the picture")

    def walk(self, picture: Tensor, visit: Optional[Visitor] = None) -> Walk:
        """Run node by node: gives each that follows from the picture, with its inputs (quantised, where they are read
        so) and its result. What is sent back replaces the result, for all later nodes too.

        Args:
            picture: (N, 3, H, W).
            visit: called instead of running a node, which it may do: what it returns is the result, for all later
                nodes too.
        """
        kept = self._kept.get(tuple(picture.shape))
        values: Dict[str, Any] = {self.input: picture, **self._fixed, **self.constants, **(kept or {})}
        quantised: Dict[Key, Tensor] = {}
        fresh: Dict[str, Tensor] = {}
        for step in self.steps:
            if not step.follows_picture:
                if kept is None:
                    fresh.update(self._sized(step, values))
                    values.update(fresh)
                continue
            inputs = [self._read(step, index, values, quantised) for index in range(len(step.node.input))]
            run = functools.partial(self._run, step, inputs)
            result = run() if visit is None else visit(step.node, inputs, run)
            if step is self._last and kept is None and len(self._kept) < _KEPT_SHAPES:
                self._kept[tuple(picture.shape)] = {name: value.detach() for name, value in fresh.items()}
            sent = yield step.node, inputs, result
            result = result if sent is None else sent
            if visit is not None:
                # It may have changed a constant that later nodes read too.
                for index, axis in step.quantised.items():
                    if axis is not None:
                        quantised.pop(step.key(index), None)
            del inputs, run
            values.update(zip(step.node.output, result if isinstance(result, tuple) else (result,)))
            for name in step.frees:
                values.pop(name, None)
                for one in QUANTISED:
                    quantised.pop((name, one.name), None)

    def _read(self, step: _Step, index: int, values: Mapping[str, Any], quantised: Dict[Key, Tensor]) -> Any:
        """One input of a node, quantised where the plan says so; a tensor that many read is quantised once."""
        name = step.node.input[index]
        if not name:
            return None
        if index not in step.quantised:
            return values[name]
        key = step.key(index)
        if key not in quantised:
            axis = step.quantised[index]
            if axis is None:
                value = values[name]
                if step.format is INT8 and name in self._inverse:
                    value = value * getattr(self, self._inverse[name])
                quantised[key] = quantised_activation(value, self.scale(key), step.format)
            else:
                quantised[key] = self.quantised_constant(name, axis, step.format)
        return quantised[key]

    def _sized(self, step: _Step, values: Mapping[str, Any]) -> Dict[str, Tensor]:
        """Size arithmetic runs on the CPU; what it makes of floats goes where the weights are, in their type."""
        like = next(iter(self.constants.values()))
        with torch.no_grad():
            inputs = [
                None if not name else values[name] if step.node.op_type == "Shape" else values[name].cpu()
                for name in step.node.input
            ]
            result = self._run(step, inputs)
        outputs = result if isinstance(result, tuple) else (result,)
        return {
            name: value.to(like) if value.is_floating_point() else value
            for name, value in zip(step.node.output, outputs)
        }

    def _run(self, step: _Step, inputs: List[Any]) -> Any:
        try:
            return step.function(step.attributes, *inputs)
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"the node {step.node.name!r} ({step.node.op_type}) cannot be run for training: {error}",
                "a graph as srdeploy export writes it",
                "use srdeploy build --precision int8 without training for this network",
            ) from error

    def weight_axes(self) -> Dict[Key, int]:
        """Constants that are read in 8 bits and the format, and the axis of their output channels."""
        return {
            step.key(index): axis for step in self.steps for index, axis in step.quantised.items() if axis is not None
        }

    def trained(self) -> Dict[str, nn.Parameter]:
        """The constants that ask for gradients."""
        return {name: value for name, value in self.constants.items() if value.requires_grad}

    def arrays(self) -> Dict[str, np.ndarray]:
        """The constants that may be trained, as float32 arrays."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.trained().items()}


def _steps(model: onnx.ModelProto, plan: Optional[Plan]) -> Tuple[_Step, ...]:
    unknown = [node for node in model.graph.node if node.op_type not in FUNCTIONS or node.domain not in ("", "ai.onnx")]
    if unknown:
        named = ", ".join(f"{node.name!r} ({node.op_type})" for node in unknown[:5])
        raise UsageError(
            f"the graph has operators that cannot be trained here: {named}",
            "the operators that srdeploy export writes for its own architectures",
            "use srdeploy build --precision int8 without training for this network",
        )
    follows = set(following_picture(model))
    last: Dict[str, int] = {}
    for index, node in enumerate(model.graph.node):
        last.update(dict.fromkeys(node.input, index))
    steps: List[_Step] = []
    for index, node in enumerate(model.graph.node):
        attributes = {a.name: _plain(helper.get_attribute_value(a)) for a in node.attribute}
        if node.op_type == "Split":
            attributes["outputs"] = len(node.output)
        frees = {name for name in node.input if last[name] == index and name in follows}
        steps.append(
            _Step(
                node,
                FUNCTIONS[node.op_type],
                attributes,
                bool(follows.intersection(node.output)),
                tuple(frees),
                _quantised_inputs(node, plan),
                FORMAT[plan.nodes.get(node.name, INT8.name)] if plan is not None else INT8,
            )
        )
    return tuple(steps)


def _quantised_inputs(node: onnx.NodeProto, plan: Optional[Plan]) -> Dict[int, Optional[int]]:
    """Which inputs the lowered graph reads through Q/DQ, as precision/lower/quantize.py places them."""
    dtype = "" if plan is None else plan.nodes.get(node.name, "")
    if plan is None or dtype not in NARROW:
        return {}
    if node.op_type == "Add":
        return {index: None for index, name in enumerate(node.input) if name in plan.scales_of(dtype)}
    return {0: None, 1: CHANNEL_AXIS[node.op_type]}


def _trained(steps: Sequence[_Step]) -> FrozenSet[str]:
    return frozenset(
        step.node.input[index]
        for step in steps
        if step.follows_picture and not step.node.doc_string
        for index in _TRAINED_INPUTS.get(step.node.op_type, ())
        if index < len(step.node.input)
    )


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return torch.from_numpy(numpy_helper.to_array(value).copy())
    return value


def takes_batches(module: GraphModule, picture: Tensor) -> bool:
    """Whether two pictures at once give what each gives alone.

    Args:
        picture: (1, 3, H, W).
    """
    pair = torch.cat([picture, picture.flip(-1)])
    with torch.no_grad():
        try:
            both = module(pair)
        except (RuntimeError, UsageError):
            return False
        apart = torch.cat([module(pair[:1]), module(pair[1:])])
    near = 1e-3 * float(apart.abs().max())
    return both.shape == apart.shape and bool(torch.allclose(both, apart, rtol=1e-3, atol=near))
