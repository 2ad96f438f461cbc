"""One convolution after the other, in the graph's order: each sees what those before it really give in INT8.

The float32 graph and the quantised one run side by side, node by node, and a function may change each convolution's
weights and bias as the run comes to it. Everything after it already sees the change. Convolutions that stay wider come
too: they can make up for what INT8 did before them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, Optional, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor

from sr_deploy.core.deployment.plan import Plan
from sr_deploy.precision.interpreter import GraphModule
from sr_deploy.precision.lower.quantize import CHANNEL_AXIS
from sr_deploy.precision.operators import FUNCTIONS

#: What the two runs may hold, about; fewer squares are used where a graph's tensors are larger.
HELD_BYTES = 3 * 10**9
#: So many of the largest tensor are held at once, about.
_ALIVE = 8
SIDE = 64
#: Operators that mix distant pixels. Without them small squares show a layer all that it ever sees, so four times as
#: many of half the side are taken: more places, more colours.
_FAR = (
    *("MatMul", "Gemm", "Softmax", "Resize", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
    *("ReduceMean", "ReduceMax", "ReduceSum", "LayerNormalization", "InstanceNormalization"),
)


@dataclass(frozen=True)
class Layer:
    """A convolution as the run comes to it.

    Attributes:
        node: Conv or ConvTranspose.
        attributes: of the node.
        read: its input, quantised where it runs in INT8, (N, C, H, W).
        wanted: what it should give, (N, K, H', W'): the float32 graph's tensor, less what a skip that is added to it
            is off by already.
        weight, bias: names of its constants; no bias is "".
        axis: of the output channels in the weight.
        int8: whether it runs in INT8.
        shared: whether other convolutions use the same weight, on other inputs.
    """

    node: onnx.NodeProto
    attributes: Mapping[str, Any]
    read: Tensor
    wanted: Tensor
    weight: str
    bias: str
    axis: int
    int8: bool
    shared: bool

    def computed(self, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
        """What it gives with these weights."""
        return FUNCTIONS[self.node.op_type](self.attributes, self.read, weight, bias)


def squares_from(images: Sequence[np.ndarray], count: int, side: int, seed: int = 0) -> Tensor:
    """Squares cut out of pictures, as many from each as from any other, (count, 3, side, side).

    Args:
        images: float32 (1, 3, H, W); of smaller ones the largest common square is taken.
    """
    rng = np.random.default_rng(seed)
    side = min(side, *(min(image.shape[2:]) for image in images))
    cut: List[np.ndarray] = []
    for index in range(count):
        image = images[index * len(images) // count if count < len(images) else index % len(images)]
        top, left = (int(rng.integers(length - side + 1)) for length in image.shape[2:])
        cut.append(image[0, :, top : top + side, left : left + side])
    return torch.from_numpy(np.ascontiguousarray(np.stack(cut), np.float32))


def through_layers(
    model: onnx.ModelProto,
    plan: Plan,
    weights: Mapping[str, np.ndarray],
    images: Sequence[np.ndarray],
    count: int,
    change: Callable[[GraphModule, Layer], None],
    side: int = SIDE,
    follow_skips: bool = True,
) -> GraphModule:
    """Run ``change`` on every convolution whose input or skip is not what the float32 graph has.

    Args:
        model, plan, weights: as for GraphModule.
        images: float32 (1, 3, H, W) in the units of the graph.
        count: squares to use, at most; see also _FAR.
        change: given the quantised module and the layer; it may change the module's constants and scales in place. A
            weight that several convolutions share comes only once. What the exporter pinned never comes.
        side: of the squares.
        follow_skips: let a convolution whose result is added to a skip make up for the skip's error.

    Returns:
        The quantised module, changed.
    """
    student, teacher = GraphModule(model, plan, weights), GraphModule(model)
    skips = _skips(model) if follow_skips else {}
    steps = {step.node.name: step for step in student.steps if step.node.op_type in CHANNEL_AXIS}
    if not any(node.op_type in _FAR for node in model.graph.node):
        count, side = 4 * count, side // 2
    squares = squares_from(images, count, side)
    off: Dict[str, Tensor] = {}
    shared = shared_weights(model)
    done = set()
    with torch.no_grad():
        squares = squares[: _as_many(teacher, squares[:1], count)]
        taught, learning = teacher.walk(squares), student.walk(squares)
        changed: Optional[Tensor] = None
        for _, _, expected in taught:
            try:
                node, inputs, result = learning.send(changed)
            except StopIteration:
                break
            changed = None
            step, name = steps.get(node.name), node.output[0]
            if step is not None and node.input[1] in student.trained() and node.input[1] not in done:
                wanted = expected + off.pop(skips[name]) if name in skips and skips[name] in off else expected
                int8, bias = 1 in step.quantised, node.input[2] if len(node.input) > 2 else ""
                axis = CHANNEL_AXIS[node.op_type]
                several = node.input[1] in shared
                layer = Layer(node, step.attributes, inputs[0], wanted, node.input[1], bias, axis, int8, several)
                if int8 or not torch.equal(result, wanted):
                    done.add(layer.weight)
                    change(student, layer)
                    changed = result = given(student, layer)
            if name in skips.values():
                off[name] = expected - result
    return student


def shared_weights(model: onnx.ModelProto) -> FrozenSet[str]:
    """Names of the weights that several convolutions use."""
    users = Counter(node.input[1] for node in model.graph.node if node.op_type in CHANNEL_AXIS)
    return frozenset(name for name, count in users.items() if count > 1)


def given(module: GraphModule, layer: Layer) -> Tensor:
    """What the layer gives with the module's constants as they are now."""
    weight = module.quantised_constant(layer.weight, layer.axis) if layer.int8 else module.constants[layer.weight]
    return layer.computed(weight, module.constants.get(layer.bias))


def _as_many(module: GraphModule, square: Tensor, count: int) -> int:
    """How many squares fit into HELD_BYTES."""
    largest = max((4 * result.numel() for _, _, result in module.walk(square) if isinstance(result, Tensor)), default=1)
    return max(1, min(count, HELD_BYTES // (_ALIVE * largest)))


def _skips(model: onnx.ModelProto) -> Dict[str, str]:
    """Result of a convolution that only an Add reads → the other tensor which that Add reads."""
    made = {name: node for node in model.graph.node for name in node.output}
    readers: Dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    order = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
    found: Dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type != "Add" or any(name not in made for name in node.input):
            continue
        later, earlier = sorted(node.input, key=lambda name: -order[name])
        if made[later].op_type in ("Conv", "ConvTranspose") and readers[later] == 1 and later != earlier:
            found[later] = earlier
    return found


def channel_means(tensor: Tensor) -> Tensor:
    """Mean over batch and pixels, (K,), in float64."""
    return tensor.double().mean((0, 2, 3))
