"""What each operator does to channels: the table of rules. An operator that is not here ties what touches it."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import onnx
from onnx import helper

from sr_deploy.compress.coupling import Kept, Rule, Spot, Track
from sr_deploy.compress.labels import FROZEN

Tracks = List[Optional[Track]]


def _set(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Give a node's attribute another value."""
    for index, attribute in enumerate(node.attribute):
        if attribute.name == name:
            del node.attribute[index]
            break
    node.attribute.append(helper.make_attribute(name, value))


def _set_input(node: onnx.NodeProto, index: int, values: Sequence[int], kept: Kept) -> None:
    """Give a node a constant of its own at an input."""
    while len(node.input) <= index:
        node.input.append("")
    node.input[index] = kept.store(np.asarray(values, np.int64))


def _conv(spot: Spot) -> Tracks:
    track, weight = spot.tracks[0], spot.inputs[1]
    if not spot.is_constant(1) or weight.dim() != 4 or (track is not None and track.axis != 1):
        return spot.stop()
    group, outputs = spot.attributes.get("group", 1), weight.shape[0]
    each = outputs // group
    if group == 1:
        spot.cut(1, 1, None if track is None else track.labels, reads=True)
        made = spot.labels.fresh(outputs)
    elif track is None:
        made = np.tile(spot.labels.fresh(each), group) if each > 1 else np.full(outputs, FROZEN)
        spot.cut(1, 1, None)
    elif weight.shape[1] == 1:
        labels = track.labels
        made = np.repeat(labels, each)
        spot.edit(lambda node, kept: _set(node, "group", kept.count(labels)))
    else:
        of_groups = track.labels.reshape(group, -1)
        for one in of_groups[1:]:
            spot.labels.unite(of_groups[0], one)
        spot.cut(1, 1, of_groups[0], reads=True)
        made = np.tile(spot.labels.fresh(each), group)
    return _made(spot, made, 0)


def _made(spot: Spot, made: np.ndarray, axis: int) -> Tracks:
    """The output of a convolution whose weight has these output channels along ``axis``."""
    spot.cut(1, axis, made)
    if len(spot.node.input) > 2 and spot.node.input[2]:
        if not spot.is_constant(2):
            return spot.stop()
        spot.cut(2, 0, made)
    return [Track(1, made)]


def _conv_transpose(spot: Spot) -> Tracks:
    track, group = spot.tracks[0], spot.attributes.get("group", 1)
    if not spot.is_constant(1) or (track is not None and track.axis != 1):
        return spot.stop()
    if group == 1:
        spot.cut(1, 0, None if track is None else track.labels, reads=True)
        return _made(spot, spot.labels.fresh(spot.inputs[1].shape[1]), 1)
    if track is None or spot.inputs[1].shape[:2] != (group, 1):
        spot.cut(1, 0, None)
        return spot.stop()
    labels = track.labels
    spot.edit(lambda node, kept: _set(node, "group", kept.count(labels)))
    return _made(spot, labels, 0)


def _gemm(spot: Spot) -> Tracks:
    track = spot.tracks[0]
    if not spot.is_constant(1) or spot.attributes.get("transA") or (track is not None and track.axis != 1):
        return spot.stop()
    inner = 1 if spot.attributes.get("transB") else 0
    spot.cut(1, inner, None if track is None else track.labels, reads=True)
    made = spot.labels.fresh(spot.inputs[1].shape[1 - inner])
    spot.cut(1, 1 - inner, made)
    if len(spot.node.input) > 2 and spot.inputs[2].numel() > 1:
        if not spot.is_constant(2):
            return spot.stop()
        spot.cut(2, spot.inputs[2].dim() - 1, made)
    return [Track(1, made)]


def _matmul(spot: Spot) -> Tracks:
    left, right = spot.tracks[0], spot.tracks[1]
    a, b = spot.inputs[0], spot.inputs[1]
    rank = spot.outputs[0].dim()
    if b.dim() == 2 and spot.is_constant(1) and (left is None or left.axis == a.dim() - 1):
        spot.cut(1, 0, None if left is None else left.labels, reads=True)
        made = spot.labels.fresh(b.shape[1])
        spot.cut(1, 1, made)
        return [Track(rank - 1, made)]
    held, other, last = (left, b, a.dim() - 1) if left is not None else (right, a, b.dim() - 2)
    if held is None or (left is not None and right is not None) or held.axis == last or other.dim() > 2:
        return spot.stop()
    # The channels are rows, columns or a batch of matrices: each is multiplied by itself.
    return [Track(held.axis + rank - (a if left is not None else b).dim(), held.labels)]


def _batch_norm(spot: Spot) -> Tracks:
    track = spot.tracks[0]
    for index in range(1, 5):
        if not spot.is_constant(index):
            return spot.stop()
        spot.cut(index, 0, None if track is None else track.labels)
    return [track]


