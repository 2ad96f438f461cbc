"""Channels that a network overwrites in place, as a concatenation of what is new and what stays.

    before:  x ─┬─ Slice ─ Conv ─ [Expand, Transpose] ─┐
                └─ [Transpose] ─ ScatterND(indices) ───┴─ [Transpose]
    after:   x ─┬─ Slice ─ Conv ─┬─ Concat
                └─ Slice ────────┘

``x[:, :n] = conv(x[:, :n])``, as partial convolutions are written, becomes a ScatterND in both of torch's exporters,
with indices that are computed from the tensor's own shape. Which elements it writes is known where these indices are
the same at two sizes of the picture and name one range of one axis, all of it. Every value is the one that was there:
nothing is computed otherwise.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import onnx

from sr_deploy.core.contract import Size
from sr_deploy.graph.census import shapes_of
from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.editor import Editor, attributes_of
from sr_deploy.graph.specialise import static_model

#: Operators that give back their tensor where its shape does not change.
_RESHAPING = ("Expand", "Reshape")
Perm = Tuple[int, ...]


class _Fixed:
    """The graph at one size: the values of what follows from it, and all shapes."""

    def __init__(self, model: onnx.ModelProto, size: Size) -> None:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        static = onnx.shape_inference.infer_shapes(static_model(copy, size, "the graph"), data_prop=True)
        self.values = Editor(static).constants
        self.shapes = shapes_of(static)
        # Folding may give what a node reads another name; what the node makes keeps its own.
        self.indices: Dict[str, Optional[np.ndarray]] = {
            node.output[0]: self.values.get(node.input[1]) for node in static.graph.node if node.op_type == "ScatterND"
        }


def apply(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
    """Replace every ScatterND that overwrites a range of channels."""
    traced = options.size or options.traced
    if traced is None or all(node.op_type != "ScatterND" for node in model.graph.node):
        return PassResult(model, 0)
    sizes = [traced] if options.size else [traced, (2 * traced[0], 2 * traced[1])]
    fixed = [_Fixed(model, size) for size in sizes]
    editor = Editor(model)
    changed = 0
    for node in [node for node in editor.nodes if node.op_type == "ScatterND"]:
        found = _range_written(node, fixed)
        if found is not None:
            _concatenate(editor, node, *found, fixed)
            changed += 1
    return PassResult(editor.finish(), changed) if changed else PassResult(model, 0)


def _range_written(node: onnx.NodeProto, fixed: Sequence[_Fixed]) -> Optional[Tuple[int, int, int, int]]:
    """(axis, first, last + 1, length) of what a ScatterND writes; None where it is no range, or not known to be."""
    if attributes_of(node).get("reduction", b"none") != b"none":
        return None
    found = set()
    for one in fixed:
        indices, shape = one.indices.get(node.output[0]), one.shapes.get(node.output[0])
        found.add(_range_of(indices, shape) if indices is not None and shape is not None else None)
    return found.pop() if len(found) == 1 else None


def _range_of(indices: np.ndarray, shape: Tuple[int, ...]) -> Optional[Tuple[int, int, int, int]]:
    """(axis, first, last + 1, length) of the one range of one axis that indices name; None where they name others."""
    written = indices.shape[:-1]
    if len(written) != indices.shape[-1] or 0 in written:
        return None
    partial = []
    for axis, count in enumerate(written):
        positions = np.moveaxis(indices[..., axis] % shape[axis], axis, -1)
        first = int(positions.flat[0])
        if not (positions == np.arange(first, first + count)).all():
            return None
        if count != shape[axis]:
            partial.append((axis, first, first + count, shape[axis]))
    return partial[0] if len(partial) == 1 else None


def _concatenate(
    editor: Editor, node: onnx.NodeProto, axis: int, first: int, last: int, length: int, fixed: Sequence[_Fixed]
) -> None:
    """Put the slices and the concatenation in place of a ScatterND, and of the Transpose behind it."""
    behind = editor.only_reader(node.output[0])
    turned = behind if behind is not None and behind.op_type == "Transpose" else None
    rank = len(fixed[0].shapes[node.output[0]])
    perm = tuple(range(rank)) if turned is None else tuple(attributes_of(turned).get("perm", range(rank)[::-1]))
    last_node = node if turned is None else turned
    made: List[onnx.NodeProto] = []
    data = _turned(editor, node.input[0], perm, node, fixed, made)
    update = _turned(editor, node.input[2], perm, node, fixed, made)
    place = perm.index(axis)
    parts = [(0, first), (first, last), (last, length)]
    names = []
    for number, (start, end) in enumerate(parts):
        if number == 1:
            names.append(update)
        elif start < end:
            bounds = [
                editor.add_constant(f"{node.name}/{role}_{number}", np.array([value], np.int64))
                for role, value in (("start", start), ("end", end), ("axis", place))
            ]
            out = editor.fresh(f"{node.output[0]}/kept_{number}")
            made.append(editor.make("Slice", [data, *bounds], out, node, f"kept_{number}"))
            names.append(out)
    made.append(editor.make("Concat", names, last_node.output[0], node, axis=place))
    editor.replace([node] if turned is None else [node, turned], made)


def _turned(
    editor: Editor, tensor: str, perm: Perm, like: onnx.NodeProto, fixed: Sequence[_Fixed], made: List[onnx.NodeProto]
) -> str:
    """The tensor that Transpose(perm) makes of ``tensor``, looking through what gives it back; made where need be."""
    while True:
        maker = editor.maker(tensor)
        if maker is None:
            break
        if maker.op_type == "Transpose":
            before = tuple(attributes_of(maker).get("perm", range(len(perm))[::-1]))
            perm = tuple(before[axis] for axis in perm)
        elif maker.op_type not in _RESHAPING or not all(_same_shape(one, maker) for one in fixed):
            break
        tensor = maker.input[0]
    if perm == tuple(range(len(perm))):
        return tensor
    out = editor.fresh(f"{tensor}/turned")
    made.append(editor.make("Transpose", [tensor], out, like, f"turned_{len(made)}", perm=perm))
    return out


def _same_shape(fixed: _Fixed, node: onnx.NodeProto) -> bool:
    before, after = fixed.shapes.get(node.input[0]), fixed.shapes.get(node.output[0])
    return before is not None and before == after


PASS = Pass("overwrite", "channels that are overwritten in place, as a concatenation", apply)
