"""The shape of a smaller network that a density gives (CDISM, arXiv 2401.00523, eqs. 3 to 7).

With d the density of N_b blocks of N_l layers of N_c channels: N_b' = d^(1/6) N_b, N_l' + 1 = d^(1/6) (N_l + 1), and
the channels take what is left of d: N_c' = N_c · (d · N_b (N_l + 1) / (N_b' (N_l' + 1)))^(1/r), of the rounded N_b' and
N_l'. As printed r is 3; the published widths come out with r = 2 only, as weights grow with the square of the channels.
And no one rule rounds both published networks' blocks: 8.92 became 8, 2.67 became 3. So every choice is the user's.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Optional, Tuple

from sr_deploy.core.errors import UsageError
from sr_deploy.core.names import check_name

ROUNDINGS: Mapping[str, Callable[[float], int]] = {
    "floor": math.floor,
    "nearest": lambda value: math.floor(value + 0.5),
    "ceil": math.ceil,
}
ROOTS: Mapping[str, float] = {"square": 2.0, "cube": 3.0}
#: What is rounded, in the order of the equations.
PARTS = ("blocks", "layers", "channels")


@dataclass(frozen=True)
class Shape:
    """Blocks, layers of a block, channels."""

    blocks: int
    layers: int
    channels: int

    def __str__(self) -> str:
        return f"{self.channels} channels, {self.layers} layers, {self.blocks} blocks"


@dataclass(frozen=True)
class Reading:
    """One way to read the equations.

    Attributes:
        root: of ``ROOTS``.
        blocks, layers, channels: of ``ROUNDINGS``.
    """

    root: str
    blocks: str
    layers: str
    channels: str


@dataclass(frozen=True)
class Derived:
    """What a reading gives: the shape, and blocks, layers and channels before they were rounded."""

    shape: Shape
    exact: Tuple[float, float, float]


def derived(density: float, original: Shape, reading: Reading) -> Derived:
    """The shape that a density gives; of blocks, layers and channels there is at least one.

    Raises:
        UsageError: no density, or an original without blocks, layers or channels.
    """
    if not 0 < density <= 1:
        raise UsageError(f"--density {density:g} is no density", "more than 0, at most 1")
    if min(original.blocks, original.layers, original.channels) < 1:
        raise UsageError(f"a network of {original} is none", "1 or more of each", "--of blocks=16,layers=1,channels=64")
    share = density ** (1.0 / 6.0)
    blocks = share * original.blocks
    layers = share * (original.layers + 1) - 1
    new_blocks = max(1, ROUNDINGS[reading.blocks](blocks))
    new_layers = max(1, ROUNDINGS[reading.layers](layers))
    left = density * original.blocks * (original.layers + 1) / (new_blocks * (new_layers + 1))
    channels = original.channels * left ** (1.0 / ROOTS[reading.root])
    shape = Shape(new_blocks, new_layers, max(1, ROUNDINGS[reading.channels](channels)))
    return Derived(shape, (blocks, layers, channels))


def readings(root: Optional[str], roundings: Mapping[str, str]) -> Tuple[Reading, ...]:
    """All ways to read the equations that choices leave open.

    Args:
        root: "square" or "cube"; None: both.
        roundings: of ``PARTS``, those that are chosen.

    Raises:
        UsageError: a choice that there is not.
    """
    if root is not None:
        check_name("--root", root, ROOTS)
    for part, rounding in roundings.items():
        if part not in PARTS or rounding not in ROUNDINGS:
            raise UsageError(
                f"--round {part}={rounding} is no rounding",
                f"{', '.join(PARTS)}, each {' or '.join(ROUNDINGS)}",
                "--round blocks=floor,layers=ceil,channels=nearest",
            )
    ways = [[roundings[part]] if part in roundings else list(ROUNDINGS) for part in PARTS]
    return tuple(Reading(*one) for one in itertools.product([root] if root else list(ROOTS), *ways))


def shapes(density: float, original: Shape, of: Tuple[Reading, ...]) -> Dict[Shape, List[Reading]]:
    """Each shape that comes out, and the readings that give it."""
    found: Dict[Shape, List[Reading]] = {}
    for reading in of:
        found.setdefault(derived(density, original, reading).shape, []).append(reading)
    return found
