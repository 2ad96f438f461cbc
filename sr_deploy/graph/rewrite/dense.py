"""A convolution and the 1×1 convolution behind it as one dense convolution, whatever it costs in multiplications.

    x ─ Conv k×k depthwise ─ Conv 1×1   →   x ─ Conv k×k dense

The same composition as in compose.py, without its bound. For 64 channels and 3×3 it makes 576 products for each output
value where there were 73. A GPU's tensor cores have them to spare and save a pass over memory; a CPU has not. So this
is no default and no rule: ``srdeploy tune`` tries it with TensorRT and keeps it where it is faster. regroup.py does the
same for TensorRT-RTX, where its costs speak for it.
"""

from __future__ import annotations

import onnx

from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.compose import pointwise_after
from sr_deploy.graph.rewrite.editor import Editor


def apply(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
    """Compose every pair until there is none."""
    editor = Editor(model)
    changed = 0
    while any(pointwise_after(editor, node, at_any_cost=True) for node in editor.nodes):
        changed += 1
    return PassResult(editor.finish(), changed) if changed else PassResult(model, 0)


PASS = Pass("dense", "a depthwise and a 1x1 convolution as one dense one, for tensor cores", apply, default=False)
