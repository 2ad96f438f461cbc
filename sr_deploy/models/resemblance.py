"""What no key tells of a network, told by what it does: a picture must come out as that picture, larger.

Some switches leave no trace in a file: whether white is 1 or 255, whether an identity was added, which activation had
no weights. Each reading is run on a picture that is known at both sizes; the right one gives it back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple

import torch

from sr_deploy.core.errors import UsageError
from sr_deploy.models.base import Asked

#: Height and width of the picture that is enlarged, pixels; every ESA takes it, and multiples of 4 do too.
SIZE = (36, 44)
#: A reading is believed when its error is at most this, in 8-bit steps (root mean square) …
ALIKE = 8.0
#: … and every other reading's is this many times as large.
CLEARLY = 3.0
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
        readings: the published one first; where several enlarge the picture alike, or none, the first of them is taken.
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
    note = f"{chosen} as asked, but the picture says otherwise: {errors[chosen]:.3g} off (of 255)"
    return chosen, (f"{note}, {errors[likely]:.3g} with {likely}: check a few pictures with srdeploy verify",)


def _too_large(readings: Sequence[Reading]) -> bool:
    tensors = [tensor for reading in readings for tensor in reading.module.parameters()]
    return sum(map(torch.numel, tensors)) > MOST_WEIGHTS or any(max(one.shape, default=0) > WIDEST for one in tensors)


def _first_of_the_best(readings: Sequence[Reading], errors: Dict[Reading, float]) -> Tuple[Reading, bool]:
    """(the reading to take, whether it is the only one that enlarges the picture)."""
    best = min(errors[reading] for reading in readings)
    near = [reading for reading in readings if errors[reading] <= CLEARLY * best] if best <= ALIKE else []
    return (near or list(readings))[0], len(near) == 1


def _note(chosen: Reading, errors: Dict[Reading, float], told: bool) -> str:
    others = ", ".join(f"{error:.3g} with {reading}" for reading, error in errors.items() if reading is not chosen)
    found = f"enlarging a picture, {errors[chosen]:.3g} off (of 255; {others})"
    if told:
        return f"{chosen}: not in the file, found by {found}"
    return f"{chosen}: not in the file, nor told by {found}: check a few pictures with srdeploy verify"


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
