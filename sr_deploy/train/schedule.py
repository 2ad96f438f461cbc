"""How long a training runs, and how its rates rise and fall."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Tuple

import torch


@dataclass(frozen=True)
class Schedule:
    """A warm-up, then half a cosine, or halvings, over the steps or the time, whichever is further on.

    Attributes:
        steps: of the optimiser; None has no limit.
        minutes: of training, those before an interruption included; None has no limit. One of both must be given.
        warm_up: steps until the rates are at their highest.
        floor: the last rate of the cosine as a share of the highest, 0…1.
        halvings: instead of the cosine: shares of the schedule, 0…1, at each of which the rates are halved.
    """

    steps: Optional[int]
    minutes: Optional[float]
    warm_up: int
    floor: float
    halvings: Optional[Tuple[float, ...]] = None

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise ValueError("a training without steps and without minutes would never end")

    def is_over(self, step: int, seconds: float) -> bool:
        """Whether that many steps or seconds are enough."""
        return (self.steps is not None and step >= self.steps) or (
            self.minutes is not None and seconds >= 60.0 * self.minutes
        )

    def done(self, step: int, seconds: float) -> float:
        """The share of the schedule that is behind, 0…1."""
        by_steps = 0.0 if self.steps is None else step / self.steps
        by_time = 0.0 if self.minutes is None else seconds / (60.0 * self.minutes)
        return min(max(by_steps, by_time), 1.0)

    def set_rates(self, optimiser: torch.optim.Optimizer, step: int, seconds: float) -> None:
        """Give every group of the optimiser its rate: the group's ``peak`` times what the schedule leaves of it."""
        done = self.done(step, seconds)
        if self.halvings is None:
            falling = self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * done))
        else:
            falling = 0.5 ** sum(done >= share for share in self.halvings)
        rising = min(1.0, (step + 1) / max(self.warm_up, 1))
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * falling * rising
