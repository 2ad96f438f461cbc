"""Which rows of its inputs a node needs for some rows of its output.

Rows are axis 2 of every tensor. A node is local when each output row depends on a bounded run of input rows at the same
place; everything else (pooling to one value, resizing, products along the height) is global.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, Mapping, Optional, Tuple

import numpy as np
import onnx
from onnx import helper

Shape = Tuple[int, ...]
Constants = Mapping[str, np.ndarray]
#: First row, and the row after the last.
Rows = Tuple[int, int]

#: Operators that treat every element, or every element of a channel, alone.
POINTWISE: FrozenSet[str] = frozenset(
    {"Abs", "Add", "Cast", "Ceil", "Clip", "Div", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"}
    | {"Identity", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Relu"}
    | {"Round", "Selu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh"}
)
_WINDOWED = ("Conv", "MaxPool", "AveragePool")
_ROW_AXIS = 2
#: A Slice that takes more rows off than this is global.
_MOST_CUT = 16


@dataclass(frozen=True)
class Local:
    """How a local node treats rows.

    Output row r reads ``window`` input rows from ``r * stride - before`` on; what lies outside the picture is padding
    that the node makes itself. A node that enlarges reads input row ``r // enlarge``.

    Attributes:
        streamed: positions of the inputs that are read by rows; its other inputs are read whole.
        window, stride: of the row axis; a dilated window counts with its gaps.
        before, after: rows of padding at the top and at the bottom; negative where the node cuts rows off.
        enlarge: output rows per input row.
        mirrors: the padding repeats rows of the picture, so a border piece must hold the rows it repeats.
    """

    streamed: Tuple[int, ...]
    window: int = 1
    stride: int = 1
    before: int = 0
    after: int = 0
    enlarge: int = 1
    mirrors: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether the node must be given just the rows it needs: it skips some, or cuts them off."""
        return self.stride > 1 or self.before < 0 or self.after < 0

    def reach(self) -> Tuple[int, int]:
        """Input rows above and below its own place that an output row reads; padding alone shifts the place."""
        return self.before, self.window - 1 - self.before

    def needs(self, rows: Rows, height: int) -> Rows:
        """The input rows, of ``height``, that output ``rows`` are made from."""
        if self.enlarge > 1:
            return rows[0] // self.enlarge, -(-rows[1] // self.enlarge)
        first = max(rows[0] * self.stride - self.before, 0)
        last = min((rows[1] - 1) * self.stride - self.before + self.window, height)
        if self.mirrors and first == 0:
            last = min(max(last, self.before + 1), height)
        if self.mirrors and last == height:
            first = max(min(first, height - 1 - self.after), 0)
        return min(first, last - 1), last

    def gives(self, rows: Rows, height: int) -> Rows:
        """All output rows that input ``rows``, of ``height``, determine."""
        if self.enlarge > 1:
            return rows[0] * self.enlarge, rows[1] * self.enlarge
        first = 0 if rows[0] == 0 else -(-(rows[0] + self.before) // self.stride)
        below = self.after if rows[1] == height else 0
        return first, (rows[1] + self.before + below - self.window) // self.stride + 1


def local_rule(node: onnx.NodeProto, shapes: Mapping[str, Shape], constants: Constants) -> Optional[Local]:
    """How ``node`` treats rows, or None when it is global, unknown, or its shapes are.

    Args:
        node: with one output.
        shapes: of every tensor that is known, constants included.
        constants: values of the constants.
    """
    out = shapes.get(node.output[0])
    if out is None or len(out) < 3 or len(node.output) != 1 or node.domain not in ("", "ai.onnx"):
        return None
    data = [index for index, name in enumerate(node.input) if name and name not in constants]
    if not data or any(len(shapes.get(node.input[index], ())) < 3 for index in data):
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type in POINTWISE:
        return _pointwise(node, data, shapes, constants, out)
    if node.op_type in _WINDOWED:
        return _windowed(node, attributes, shapes) if data == [0] and len(out) == 4 else None
    if node.op_type == "DepthToSpace":
        return Local((0,), enlarge=attributes["blocksize"])
    if node.op_type == "Concat":
        axis = attributes["axis"] % len(out)
        return Local(tuple(data)) if axis != _ROW_AXIS and len(data) == len(node.input) else None
    if node.op_type == "Slice":
        return _slice(node, shapes, constants)
    if node.op_type == "Pad":
        return _pad(node, attributes, constants)
    if node.op_type == "MatMul":
        # x @ matrix mixes columns; matrix @ x would mix rows.
        second = constants.get(node.input[1])
        return Local((0,)) if data == [0] and second is not None and second.ndim == 2 and len(out) == 4 else None
    if node.op_type == "Softmax":
        axis = attributes.get("axis", -1) % len(out)
        return Local((0,)) if axis != _ROW_AXIS else None
    return None


def _pointwise(
    node: onnx.NodeProto, data: list, shapes: Mapping[str, Shape], constants: Constants, out: Shape
) -> Optional[Local]:
    """Inputs as high as the output are read by rows; those of one row, broadcast, are read whole."""
    streamed = []
    for index, name in enumerate(node.input):
        if not name:
            continue
        from_end = len(out) - _ROW_AXIS
        height = shapes[name][-from_end] if name in shapes and len(shapes[name]) >= from_end else 1
        if height == 1 and out[_ROW_AXIS] > 1:
            continue
        if index not in data or len(shapes[name]) != len(out):
            return None  # a constant with a value per row, or axes that do not line up
        streamed.append(index)
    return Local(tuple(streamed)) if streamed else None


def _windowed(node: onnx.NodeProto, attributes: Dict[str, Any], shapes: Mapping[str, Shape]) -> Optional[Local]:
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"") or attributes.get("ceil_mode", 0):
        return None
    if attributes.get("count_include_pad", 0) or attributes.get("storage_order", 0):
        return None
    kernel = attributes["kernel_shape"][0] if "kernel_shape" in attributes else shapes[node.input[1]][2]
    pads = attributes.get("pads", [0, 0, 0, 0])
    return Local(
        (0,),
        window=(kernel - 1) * attributes.get("dilations", [1, 1])[0] + 1,
        stride=attributes.get("strides", [1, 1])[0],
        before=pads[0],
        after=pads[2],
    )


