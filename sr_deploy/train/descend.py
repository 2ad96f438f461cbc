"""One step of an optimiser down a loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sr_deploy.core.errors import CheckFailed


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
