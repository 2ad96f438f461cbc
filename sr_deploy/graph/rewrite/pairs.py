"""Single channels between two convolutions as pairs, of which the second is zero.

    before:  x ─ Conv n→1 ─ [PRelu] ─ Conv 1→m
    after:   x ─ Conv n→2 ─ [PRelu] ─ Conv 2→m      the second row of the first weight and the second column of the
                                                    second one are zero

TensorRT-RTX moves float16 in pairs: it puts a kernel between that copies one channel to the first of two. Light
F2SRGAN, pruned to one channel in its blocks, has eight of them.
"""

from __future__ import annotations

from typing import Optional

import numpy as np
import onnx

from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.convolution import Convolution, conv_node, convolution
from sr_deploy.graph.rewrite.editor import Editor, is_pinned


def apply(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
    """Widen every single channel that one convolution makes and one reads."""
    editor = Editor(model)
    changed = sum(_widened(editor, node) for node in list(editor.nodes))
    return PassResult(editor.finish(), changed) if changed else PassResult(model, 0)


def _widened(editor: Editor, node: onnx.NodeProto) -> bool:
    first = convolution(editor, node)
    if first is None or first.channels[1] != 1:
        return False
    reader = editor.only_reader(first.result)
    function = reader if reader is not None and reader.op_type in ("PRelu", "Relu") else None
    second = convolution(editor, editor.only_reader(function.output[0]) if function is not None else reader)
    if second is None or second.channels[0] != 1 or is_pinned(second.node) != is_pinned(node):
        return False
    if function is not None and function.op_type == "PRelu":
        slope = editor.constant(function, 1)
        if slope is None or slope.size != 1:
            return False
        function.input[1] = editor.add_constant(f"{function.name}/one_slope", slope.reshape(1, 1, 1))
    editor.replace([first.node], [_rewritten(editor, first, np.pad(first.dense(), [(0, 1), (0, 0), (0, 0), (0, 0)]))])
    weight = np.pad(second.dense(), [(0, 0), (0, 1), (0, 0), (0, 0)])
    editor.replace([second.node], [_rewritten(editor, second, weight)])
    return True


def _rewritten(editor: Editor, conv: Convolution, weight: np.ndarray) -> onnx.NodeProto:
    """The convolution with another weight, of one group; its bias is filled up with zeros."""
    bias: Optional[np.ndarray] = np.pad(conv.bias, (0, weight.shape[0] - conv.bias.size))
    return conv_node(editor, conv.source, weight, bias, conv.result, conv.node, pads=conv.pads)


PASS = Pass("pairs", "single channels between convolutions as pairs", apply, default=False)
