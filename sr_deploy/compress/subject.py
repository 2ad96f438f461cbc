"""A graph on its way to a narrower one: what it saw on pictures, what its channels are worth, what its nodes cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, FrozenSet, List, Mapping, Sequence, Tuple

import numpy as np
import onnx
import torch
from torch import Tensor

from sr_deploy.compress.allocate import Allocation, Widths
from sr_deploy.compress.cost import Costs, Spending, costs_of
from sr_deploy.compress.distil import with_weights
from sr_deploy.compress.groups import Network, narrowed
from sr_deploy.compress.importance import METHODS, Evidence, Ranking, rankings_of
from sr_deploy.compress.refit import refitted
from sr_deploy.compress.statistics import statistics_of
from sr_deploy.precision.interpreter import GraphModule, takes_batches

#: Squares at once, where a graph takes several.
_BATCH = 8


@dataclass(frozen=True)
class Subject:
    """A graph and all that is known of its channels.

    Attributes:
        network: with its proved groups.
        squares: (N, 3, side, side), in the units of the graph.
        batch: squares at once.
        method: a name of METHODS.
        rankings: of each group.
        costs: of its nodes.
    """

    network: Network
    squares: Tensor
    batch: int
    method: str
    rankings: Mapping[str, Ranking]
    costs: Costs

    def allocation(self, spending: Spending, multiple: int) -> Allocation:
        """Widths chosen by a cost, in multiples."""
        return Allocation(self.rankings, spending, multiple, METHODS[self.method].by_cost)

    def gone(self, widths: Mapping[str, int]) -> FrozenSet[int]:
        """The classes that go for these widths."""
        return frozenset(one for name, ranking in self.rankings.items() for one in ranking.gone(widths[name]))

    def narrowed(self, widths: Widths, refit: bool = True) -> onnx.ModelProto:
        """The graph with these widths, its weights fitted to what it lacks or only cut."""
        gone = self.gone(widths.of)
        narrow = narrowed(self.network, gone)
        if not refit or not gone:
            return narrow
        return with_weights(narrow, refitted(self.network, narrow, gone, self.squares, self.batch))

    def predicted(self, widths: Widths, value_range: float) -> float:
        """PSNR to the whole graph that the harm comes to, dB; NaN of a method that does not predict it."""
        if not METHODS[self.method].predicts:
            return math.nan
        return 10.0 * math.log10(value_range**2 / max(widths.harm, 1e-12 * value_range**2))


def subject_of(network: Network, squares: Tensor, pixels: int, method: str, seed: int) -> Subject:
    """Look at what the channels do on pictures.

    Args:
        network: with its proved groups.
        squares: (N, 3, side, side), in the units of the graph.
        pixels: of the picture that the network was found with.
        method: a name of METHODS.
        seed: of what is random.
    """
    module = GraphModule(network.model)
    batch = _BATCH if takes_batches(module, squares[:1]) else 1
    readers = tuple(dict.fromkeys(name for group in network.groups for name in group.readers))
    statistics = statistics_of(module, readers, squares, batch, seed)
    rankings = rankings_of(Evidence(network, statistics, seed), method)
    return Subject(network, squares, batch, method, rankings, costs_of(network, pixels))


def fidelity(whole: onnx.ModelProto, narrow: onnx.ModelProto, squares: Sequence[np.ndarray], white: float) -> float:
    """PSNR of one graph's output to the other's, all colours, mean over squares first, dB.

    Args:
        whole, narrow: the graphs.
        squares: (3, H, W) each, in their units.
        white: the value of white.
    """
    modules = [GraphModule(model) for model in (whole, narrow)]
    errors: List[float] = []
    with torch.no_grad():
        for square in squares:
            one, other = (module(torch.from_numpy(np.ascontiguousarray(square))[None]) for module in modules)
            errors.append(float(((one - other) ** 2).mean()))
    return 10.0 * math.log10(white**2 / max(float(np.mean(errors)), 1e-12 * white**2))


def changed_widths(network: Network, widths: Mapping[str, int]) -> Dict[str, Tuple[int, int]]:
    """Group → (before, after), of all groups."""
    return {group.name: (group.width, widths[group.name]) for group in network.groups}
