"""What a trace wrote of a picture's size into constants, computed from the picture again.

Targets of Reshape, Expand and Resize are computed where their numbers follow from height and width, and slices that
take the whole go. Which axes grow with the picture is followed from the input through the graph. Where an axis that
holds the whole picture, or its windows, is split, height and width are two parts in the picture's own proportion. That
is a guess, and none of it is believed: ``free.py`` compares what comes out with the fixed graph at four other sizes.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, FrozenSet, List, Sequence, Tuple, Union

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sr_deploy.graph.census import shapes_of
from sr_deploy.graph.given.tidy import with_whole_shapes
from sr_deploy.graph.specialise import with_constants_folded

Shape = Tuple[int, ...]
#: Of each axis of a tensor, which of the input's axes (2: height, 3: width) it grows with.
Growth = Tuple[FrozenSet[int], ...]
#: An edge of a shape: a number, or the name of a computed tensor.
Edge = Union[int, str]
_NONE: FrozenSet[int] = frozenset()
#: Operators that arrange a tensor in axes of other lengths; those that align their inputs at the last axis.
_ARRANGING = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
_ALIGNING = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Where", "Expand", "MatMul", "Sum", "PRelu"})


def with_computed_shapes(model: onnx.ModelProto, fixed: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with what the picture's size was written into computed from it.

    Args:
        model: without a declared size; not modified.
        fixed: the same nodes with it. It has been run before: what is constant is computed here.
    """
    result = with_constants_folded(with_whole_shapes(model))
    known = with_constants_folded(onnx.shape_inference.infer_shapes(with_whole_shapes(fixed), data_prop=True))
    freeing = _Freeing(result.graph, shapes_of(onnx.shape_inference.infer_shapes(known, data_prop=True)))
    for node in list(result.graph.node):
        freeing.free(node)
    freeing.words.place()
    return result


