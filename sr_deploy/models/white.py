"""Which value white has in a network, by what the network makes of a photograph.

A super-resolution network gives back the picture it was given, larger: averaged over each scale × scale square, its
output is its input but for a little sharpening. In the wrong range means that are subtracted, limits and biases are off
by a factor of 255, and the picture is lost. Networks without any of these do the same in both, and leave it open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, Optional

import numpy as np

from sr_deploy.core.contract import Size
from sr_deploy.core.media.natural import natural_input

#: The values that white has in published networks.
WHITES = (1.0, 255.0)
#: The photograph's height and width, pixels, to be raised to what a network takes.
PHOTOGRAPH_SIZE: Size = (48, 64)
#: Root-mean-square error, of 255, up to which the picture was given back: 22 dB, far below what any trained network
#: reaches, far above what is left of a picture in the wrong range. ``_CLEAR`` times more in the other range decides.
GIVEN_BACK, _CLEAR = 20.0, 3.0


@dataclass(frozen=True)
class WhiteEvidence:
    """What a network made of a photograph in either range.

    Attributes:
        errors: value of white → root-mean-square difference of the shrunk output from the input, in 8-bit steps;
            infinity where the output is not finite.
    """

    errors: Dict[float, float]

    @property
    def white(self) -> Optional[float]:
        """The value of white, where the evidence decides."""
        best, other = sorted(WHITES, key=lambda white: self.errors[white])
        decided = self.errors[best] <= GIVEN_BACK and self.errors[other] >= _CLEAR * self.errors[best]
        return best if decided else None

    def doubt(self, asked: float) -> str:
        """What to say where the user asked for another value than the evidence tells; "" where it does not."""
        if self.white in (None, asked):
            return ""
        return f"white is {asked:g}, as was asked, but {self}: it looks like a network of 0…{self.white:g}"

    def __str__(self) -> str:
        parts = [f"{error:.1f} of 255 off as 0…{white:g}" for white, error in self.errors.items()]
        return "a photograph comes back " + ", ".join(parts)


def white_evidence(run: Callable[[np.ndarray], np.ndarray], size: Size, scale: int) -> WhiteEvidence:
    """Run a network on a photograph in both ranges.

    Args:
        run: float32 (1, 3, H, W) to (1, 3, scale·H, scale·W); what it raises counts as a picture lost.
        size: an input (height, width) that it takes.
        scale: output size over input size.
    """
    return WhiteEvidence({white: _error(run, size, scale, white) for white in WHITES})


def _error(run: Callable[[np.ndarray], np.ndarray], size: Size, scale: int, white: float) -> float:
    lr = natural_input(size, white)
    try:
        sr = np.asarray(run(lr), np.float64)
    except Exception:  # whatever a stranger's network raises
        return float("inf")
    if not np.isfinite(sr).all():
        return float("inf")
    shrunk = sr.reshape(1, 3, size[0], scale, size[1], scale).mean(axis=(3, 5))
    return float(np.sqrt(np.mean((shrunk - lr) ** 2)) * 255.0 / white)
