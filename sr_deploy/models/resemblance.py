"""What no key tells of a network, told by what it does: a picture must come out as that picture, larger.

Some switches leave no trace in a file: whether white is 1 or 255, whether an identity was added, which activation had
no weights. Each reading is run on a picture that is known at both sizes; the right one gives it back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Sequence, Tuple

import torch

#: Height and width of the picture that is enlarged, pixels; every ESA takes it, and multiples of 4 do too.
SIZE = (36, 44)
#: A reading is believed when its error is at most this, in 8-bit steps (root mean square) …
ALIKE = 8.0
#: … and every other reading's is this many times as large.
CLEARLY = 3.0


@dataclass(frozen=True)
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


def likeliest(readings: Sequence[Reading], scale: int) -> Tuple[Reading, Tuple[str, ...]]:
    """The reading that enlarges a picture, and what to tell the user.

    Args:
        readings: the published one first; where several enlarge the picture alike, or none, the first of them is taken.
        scale: output size over input size.

    Returns:
        (reading, notes).
    """
    errors = [_error(reading, scale) for reading in readings]
    best = min(errors)
    near = [index for index, error in enumerate(errors) if error <= CLEARLY * best] if best <= ALIKE else []
    chosen = near[0] if near else 0
    others = ", ".join(f"{errors[i]:.3g} with {reading}" for i, reading in enumerate(readings) if i != chosen)
    found = f"enlarging a picture, {errors[chosen]:.3g} off (of 255; {others})"
    if len(near) == 1:
        return readings[chosen], (f"{readings[chosen]}: not in the file, found by {found}",)
    note = f"{readings[chosen]}: not in the file, nor told by {found}: check a few pictures with srdeploy verify"
    return readings[chosen], (note,)


def _error(reading: Reading, scale: int) -> float:
    """How far the enlarged picture is off, in 8-bit steps (root mean square); infinity where it is no picture."""
    small, large = _picture(1), _picture(scale)
    with torch.no_grad():
        got = reading.module(small * reading.value_range) / reading.value_range
    if got.shape != large.shape:
        return math.inf
    error = float((got - large).double().square().mean().sqrt()) * 255.0
    return error if math.isfinite(error) else math.inf


def _picture(scale: int) -> torch.Tensor:
    """Waves of different colours across a dark and a light half, (1, 3, scale·H, scale·W) in 0…1."""
    rows, columns = ((torch.arange(scale * edge) + 0.5) / (scale * edge) for edge in SIZE)
    y, x = rows[:, None], columns[None, :]
    planes: List[torch.Tensor] = []
    for down, across, phase in ((2.0, 1.0, 0.0), (1.0, -2.0, 1.0), (-1.5, 1.5, 2.0)):
        wave = torch.cos(2 * math.pi * (down * y + across * x) + phase)
        light = torch.sigmoid((x - 0.5 + 0.2 * (y - 0.5)) * 60.0)
        planes.append(0.3 + 0.15 * wave + 0.35 * light)
    return torch.stack(planes)[None]
