"""DepthToSpace between convolutions through the channels-last order, where it moves whole rows.

    before:  x ─ Conv (r·r·C) ─ [PRelu] ─ DepthToSpace(r) (1, C, r·H, r·W)
    after:   x ─┬─ Conv (r·C, of row 0 of a block) ─ [PRelu] ─ Transpose (1, H, W, r·C) ─┬─ Concat (1, H, r, W·r·C)
                └─ …          (of row r-1)                                            ───┘    │
             (1, C, r·H, r·W) ─ Transpose ─ Reshape (1, r·H, r·W, C) ─────────────────────────┘

With the channels of each convolution in the order (column, channel), what it makes for a row of pixels is, channels
last, a row of the large picture; the rows only have to be put one after the other. ONNX Runtime keeps convolutions in
blocks of channels, from which it comes to channels-last and back by copying those blocks; its DepthToSpace wants single
channels, and moves single values. Every value is made by the same products.
"""

from __future__ import annotations

from typing import List, Optional

import numpy as np
import onnx

from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.convolution import Convolution, conv_node, convolution
from sr_deploy.graph.rewrite.editor import Editor, attributes_of, is_pinned
from sr_deploy.graph.rewrite.prelu import channel_slopes
from sr_deploy.graph.rewrite.shuffle import channel_order

#: Channels that ONNX Runtime's blocked layout keeps together at most; what has not so many is in no such layout.
_BLOCK = 16


def apply(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
    """Replace every DepthToSpace between convolutions."""
    editor = Editor(model)
    changed = sum(_replaced(editor, node) for node in list(editor.nodes) if node.op_type == "DepthToSpace")
    return PassResult(editor.finish(), changed) if changed else PassResult(model, 0)


def _replaced(editor: Editor, shuffle: onnx.NodeProto) -> bool:
    attributes = attributes_of(shuffle)
    block, mode = int(attributes["blocksize"]), attributes.get("mode", b"DCR")
    readers = editor.readers(shuffle.output[0])
    before = editor.maker(shuffle.input[0])
    function = before if before is not None and before.op_type == "PRelu" else None
    conv = convolution(editor, editor.maker(function.input[0]) if function is not None else before)
    if conv is None or conv.groups > 1 or not readers or any(reader.op_type != "Conv" for reader in readers):
        return False
    chain = [conv.node, *([function] if function is not None else []), shuffle]
    if any(editor.only_reader(one.output[0]) is not after for one, after in zip(chain, chain[1:])):
        return False
    slope = None if function is None else channel_slopes(editor.constant(function, 1))
    if conv.channels[1] // block**2 % _BLOCK or len({is_pinned(one) for one in chain}) > 1:
        return False
    if function is not None and slope is None:
        return False
    order = channel_order(conv.channels[1] // block**2, block, mode)
    editor.replace(chain, _rows(editor, conv, function, slope, order, shuffle))
    return True


def _rows(
    editor: Editor,
    conv: Convolution,
    function: Optional[onnx.NodeProto],
    slope: Optional[np.ndarray],
    order: np.ndarray,
    shuffle: onnx.NodeProto,
) -> List[onnx.NodeProto]:
    """The nodes that stand for the convolution, its function and DepthToSpace of channels in ``order``."""
    out = shuffle.output[0]
    channels, block = order.shape[:2]
    nodes: List[onnx.NodeProto] = []

    def numbers(role: str, *values: int) -> str:
        return editor.add_constant(f"{out}/{role}", np.array(values, np.int64))

    def node(operator: str, inputs: List[str], role: str, like: onnx.NodeProto = shuffle, **more: object) -> str:
        nodes.append(editor.make(operator, inputs, f"{out}/{role}", like, role, **more))
        return nodes[-1].output[0]

    parts = []
    for row in range(block):
        own = order[:, row].T.reshape(-1)
        made = f"{out}/row{row}"
        nodes.append(
            conv_node(
                editor, conv.source, conv.weight[own], conv.bias[own], made, conv.node, f"row{row}", pads=conv.pads
            )  # fmt: skip
        )
        if function is not None and slope is not None:
            each = np.broadcast_to(slope, (order.size,))[own].reshape(-1, 1, 1)
            made = node("PRelu", [made, editor.add_constant(f"{out}/slope{row}", each)], f"row{row}/function", function)
        last = node("Transpose", [made], f"row{row}/channels_last", perm=[0, 2, 3, 1])
        parts.append(node("Reshape", [last, numbers("as_row", 0, 0, 1, -1)], f"row{row}/flat"))
    rows = node("Concat", parts, "rows", axis=2)
    width = node("Gather", [node("Shape", [conv.source], "shape"), numbers("axis", 3)], "width")
    wide = node("Mul", [width, numbers("block", block)], "wide")
    sizes = node("Concat", [numbers("front", 1, -1), wide, numbers("back", channels)], "sizes", axis=0)
    picture = node("Reshape", [rows, sizes], "picture")
    return [*nodes, editor.make("Transpose", [picture], out, shuffle, perm=[0, 3, 1, 2])]


PASS = Pass("lanes", "DepthToSpace between convolutions through the channels-last order", apply, default=False)
