"""1×1 convolutions that treat each channel of the picture alone, as Mul and Add.

    before:  lr ─ Conv 1×1 (identity, bias)        the mean of F2SRGAN and EDSR
    after:   lr ─ Add

A builder makes such functions part of the kernel that casts the picture and widens it to four channels.
"""

from __future__ import annotations

from typing import List

import numpy as np
import onnx

from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.convolution import convolution
from sr_deploy.graph.rewrite.editor import Editor


def apply(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
    """Replace every convolution whose weights are a diagonal."""
    editor = Editor(model)
    changed = 0
    for node in list(editor.nodes):
        conv = convolution(editor, node)
        if conv is None or not conv.pointwise or conv.groups != 1 or conv.channels[0] != conv.channels[1]:
            continue
        matrix = conv.weight[:, :, 0, 0]
        factors = np.diag(matrix)
        if np.count_nonzero(matrix - np.diag(factors)):
            continue
        new: List[onnx.NodeProto] = []
        for operator, value, neutral in (("Mul", factors, 1.0), ("Add", conv.bias, 0.0)):
            if (value == neutral).all() and not (operator == "Add" and not new):
                continue
            constant = editor.add_constant(f"{node.name}/{operator}", value.astype(np.float32).reshape(1, -1, 1, 1))
            source = new[-1].output[0] if new else conv.source
            new.append(editor.make(operator, [source, constant], f"{conv.result}/{operator}", node, operator.lower()))
        new[-1].output[0] = conv.result
        editor.replace([node], new)
        changed += 1
    return PassResult(editor.finish(), changed) if changed else PassResult(model, 0)


PASS = Pass("affine", "1x1 convolutions of each channel alone as Mul and Add", apply, default=False)
