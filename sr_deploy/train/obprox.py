"""OBProx-SG: stochastic gradients under an L1 penalty, with weights that become exactly zero.

Chen et al., "Orthant based proximal stochastic gradient method for l1-regularized optimization", ECML PKDD 2020
(tianyic/obproxsg): first proximal steps find which weights matter, then steps stay in the orthant that they are in, and
what would leave it becomes 0 and stays so.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, Optional

import torch
from torch import Tensor


class ObproxSg(torch.optim.Optimizer):
    """The optimiser of mean loss + λ · Σ |w|.

    Args:
        parameters: all of them are penalised, as CDISM has it.
        rate: of a step.
        penalty: λ.
        least: in its orthant a weight stays non-zero only above this; CDISM: 1e-4.

    Attributes:
        in_orthant: False: proximal steps; True: orthant steps.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], rate: float, penalty: float, least: float) -> None:
        groups = [{"params": list(parameters), "peak": rate}]
        super().__init__(groups, {"lr": rate, "penalty": penalty, "least": least})
        self.in_orthant = False

    def step(self, closure: Optional[Callable[[], Any]] = None) -> None:  # type: ignore[override]  # no loss is given back
        """One step down the gradients that are there."""
        assert closure is None, "gradients are taken before"
        with torch.no_grad():
            for group in self.param_groups:
                shrink = group["lr"] * group["penalty"]
                for parameter in group["params"]:
                    if parameter.grad is None:
                        continue
                    moved = parameter - group["lr"] * parameter.grad
                    if self.in_orthant:
                        parameter.copy_(_in_orthant(parameter, moved, shrink, group["least"]))
                    else:
                        parameter.copy_(moved.sign() * (moved.abs() - shrink).clamp(min=0))


def _in_orthant(before: Tensor, moved: Tensor, shrink: float, least: float) -> Tensor:
    """The step projected onto the orthant of ``before``: 0 where a weight was 0, or would change its sign."""
    orthant = before.sign()
    trial = moved - shrink * orthant
    return torch.where(trial * orthant > least, trial, torch.zeros_like(trial))
