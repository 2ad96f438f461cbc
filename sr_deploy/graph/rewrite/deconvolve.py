"""A convolution and the DepthToSpace behind it as one transposed convolution.

    before:  x ─ Conv k×k ─ [PRelu] ─ DepthToSpace(r)
    after:   x ─ ConvTranspose r·k × r·k, stride r ─ [PRelu]

Output pixel (r·y + i, r·x + j) of channel c is what the convolution gives at (y, x) in channel order[c, i, j]. It reads
x at y + u - p for each tap u, p = (k-1)/2, which the transposed convolution reaches with the tap t = i + r·(p - u) + P;
its padding P = r·p makes t run from 0 to r·k - 1. So each tap of either is used once, and the products are the same.

A bias that differs within a block cannot be the transposed convolution's own. It becomes the weight of channels of ones
that are padded to x; their middle tap (u = p) lies in the picture for every output pixel, so borders are exact too.

A GPU writes the large picture once instead of three times. Where DepthToSpace is the last of a graph it stays: there it
is one kernel with the cast and the clamp.
"""

from __future__ import annotations

from typing import List, Optional

import numpy as np
import onnx

from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.convolution import Convolution, convolution
from sr_deploy.graph.rewrite.editor import Editor, attributes_of, is_pinned
from sr_deploy.graph.rewrite.shuffle import channel_order

#: Channels of ones, of which the first is used: TensorRT moves eight float16 at a time.
ONES = 8


def apply(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
    """Replace every DepthToSpace that a convolution reads."""
    editor = Editor(model)
    changed = sum(_replaced(editor, node) for node in list(editor.nodes) if node.op_type == "DepthToSpace")
    return PassResult(editor.finish(), changed) if changed else PassResult(model, 0)


def _replaced(editor: Editor, shuffle: onnx.NodeProto) -> bool:
    readers = editor.readers(shuffle.output[0])
    if not readers or any(reader.op_type != "Conv" for reader in readers):
        return False
    attributes = attributes_of(shuffle)
    block, mode = int(attributes["blocksize"]), attributes.get("mode", b"DCR")
    before = editor.maker(shuffle.input[0])
    function = before if before is not None and before.op_type == "PRelu" else None
    conv = convolution(editor, editor.maker(function.input[0]) if function is not None else before)
    if conv is None or not conv.keeps_size or conv.weight.shape[2] != conv.weight.shape[3] or len(set(conv.pads)) > 1:
        return False
    chain = [conv.node, *([function] if function is not None else []), shuffle]
    if any(editor.only_reader(one.output[0]) is not after for one, after in zip(chain, chain[1:])):
        return False
    if len({is_pinned(one) for one in chain}) > 1:
        return False
    order = channel_order(conv.channels[1] // block**2, block, mode)
    slope = None if function is None else _unshuffled(editor.constant(function, 1), order)
    if function is not None and slope is None:
        return False
    out = shuffle.output[0]
    target = out if function is None else f"{out}/linear"
    new = _transposed(editor, conv, order, target)
    if function is not None and slope is not None:
        new.append(editor.make("PRelu", [target, editor.add_constant(f"{function.name}/slope", slope)], out, function))
    editor.replace(chain, new)
    return True


def _unshuffled(slope: Optional[np.ndarray], order: np.ndarray) -> Optional[np.ndarray]:
    """Slopes of the channels before DepthToSpace as those of the channels after it; None where a block's differ."""
    if slope is None or slope.size == 1:
        return slope
    each = slope.reshape(-1)[order]
    return (
        each[:, 0, 0].reshape(-1, 1, 1) if np.array_equal(each, np.broadcast_to(each[:, :1, :1], each.shape)) else None
    )


def _transposed(editor: Editor, conv: Convolution, order: np.ndarray, result: str) -> List[onnx.NodeProto]:
    """The ConvTranspose for ``conv`` and DepthToSpace of channels in ``order``; first a Pad if the bias needs one."""
    channels, block = order.shape[:2]
    weight, size = conv.dense(), conv.weight.shape[2]
    middle = (size - 1) // 2
    bias = conv.bias[order]
    shared = bool((bias == bias[:, :1, :1]).all())
    taps = np.zeros((weight.shape[1] + (0 if shared else ONES), channels, block * size, block * size))
    for i, j, u, v in np.ndindex(block, block, size, size):
        row, column = i + block * (2 * middle - u), j + block * (2 * middle - v)
        taps[: weight.shape[1], :, row, column] = weight[order[:, i, j], :, u, v].T
        if not shared and (u, v) == (middle, middle):
            taps[weight.shape[1], :, row, column] = bias[:, i, j]
    nodes: List[onnx.NodeProto] = []
    inputs = [conv.source, editor.add_constant(f"{conv.node.name}/transposed", taps.astype(np.float32))]
    if shared:
        inputs.append(editor.add_constant(f"{conv.node.name}/bias", bias[:, 0, 0].astype(np.float32)))
    else:
        pads = editor.add_constant(f"{conv.node.name}/ones", np.array([0, 0, 0, 0, 0, ONES, 0, 0], np.int64))
        one = editor.add_constant(f"{conv.node.name}/one", np.ones((), np.float32))
        nodes.append(editor.make("Pad", [conv.source, pads, one], f"{result}/with_ones", conv.node, "ones"))
        nodes[0].attribute.extend([onnx.helper.make_attribute("mode", "constant")])
        inputs[0] = nodes[0].output[0]
    nodes.append(
        editor.make(
            "ConvTranspose",
            inputs,
            result,
            conv.node,
            dilations=[1, 1],
            group=1,
            kernel_shape=[block * size] * 2,
            pads=[block * middle] * 4,
            strides=[block, block],
        )  # fmt: skip
    )
    return nodes


PASS = Pass("deconvolve", "a convolution and DepthToSpace as one transposed convolution", apply, default=False)
