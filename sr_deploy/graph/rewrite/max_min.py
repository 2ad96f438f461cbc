"""PReLU as Max(x, 0) + slope · Min(x, 0), which builders fuse into the convolution before it.

    before:  x ─ PRelu(a)
    after:   x ─┬─ Max(0) ────────┬─ Add
                └─ Min(0) ─ Mul(a)┘

    One of the two summands is 0, so every value is the one that PRelu gives, rounding included, in any float type.

TensorRT-RTX 1.7.1 fuses these four into a convolution's kernel, and the operator PRelu into none: it runs as a kernel
that reads and writes the whole tensor once more. ONNX Runtime on a CPU runs the four one by one; for it there is the
pass ``prelu``.
"""

from __future__ import annotations

import numpy as np
import onnx

from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.editor import Editor


def apply(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
    """Replace every PRelu whose slope is constant."""
    editor = Editor(model)
    changed = 0
    for node in [node for node in editor.nodes if node.op_type == "PRelu"]:
        slope = editor.constant(node, 1)
        if slope is None or slope.dtype != np.float32:
            continue
        source, out = node.input[0], node.output[0]
        zero = editor.add_constant(f"{node.name}/zero", np.zeros((), np.float32))
        above = editor.make("Max", [source, zero], f"{out}/above", node, "above")
        below = editor.make("Min", [source, zero], f"{out}/below", node, "below")
        scaled = editor.make("Mul", [below.output[0], node.input[1]], f"{out}/scaled", node, "scaled")
        add = editor.make("Add", [above.output[0], scaled.output[0]], out, node)
        editor.replace([node], [above, below, scaled, add])
        changed += 1
    return PassResult(editor.finish(), changed) if changed else PassResult(model, 0)


PASS = Pass("maxmin", "PReLU as Max(x, 0) + slope · Min(x, 0), which TensorRT-RTX fuses", apply, default=False)
