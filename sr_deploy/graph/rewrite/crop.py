"""Channels taken from a tensor by what reads them: a Pad that crops, a 1×1 convolution with zeros for the others.

    before:  x (C) ─ Slice channels s…e ─┬─ Pad p             after:  x ─┬─ Pad (p, -s channels before, e-C behind)
                                         └─ Conv 1×1 (W)                 └─ Conv 1×1 (0, W, 0)

ONNX's Pad takes off what negative numbers say. A runtime copies the slice otherwise, only to copy it again into the
padded one. Only where the Slice is read by such nodes alone, so that it goes.
"""

from __future__ import annotations

from typing import List, Optional, Tuple

import numpy as np
import onnx

from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.convolution import conv_node, convolution
from sr_deploy.graph.rewrite.editor import Editor
from sr_deploy.graph.rewrite.linear import channel_bounds
from sr_deploy.graph.rewrite.regroup import shapes_of

#: A convolution may read so many times the channels that it uses.
_MOST_READ = 2


def apply(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
    """Take away every Slice of channels whose readers can do without."""
    editor, shapes = Editor(model), shapes_of(model)
    changed = 0
    for node in [one for one in editor.nodes if one.op_type == "Slice"]:
        shape = shapes.get(node.input[0], ())
        if len(shape) != 4 or not isinstance(shape[1], int):
            continue
        bounds = channel_bounds(editor, node, shape[1])
        readers = editor.readers(node.output[0])
        new = [None if bounds is None else _cropping(editor, one, node, shape[1], bounds) for one in readers]
        if not new or node.output[0] == editor.output or any(one is None for one in new):
            continue
        for old, one in zip(readers, new):
            if one is not None:
                editor.replace([old], [one])
        changed += 1
    return PassResult(editor.finish(), changed) if changed else PassResult(model, 0)


def _cropping(
    editor: Editor, reader: onnx.NodeProto, cut: onnx.NodeProto, channels: int, bounds: Tuple[int, int]
) -> Optional[onnx.NodeProto]:
    """The reader of a slice as one of what the slice was taken from; None where it cannot be."""
    start, end = bounds
    source, piece = cut.input[0], cut.output[0]
    if reader.op_type == "Pad" and reader.input[0] == piece:
        pads = editor.constant(reader, 1)
        if pads is None or pads.size != 8 or pads[1] or pads[5] or len([name for name in reader.input[2:] if name]) > 1:
            return None
        more = pads.copy()
        more[1], more[5] = -start, end - channels
        inputs: List[str] = [source, editor.add_constant(f"{reader.name}/crop", more), *reader.input[2:]]
        new = editor.make("Pad", inputs, reader.output[0], reader)
        new.attribute.extend(reader.attribute)
        return new
    conv = convolution(editor, reader)
    if conv is None or not conv.pointwise or channels > _MOST_READ * (end - start):
        return None
    weight = np.zeros((conv.channels[1], channels, 1, 1))
    weight[:, start:end] = conv.weight
    bias = conv.bias if conv.bias.any() else None
    return conv_node(editor, source, weight, bias, conv.result, reader)


PASS = Pass("crop", "slices of channels as part of the Pad or 1x1 convolution that reads them", apply, default=False)
