"""Each thing computed once: constants folded, equal constants and equal nodes shared, equal lengths recognised.

    before:  every Fourier unit reads the width of its own input and makes the width matrix from it
    after:   one width is read and one matrix made per size; all units multiply by it

Two nodes are equal when operator, attributes and inputs are. Two lengths are equal when they follow from the same
length of the graph's input by convolutions, padding and slicing of the same amounts; so the shapes of different tensors
become one, and what is computed from them becomes equal. Runtimes share equal nodes, but do not see equal lengths.
"""

from __future__ import annotations

from typing import Dict, Hashable, List, Optional, Tuple

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.editor import Editor, attributes_of, is_pinned

#: Constants up to this many values are folded: shapes and pads, not weights.
_SMALL = 1024
#: A length: what it follows from, and how many pixels it is longer.
Length = Tuple[Hashable, int]
_SAME_SIZE = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Sigmoid", "Tanh", "Clip", "Gelu", "HardSwish", "Add", "Sub", "Mul", "Div", "Pow"}
)


def apply(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
    """Fold small constants, then share."""
    editor = Editor(model)
    changed = _fold_constants(editor) + _share_constants(editor)
    kept: List[onnx.NodeProto] = []
    same: Dict[str, str] = {}
    known: Dict[Hashable, onnx.NodeProto] = {}
    lengths: Dict[str, Dict[int, Length]] = {editor.input: {2: ("height", 0), 3: ("width", 0)}}
    for node in editor.nodes:
        for position, name in enumerate(node.input):
            node.input[position] = same.get(name, name)
        key = _length_read(editor, node, lengths) or (
            node.op_type,
            node.domain,
            tuple(node.input),
            tuple(sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)),
        )
        first = known.setdefault(key, node)
        if first is not node and editor.output not in node.output:
            same.update(zip(node.output, first.output))
            if is_pinned(node) and not is_pinned(first):
                first.doc_string = node.doc_string
            changed += 1
            continue
        kept.append(node)
        lengths[node.output[0]] = _lengths(editor, node, lengths)
    editor.nodes = kept
    editor.index()
    return PassResult(editor.finish(), changed) if changed else PassResult(model, 0)


def _fold_constants(editor: Editor) -> int:
    """Compute nodes of small constants; how many."""
    kept, folded = [], 0
    for node in editor.nodes:
        inputs = [editor.constants.get(name) for name in node.input if name]
        if not inputs or any(value is None or value.size > _SMALL for value in inputs) or editor.output in node.output:
            kept.append(node)
            continue
        feeds = {name: editor.constants[name] for name in node.input if name}
        results = ReferenceEvaluator(node).run(None, feeds)
        if any(np.size(value) > _SMALL for value in results):
            kept.append(node)
            continue
        editor.constants.update({name: np.asarray(value) for name, value in zip(node.output, results)})
        folded += 1
    editor.nodes = kept
    editor.index()
    return folded


def _share_constants(editor: Editor) -> int:
    """Let nodes that read equal constants read one of them; how many were dropped."""
    first: Dict[Hashable, str] = {}
    dropped = set()
    for node in editor.nodes:
        for position, name in enumerate(node.input):
            value = editor.constants.get(name)
            if value is None:
                continue
            kept = first.setdefault((value.dtype.str, value.shape, value.tobytes()), name)
            if kept != name:
                node.input[position] = kept
                dropped.add(name)
    editor.index()
    return len(dropped)


def _length_read(editor: Editor, node: onnx.NodeProto, lengths: Dict[str, Dict[int, Length]]) -> Optional[Hashable]:
    """For a Gather that reads the height or width of a tensor: which length it is; None for anything else."""
    shape = editor.maker(node.input[0]) if node.op_type == "Gather" else None
    axis = editor.constant(node, 1) if shape is not None and shape.op_type == "Shape" else None
    if shape is None or axis is None or axis.size != 1 or shape.attribute:
        return None
    length = lengths.get(shape.input[0], {}).get(int(axis.reshape(())))
    return None if length is None else ("length", length, axis.shape)


def _lengths(editor: Editor, node: onnx.NodeProto, lengths: Dict[str, Dict[int, Length]]) -> Dict[int, Length]:
    """Height (2) and width (3) of what ``node`` makes, as far as they are known."""
    tensors = [lengths.get(name, {}) for name in node.input if name and name not in editor.constants]
    if not tensors or not any(tensors):
        return {}
    if node.op_type in _SAME_SIZE:
        constants = [editor.constants[name] for name in node.input if name in editor.constants]
        if any(value.ndim > 1 and value.shape[-2:] != (1, 1) for value in constants):
            return {}
        return {axis: length for axis, length in tensors[0].items() if all(t.get(axis) == length for t in tensors)}
    if node.op_type == "Concat" and attributes_of(node)["axis"] == 1:
        # All must be of one size, so one that is known is enough.
        return {axis: length for tensor in reversed(tensors) for axis, length in tensor.items()}
    if node.op_type == "Conv":
        return _after_convolution(editor, node, tensors[0])
    if node.op_type == "Pad" and (pads := editor.constant(node, 1)) is not None and pads.size == 8:
        return {axis: (base, more + int(pads[axis] + pads[axis + 4])) for axis, (base, more) in tensors[0].items()}
    if node.op_type == "Slice":
        return _after_slice(editor, node, tensors[0])
    return {}


def _after_convolution(editor: Editor, node: onnx.NodeProto, source: Dict[int, Length]) -> Dict[int, Length]:
    attributes = attributes_of(node)
    weight = editor.constant(node, 1)
    if weight is None or weight.ndim != 4 or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        return {}
    pads, strides = attributes.get("pads", (0,) * 4), attributes.get("strides", (1, 1))
    dilations = attributes.get("dilations", (1, 1))
    found: Dict[int, Length] = {}
    for axis, (base, more) in source.items():
        at = axis - 2
        grown = more + pads[at] + pads[at + 2] - dilations[at] * (weight.shape[axis] - 1)
        stride = strides[at]
        found[axis] = (base, grown) if stride == 1 else (("strided", base, grown, stride), 0)
    return found


def _after_slice(editor: Editor, node: onnx.NodeProto, source: Dict[int, Length]) -> Dict[int, Length]:
    axes = editor.constant(node, 3)
    if axes is None or axes.size != 1:
        return {}
    bounds = (node.input[1], node.input[2], node.input[4] if len(node.input) > 4 else "")
    return {
        axis: (("sliced", length, bounds), 0) if axis == int(axes[0]) else length for axis, length in source.items()
    }


PASS = Pass("share", "fold constants, share equal constants, nodes and lengths: one width matrix for all blocks", apply)
