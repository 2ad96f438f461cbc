"""PReLU between a 1×1 convolution and one of few results as ReLU, with a linear way around it.

    before:  z ─ Conv 1×1 (W, b) ─ PRelu(a) ─ Conv k×k (K)
    after:   z ─┬─ Conv 1×1 (-W, -b) ─ Relu ─ Conv k×k (K · (1-a)) ─┬─ Add
                ├─ Conv k×k (K · W) ────────────────────────────────┤
                └─ border (K · b) ──────────────────────────────────┘

    PReLU(x) = x + (1-a)·relu(-x),   x = W z + b inside the picture and 0, K's padding, around it
    K ∗ x = (K · W) ∗ z + (K · b) ∗ one,   where one is 1 inside the picture and 0 around it

exact for every slope and at borders: z and one are padded with the zeros that x is. Without padding the last term is
a bias. ONNX Runtime on a CPU fuses the ReLU and the first addition, so the many channels between the two are written
once and read once, where PReLU's own form (prelu.py) reads and writes them twice more. It pays where the way around has
few products: few channels in z and few in the result, as behind F2SRGAN's last upsampling.
"""

from __future__ import annotations

from typing import List

import numpy as np
import onnx

from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.convolution import Convolution, conv_node, convolution
from sr_deploy.graph.rewrite.editor import Editor, is_pinned
from sr_deploy.graph.rewrite.prelu import channel_slopes

#: The way around may have this share of the products of the convolution that it goes beside.
_MORE_MACS = 0.5


def apply(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
    """Replace every PRelu where the way around is short."""
    editor = Editor(model)
    changed = sum(_replaced(editor, node) for node in list(editor.nodes) if node.op_type == "PRelu")
    return PassResult(editor.finish(), changed) if changed else PassResult(model, 0)


def _replaced(editor: Editor, node: onnx.NodeProto) -> bool:
    slope = channel_slopes(editor.constant(node, 1))
    first = convolution(editor, editor.maker(node.input[0]))
    second = convolution(editor, editor.only_reader(node.output[0]))
    if slope is None or first is None or second is None or not first.pointwise or second.groups > 1:
        return False
    chain = [first.node, node, second.node]
    if editor.only_reader(first.result) is not node or len({is_pinned(one) for one in chain}) > 1:
        return False
    if first.channels[0] > _MORE_MACS * second.channels[0]:
        return False
    editor.replace(chain, _around(editor, first, node, slope.astype(np.float64), second))
    return True


def _around(
    editor: Editor, first: Convolution, prelu: onnx.NodeProto, slope: np.ndarray, second: Convolution
) -> List[onnx.NodeProto]:
    """The nodes that stand for the three."""
    out, last = second.result, second.node
    each = np.broadcast_to(slope, (first.channels[1],))[None, :, None, None]
    minus = conv_node(editor, first.source, -first.weight, -first.bias, f"{out}/minus", first.node)
    relu = editor.make("Relu", [minus.output[0]], f"{out}/relu", prelu)
    of_bias = np.einsum("omhw,m->ohw", second.weight, first.bias)[:, None]
    padded = any(second.pads) and first.bias.any()
    bias = second.bias if padded else second.bias + of_bias.sum(axis=(1, 2, 3))
    composed = np.einsum("omhw,mi->oihw", second.weight, first.weight[:, :, 0, 0])
    around = conv_node(editor, first.source, composed, bias, f"{out}/around", last, "around", pads=second.pads)
    through = conv_node(editor, relu.output[0], second.weight * (1 - each), None, f"{out}/through", last,
                        "through", pads=second.pads)  # fmt: skip
    total = editor.make("Add", [through.output[0], around.output[0]], f"{out}/sum" if padded else out, last, "sum")
    nodes = [around, minus, relu, through, total]
    if padded:
        nodes += _border(editor, first.source, of_bias, second, total.output[0])
    nodes[-1].name = last.name
    return nodes


def _border(editor: Editor, source: str, of_bias: np.ndarray, second: Convolution, total: str) -> List[onnx.NodeProto]:
    """What the first bias gives behind the second convolution, which sees it in the picture only, and ``total``.

    Args:
        editor: the graph.
        source: a tensor as high and wide as the picture.
        of_bias: (C_out, 1, k, k).
        second: the second convolution; its result is made.
        total: the rest.
    """
    out, last = second.result, second.node
    shape = editor.make("Shape", [source], f"{out}/shape", last, "shape")
    axes = editor.add_constant(f"{out}/axes", np.array([2, 3], np.int64))
    lengths = editor.make("Gather", [shape.output[0], axes], f"{out}/lengths", last, "lengths")
    one = editor.add_constant(f"{out}/one_channel", np.ones(2, np.int64))
    sizes = editor.make("Concat", [one, lengths.output[0]], f"{out}/sizes", last, "sizes", axis=0)
    value = onnx.numpy_helper.from_array(np.ones(1, np.float32))
    ones = editor.make("ConstantOfShape", [sizes.output[0]], f"{out}/ones", last, "ones", value=value)
    border = conv_node(editor, ones.output[0], of_bias, None, f"{out}/border", last, "border", pads=second.pads)
    return [shape, lengths, sizes, ones, border, editor.make("Add", [total, border.output[0]], out, last)]


PASS = Pass("around", "PReLU before a convolution of few results as ReLU with a linear way around it", apply, False)