def _elementwise(spot: Spot) -> Tracks:
    """Operands are aligned from the right; one with a single channel serves all."""
    result = spot.outputs[0]
    held = [
        (index, track, track.axis + result.dim() - spot.inputs[index].dim())
        for index, track in enumerate(spot.tracks)
        if track is not None
    ]
    if not held:
        return [None]
    axis = held[0][2]
    count = result.shape[axis]
    full = [track for index, track, at in held if at == axis and spot.inputs[index].shape[track.axis] == count]
    if len(full) < len(held):
        return spot.stop()
    labels = full[0].labels
    for track in full[1:]:
        spot.labels.unite(labels, track.labels)
    for index, operand in enumerate(spot.inputs):
        if operand is None or spot.tracks[index] is not None:
            continue
        own = axis - result.dim() + operand.dim()
        if own < 0 or operand.shape[own] == 1:
            continue
        if not spot.is_constant(index):
            return spot.stop()
        spot.cut(index, own, labels)
    return [Track(axis, labels)]


def _same(spot: Spot) -> Tracks:
    """Every channel by itself."""
    return [spot.tracks[0]] * len(spot.node.output)


def _pad(spot: Spot) -> Tracks:
    track = spot.tracks[0]
    if track is None or spot.inputs[0].shape[track.axis] == spot.outputs[0].shape[track.axis]:
        return [track]
    return spot.stop()


def _reduce(spot: Spot) -> Tracks:
    track, rank = spot.tracks[0], spot.inputs[0].dim()
    if track is None:
        return [None]
    given = spot.inputs[1] if len(spot.inputs) > 1 else None
    axes = spot.attributes.get("axes") if given is None else [int(axis) for axis in given]
    over = set(range(rank)) if axes is None else {axis % rank for axis in axes}
    if track.axis in over:
        return spot.stop()
    before = 0 if spot.attributes.get("keepdims", 1) else sum(axis < track.axis for axis in over)
    return [Track(track.axis - before, track.labels)]


def _softmax(spot: Spot) -> Tracks:
    track = spot.tracks[0]
    axis = spot.attributes.get("axis", -1) % spot.inputs[0].dim()
    return [track] if track is None or track.axis != axis else spot.stop()


def _layer_norm(spot: Spot) -> Tracks:
    track = spot.tracks[0]
    axis = spot.attributes.get("axis", -1) % spot.inputs[0].dim()
    return [track] if track is None or track.axis < axis else spot.stop()


def _concat(spot: Spot) -> Tracks:
    held = [track for track in spot.tracks if track is not None]
    if not held:
        return [None]
    axis = spot.attributes["axis"] % spot.outputs[0].dim()
    along = held[0].axis
    if any(track.axis != along for track in held) or (axis != along and len(held) < len(spot.tracks)):
        return spot.stop()
    if axis != along:
        for track in held[1:]:
            spot.labels.unite(held[0].labels, track.labels)
        return [held[0]]
    parts = [
        np.full(operand.shape[axis], FROZEN) if track is None else track.labels
        for operand, track in zip(spot.inputs, spot.tracks)
    ]
    return [Track(axis, np.concatenate(parts))]


def _slice(spot: Spot) -> Tracks:
    track, x = spot.tracks[0], spot.inputs[0]
    if track is None:
        return [None]
    starts, ends = ([int(value) for value in spot.inputs[index]] for index in (1, 2))
    given = [None if len(spot.inputs) <= index else spot.inputs[index] for index in (3, 4)]
    axes = list(range(len(starts))) if given[0] is None else [int(axis) % x.dim() for axis in given[0]]
    steps = [1] * len(starts) if given[1] is None else [int(step) for step in given[1]]
    if track.axis not in axes:
        return [track]
    place = axes.index(track.axis)
    begin, end, step = slice(starts[place], ends[place], steps[place]).indices(x.shape[track.axis])
    if step != 1:
        return spot.stop()
    labels = track.labels

    def edit(node: onnx.NodeProto, kept: Kept) -> None:
        first = kept.count(labels[:begin])
        after = first + kept.count(labels[begin:end])
        _set_input(node, 1, [first if at == place else value for at, value in enumerate(starts)], kept)
        _set_input(node, 2, [after if at == place else value for at, value in enumerate(ends)], kept)

    if len(axes) > 1 and not all(spot.is_fixed(index) for index in (1, 2)):
        return spot.stop()
    spot.edit(edit)
    return [Track(track.axis, labels[begin:end])]


def _split(spot: Spot) -> Tracks:
    track = spot.tracks[0]
    if track is None:
        return [None] * len(spot.node.output)
    axis = spot.attributes.get("axis", 0) % spot.inputs[0].dim()
    if axis != track.axis:
        return [track] * len(spot.node.output)
    borders = np.cumsum([output.shape[axis] for output in spot.outputs])[:-1]
    parts = np.split(track.labels, borders)

    def edit(node: onnx.NodeProto, kept: Kept) -> None:
        for name in ("split", "num_outputs"):
            for index, attribute in enumerate(node.attribute):
                if attribute.name == name:
                    del node.attribute[index]
                    break
        _set_input(node, 1, [kept.count(part) for part in parts], kept)

    spot.edit(edit)
    return [Track(axis, part) for part in parts]