class _Freeing:
    """One graph that is freed, node by node."""

    def __init__(self, graph: onnx.GraphProto, shapes: Dict[str, Shape]) -> None:
        self.shapes, self.lr, self.words = shapes, graph.input[0].name, ShapeWords(graph)
        self.grows: Dict[str, Growth] = {self.lr: (_NONE, _NONE, frozenset({2}), frozenset({3}))}
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)

    def free(self, node: onnx.NodeProto) -> None:
        """Compute the target of a node, and follow what grows with the picture through it."""
        made = self.shapes.get(node.output[0])
        if made is None:
            return
        if node.op_type in _ARRANGING:
            edges, grows = self._arranged(node.input[0], made)
            self.grows[node.output[0]] = grows
            if node.op_type == "Reshape":
                self._retarget(node, 1, lambda _: edges)
            return
        self.grows.update(dict.fromkeys(node.output, self._kept(node, made)))
        if node.op_type == "Resize":
            self._retarget(node, 3, lambda target: [self._part(axis, edge) for axis, edge in enumerate(target)])
        elif node.op_type == "Expand":
            self._retarget(node, 1, lambda target: self._expanded(node.input[0], target))
        elif node.op_type == "Slice" and self.shapes.get(node.input[0]) == made:
            inputs = [node.input[0]]
            node.op_type, node.input[:] = "Identity", inputs

    def _retarget(self, node: onnx.NodeProto, place: int, edges: Callable[[List[int]], Sequence[Edge]]) -> None:
        """Compute a target that is constant, where its edges follow from the picture."""
        name = node.input[place] if len(node.input) > place else ""
        if name in self.constants:
            target = self.constants[name].tolist()
            computed = list(edges(target))
            if computed and computed != target:
                node.input[place] = self.words.joined(computed)

    def _expanded(self, source: str, target: List[int]) -> List[Edge]:
        """1 where the source has that length already, which says as much; parts of the picture in its place."""
        shape = self.shapes.get(source, ())[-len(target) :]
        aligned = (1,) * (len(target) - len(shape)) + shape
        edges = [1 if own == edge else edge for own, edge in zip(aligned, target)]
        return [self._part(axis, edge) if len(edges) == 4 else edge for axis, edge in enumerate(edges)]

    def _part(self, axis: int, wanted: int) -> Edge:
        """An edge of a picture as a multiple or a fraction of that of the input."""
        if axis < 2 or wanted == 1:
            return wanted
        return self.words.part(self.lr, axis, wanted, self.shapes[self.lr][axis])

    def _kept(self, node: onnx.NodeProto, made: Shape) -> Growth:
        """What grows behind a node that keeps its input's axes, or aligns several."""
        if node.op_type == "Transpose":
            before = self._of(node.input[0])
            perm = next((list(one.ints) for one in node.attribute if one.name == "perm"), range(len(before))[::-1])
            return tuple(before[axis] for axis in perm)
        if node.op_type.startswith("Reduce") and len(made) < len(self._of(node.input[0])):
            before, axes = self._of(node.input[0]), self._axes(node)
            return tuple(one for axis, one in enumerate(before) if axis not in axes and axis - len(before) not in axes)
        inputs = node.input if node.op_type in _ALIGNING or node.op_type == "Concat" else node.input[:1]
        grows = [_NONE] * len(made)
        for name in inputs:
            before = self._of(name)
            if len(before) == len(made) or node.op_type in _ALIGNING:
                for back in range(1, min(len(before), len(made)) + 1):
                    inner = node.op_type == "MatMul" and back == (1 if name == node.input[0] else 2)
                    grows[-back] = grows[-back] if inner else grows[-back] | before[-back]
        return tuple(_NONE if length == 1 else one for one, length in zip(grows, made))

    def _axes(self, node: onnx.NodeProto) -> List[int]:
        """The axes that a node reduces: an attribute, or an input from operator set 13 or 18 on."""
        if len(node.input) > 1 and node.input[1] in self.constants:
            return list(self.constants[node.input[1]])
        return next((list(one.ints) for one in node.attribute if one.name == "axes"), [])

    def _of(self, tensor: str) -> Growth:
        return self.grows.get(tensor, (_NONE,) * len(self.shapes.get(tensor, ())))

    def _arranged(self, source: str, made: Shape) -> Tuple[List[Edge], Growth]:
        """The edges that a tensor is arranged in, and what of them grows; no edges where they do not follow."""
        edges: List[Edge] = []
        grows: List[FrozenSet[int]] = []
        before = self._of(source)
        for first, last, parts in _groups(self.shapes.get(source, ()), made):
            growing = frozenset().union(*before[first:last])
            found = self._split(source, range(first, last), parts, growing) if growing else {}
            edges += [found.get(place, (part, _NONE))[0] for place, part in enumerate(parts)]
            grows += [found.get(place, (part, _NONE))[1] for place, part in enumerate(parts)]
        return (edges, tuple(grows)) if len(edges) == len(made) else ([], (_NONE,) * len(made))

    def _split(
        self, source: str, axes: range, parts: Sequence[int], growing: FrozenSet[int]
    ) -> Dict[int, Tuple[Edge, FrozenSet[int]]]:
        """Place → its edge and what it grows with, of the parts that joined axes are split into that grow."""
        long = [place for place, part in enumerate(parts) if part > 1]
        if long and (len(long) == 1 or len(growing) == 1):
            # The first part grows with one axis: windows along the picture, then the window.
            rest = int(np.prod(parts)) // parts[long[0]]
            whole = self.words.product(source, axes)
            return {long[0]: (whole if rest == 1 else self.words.divided(whole, rest), growing)}
        height, width = self.shapes[self.lr][2:]
        for first, part in enumerate(parts):
            for second in range(first + 1, len(parts)):
                if part > 1 and part * width == parts[second] * height:
                    return {
                        first: (self._part(2, part), frozenset({2})),
                        second: (self._part(3, parts[second]), frozenset({3})),
                    }
        return {}


def _groups(shape: Shape, made: Shape) -> List[Tuple[int, int, List[int]]]:
    """(first axis, last + 1, lengths that they become) of the least parts of a shape that are arranged apart."""
    groups = []
    first = start = 0
    while first < len(shape) and start < len(made):
        last, end = first + 1, start + 1
        inside, outside = shape[first], made[start]
        while inside != outside:
            if inside < outside and last < len(shape):
                inside, last = inside * shape[last], last + 1
            elif outside < inside and end < len(made):
                outside, end = outside * made[end], end + 1
            else:
                return []
        groups.append((first, last, list(made[start:end])))
        first, start = last, end
    rest = list(made[start:])
    if first == len(shape) and groups and all(length == 1 for length in rest):
        groups[-1][2].extend(rest)
    return groups


class ShapeWords:
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

    def part(self, tensor: str, axis: int, wanted: int, edge: int) -> Edge:
        """``wanted`` as a multiple or a fraction of an axis of ``tensor``, whose size is ``edge``; itself otherwise."""
        if wanted % edge == 0:
            return self._node("Mul", self.product(tensor, range(axis, axis + 1)), self._constant(wanted // edge))
        if edge % wanted == 0:
            return self.divided(self.product(tensor, range(axis, axis + 1)), edge // wanted)
        return wanted

    def joined(self, edges: Sequence[Edge]) -> str:
        """A shape: int64, one element an edge."""
        names = [edge if isinstance(edge, str) else self._constant(edge) for edge in edges]
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
