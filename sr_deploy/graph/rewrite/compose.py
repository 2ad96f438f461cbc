"""Linear operations in a row as one.

    a   x ─ Conv k×k ─ Conv 1×1                          →  x ─ Conv k×k
    b   x ─ Conv k×k ─ Mul by a constant                 →  x ─ Conv k×k
    c   x ─ Conv 1×1 ┐                                      x ─ Conv 1×1 ┐
        y ─ Conv 1×1 ┴ Concat ─ Conv 1×1                 →  y ─ Conv 1×1 ┴ Add

Only where nobody else reads what is between, and the multiply-accumulates do not rise. A 1×1 convolution reads
nothing beside its own pixel, so the zeros around the picture that the first convolution may see stay the same: exact at
borders. In c each summand is made as soon as its source is there, so that the sources need not wait for each other in
memory, and runtimes fuse the addition into the convolution.
A convolution with padding *after* another one is left alone, because it pads with zeros where the composition would see
the first one's bias.
"""

from __future__ import annotations

from typing import Optional

import numpy as np
import onnx

from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.convolution import Convolution, conv_node, convolution
from sr_deploy.graph.rewrite.editor import Editor, attributes_of, is_pinned


def apply(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
    """Compose until nothing more composes."""
    editor = Editor(model)
    changed = 0
    while any(step(editor, node) for node in editor.nodes for step in (pointwise_after, _scaled, _concatenated)):
        changed += 1
    return PassResult(editor.finish(), changed) if changed else PassResult(model, 0)


def _same_pin(*nodes: onnx.NodeProto) -> bool:
    """Whether all or none of the nodes are pinned to float32."""
    return len({is_pinned(node) for node in nodes}) == 1


def pointwise_after(editor: Editor, node: onnx.NodeProto, at_any_cost: bool = False) -> bool:
    """a: a convolution and the 1×1 one that alone reads it; whether it was done.

    Args:
        editor: the graph.
        node: the first of the two.
        at_any_cost: also where the multiply-accumulates rise.
    """
    first = convolution(editor, node)
    second = convolution(editor, editor.only_reader(node.output[0])) if first else None
    if first is None or second is None or not second.pointwise or not _same_pin(first.node, second.node):
        return False
    matrix = second.weight[:, :, 0, 0]
    weight = np.einsum("om,mihw->oihw", matrix, first.dense())
    if weight.size > first.weight.size + second.weight.size and not at_any_cost:
        return False
    bias = matrix @ first.bias + second.bias
    new = conv_node(editor, first.source, weight, bias, second.result, second.node, pads=first.pads)
    editor.replace([first.node, second.node], [new])
    return True


def _scaled(editor: Editor, node: onnx.NodeProto) -> bool:
    """b: a convolution whose result is only multiplied by one number, or one number per channel."""
    conv = convolution(editor, node)
    mul = editor.only_reader(node.output[0]) if conv else None
    if conv is None or mul is None or mul.op_type != "Mul" or not _same_pin(node, mul):
        return False
    factor = next((editor.constants[name] for name in mul.input if name in editor.constants), None)
    if factor is None or factor.size not in (1, conv.channels[1]):
        return False
    if factor.size > 1 and factor.shape not in ((factor.size, 1, 1), (1, factor.size, 1, 1)):
        return False
    each = np.broadcast_to(factor.astype(np.float64).reshape(-1), (conv.channels[1],))
    weight = conv.weight * each[:, None, None, None]
    new = conv_node(
        editor, conv.source, weight, conv.bias * each, mul.output[0], conv.node, groups=conv.groups, pads=conv.pads
    )
    editor.replace([conv.node, mul], [new])
    return True


def _concatenated(editor: Editor, node: onnx.NodeProto) -> bool:
    """c: 1×1 convolutions that are joined for a 1×1 convolution."""
    if node.op_type != "Concat" or attributes_of(node)["axis"] != 1 or len(set(node.input)) < len(node.input):
        return False
    last = convolution(editor, editor.only_reader(node.output[0]))
    if last is None or not last.pointwise:
        return False
    parts = [_branch(editor, name, node) for name in node.input]
    branches = [part for part in parts if part is not None]
    if len(branches) < len(parts) or not _same_pin(last.node, *(part.node for part in branches)):
        return False
    if sum(last.channels[1] * part.channels[0] for part in branches) > last.weight.size + sum(
        part.weight.size for part in branches
    ):
        return False
    start, total = 0, ""
    for number, part in enumerate(branches):
        matrix = last.weight[:, start : start + part.channels[1], 0, 0]
        start += part.channels[1]
        weight = matrix @ part.weight[:, :, 0, 0]
        bias = matrix @ part.bias + (last.bias if number == 0 else 0)
        summand = f"{part.result}/summand"
        new = [conv_node(editor, part.source, weight[:, :, None, None], bias, summand, part.node)]
        if number:
            result = last.result if number == len(branches) - 1 else f"{part.result}/sum"
            new.append(editor.make("Add", [summand, total], result, last.node, f"sum{number}"))
        total = new[-1].output[0]
        editor.move_up(part.node, new)
    editor.replace([node, last.node], [])
    return True


def _branch(editor: Editor, tensor: str, concat: onnx.NodeProto) -> Optional[Convolution]:
    """The 1×1 convolution that makes ``tensor`` for ``concat`` alone."""
    conv = convolution(editor, editor.maker(tensor))
    return conv if conv is not None and conv.pointwise and editor.only_reader(tensor) is concat else None


PASS = Pass("compose", "convolutions, scalings and concatenations in a row as one 1x1 or k x k convolution", apply)
