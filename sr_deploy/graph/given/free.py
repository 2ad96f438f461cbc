"""A graph that was exported for one size, made free for any, and the proof that it is the same network.

What a trace froze is the input's declared size and constants that hold it. The declaration goes; the targets of
Reshape and Resize are computed from the tensor again where their numbers follow from its shape. The freed graph must
then be the fixed one wherever that can be compared: both see the same corner of a picture, at four other sizes and all
four corners, and give the same there but for what the cut edges reach. Networks that reach across the whole picture
cannot be compared so; they are free only if nothing was changed and no operator in them can hold a size.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sr_deploy.core.contract import Size, SizeRules, format_size
from sr_deploy.core.media.natural import natural_input
from sr_deploy.core.tolerance import GRAPH_FP32, largest_difference
from sr_deploy.graph.census import shapes_of

#: Operators whose meaning no size is part of.
SIZELESS = frozenset({
    "Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "ConvTranspose",
    "DepthToSpace", "Div", "Elu", "Erf", "Exp", "Gelu", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid",
    "HardSwish", "Identity", "InstanceNormalization", "LeakyRelu", "Max", "MaxPool", "Min", "Mish", "Mul", "Neg",
    "PRelu", "Pad", "Pow", "ReduceMax", "ReduceMean", "Relu", "Sigmoid", "Softplus", "SpaceToDepth", "Split", "Sqrt",
    "Sub", "Sum", "Tanh", "Transpose", "Upsample",
})  # fmt: skip
#: How the four sizes differ from the fixed one, in multiples of what the network takes: larger, wider, taller, smaller.
_STEPS: Tuple[Size, ...] = ((3, 5), (-2, 3), (4, -3), (-1, -1))
#: Pixels of a corner that must be left when what the cut edges reach is taken away; pixels that reach is taken longer.
_LEFT, _MARGIN = 4, 2
#: An input larger than what graphs are mostly traced with (64x64), which shows a crop that was frozen.
LARGER: Size = (72, 88)

Run = Callable[[np.ndarray], np.ndarray]


def is_sizeless(model: onnx.ModelProto) -> bool:
    """Whether no node can hold a size: then the same nodes are the same network at every size."""
    constant = {tensor.name for tensor in model.graph.initializer}
    return all(
        node.op_type in SIZELESS or (node.op_type == "Resize" and len(node.input) == 3 and node.input[2] in constant)
        for node in model.graph.node
    )


def beyond(size: Size, multiple: int = 1) -> Size:
    """An input larger than the fixed one, which a frozen crop would show."""
    return size[0] + 8 * multiple, size[1] + 16 * multiple


def with_computed_shapes(model: onnx.ModelProto, fixed: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with the constant targets of Reshape and Resize computed from shapes, where they follow from them.

    Args:
        model: without a declared size; not modified.
        fixed: the same nodes with it.
    """
    shapes = shapes_of(onnx.shape_inference.infer_shapes(fixed, data_prop=True))
    lr = shapes[fixed.graph.input[0].name]
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    words = _ShapeWords(graph)
    for node in list(graph.node):
        place = {"Reshape": 1, "Resize": 3}.get(node.op_type, 0)
        target = constants.get(node.input[place]) if 0 < place < len(node.input) else None
        if target is None:
            continue
        if node.op_type == "Resize":
            edges = [words.part(graph.input[0].name, axis, wanted, lr[axis]) if axis > 1 else wanted
                     for axis, wanted in enumerate(target.tolist())]  # fmt: skip
        else:
            made = shapes.get(node.output[0])
            edges = [] if made is None else _reshaped(words, node.input[0], shapes.get(node.input[0], ()), made)
        if any(isinstance(edge, str) for edge in edges):
            node.input[place] = words.joined(edges)
    words.place()
    return result


def _reshaped(words: _ShapeWords, source: str, shape: Tuple[int, ...], made: Tuple[int, ...]) -> List[object]:
    """The edges of a Reshape's target, each a number or a computed tensor: axes that are kept, joined or split."""
    edges: List[object] = []
    first = 0
    while first < len(shape) and len(edges) < len(made):
        last, start = first + 1, len(edges)
        inside, outside, end = shape[first], made[start], start + 1
        while inside != outside:
            if inside < outside and last < len(shape):
                inside, last = inside * shape[last], last + 1
            elif outside < inside and end < len(made):
                outside, end = outside * made[end], end + 1
            else:
                return []
        whole = words.product(source, range(first, last))
        rest = list(made[start + 1 : end])
        # Of an axis that is split, the first part grows with it: windows along the picture, then the window.
        edges += [whole if not rest or first < 2 else words.divided(whole, int(np.prod(rest))), *rest]
        if rest and first < 2:
            edges[start] = made[start]
        first = last
    return edges if len(edges) == len(made) and first == len(shape) else []


