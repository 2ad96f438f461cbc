"""What folding gives back: the network and the report of what was done, what was left and why."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

import torch

from sr_deploy.core.contract import Size


class Kept(Exception):
    """Raised inside this folder when a block cannot be replaced; its text is the reason the report gives."""


@dataclass(frozen=True)
class FoldedBlock:
    """A block that was replaced.

    Attributes:
        name: its path in the network, ``"(root)"`` for the network itself.
        was: its class.
        became: for example "Conv2d 26→26 3x3 zeros": channels, kernel (height x width), padding mode.
        macs_before, macs_after: multiply-accumulates of convolutions and matrix products for one output pixel of a
            large picture (the border, and what does not grow with the picture such as a weight's sum, do not count).
            For a Fourier unit: at the traced size, the transforms not counted.
        error_float64: largest difference from the block over its largest output magnitude, both in float64.
        error_float32: the float32 replacement against the float64 block on the same inputs, relative as above.
        error_original_float32: the same for the float32 block itself: its own rounding, for comparison. None when the
            replacement was proved elsewhere.
    """

    name: str
    was: str
    became: str
    macs_before: int
    macs_after: int
    error_float64: float
    error_float32: float
    error_original_float32: Optional[float] = None


@dataclass(frozen=True)
class KeptBlock:
    """A block that was examined and left as it was.

    Attributes:
        name: its path in the network.
        was: its class.
        reason: why, with the measured error where there is one.
    """

    name: str
    was: str
    reason: str


@dataclass(frozen=True)
class FoldReport:
    """All that folding did.

    Attributes:
        blocks: the replaced blocks.
        kept: the examined blocks that stay, and those that the network never runs.
        network_error: the folded network in float32 against the original in float64, largest difference over the
            largest output magnitude, over all ``sizes``.
        network_error_before: the same for the original network in float32: its own rounding. Where the network does not
            run in float64: how far its output moves when the input moves by one rounding.
        network_error_float64: the same for the folded network in float64, Fourier units left as they were; None where
            the network does not run in float64.
        sizes: the input (height, width) pairs at which the whole network was compared.
        noise_overflows: the network's output is finite on photographs and not on noise: it was compared on these.
    """

    blocks: Tuple[FoldedBlock, ...]
    kept: Tuple[KeptBlock, ...]
    network_error: float
    network_error_before: float
    network_error_float64: Optional[float]
    sizes: Tuple[Size, ...]
    noise_overflows: bool = False

    def to_dict(self) -> Dict[str, Any]:
        """The report as plain dicts and tuples, ready for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class FoldResult:
    """The folded network (float32, on the CPU, eval mode) and the report."""

    module: torch.nn.Module
    report: FoldReport
