"""How dense a network must be: it is trained under an L1 penalty, and what is not zero then is counted (CDISM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Tuple

import torch

from sr_deploy.core.errors import UsageError
from sr_deploy.train.distill import DistillLearner, DistillOptions, Lesson
from sr_deploy.train.loop import Moment
from sr_deploy.train.obprox import ObproxSg


@dataclass(frozen=True)
class Sparsity:
    """How a network is made sparse; the values are those of CDISM's code.

    Attributes:
        deep: how the names of the deep-feature part's parameters begin.
        rate, penalty, least: see ObproxSg.
        proximal_steps: until steps stay in their orthant.
    """

    deep: Tuple[str, ...]
    proximal_steps: int
    rate: float = 5e-3
    penalty: float = 1e-4
    least: float = 1e-4


def density_of(network: torch.nn.Module, deep: Tuple[str, ...]) -> float:
    """The share of non-zero values among the parameters named ``weight`` of the deep-feature part, 0…1.

    Raises:
        UsageError: there are none.
    """
    weights = [
        value for name, value in network.named_parameters() if name.startswith(deep) and name.split(".")[-1] == "weight"
    ]
    count = sum(value.numel() for value in weights)
    if not deep or count == 0:
        first = ", ".join(list(dict(network.named_children()))[:8])
        raise UsageError(
            "it is not known which part of this network makes its deep features",
            f"how the names of its weights begin; the network has {first}",
            "--deep PREFIX, once for each",
        )
    return sum(int(value.count_nonzero()) for value in weights) / count


class DensityLearner(DistillLearner):
    """A network that becomes sparse; a Learner of train/loop.py.

    Attributes:
        densities: (step, density) at every judgement.

    Raises:
        UsageError, BadInput: see DistillLearner and ``density_of``.
    """

    def __init__(self, lesson: Lesson, options: DistillOptions, sparsity: Sparsity) -> None:
        density_of(lesson.student, sparsity.deep)
        super().__init__(lesson, options)
        self.sparsity = sparsity
        self.optimiser = ObproxSg(self.trained, sparsity.rate, sparsity.penalty, sparsity.least)
        self.densities: List[Tuple[int, float]] = []

    def learn(self, step: int) -> float:
        """One step; gives the loss without its penalty."""
        assert isinstance(self.optimiser, ObproxSg)
        self.optimiser.in_orthant = step >= self.sparsity.proximal_steps
        return super().learn(step)

    def judge(self, moment: Moment) -> str:
        """As DistillLearner, and the density."""
        density = density_of(self.student, self.sparsity.deep)
        self.densities.append((moment.step, density))
        return f"{super().judge(moment)}  density {density:.4f}"

    def state(self) -> Dict[str, Any]:
        """As DistillLearner, and the densities."""
        return {**super().state(), "densities": [list(one) for one in self.densities]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as ``state`` says."""
        super().restore(state)
        self.densities = [(int(step), float(density)) for step, density in state["densities"]]
