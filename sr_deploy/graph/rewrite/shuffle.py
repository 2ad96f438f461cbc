"""Work after a PixelShuffle done before it, on the small picture.

    before:  x ─ DepthToSpace(r) ─ PRelu ─ Conv dw k×k ─ Conv 1×1 ─ Conv 1×1 ─ Clip        all at r·H × r·W
    after:   x ─ PRelu ─ Conv m×m, one ─ Clip ─ DepthToSpace(r) ─ Slice (border)           all at H × W

DepthToSpace only moves values, so a function of single values, per channel or not, may run before it. A convolution
after it is one before it too: r rows of the result read k+r-1 rows of the large picture, which are
m = ceil((k-1)/r) + 1 rows of the small one when the first of them starts a small row. So the result's rows are grouped
that way, the small picture is convolved with m×m taps (all of them used for k = 3 and r = 2) and zero-padded as the
large one was, and the ring of rows and columns that the grouping adds is cut off after DepthToSpace. Exact, borders
included.
"""

from __future__ import annotations

from typing import List, Optional, Tuple

import numpy as np
import onnx

from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.convolution import Convolution, conv_node, convolution
from sr_deploy.graph.rewrite.editor import Editor, attributes_of
from sr_deploy.graph.rewrite.prelu import channel_slopes

#: Operators that work on single values and take no channel-dependent constant here.
_POINTWISE = frozenset({"Clip", "Relu", "LeakyRelu", "Sigmoid", "Tanh"})
#: A convolution moves when it then costs at most this many times its multiply-accumulates: they are cheap next to
#: moving the large picture. F2SRGAN's tail, 3.95 times as many, is faster so in ONNX Runtime on a CPU.
_MORE_MACS = 4.0


