"""What each operator of ONNX makes of intervals: see depends.py. A rule gives None for what it does not know."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple, cast

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from sr_deploy.graph.intervals import NOWHERE, Depends, union
from sr_deploy.graph.rewrite.rows import POINTWISE
from sr_deploy.graph.windows import resize_taps, window_taps

if TYPE_CHECKING:
    from sr_deploy.graph.depends import Interpretation

#: No tensor has more axes.
MOST_AXES = 16

_POINTWISE = POINTWISE | {"Where", "Equal", "Greater", "Less", "Not", "And", "Or", "Sign", "Sin", "Cos", "Mod"}
_MOVING = frozenset(
    {"Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "SpaceToDepth"}
    | {"Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
REDUCING = frozenset(
    {"GlobalAveragePool", "GlobalMaxPool", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"}
)
#: Their results have the shape of the input, and each depends on all along some axes.
_NORMALISING = frozenset({"InstanceNormalization", "LayerNormalization", "LogSoftmax", "Softmax"})
WINDOWED = frozenset({"AveragePool", "Conv", "ConvTranspose", "MaxPool"})
#: A Resize's taps around the place it samples: before its floor, after it.
_TAPS = {"nearest": (0, 1), "linear": (0, 1), "cubic": (1, 2)}


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
    if node.op_type == "Pad":
        _crop(fed, *node.input[:2])
    if node.op_type == "Pad" and _attributes(node).get("mode", b"constant") == b"constant":
        while len(copy.input) < 3:
            copy.input.append("")
        copy.input[2] = "nothing"
        fed["nothing"] = np.array(nothing, np.int32)
    inputs = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), None) for n, v in fed.items()]
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.INT32, None) for name in copy.output]
    model = helper.make_model(helper.make_graph([copy], "moved", inputs, outputs), opset_imports=state.opsets)
    return cast(List[np.ndarray], ReferenceEvaluator(model).run(None, fed))


def _crop(fed: Dict[str, np.ndarray], data: str, pads: str) -> None:
    """Take off what negative numbers of a Pad say, which ONNX's reference does not."""
    if fed[pads].size != 2 * fed[data].ndim or fed[pads].min() >= 0:
        return
    less = np.minimum(fed[pads], 0).reshape(2, -1).T
    fed[data] = fed[data][
        tuple(slice(-before, length + after) for (before, after), length in zip(less, fed[data].shape))
    ]
    fed[pads] = np.maximum(fed[pads], 0)


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


#: Which operators a rule is for.
RULES: Tuple[Tuple[frozenset, Callable[[Interpretation, onnx.NodeProto], Optional[List[Depends]]]], ...] = (
    (frozenset(_POINTWISE), _pointwise),
    (_MOVING, _moving),
    (REDUCING, _reducing),
    (_NORMALISING, _normalising),
    (frozenset({"MatMul", "Gemm"}), _product),
    (WINDOWED, _windowed),
    (frozenset({"Resize"}), _resize),
)