def row_bounds(node: onnx.NodeProto, height: int, constants: Constants) -> Optional[Tuple[int, int, int]]:
    """Where a Slice of constant bounds starts and ends on the row axis, and the position of that axis in its lists.

    The position is -1 when it does not cut rows. None: it takes every other row, or the bounds are not constant.
    """
    if any(name and name not in constants for name in node.input[1:]) or len(node.input) < 4:
        return None
    starts, ends, axes = (np.ravel(constants[name]) for name in node.input[1:4])
    places = [place for place, axis in enumerate(axes) if int(axis) in (_ROW_AXIS, _ROW_AXIS - 4)]
    if not places:
        return 0, height, -1
    steps = np.ravel(constants[node.input[4]]) if len(node.input) > 4 else np.ones(len(axes), np.int64)
    if steps[places[0]] != 1:
        return None
    start, end, _ = slice(int(starts[places[0]]), int(ends[places[0]])).indices(height)
    return start, end, places[0]


def _slice(node: onnx.NodeProto, shapes: Mapping[str, Shape], constants: Constants) -> Optional[Local]:
    """A slice of channels or columns, or one that cuts a few rows off the border."""
    shape = shapes[node.input[0]]
    bounds = row_bounds(node, shape[_ROW_AXIS], constants) if len(shape) == 4 else None
    if bounds is None:
        return None
    start, end, _ = bounds
    if start + shape[_ROW_AXIS] - end > _MOST_CUT:
        return None  # a half or a quarter of the picture: its rows are far from where they came from
    return Local((0,), before=-start, after=end - shape[_ROW_AXIS])


def _pad(node: onnx.NodeProto, attributes: Dict[str, Any], constants: Constants) -> Optional[Local]:
    """Padding; the rows of constant or edge padding need no others, those of reflection do."""
    pads = constants.get(node.input[1])
    if pads is None or pads.size != 8 or len(node.input) > 3 or pads[[0, 2, 3, 4, 6, 7]].min() < 0:
        return None  # channels may be cropped
    mode = attributes.get("mode", b"constant")
    if mode not in (b"constant", b"edge", b"reflect"):
        return None
    return Local((0,), before=int(pads[2]), after=int(pads[6]), mirrors=mode == b"reflect")
