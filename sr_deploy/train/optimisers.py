"""The table of optimisers that ``--optimiser`` names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Tuple

import torch

from sr_deploy.core.names import check_name

#: Groups of parameters, each with its highest rate as ``peak``; the schedule sets the rates.
Groups = List[Dict[str, Any]]
_Maker = Callable[..., torch.optim.Optimizer]

OPTIMISERS: Mapping[str, _Maker] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamax": torch.optim.Adamax,
}


@dataclass(frozen=True)
class Optimiser:
    """Which, and with what.

    Attributes:
        name: of ``OPTIMISERS``.
        rate: its highest.
        betas: of the two averages.
    """

    name: str = "adam"
    rate: float = 5e-4
    betas: Tuple[float, float] = (0.9, 0.999)

    def of(self, parameters: List[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of these parameters.

        Raises:
            UsageError: there is none of that name.
        """
        check_name("optimiser", self.name, OPTIMISERS)
        groups: Groups = [{"params": parameters, "peak": self.rate}]
        return OPTIMISERS[self.name](groups, lr=self.rate, betas=self.betas)