class _ShapeWords:
    """Writes nodes that compute with shapes, each before the first reader of what it makes."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph, self.nodes = graph, []  # type: ignore[var-annotated]
        self.known: Dict[Tuple[object, ...], str] = {}

    def _constant(self, *values: int) -> str:
        name = f"given/free/{'_'.join(map(str, values))}"
        if all(tensor.name != name for tensor in self.graph.initializer):
            self.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def _node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        key = (operator, *inputs)
        if key not in self.known:
            name = self.known[key] = f"given/free/{operator}_{len(self.nodes)}"
            self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return self.known[key]

    def product(self, tensor: str, axes: range) -> str:
        """The product of some axes of a tensor, int64 of one element."""
        parts = [self._node("Gather", self._node("Shape", tensor), self._constant(axis)) for axis in axes]
        whole = parts[0]
        for part in parts[1:]:
            whole = self._node("Mul", whole, part)
        return whole

    def divided(self, whole: str, by: int) -> str:
        """A computed edge divided by a number."""
        return self._node("Div", whole, self._constant(by))

    def part(self, tensor: str, axis: int, wanted: int, edge: int) -> object:
        """``wanted`` as a multiple or a fraction of an axis of ``tensor``, whose size is ``edge``; itself otherwise."""
        if wanted % edge == 0:
            return self._node("Mul", self.product(tensor, range(axis, axis + 1)), self._constant(wanted // edge))
        if edge % wanted == 0:
            return self.divided(self.product(tensor, range(axis, axis + 1)), edge // wanted)
        return wanted

    def joined(self, edges: List[object]) -> str:
        """A shape: int64, one element an edge."""
        names = [edge if isinstance(edge, str) else self._constant(int(edge)) for edge in edges]  # type: ignore[call-overload]
        return self._node("Concat", *names, axis=0)

    def place(self) -> None:
        """Put the nodes where what they read is there."""
        waiting, placed = list(self.nodes), []
        there = {value.name for value in self.graph.input} | {tensor.name for tensor in self.graph.initializer}
        for node in [None, *self.graph.node]:
            if node is not None:
                placed.append(onnx.NodeProto.FromString(node.SerializeToString()))
                there.update(node.output)
            for new in list(waiting):
                if there.issuperset(new.input):
                    placed.append(new)
                    there.update(new.output)
                    waiting.remove(new)
        del self.graph.node[:]
        self.graph.node.extend(placed)


def why_not_the_same(fixed: Run, free: Run, size: Size, scale: int, rules: SizeRules) -> Optional[str]:
    """Compare the freed graph with the fixed one at four other sizes; None when they agree.

    Args:
        fixed, free: float32 (1, 3, H, W) in 0…1 to (1, 3, scale·H, scale·W).
        size: what ``fixed`` takes.
        scale, rules: of the network.

    Returns:
        What does not agree, or why it cannot be compared.
    """
    reach = _reach(fixed, size, scale)
    for steps in _STEPS:
        other = tuple(rules.fit(max(edge + step * rules.multiple, 1)) for edge, step in zip(size, steps))
        found = _differs(fixed, free, size, (other[0], other[1]), scale, reach)
        if found:
            return found
    return None


def _reach(run: Run, size: Size, scale: int) -> Size:
    """How many pixels from a changed edge the output changes, downwards and across."""
    picture = natural_input(size, 1.0)
    before = run(picture)
    reach = []
    for axis in (2, 3):
        changed = picture.copy()
        last = [slice(None)] * 4
        last[axis] = slice(-1, None)
        changed[tuple(last)] = 1.0 - changed[tuple(last)]
        moved = np.nonzero(np.abs(run(changed) - before).max(axis=tuple(a for a in range(4) if a != axis)))[0]
        reach.append(size[axis - 2] - (int(moved.min()) // scale if len(moved) else size[axis - 2]) + _MARGIN)
    return reach[0], reach[1]


def _differs(fixed: Run, free: Run, size: Size, other: Size, scale: int, reach: Size) -> Optional[str]:
    """What differs at one size, in any of the four corners that both pictures have in common."""
    canvas = natural_input((max(size[0], other[0]), max(size[1], other[1])), 1.0)
    common = [min(mine, its) - (length if mine != its else 0) for mine, its, length in zip(size, other, reach)]
    if min(common) < _LEFT:
        return f"the network reaches over {max(reach)} pixels, which leaves nothing to compare"
    for bottom in (False, True):
        for right in (False, True):
            corner = (bottom, right)
            outputs = []
            for run, edges in ((fixed, size), (free, other)):
                sr = run(np.ascontiguousarray(_corner(canvas, edges, corner)))
                outputs.append(_corner(sr, (common[0] * scale, common[1] * scale), corner))
            difference = largest_difference(outputs[1], outputs[0], 1.0)
            if not difference <= GRAPH_FP32.steps:
                return f"at {format_size(other)} it differs from itself by {difference:.3g} of 255"
    return None


def _corner(picture: np.ndarray, size: Size, corner: Tuple[bool, bool]) -> np.ndarray:
    rows, columns = (slice(-edge, None) if end else slice(edge) for edge, end in zip(size, corner))
    return picture[:, :, rows, columns]
