"""PReLU as convolutions and ReLU, for runtimes that fuse those and not PReLU.

    before:  x ─ PRelu(a)
    after:   x ─┬─ Conv 1×1 per channel (-1) ─ Relu ─ Conv 1×1 per channel (1-a) ─┬─ Add
                └─────────────────────────────────────────────────────────────────┘

    PReLU(x) = x + (1-a)·relu(-x): exactly x for x > 0; x - (1-a)·x = a·x for x < 0.

ONNX Runtime on a CPU keeps convolutions in a blocked layout, fuses Relu and Add into them, and has to leave that layout
for PRelu, which it computes slowly. For TensorRT-RTX, which fuses no PRelu either, there is max_min.py.
"""

from __future__ import annotations

from typing import Optional

import numpy as np
import onnx

from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.convolution import conv_node
from sr_deploy.graph.rewrite.editor import Editor

#: ONNX Runtime's blocked layout takes per-channel convolutions of a multiple of so many channels.
_CHANNELS = 4


def apply(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
    """Replace every PRelu with one constant slope per channel."""
    editor = Editor(model)
    changed = 0
    for node in [node for node in editor.nodes if node.op_type == "PRelu"]:
        slope = channel_slopes(editor.constant(node, 1))
        if slope is None or slope.size % _CHANNELS:
            continue
        a = slope.reshape(-1, 1, 1, 1).astype(np.float64)
        source, out = node.input[0], node.output[0]
        minus = conv_node(editor, source, -np.ones_like(a), None, f"{out}/minus", node, "minus", groups=slope.size)
        relu = editor.make("Relu", [minus.output[0]], f"{out}/relu", node, "relu")
        scaled = conv_node(editor, relu.output[0], 1 - a, None, f"{out}/scaled", node, "scaled", groups=slope.size)
        add = editor.make("Add", [scaled.output[0], source], out, node)
        editor.replace([node], [minus, relu, scaled, add])
        changed += 1
    return PassResult(editor.finish(), changed) if changed else PassResult(model, 0)


def channel_slopes(slope: Optional[np.ndarray]) -> Optional[np.ndarray]:
    """PRelu's slopes for the channels of a picture, (C,) or (1,); None where they are no constant or vary otherwise.

    Exporters write them as (C, 1, 1) or (1, C, 1, 1); (C,) alone would go along the width.
    """
    if slope is None or slope.ndim > 4 or (slope.size > 1 and slope.shape[-3:] != (slope.size, 1, 1)):
        return None
    return slope.reshape(-1)


PASS = Pass("prelu", "PReLU as per-channel convolutions and ReLU, which ONNX Runtime fuses", apply, default=False)
