"""One convolution after the other, in the graph's order: each sees what those before it really give.

The float32 graph and the quantised one run side by side, node by node, and a function may change each convolution's
weights and bias as the run comes to it. Everything after it already sees the change. Convolutions that stay wider come
too: they can make up for what INT8 did before them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import AbstractSet, Any, Callable, Dict, FrozenSet, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

import numpy as np
import onnx
import torch
from torch import Tensor

from sr_deploy.core.contract import layout_of_shape, picture_size
from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.media.surface import cut_picture
from sr_deploy.core.number_formats import NumberFormat
from sr_deploy.graph.operators import FUNCTIONS
from sr_deploy.precision.interpreter import GraphModule
from sr_deploy.precision.tensors import CHANNEL_AXIS

#: What the two runs may hold, about; fewer squares are used where a graph's tensors are larger.
HELD_BYTES = 3 * 10**9
#: What the float32 run may leave for the next fit.
KEPT_BYTES = 15 * 10**8
#: So many of the largest tensor are held at once, about.
_ALIVE = 8
SIDE = 64
#: A square is the one of so many places in a picture whose values differ most: much of graphics is blank.
PLACES = 4
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
        narrow: the 8-bit format it runs in; None: it stays wider.
        shared: whether other convolutions use the same weight, on other inputs.
    """

    node: onnx.NodeProto
    attributes: Mapping[str, Any]
    read: Tensor
    wanted: Tensor
    weight: str
    bias: str
    axis: int
    narrow: Optional[NumberFormat]
    shared: bool

    def computed(self, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
        """What it gives with these weights."""
        return FUNCTIONS[self.node.op_type](self.attributes, self.read, weight, bias)


#: Changes a layer's constants and scales in the quantised module; gives what the layer gives then.
Change = Callable[[GraphModule, Layer], Tensor]


def squares_from(images: Sequence[np.ndarray], count: int, side: int, seed: int = 0, places: int = 1) -> Tensor:
    """Squares cut out of pictures, as many from each as from any other, along the first axis; float32.

    Args:
        images: as the graph takes them, in any form of core/contract.py; of smaller ones the largest common square is
            taken, of even sides where it takes planes.
        places: each square is the one of so many random places whose values differ most.
    """
    rng = np.random.default_rng(seed)
    sizes = [picture_size(image) for image in images]
    side = min(side, *(min(size) for size in sizes))
    if images[0].dtype == np.uint8 and layout_of_shape(images[0].shape) != "NHWC":
        side -= side % 2
    cut: List[np.ndarray] = []
    for index in range(count):
        chosen = index * len(images) // count if count < len(images) else index % len(images)
        found = []
        for _ in range(places):
            top, left = (int(rng.integers(length - side + 1)) for length in sizes[chosen])
            found.append(cut_picture(images[chosen], (top, left), (side, side)))
        cut.append(max(found, key=lambda square: float(np.std(square, dtype=np.float64))))
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(cut), np.float32))


def through_layers(
    model: onnx.ModelProto,
    plan: Plan,
    weights: Mapping[str, np.ndarray],
    images: Sequence[np.ndarray],
    count: int,
    change: Change,
    earlier: Optional[Earlier] = None,
) -> GraphModule:
    """Run ``change`` on every convolution whose input or skip is not what the float32 graph has.

    Args:
        model, plan, weights: as for GraphModule.
        images: float32 (1, 3, H, W) in the units of the graph.
        count: squares to use, at most; see also _FAR.
        change: given the quantised module and the layer; it may change the module's constants and scales in place. A
            weight that several convolutions share comes only once. What the exporter pinned never comes.
        earlier: what earlier calls with the same graph, images and count have settled.

    Returns:
        The quantised module, changed.
    """
    student, teacher = GraphModule(model, plan, weights), GraphModule(model)
    side = SIDE
    if not any(node.op_type in _FAR for node in model.graph.node):
        count, side = 4 * count, side // 2
    squares = squares_from(images, count, side, places=PLACES)
    with torch.no_grad():
        squares = squares[: _as_many(teacher, squares[:1], count)]
        skips = _skips(model)
        wanted = {node.output[0] for node in model.graph.node if node.op_type in CHANNEL_AXIS} | {*skips.values()}
        beside = teacher.walk(squares) if earlier is None else earlier.taught.walk(teacher, squares, wanted)
        visitor = _Beside(student, beside, change, skips, shared_weights(model))
        visitor.done.update(() if earlier is None else earlier.begin(student))
        for _ in student.walk(squares, visitor.visit):
            pass
        next(beside, None)  # lets it end
    return student


@dataclass
class Taught:
    """What the float32 graph gives on the squares of a fit, kept for the next one while it is no more than KEPT_BYTES.

    Attributes:
        results: of all nodes in the order of the run, None for those that nobody asks for; None before the first run
            and where they were too large.
    """

    results: Optional[List[Any]] = None

    def walk(self, teacher: GraphModule, squares: Tensor, wanted: AbstractSet[str]) -> Iterator[Tuple[Any, Any, Any]]:
        """As ``teacher.walk``, with the results that were kept; of tensors that nobody wants there may be none."""
        if self.results is not None:
            yield from ((None, None, result) for result in self.results)
            return
        kept: List[Any] = []
        left = KEPT_BYTES
        for node, inputs, result in teacher.walk(squares):
            asked = node.output[0] in wanted
            left -= result.numel() * result.element_size() if asked else 0
            kept.append(result if asked else None)
            if left < 0:
                kept.clear()
            yield node, inputs, result
        self.results = kept if left >= 0 else None