def apply(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
    """Move functions of single values, and the last convolutions, before each PixelShuffle."""
    editor = Editor(model)
    changed = 0
    for shuffle in [node for node in editor.nodes if node.op_type == "DepthToSpace"]:
        while True:
            reader = editor.only_reader(shuffle.output[0])
            if not (_move_function(editor, shuffle, reader) or _move_convolution(editor, shuffle, reader)):
                break
            changed += 1
            shuffle = next(node for node in editor.nodes if node.name == shuffle.name)
    return PassResult(editor.finish(), changed) if changed else PassResult(model, 0)


def channel_order(channels: int, block: int, mode: bytes) -> np.ndarray:
    """``order[c, i, j]``: which channel before DepthToSpace is row i, column j of the block of channel c after it."""
    index = np.arange(channels * block * block)
    if mode == b"CRD":
        return index.reshape(channels, block, block)
    return index.reshape(block, block, channels).transpose(2, 0, 1)


def _move_function(editor: Editor, shuffle: onnx.NodeProto, reader: Optional[onnx.NodeProto]) -> bool:
    """DepthToSpace, f → f, DepthToSpace."""
    if reader is None or reader.input[0] != shuffle.output[0]:
        return False
    inputs = list(reader.input)
    if reader.op_type == "PRelu":
        slope = channel_slopes(editor.constant(reader, 1))
        if slope is None:
            return False
        if slope.size > 1:
            attributes = attributes_of(shuffle)
            order = channel_order(slope.size, int(attributes["blocksize"]), attributes.get("mode", b"DCR"))
            moved = np.empty(order.size, slope.dtype)
            moved[order] = slope[:, None, None]
            inputs[1] = editor.add_constant(f"{reader.name}/slope", moved.reshape(-1, 1, 1))
    elif reader.op_type not in _POINTWISE or any(name not in editor.constants for name in inputs[1:] if name):
        return False
    inputs[0] = shuffle.input[0]
    inner = f"{reader.output[0]}/before_shuffle"
    function = editor.make(reader.op_type, inputs, inner, reader)
    function.attribute.extend(reader.attribute)
    moved_shuffle = editor.make("DepthToSpace", [inner], reader.output[0], shuffle, **attributes_of(shuffle))
    editor.replace([shuffle, reader], [function, moved_shuffle])
    return True


def _chain(editor: Editor, reader: Optional[onnx.NodeProto]) -> List[Convolution]:
    """The convolutions from ``reader`` on that follow each other: one that keeps the size, then 1×1 ones."""
    found: List[Convolution] = []
    conv = convolution(editor, reader)
    while conv is not None and (conv.pointwise if found else conv.keeps_size):
        found.append(conv)
        conv = convolution(editor, editor.only_reader(conv.result))
    return found


def composed(chain: List[Convolution]) -> Tuple[np.ndarray, np.ndarray]:
    """Weight and bias, dense, of convolutions in a row of which all but the first are 1×1."""
    weight, bias = chain[0].dense(), chain[0].bias
    for conv in chain[1:]:
        matrix = conv.weight[:, :, 0, 0]
        weight, bias = np.einsum("om,mihw->oihw", matrix, weight), matrix @ bias + conv.bias
    return weight, bias


def _move_convolution(editor: Editor, shuffle: onnx.NodeProto, reader: Optional[onnx.NodeProto]) -> bool:
    """DepthToSpace, convolutions, f → convolution, f, DepthToSpace, Slice."""
    attributes = attributes_of(shuffle)
    block, mode = int(attributes["blocksize"]), attributes.get("mode", b"DCR")
    chain = _chain(editor, reader)
    chain = next((part for part in _prefixes(chain) if _pays(part, block)), [])
    if not chain:
        return False
    weight, bias = composed(chain)
    name = chain[-1].result
    after = editor.only_reader(name)
    if after is None or after.op_type not in _POINTWISE or any(n not in editor.constants for n in after.input[1:] if n):
        after = None
    small, small_bias, pads, ring = small_convolution(weight, bias, block, mode)
    new = [conv_node(editor, shuffle.input[0], small, small_bias, f"{name}/small", chain[-1].node, pads=pads)]
    if after is not None:
        new.append(editor.make(after.op_type, [new[-1].output[0], *after.input[1:]], f"{name}/limited", after))
        new[-1].attribute.extend(after.attribute)
        name = after.output[0]
    target = f"{name}/with_ring" if ring else name
    new.append(editor.make("DepthToSpace", [new[-1].output[0]], target, shuffle, **attributes))
    if ring:
        bounds = [
            editor.add_constant(f"{shuffle.name}/{role}", np.array(values, np.int64))
            for role, values in (("starts", [ring] * 2), ("ends", [ring - block] * 2), ("axes", [2, 3]))
        ]
        new.append(editor.make("Slice", [target, *bounds], name, shuffle, "without_ring"))
    editor.replace([shuffle, *(one.node for one in chain), *([] if after is None else [after])], new)
    return True


def _prefixes(chain: List[Convolution]) -> List[List[Convolution]]:
    """The chain, then the chain without its last, and so on."""
    return [chain[:length] for length in range(len(chain), 0, -1)]


def _pays(chain: List[Convolution], block: int) -> bool:
    """Whether the chain is one convolution with a square odd kernel that is worth moving, see ``_MORE_MACS``."""
    weight, _ = composed(chain)
    out, channels, kernel, width = weight.shape
    if kernel != width or kernel % 2 == 0 or len(set(chain[0].pads)) > 1 or out >= channels:
        return False
    taps = -(-(kernel - 1) // block) + 1
    before = block**2 * sum(conv.weight.size for conv in chain)
    return out * channels * block**4 * taps**2 <= _MORE_MACS * before


def small_convolution(
    weight: np.ndarray, bias: np.ndarray, block: int, mode: bytes
) -> Tuple[np.ndarray, np.ndarray, Tuple[int, int, int, int], int]:
    """A size-keeping convolution after DepthToSpace as one before it.

    Row i of a block of the result, block n, is row r·n - s + i of the large picture, s = -p mod r with the padding
    p = (k-1)/2. It reads from row r·n - s - p on, which begins row n - (s+p)/r of the small picture, so

        small[(o, i, j), (c, a, b), u, v] = weight[o, c, r·u + a - i, r·v + b - j]   where both lie in 0…k-1, else 0.

    Args:
        weight: (C_out, C_in, k, k), k odd.
        bias: (C_out,).
        block: r of DepthToSpace.
        mode: its order of channels, b"CRD" or b"DCR".

    Returns:
        Weight (r²·C_out, r²·C_in, m, m), bias, pads (top, left, bottom, right) and s: after DepthToSpace the first s
        rows and columns and the last r-s of each are to be cut off; none when s is 0.
    """
    out, channels, kernel, _ = weight.shape
    padding = (kernel - 1) // 2
    ring = -padding % block
    taps = -(-(kernel - 1) // block) + 1
    rows, columns = channel_order(out, block, mode), channel_order(channels, block, mode)
    small = np.zeros((out * block**2, channels * block**2, taps, taps))
    for i, j, a, b, u, v in np.ndindex(block, block, block, block, taps, taps):
        y, x = block * u + a - i, block * v + b - j
        if 0 <= y < kernel and 0 <= x < kernel:
            small[rows[:, i, j][:, None], columns[:, a, b][None, :], u, v] = weight[:, :, y, x]
    small_bias = np.empty(rows.size)
    small_bias[rows] = bias.reshape(-1, 1, 1)
    first = (ring + padding) // block
    last = (1 if ring else 0) + taps - 1 - first
    return small, small_bias, (first, first, last, last), ring


PASS = Pass(
    "shuffle",
    "PReLU and other functions of single values, and the last convolutions, before the PixelShuffle",
    apply,
)
