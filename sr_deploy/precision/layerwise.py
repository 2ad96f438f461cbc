"""One INT8 convolution after the other, in the graph's order: each sees what those before it really give in INT8.

The float32 graph runs first and its tensors are kept; then the quantised graph runs once, and a function may change
each convolution's weights and bias as the run comes to it. Everything after it already sees the change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor

from sr_deploy.core.plan import Plan
from sr_deploy.precision.interpreter import GraphModule
from sr_deploy.precision.operators import FUNCTIONS

#: Float32 tensors that are kept at once, at most; fewer squares are used where a graph has more.
HELD_BYTES = 10**9
SIDE = 64


@dataclass(frozen=True)
class Layer:
    """A convolution as the run comes to it.

    Attributes:
        node: Conv or ConvTranspose.
        attributes: of the node.
        read: its quantised input, (N, C, H, W).
        wanted: what it should give, (N, K, H', W'): the float32 graph's tensor, less what a skip that is added to it
            is off by already.
        weight, bias: names of its constants; no bias is "".
        axis: of the output channels in the weight.
    """

    node: onnx.NodeProto
    attributes: Mapping[str, Any]
    read: Tensor
    wanted: Tensor
    weight: str
    bias: str
    axis: int

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
    """Run ``change`` on every INT8 convolution.

    Args:
        model, plan, weights: as for GraphModule.
        images: float32 (1, 3, H, W) in the units of the graph.
        count: squares to use, at most.
        change: given the quantised module and the layer; it may change the module's constants and scales in place. A
            weight that several convolutions share comes only once.
        side: of the squares.
        follow_skips: let a convolution whose result is added to a skip make up for the skip's error.

    Returns:
        The quantised module, changed.
    """
    student, teacher = GraphModule(model, plan, weights), GraphModule(model)
    skips = _skips(model) if follow_skips else {}
    layers = [step for step in student.steps if 1 in step.quantised]
    outputs = [step.node.output[0] for step in layers]
    names = sorted({*outputs, *(skip for skip in skips.values())})
    squares = squares_from(images, count, side)
    with torch.no_grad():
        one = teacher.tensors(squares[:1], names)
        fits = int(HELD_BYTES // max(sum(4 * tensor.numel() for tensor in one.values()), 1))
        squares = squares[: max(1, min(count, fits))]
        pieces = [teacher.tensors(square[None], names) for square in squares]
        taught = {name: torch.cat([piece[name] for piece in pieces]) for name in names}
        del pieces
        steps = {step.node.name: step for step in layers}
        seen: Dict[str, Tensor] = {}
        done = set()

        def visit(node: onnx.NodeProto, inputs: List[Any], result: Any) -> Optional[Tensor]:
            for name in node.output:
                if name in skips.values():
                    seen[name] = result
            step = steps.get(node.name)
            if step is None or node.input[1] in done:
                return None
            done.add(node.input[1])
            wanted = taught[node.output[0]]
            skip = skips.get(node.output[0])
            if skip is not None and skip in seen:
                wanted = wanted + (taught[skip] - seen[skip])
            axis = step.quantised[1]
            assert axis is not None
            bias = node.input[2] if len(node.input) > 2 else ""
            layer = Layer(node, step.attributes, inputs[0], wanted, node.input[1], bias, axis)
            change(student, layer)
            return layer.computed(student.quantised_constant(layer.weight, axis), student.constants.get(bias))

        student.tensors(squares, (outputs[-1],) if outputs else (student.input,), visit)
    return student


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