@dataclass(frozen=True)
class Earlier:
    """What earlier calls have settled.

    Attributes:
        taught: what the float32 graph gives, filled by the first call.
        begin: given the quantised module before the run; it may change constants and scales, and gives the weights that
            are as they shall be, whose layers do not come.
    """

    taught: Taught
    begin: Callable[[GraphModule], AbstractSet[str]] = lambda _: frozenset()


class _Beside:
    """Sees every node of the quantised run, with the float32 run beside it at the same node.

    Args:
        student: what runs quantised.
        taught: the float32 run of the same graph on the same squares, node by node.
        change: see ``through_layers``.
        skips: of ``_skips``.
        shared: of ``shared_weights``.
    """

    def __init__(
        self,
        student: GraphModule,
        taught: Iterator[Tuple[Any, Any, Any]],
        change: Change,
        skips: Mapping[str, str],
        shared: FrozenSet[str],
    ) -> None:
        self.student, self.taught, self.change, self.skips, self.shared = student, taught, change, skips, shared
        self.steps = {step.node.name: step for step in student.steps if step.node.op_type in CHANNEL_AXIS}
        self.trained = student.trained().keys()
        #: Skip → what the float32 graph has there, less what the quantised one has.
        self.off: Dict[str, Tensor] = {}
        self.done: Set[str] = set()

    def visit(self, node: onnx.NodeProto, inputs: List[Any], run: Callable[[], Any]) -> Any:
        """Change the node where it is a convolution to change; gives what it gives then."""
        _, _, expected = next(self.taught)
        name, result = node.output[0], None
        if node.name in self.steps and node.input[1] in self.trained and node.input[1] not in self.done:
            layer = self._layer(node, inputs[0], self._wanted(name, expected))
            result = None if layer.narrow else run()
            if result is None or not torch.equal(result, layer.wanted):
                self.done.add(layer.weight)
                result = self.change(self.student, layer)
        result = run() if result is None else result
        if name in self.skips.values():
            self.off[name] = expected - result
        return result

    def _wanted(self, name: str, expected: Tensor) -> Tensor:
        """What a convolution should give: the float32 graph's tensor, and what the skip added to it is short of."""
        skip = self.skips.get(name, "")
        return expected + self.off.pop(skip) if skip in self.off else expected

    def _layer(self, node: onnx.NodeProto, read: Tensor, wanted: Tensor) -> Layer:
        step = self.steps[node.name]
        return Layer(
            node=node,
            attributes=step.attributes,
            read=read,
            wanted=wanted,
            weight=node.input[1],
            bias=node.input[2] if len(node.input) > 2 else "",
            axis=CHANNEL_AXIS[node.op_type],
            narrow=step.format if 1 in step.quantised else None,
            shared=node.input[1] in self.shared,
        )


def shared_weights(model: onnx.ModelProto) -> FrozenSet[str]:
    """Names of the weights that several convolutions use."""
    users = Counter(node.input[1] for node in model.graph.node if node.op_type in CHANNEL_AXIS)
    return frozenset(name for name, count in users.items() if count > 1)


def given(module: GraphModule, layer: Layer) -> Tensor:
    """What the layer gives with the module's constants as they are now."""
    weight: Tensor = module.constants[layer.weight]
    if layer.narrow is not None:
        weight = module.quantised_constant(layer.weight, layer.axis, layer.narrow)
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


def shares(short: Tensor) -> Tensor:
    """How much each picture counts in a layer's fit, (N,), float64, of mean 1.

    Squares add up to whoever's errors are largest: where a network runs away on combs of saturated colours, a few
    squares would move the weights of all others. So each is weighed as in Cauchy's estimator, 1 / (1 + e / median e),
    of its mean squared error e: a picture that is off by much more than most counts by the logarithm of that. Source
    of the weight: P. Holland and R. Welsch, "Robust regression using iteratively reweighted least-squares",
    Communications in Statistics 6(9), 1977.

    Args:
        short: what the layer's output is short of, (N, K, H, W).
    """
    error = torch.linalg.vector_norm(short.flatten(1), dim=1).double().square() / short[0].numel()
    weight = 1.0 / (error + error.median() + 1e-30)
    return weight * (len(weight) / weight.sum())


def corrected(module: GraphModule, layer: Layer) -> Tensor:
    """Add to the layer's bias what its channels are short of, the weighted mean over the pictures of the mean over
    pixels; gives what the layer gives then."""
    now = given(module, layer)
    if not layer.bias:
        return now
    short = layer.wanted - now
    missing = ((short.mean((2, 3)).double() * shares(short)[:, None]).mean(0)).to(now.dtype)
    module.constants[layer.bias].data += missing
    return now + missing[:, None, None]
