"""On which rows, or columns, of the picture each value of a graph depends: an interpretation of the graph in intervals.

Instead of numbers every tensor carries, for each of its elements, the first and the last row of the input that the
element depends on. Operators that move data move the intervals, arithmetic joins them, windows join neighbours. So no
layout is special: pixel shuffles, windows of a transformer and rolls are followed element by element, and what comes
out is exact up to holes within an interval.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple, cast

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sr_deploy.core.reach import GlobalNode
from sr_deploy.graph.rewrite.rows import POINTWISE

#: The interval of what depends on nothing: joined with any other it gives the other.
NOWHERE = 1 << 30
#: An interval over more of the picture than this counts as all of it.
ALL_FROM = 0.75
#: No tensor has more axes.
MOST_AXES = 16

_POINTWISE = POINTWISE | {"Where", "Equal", "Greater", "Less", "Not", "And", "Or", "Sign", "Sin", "Cos", "Mod"}
_MOVING = frozenset(
    {"Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "SpaceToDepth"}
    | {"Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
_REDUCING = frozenset(
    {"GlobalAveragePool", "GlobalMaxPool", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"}
)
#: Their results have the shape of the input, and each depends on all along some axes.
_NORMALISING = frozenset({"InstanceNormalization", "LayerNormalization", "LogSoftmax", "Softmax"})
_WINDOWED = frozenset({"AveragePool", "Conv", "ConvTranspose", "MaxPool"})
#: A Resize's taps around the place it samples: before its floor, after it.
_TAPS = {"nearest": (0, 1), "linear": (0, 1), "cubic": (1, 2)}


@dataclass(frozen=True)
class Depends:
    """Of each element of a tensor the first and the last row (or column) of the picture that it depends on.

    Attributes:
        first, last: int32; an axis along which nothing changes may have length 1. NOWHERE and -NOWHERE where an element
            depends on nothing.
        shape: of the tensor.
    """

    first: np.ndarray
    last: np.ndarray
    shape: Tuple[int, ...]

    @property
    def extent(self) -> int:
        """Rows from the first to the last, of the element that depends on most."""
        return int(np.max(self.last - self.first, initial=-1)) + 1

    def joined(self, axes: Tuple[int, ...]) -> Depends:
        """All along some axes joined into one element each, which keeps its axis."""
        shape = tuple(1 if axis in axes else length for axis, length in enumerate(self.shape))
        if not axes:
            return self
        return Depends(self.first.min(axis=axes, keepdims=True), self.last.max(axis=axes, keepdims=True), shape)

    def expanded(self, axes: Sequence[int]) -> Depends:
        """With the full length of some axes."""
        seen = tuple(
            length if axis in axes else have for axis, (length, have) in enumerate(zip(self.shape, self.first.shape))
        )
        return Depends(np.broadcast_to(self.first, seen), np.broadcast_to(self.last, seen), self.shape)

    def compact(self) -> Depends:
        """The same, with length 1 for the axes along which nothing changes."""
        first, last = self.first, self.last
        for axis in range(first.ndim):
            if first.shape[axis] > 1 and not np.any(np.diff(first, axis=axis)) and not np.any(np.diff(last, axis=axis)):
                first, last = first.take([0], axis), last.take([0], axis)
        return Depends(first, last, self.shape)

    def places(self) -> Tuple[int, ...]:
        """The axes along which the place in the picture changes, counted from the end (-1 is the last)."""
        rank = len(self.shape)
        return tuple(
            axis - rank
            for axis in range(rank)
            if self.first.shape[axis] > 1 and bool(np.any(self.first.max(axis=axis) > self.last.min(axis=axis)))
        )


def union(several: Sequence[Depends], shape: Tuple[int, ...]) -> Depends:
    """Joined element by element, broadcast to a shape."""
    first = last = None
    for one in several:
        seen = (1,) * (len(shape) - one.first.ndim) + one.first.shape
        ends = one.first.reshape(seen), one.last.reshape(seen)
        first = ends[0] if first is None else np.minimum(first, ends[0])
        last = ends[1] if last is None else np.maximum(last, ends[1])
    assert first is not None and last is not None, "something is joined"
    return Depends(first, last, shape)


@dataclass
class Interpretation:
    """The graph under way, for one axis of the picture.

    Attributes:
        length: rows (or columns) of the picture.
        axis: 0 for rows, 1 for columns.
        shapes: of every tensor.
        constants: values of those that depend on nothing.
        opsets: of the graph.
        known: tensor → what it depends on.
        findings: the global nodes so far, by name.
        ratios: name of a Resize → its factor along this axis.
        grew: many nodes together made an interval too long for this picture; a larger one tells more.
    """

    length: int
    axis: int
    shapes: Mapping[str, Tuple[int, ...]]
    constants: Mapping[str, np.ndarray]
    opsets: List[onnx.OperatorSetIdProto]
    known: Dict[str, Depends] = field(default_factory=dict)
    findings: Dict[str, GlobalNode] = field(default_factory=dict)
    ratios: Dict[str, Fraction] = field(default_factory=dict)
    grew: bool = False

    def run(self, node: onnx.NodeProto) -> None:
        """Interpret one node; every input of it must be known or constant."""
        data = [name for name in node.input if name in self.known]
        if not data:
            return  # what depends on nothing has been folded to a constant, or is never asked for
        rule = next((rule for kinds, rule in _RULES if node.op_type in kinds), None)
        results: Optional[List[Depends]] = None
        if rule is not None and all(name in self.shapes for name in node.output if name):
            results = rule(self, node)
        if results is None:
            self.find(node, f"does with {node.op_type} what is not known to be local")
            results = [self._all(self.shapes.get(name, (1,))) for name in node.output]
        before = max(self.known[name].extent for name in data)
        for name, result in zip(node.output, results):
            if result.extent >= ALL_FROM * self.length:
                if before >= ALL_FROM * self.length or node.op_type in _WINDOWED:
                    self.grew = True
                else:
                    self.find(node, self._why(node))
                result = self._place_of(result)
            self.known[name] = result

    def find(self, node: onnx.NodeProto, why: str) -> None:
        """Note a global node."""
        name = node.name or node.output[0]
        self.findings.setdefault(name, GlobalNode(name[:1000], node.op_type, why))

    def _why(self, node: onnx.NodeProto) -> str:
        """What a node does whose result suddenly depends on all of the picture."""
        if node.op_type in _REDUCING or node.op_type == "InstanceNormalization":
            return "takes a mean or maximum over the whole picture"
        if node.op_type == "MatMul":
            return "mixes places of the whole picture (a Fourier unit, or attention over shifted windows)"
        return "joins places of the whole picture"

    def _place_of(self, result: Depends) -> Depends:
        """A tensor as if each element depended on its own place alone: so the next global node is found too."""
        shape = result.shape
        axis = len(shape) - 2 + self.axis
        if len(shape) != 4 or shape[axis] == 1:
            nowhere = np.full((1,) * len(shape), NOWHERE, np.int32)
            return Depends(nowhere, -nowhere, shape)
        line = (np.arange(shape[axis]) * self.length // shape[axis]).astype(np.int32)
        line = line.reshape([-1 if index == axis else 1 for index in range(4)])
        return Depends(line, line, shape)

    def _all(self, shape: Tuple[int, ...]) -> Depends:
        one = (1,) * len(shape)
        return Depends(np.zeros(one, np.int32), np.full(one, self.length - 1, np.int32), shape)


def picture(shape: Tuple[int, ...], rows_at: int, axis: int) -> Depends:
    """The input itself: each element depends on its own row (``axis`` 0) or column (1); rows are axis ``rows_at``."""
    place = rows_at + axis
    line = np.arange(shape[place], dtype=np.int32)
    line = line.reshape([-1 if index == place else 1 for index in range(len(shape))])
    return Depends(line, line, shape)


def _attributes(node: onnx.NodeProto) -> Dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _pointwise(state: Interpretation, node: onnx.NodeProto) -> List[Depends]:
    """Joined element by element. A constant that differs from place to place makes the place matter."""
    shape = state.shapes[node.output[0]]
    data = [state.known[name] for name in node.input if name in state.known]
    places = {axis for one in data for axis in one.places()}
    for name in node.input:
        value = state.constants.get(name)
        if value is not None and any(
            -axis <= value.ndim and value.shape[axis] > 1 and np.any(np.diff(value, axis=axis) != 0) for axis in places
        ):
            state.find(node, "uses constants that differ from place to place in the picture")
    return [union(data, shape)]


def _moving(state: Interpretation, node: onnx.NodeProto) -> Optional[List[Depends]]:
    """Data that is moved takes its intervals along; ONNX's own reference moves them."""
    if node.op_type == "Gather" and node.input[1] in state.known:
        return None
    shape = state.shapes[node.output[0]]
    touched = _touched(state, node, len(shape))
    data = {name: state.known[name] for name in node.input if name in state.known}
    if touched is not None:
        # Several inputs are brought to one length along the axes that stay as they are.
        ranks = range(len(shape))
        touched = touched | {axis for axis in ranks if any(one.first.shape[axis] > 1 for one in data.values())}
    whole = {
        name: one.expanded(range(len(one.shape)) if touched is None else tuple(touched)) for name, one in data.items()
    }
    first, last = (_moved(state, node, whole, which, touched) for which in (0, 1))
    shapes = [state.shapes[name] for name in node.output]
    return [Depends(*ends).compact() for ends in zip(first, last, shapes)]


