"""Fold: every affine, shift-equivariant block of a network becomes one convolution, found by probing and proved.

The one call is ``sr_deploy.fold.fold(module)``. It knows no architecture: it works on any ``nn.Module`` that takes
(N, C, H, W), so also on networks of spandrel and of users.

The rule: a block is replaced by one ``nn.Conv2d`` (float32, with a bias) when

* it takes one 4-D tensor and nothing else, and gives one 4-D tensor;
* its multiply-accumulates per output pixel do not rise (so a depthwise + pointwise pair stays, and so does a block
  that multiplies nothing); a plain ``nn.Conv2d`` and the other layers of ``torch.nn`` have nothing to gain;
* in float64 it is affine, and the convolution gives the same output on random inputs of several sizes, borders
  included, within ``FOLD_FLOAT64_RELATIVE``; in float32 within ``FOLD_FLOAT32_RELATIVE``.

Everything else stays as it was, and the report says why. The same question is asked of parts of the exported graph,
where branches lie that end in an activation: ``sr_deploy/graph/rewrite/fold``.
"""

from sr_deploy.fold.apply import fold
from sr_deploy.fold.result import FoldedBlock, FoldReport, FoldResult, KeptBlock

__all__ = ["FoldReport", "FoldResult", "FoldedBlock", "KeptBlock", "fold"]
