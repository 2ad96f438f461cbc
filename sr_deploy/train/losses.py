"""What training makes small."""

from __future__ import annotations

import math
from typing import Optional

import torch
from torch import Tensor

from sr_deploy.core.errors import CheckFailed


def mean_distance(given: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference (L1), shape (), in the units of the pictures."""
    return (given - wanted).abs().mean()


def taught_distance(given: Tensor, taught: Tensor, originals: Optional[Tensor], share: float) -> Tensor:
    """The distance from what a teacher gives and, where there are originals, from them.

    Args:
        given, taught, originals: the same shape and units.
        share: of the distance from the originals, 0…1.
    """
    loss = mean_distance(given, taught)
    if originals is None:
        return loss
    return (1.0 - share) * loss + share * mean_distance(given, originals)


def descend(optimiser: torch.optim.Optimizer, loss: Tensor, step: int, todo: str) -> float:
    """One step of the optimiser down the loss; gives the loss before it.

    Raises:
        CheckFailed: the loss is NaN or infinite; nothing was changed, and ``todo`` says what may help.
    """
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    value = float(loss.detach())
    if not math.isfinite(value):
        raise CheckFailed(f"the loss became {value} at step {step}", "a finite loss", todo)
    optimiser.step()
    return value