def _touched(state: Interpretation, node: onnx.NodeProto, rank: int) -> Optional[Set[int]]:
    """The axes that a node moves data along, where it leaves the others alone; None: it may mix all."""
    if node.op_type == "Concat":
        return {_attributes(node)["axis"] % rank}
    if node.op_type == "Slice" and len(node.input) > 3 and node.input[3]:
        return {int(axis) % rank for axis in np.ravel(state.constants[node.input[3]])}
    if node.op_type == "Pad" and len(node.input) < 4:
        pads = np.ravel(state.constants[node.input[1]])
        return {axis for axis in range(rank) if pads[axis] or pads[axis + rank]}
    return None


def _moved(
    state: Interpretation, node: onnx.NodeProto, data: Mapping[str, Depends], which: int, touched: Optional[Set[int]]
) -> List[np.ndarray]:
    """One of the two ends of all intervals, moved by the node; what it fills in depends on nothing."""
    nothing = NOWHERE if which == 0 else -NOWHERE
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    fed: Dict[str, np.ndarray] = {}
    for index, name in enumerate(node.input):
        if name in data:
            fed[name] = np.ascontiguousarray((data[name].first, data[name].last)[which], np.int32)
        elif name in state.constants and (node.op_type == "Concat" or index == 0):
            shape = state.constants[name].shape
            seen = [n if touched is None or axis in touched else 1 for axis, n in enumerate(shape)]
            fed[name] = np.full(seen, nothing, np.int32)
        elif name in state.constants:
            fed[name] = state.constants[name]
    if node.op_type == "Pad" and _attributes(node).get("mode", b"constant") == b"constant":
        while len(copy.input) < 3:
            copy.input.append("")
        copy.input[2] = "nothing"
        fed["nothing"] = np.array(nothing, np.int32)
    inputs = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), None) for n, v in fed.items()]
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.INT32, None) for name in copy.output]
    model = helper.make_model(helper.make_graph([copy], "moved", inputs, outputs), opset_imports=state.opsets)
    return cast(List[np.ndarray], ReferenceEvaluator(model).run(None, fed))


