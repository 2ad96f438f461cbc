"""Products along the width as products of matrices from the left, in the channels-last order that builders compute in.

    before:  x (1, C, H, W) ─ MatMul(M)
    after:   x ─ Transpose (1, H, W, C) ─ MatMul: Mᵀ · ─ Transpose (1, C, H, W)

    Σ_v x[c, h, v] · M[v, w] = Σ_v Mᵀ[w, v] · x[h, v, c]

A convolution on a GPU reads and writes channels last, so the first Transpose is no work; a product from the right needs
the width last, and a kernel on each side that brings it there.
"""

from __future__ import annotations

from typing import Dict

import numpy as np
import onnx

from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.editor import Editor
from sr_deploy.graph.rewrite.regroup import shapes_of


def apply(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
    """Turn every product of a picture's features (four axes) with one matrix (two axes)."""
    editor, shapes = Editor(model), shapes_of(model)
    turned: Dict[str, str] = {}
    changed = 0
    for node in [one for one in editor.nodes if one.op_type == "MatMul"]:
        features, matrix = node.input
        value = editor.constants.get(matrix)
        axes = value.ndim if value is not None else len(shapes.get(matrix, ()))
        if len(shapes.get(features, ())) != 4 or axes != 2:
            continue
        out = node.output[0]
        new = [editor.make("Transpose", [features], f"{out}/last", node, "channels_last", perm=[0, 2, 3, 1])]
        if matrix not in turned and value is not None:
            turned[matrix] = editor.add_constant(f"{matrix}/turned", np.ascontiguousarray(value.T))
        elif matrix not in turned:
            turned[matrix] = f"{matrix}/turned"
            new.insert(0, editor.make("Transpose", [matrix], turned[matrix], node, "turned", perm=[1, 0]))
        new += [
            editor.make("MatMul", [turned[matrix], new[-1].output[0]], f"{out}/product", node),
            editor.make("Transpose", [f"{out}/product"], out, node, "channels_first", perm=[0, 3, 1, 2]),
        ]
        editor.replace([node], new)
        changed += 1
    return PassResult(editor.finish(), changed) if changed else PassResult(model, 0)


PASS = Pass("columns", "products along the width from the left, channels last", apply, default=False)
