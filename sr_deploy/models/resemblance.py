"""What no key tells of a known network, told by what it does: a picture must come out as that picture, larger.

Some switches leave no trace in a file: whether white is 1 or 255, whether an identity was added, which activation had
no weights. Each reading is run on a smooth picture; the right one gives it back (``white.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Sequence, Tuple

import numpy as np
import torch

from sr_deploy.core.errors import UsageError
from sr_deploy.models.base import Asked
from sr_deploy.models.white import CLEAR, GIVEN_BACK, PICTURE_SIZE, error_of

#: Larger networks are not tried, for a file may describe what no published one has: weights of all readings together,
#: channels of one tensor, and scale.
MOST_WEIGHTS, WIDEST, LARGEST_SCALE = 1 << 24, 4096, 8


@dataclass(frozen=True, eq=False)
class Reading:
    """One network that a file may hold.

    Attributes:
        module: takes and gives RGB in ``0…value_range``.
        value_range: the value of white, 1.0 or 255.0.
        what: the switch as people read it, for example "without identity"; "" where only the range is open.
    """

    module: torch.nn.Module
    value_range: float
    what: str = ""

    def __str__(self) -> str:
        return f"0…{self.value_range:g}" + (f", {self.what}" if self.what else "")


def likeliest(readings: Sequence[Reading], scale: int, asked: Asked) -> Tuple[Reading, Tuple[str, ...]]:
    """The reading that enlarges a picture, and what to tell the user.

    Args:
        readings: the published one first; where several enlarge the picture alike, or none, the first of them.
        scale: output size over input size.
        asked: a value range that the user gives is taken, and a note says if the picture tells another.

    Returns:
        (reading, notes).

    Raises:
        UsageError: the value range that was asked for is none of the readings'.
    """
    wanted = [reading for reading in readings if asked.value_range in (None, reading.value_range)]
    if not wanted:
        raise UsageError(
            f"--value-range {asked.value_range:g} is not supported",
            "the value that white has in the network's input and output: 1 or 255",
            "leave it out to have it found",
        )
    if scale > LARGEST_SCALE or _too_large(readings):
        return wanted[0], (f"{wanted[0]}: not in the file, and too large to be tried on a picture",)
    errors = {reading: _error(reading, scale) for reading in readings}
    likely, told = _first_of_the_best(readings, errors)
    chosen, _ = _first_of_the_best(wanted, errors)
    if chosen is likely or not told:
        return chosen, (_note(chosen, errors, told),)
    note = f"{chosen} as asked, but a smooth picture says otherwise: {errors[chosen]:.3g} off (of 255)"
    return chosen, (f"{note}, {errors[likely]:.3g} with {likely}: check a few pictures with srdeploy verify",)


def _too_large(readings: Sequence[Reading]) -> bool:
    tensors = [tensor for reading in readings for tensor in reading.module.parameters()]
    return sum(map(torch.numel, tensors)) > MOST_WEIGHTS or any(max(one.shape, default=0) > WIDEST for one in tensors)


def _first_of_the_best(readings: Sequence[Reading], errors: Dict[Reading, float]) -> Tuple[Reading, bool]:
    """(the reading to take, whether it is the only one that enlarges it)."""
    best = min(errors[reading] for reading in readings)
    near = [reading for reading in readings if errors[reading] <= CLEAR * best] if best <= GIVEN_BACK else []
    return (near or list(readings))[0], len(near) == 1


def _note(chosen: Reading, errors: Dict[Reading, float], told: bool) -> str:
    others = ", ".join(f"{error:.3g} with {reading}" for reading, error in errors.items() if reading is not chosen)
    found = f"enlarging a smooth picture, {errors[chosen]:.3g} off (of 255; {others})"
    if told:
        return f"{chosen}: not in the file, found by {found}"
    return f"{chosen}: not in the file, nor told by {found}: check a few pictures with srdeploy verify"


def _error(reading: Reading, scale: int) -> float:
    """How far the picture is off that a reading gives, see ``white.py``."""

    def run(lr: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return reading.module(torch.from_numpy(lr)).numpy()

    return error_of(run, PICTURE_SIZE, scale, reading.value_range)