def _reducing(state: Interpretation, node: onnx.NodeProto) -> Optional[List[Depends]]:
    data, shape = state.known[node.input[0]], state.shapes[node.output[0]]
    rank = len(data.shape)
    attributes = _attributes(node)
    axes: Sequence[int] = attributes.get("axes", ()) or range(rank)
    if node.op_type.startswith("Global"):
        axes = range(2, rank)
    elif len(node.input) > 1 and node.input[1]:
        axes = [int(axis) for axis in np.ravel(state.constants[node.input[1]])]
    joined = data.joined(tuple(axis % rank for axis in (axes or range(rank))))
    kept = [
        n for axis, n in enumerate(joined.first.shape) if len(shape) == rank or axis not in {a % rank for a in axes}
    ]
    return [Depends(joined.first.reshape(kept), joined.last.reshape(kept), shape)]


def _normalising(state: Interpretation, node: onnx.NodeProto) -> List[Depends]:
    data = state.known[node.input[0]]
    rank, axis = len(data.shape), _attributes(node).get("axis", -1)
    axes: Tuple[int, ...] = (axis % rank,)
    if node.op_type == "LayerNormalization":
        axes = tuple(range(axis % rank, rank))
    elif node.op_type == "InstanceNormalization":
        axes = tuple(range(2, rank))
    joined = data.joined(axes)
    return [Depends(joined.first, joined.last, data.shape)] * len(node.output)


