"""What no file tells of a network, told by what it does: a picture must come out as that picture, larger.

Some switches leave no trace: whether white is 1 or 255, whether an identity was added, which activation had no weights.
Each reading of a file is run on a smooth picture that is known at both sizes; the right one gives it back. In the wrong
range means that are subtracted, limits and biases are off by a factor of 255, and the picture is lost. Networks without
any of these do the same in both, and leave it open.

The picture is smooth, for then nothing has to be invented to enlarge it. In the right range 28 published files give it
back 0.06 to 7.6 of 255 off, in the wrong one at least 8 times as far; a photograph, whose larger original is not known
at every scale, leaves two of them open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Mapping, Optional, Tuple

import numpy as np

from sr_deploy.core.contract import Size
from sr_deploy.core.errors import UsageError

#: The picture's height and width, pixels, to be raised to what a network takes.
PICTURE_SIZE: Size = (48, 64)
#: Root-mean-square error, of 255, up to which the picture was given back: 22 dB, far below what any trained network
#: reaches, far above what is left of a picture in the wrong range. ``CLEAR`` times more in every other one decides.
GIVEN_BACK, CLEAR = 20.0, 3.0
#: float32 (1, 3, H, W) to (1, 3, scale·H, scale·W); what it raises counts as a picture lost.
Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Reading:
    """One network that a file may hold.

    Attributes:
        value_range: the value of white at both ends, 1.0 or 255.0.
        what: the other switches as people read them, for example "without identity"; "" where only the range is open.
    """

    value_range: float
    what: str = ""

    def __str__(self) -> str:
        return f"0…{self.value_range:g}" + (f", {self.what}" if self.what else "")


#: Of a network of which only the range is open.
RANGES = (Reading(1.0), Reading(255.0))


@dataclass(frozen=True)
class Evidence:
    """What a network made of the smooth picture.

    Attributes:
        errors: reading → root-mean-square difference of the output from the picture at that size, in 8-bit steps;
            infinity where the output is not finite.
    """

    errors: Mapping[Reading, float]

    @property
    def likely(self) -> Tuple[Reading, ...]:
        """The readings that give the picture back about as well as the best one; () where none does."""
        best = min(self.errors.values())
        return tuple(one for one, error in self.errors.items() if error <= CLEAR * best) if best <= GIVEN_BACK else ()

    @property
    def only(self) -> Optional[Reading]:
        """The reading that the picture tells, where it decides."""
        return self.likely[0] if len(self.likely) == 1 else None

    def doubt(self, asked: Reading) -> str:
        """What to say of a reading that was asked for where the picture tells another; "" where it does not."""
        return "" if self.only in (None, asked) else f"{asked}, as was asked, but {self}: it looks like {self.only}"

    def __str__(self) -> str:
        parts = [f"{error:.3g} of 255 off as {reading}" for reading, error in self.errors.items()]
        return "a smooth picture comes back " + ", ".join(parts)


def evidence_of(runs: Mapping[Reading, Run], size: Size, scale: int) -> Evidence:
    """Run each reading on the picture.

    Args:
        runs: of at least one reading.
        size: an input (height, width) that they take.
        scale: output size over input size.
    """
    return Evidence({reading: _error(run, size, scale, reading.value_range) for reading, run in runs.items()})


def range_told(evidence: Evidence, asked: Optional[float], what: str) -> Tuple[float, str]:
    """The value of white of a network that nobody published, and how it is known.

    Args:
        evidence: of ``RANGES``.
        asked: by the user; None: the picture must tell.
        what: the network, as messages name it.

    Raises:
        UsageError: it is none of ``RANGES``'; or nothing was asked for and the picture does not tell.
    """
    wanted = "the value that white has in its input and output: 1 or 255"
    if asked is None:
        if evidence.only is None:
            raise UsageError(
                f"no value range was given for {what}, and a picture does not tell: {evidence}",
                wanted,
                "add --value-range 1 or --value-range 255",
            )
        return evidence.only.value_range, f"white is {evidence.only.value_range:g}: {evidence}"
    if Reading(asked) not in RANGES:
        raise UsageError(f"--value-range {asked:g} is not supported for {what}", wanted)
    return asked, evidence.doubt(Reading(asked)) or f"white is {asked:g}, as was asked"


def _error(run: Run, size: Size, scale: int, white: float) -> float:
    """How far the enlarged picture is off, in 8-bit steps (root mean square); infinity where there is none."""
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
