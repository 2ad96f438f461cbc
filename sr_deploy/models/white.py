"""Which value white has in a network, by what the network makes of a smooth picture that is known at both sizes.

A super-resolution network gives back the picture it was given, larger. In the wrong range means that are subtracted,
limits and biases are off by a factor of 255, and the picture is lost. Networks without any of these do the same in
both, and leave it open.

The picture is smooth, for then nothing has to be invented to enlarge it. In the right range 28 published files give it
back 0.06 to 7.6 of 255 off, in the wrong one at least 8 times as far; a photograph, whose larger original is not known
at every scale, leaves two of them open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Dict, Optional

import numpy as np

from sr_deploy.core.contract import Size

#: The values that white has in published networks.
WHITES = (1.0, 255.0)
#: The picture's height and width, pixels, to be raised to what a network takes.
PICTURE_SIZE: Size = (48, 64)
#: Root-mean-square error, of 255, up to which the picture was given back: 22 dB, far below what any trained network
#: reaches, far above what is left of a picture in the wrong range. ``CLEAR`` times more in the other range decides.
GIVEN_BACK, CLEAR = 20.0, 3.0


@dataclass(frozen=True)
class WhiteEvidence:
    """What a network made of a smooth picture in either range.

    Attributes:
        errors: value of white → root-mean-square difference of the output from the picture at that size, in 8-bit
            steps; infinity where the output is not finite.
    """

    errors: Dict[float, float]

    @property
    def white(self) -> Optional[float]:
        """The value of white, where the evidence decides."""
        best, other = sorted(WHITES, key=lambda white: self.errors[white])
        decided = self.errors[best] <= GIVEN_BACK and self.errors[other] >= CLEAR * self.errors[best]
        return best if decided else None

    def doubt(self, asked: float) -> str:
        """What to say where the user asked for another value than the evidence tells; "" where it does not."""
        if self.white in (None, asked):
            return ""
        return f"white is {asked:g}, as was asked, but {self}: it looks like a network of 0…{self.white:g}"

    def __str__(self) -> str:
        parts = [f"{error:.1f} of 255 off as 0…{white:g}" for white, error in self.errors.items()]
        return "a smooth picture comes back " + ", ".join(parts)


def white_evidence(run: Callable[[np.ndarray], np.ndarray], size: Size, scale: int) -> WhiteEvidence:
    """Run a network on a smooth picture in both ranges.

    Args:
        run: float32 (1, 3, H, W) to (1, 3, scale·H, scale·W); what it raises counts as a picture lost.
        size: an input (height, width) that it takes.
        scale: output size over input size.
    """
    return WhiteEvidence({white: error_of(run, size, scale, white) for white in WHITES})


def error_of(run: Callable[[np.ndarray], np.ndarray], size: Size, scale: int, white: float) -> float:
    """How far the enlarged picture is off, in 8-bit steps (root mean square); infinity where there is none.

    Args:
        run, size, scale: as of ``white_evidence``.
        white: the value of white.
    """
    try:
        sr = np.asarray(run(smooth_picture(size, 1) * np.float32(white)), np.float64) / white
    except Exception:  # whatever a stranger's network raises
        return math.inf
    expected = smooth_picture(size, scale)
    if sr.shape != expected.shape or not np.isfinite(sr).all():
        return math.inf
    return float(np.sqrt(np.mean((sr - expected) ** 2)) * 255.0)


def smooth_picture(size: Size, scale: int) -> np.ndarray:
    """Slow waves of three colours across a dark and a light half, as seen at ``scale`` times ``size``.

    Returns:
        float32 (1, 3, scale·H, scale·W) in 0…1.
    """
    y, x = ((np.arange(scale * edge) + 0.5) / (scale * edge) for edge in size)
    y, x = y[:, None], x[None, :]
    light = 0.4 / (1.0 + np.exp(-20.0 * (x - 0.5 + 0.2 * (y - 0.5))))
    waves = ((1.0, 0.5, 0.0), (0.5, -1.0, 1.0), (-0.75, 0.75, 2.0))
    planes = [
        0.3 + 0.1 * np.cos(2 * math.pi * (down * y + across * x) + phase) + light for down, across, phase in waves
    ]
    return np.stack(planes)[None].astype(np.float32)