def _product(state: Interpretation, node: onnx.NodeProto) -> Optional[List[Depends]]:
    """A matrix product: a row of the first joined with a column of the second."""
    if node.op_type == "Gemm" and any(_attributes(node).get(name, 0) for name in ("transA", "transB")):
        return None
    parts = []
    for name, axis in zip(node.input, (-1, -2)):
        if name in state.known:
            part = state.known[name]
            if len(part.shape) < 2:
                return None
            parts.append(part.joined((len(part.shape) + axis,)))
    return [union(parts, state.shapes[node.output[0]])]


def _windowed(state: Interpretation, node: onnx.NodeProto) -> Optional[List[Depends]]:
    """A convolution or pooling: all channels of a group joined, then each window."""
    from sr_deploy.graph.windows import window_taps

    data, shape = state.known[node.input[0]], state.shapes[node.output[0]]
    if len(shape) != 4 or any(name in state.known for name in node.input[1:]):
        return None
    if "Conv" in node.op_type:
        # Groups may depend on different places; that of all channels holds for each.
        data = data.joined((1,))
    weight = state.constants[node.input[1]].shape[2:] if "Conv" in node.op_type else None
    attributes = _attributes(node)
    for axis in (0, 1):
        taps = window_taps(node.op_type, attributes, weight, axis, (data.shape[2 + axis], shape[2 + axis]))
        if taps is None:
            return None
        data = _joined_taps(data, taps, 2 + axis)
    return [Depends(data.first, data.last, shape)]


def _joined_taps(data: Depends, taps: np.ndarray, axis: int) -> Depends:
    """Along an axis, output i joined from the inputs ``taps[i]``; -1 is none."""
    data = data.expanded((axis,))
    ends = []
    for values, nothing, join in ((data.first, NOWHERE, np.minimum), (data.last, -NOWHERE, np.maximum)):
        result: Optional[np.ndarray] = None
        for column in taps.T:
            taken = np.take(values, np.maximum(column, 0), axis=axis)
            valid = (column >= 0).reshape([-1 if index == axis else 1 for index in range(values.ndim)])
            taken = np.where(valid, taken, np.int32(nothing))
            result = taken if result is None else join(result, taken)
        ends.append(cast(np.ndarray, result))
    shape = tuple(len(taps) if index == axis else length for index, length in enumerate(data.shape))
    return Depends(ends[0], ends[1], shape)


def _resize(state: Interpretation, node: onnx.NodeProto) -> Optional[List[Depends]]:
    from sr_deploy.graph.windows import resize_taps

    data, shape = state.known[node.input[0]], state.shapes[node.output[0]]
    if len(shape) != 4 or data.shape[:2] != shape[:2]:
        return None
    attributes = _attributes(node)
    mode = attributes.get("mode", b"nearest").decode()
    if mode not in _TAPS:
        return None
    for axis in (2, 3):
        ends = (data.shape[axis], shape[axis])
        if axis == 2 + state.axis:
            state.ratios[node.name or node.output[0]] = Fraction(ends[1], ends[0])
        data = _joined_taps(data, resize_taps(attributes, ends, _TAPS[mode]), axis)
    return [data]


#: Which operators a rule is for. A rule gives None for what it does not know.
_RULES: Tuple[Tuple[frozenset, Callable[[Interpretation, onnx.NodeProto], Optional[List[Depends]]]], ...] = (
    (frozenset(_POINTWISE), _pointwise),
    (_MOVING, _moving),
    (_REDUCING, _reducing),
    (_NORMALISING, _normalising),
    (frozenset({"MatMul", "Gemm"}), _product),
    (_WINDOWED, _windowed),
    (frozenset({"Resize"}), _resize),
)


def constants_of(model: onnx.ModelProto) -> Dict[str, np.ndarray]:
    """Initializers and Constant nodes by name."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                found[node.output[0]] = numpy_helper.to_array(attribute.t)
    return found
