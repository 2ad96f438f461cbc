"""The moving average of a network's weights while it trains (EMA)."""

from __future__ import annotations

from typing import Dict, Mapping

import torch
from torch import Tensor, nn


class Average:
    """Weights that follow a network's slowly: after each step a ← d·a + (1 − d)·w, what is no float as it is.

    Args:
        network: the network.
        decay: d, 0…1; 0 is the network itself.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = copy_of(network)

    def follow(self, network: nn.Module) -> None:
        """Take the network's new weights in."""
        with torch.no_grad():
            for name, value in network.state_dict().items():
                if value.is_floating_point():
                    self.state[name].mul_(self.decay).add_(value, alpha=1.0 - self.decay)
                else:
                    self.state[name].copy_(value)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Be as ``state`` says."""
        for name, value in state.items():
            self.state[name].copy_(value)


def copy_of(network: nn.Module) -> Dict[str, Tensor]:
    """The network's state, apart from the network."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