def _gather(spot: Spot) -> Tracks:
    track, indices = spot.tracks[0], spot.inputs[1]
    if track is None:
        return [None]
    axis = spot.attributes.get("axis", 0) % spot.inputs[0].dim()
    if axis != track.axis or indices.dim() != 1:
        return spot.stop()
    labels = track.labels
    chosen = np.array([int(index) % len(labels) for index in indices])

    def edit(node: onnx.NodeProto, kept: Kept) -> None:
        places = np.cumsum(kept.mask(labels)) - 1
        _set_input(node, 1, [int(places[one]) for one in chosen if kept.mask(labels[one : one + 1])[0]], kept)

    spot.edit(edit)
    return [Track(axis, labels[chosen])]


def _depth_to_space(spot: Spot) -> Tracks:
    track = spot.tracks[0]
    if track is None:
        return [None]
    squared = spot.attributes["blocksize"] ** 2
    mode = spot.attributes.get("mode", b"DCR")
    together = track.labels.reshape(-1, squared) if mode == b"CRD" else track.labels.reshape(squared, -1).T
    for column in together.T[1:]:
        spot.labels.unite(together[:, 0], column)
    return [Track(1, np.ascontiguousarray(together[:, 0]))]


def _space_to_depth(spot: Spot) -> Tracks:
    track = spot.tracks[0]
    return [None if track is None else Track(1, np.tile(track.labels, spot.attributes["blocksize"] ** 2))]


def _transpose(spot: Spot) -> Tracks:
    track = spot.tracks[0]
    if track is None:
        return [None]
    order = list(spot.attributes.get("perm", range(spot.inputs[0].dim())[::-1]))
    return [Track(order.index(track.axis), track.labels)]


def _reshape(spot: Spot) -> Tracks:
    """Channels stay an axis where the axes before them hold as much as before."""
    track = spot.tracks[0]
    if track is None:
        return [None]
    before, after = spot.inputs[0].shape, spot.outputs[0].shape
    ahead = math.prod(before[: track.axis])
    for axis, length in enumerate(after):
        if length == before[track.axis] and math.prod(after[:axis]) == ahead and (length > 1 or axis == track.axis):
            break
    else:
        return spot.stop()
    labels, wanted = track.labels, [int(value) for value in spot.inputs[1]]
    if spot.is_fixed(1) and wanted[axis] > 0:
        spot.edit(
            lambda node, kept: _set_input(
                node, 1, [kept.count(labels) if at == axis else value for at, value in enumerate(wanted)], kept
            )
        )
    return [Track(axis, labels)]


def _flatten(spot: Spot) -> Tracks:
    track = spot.tracks[0]
    single = track is not None and track.axis == 1 and math.prod(spot.inputs[0].shape[2:]) == 1
    return [track] if track is None or (single and spot.attributes.get("axis", 1) == 1) else spot.stop()


def _squeeze(spot: Spot) -> Tracks:
    track = spot.tracks[0]
    if track is None:
        return [None]
    given = spot.inputs[1] if len(spot.inputs) > 1 else None
    axes = spot.attributes.get("axes") if given is None else [int(axis) for axis in given]
    rank = max(spot.inputs[0].dim(), spot.outputs[0].dim())
    if axes is None:
        return spot.stop()
    over = sorted(axis % rank for axis in axes)
    if spot.node.op_type == "Squeeze":
        return [Track(track.axis - sum(axis < track.axis for axis in over), track.labels)]
    place = track.axis
    for axis in over:
        place += axis <= place
    return [Track(place, track.labels)]


def _resize(spot: Spot) -> Tracks:
    track = spot.tracks[0]
    if track is not None and spot.is_fixed(3) and len(spot.inputs[3]):
        labels, sizes = track.labels, [int(size) for size in spot.inputs[3]]
        axis = track.axis
        spot.edit(lambda node, kept: _set_input(node, 3, [*sizes[:axis], kept.count(labels), *sizes[axis + 1 :]], kept))
    return _pad(spot)


_ONE_BY_ONE = (
    *("Relu", "LeakyRelu", "Sigmoid", "Tanh", "Gelu", "Erf", "Exp", "Log", "Sqrt", "Abs", "Neg", "Reciprocal"),
    *("Floor", "Ceil", "Round", "Sin", "Cos", "Not", "Clip", "Cast", "Identity"),
    *("MaxPool", "AveragePool", "GlobalAveragePool"),
)
_SEVERAL = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Sum", "Where", "PRelu"),
    *("Equal", "Less", "Greater", "GreaterOrEqual", "LessOrEqual", "And", "Or"),
)

RULES: Dict[str, Rule] = {
    **dict.fromkeys(_ONE_BY_ONE, _same),
    **dict.fromkeys(_SEVERAL, _elementwise),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "Pad": _pad,
    "Resize": _resize,
    "Tile": _pad,
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    "ReduceMax": _reduce,
    "Softmax": _softmax,
    "LayerNormalization": _layer_norm,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _squeeze,
}
