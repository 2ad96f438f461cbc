"""Papers' settings by name, for ``--preset``; what a paper and its code leave open is ours, and said in ``about``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from sr_deploy.train.optimisers import Optimiser


@dataclass(frozen=True)
class Preset:
    """How a training is set up.

    Attributes:
        name: as ``--preset`` takes it.
        about: where its values are from, and what it leaves out.
        loss: as ``--loss`` takes it, where there are originals.
        unlabelled: where there are none.
        optimiser: with its rate.
        batch: squares in a step.
        patch: side of a square in low-resolution pixels; None: ``high_patch`` over the scale.
        high_patch: side in high-resolution pixels, where the paper gives that.
        halvings: shares of the schedule at which the rate is halved; None: half a cosine.
        ema: decay of the moving average of the weights; 0 has none.
        lora: as ``--lora`` takes it; None trains all weights.
        steps: that the paper took; told, not taken.
    """

    name: str
    about: str
    loss: str
    unlabelled: str
    optimiser: Optimiser
    batch: int
    patch: Optional[int] = None
    high_patch: int = 96
    halvings: Optional[Tuple[float, ...]] = None
    ema: float = 0.0
    lora: Optional[str] = None
    steps: Optional[int] = None

    def patch_at(self, scale: int) -> int:
        """Side of a square in low-resolution pixels."""
        return self.patch or max(self.high_patch // scale, 1)


PRESETS: Tuple[Preset, ...] = (
    Preset(
        "plain", "L1 to the teacher, Adam, half a cosine: ours", "l1=1", "l1=1", Optimiser(), batch=8, patch=48,
    ),
    Preset(
        "cdism",
        "arXiv 2401.00523 and Pikapi22/SRModelCompression: Adam where the paper says AdaMax; its SwinIRmini's rates",
        "laplacian-hf=1,l1@hr=0.1",
        "laplacian-hf=1",
        Optimiser("adam", 1e-4),
        batch=16,
        high_patch=96,
        halvings=(0.3125, 0.5, 0.5625),
        ema=0.999,
        steps=800_000,
    ),
    Preset(
        "light-f2srgan",
        "preprints202305.1282 and khanhhungvu1508/Light-F2SRGAN; without its adversarial and VGG19 parts",
        "l1@hr=255,kl=0.9,afd=200,tv=2e-8",
        "l1=255,kl=0.9,afd=200,tv=2e-8",
        Optimiser("adamw", 5e-5),
        batch=16,
        patch=12,
        halvings=(25 / 46,),
    ),
    Preset(
        "efdn",
        "arXiv 2204.08759: L1 and its edge loss; rate, batch and patch are ours",
        "l1@hr=1,gradient-variance@hr=1",
        "l1=1,gradient-variance=1",
        Optimiser("adam", 5e-4),
        batch=16,
        patch=48,
    ),
    Preset(
        "dsclora",
        "arXiv 2504.11271: ConvLoRA of rank 2, affinity of three features, patch 192; weights, rate and batch are ours",
        "l1@hr=1,affinity=1",
        "l1=1,affinity=1",
        Optimiser("adam", 5e-4),
        batch=4,
        high_patch=192,
        lora="r=2,alpha=2r",
    ),
)  # fmt: skip
