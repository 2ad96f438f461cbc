"""Which channels of a group to give up first, and what that costs: the table of methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Optional, Tuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from sr_deploy.compress.groups import Group, Network
from sr_deploy.compress.statistics import Statistics, as_matrix
from sr_deploy.graph.rewrite.editor import attributes_of

#: Ridge on the features' Gram matrix, as a share of its mean diagonal.
RIDGE = 1e-5


@dataclass(frozen=True)
class Ranking:
    """The order in which a group's channels go.

    Attributes:
        order: classes, the first to go first.
        harm: after 0, 1, … of them are gone: for ``obs`` the expected squared error of the output, per value, in the
            graph's units; for others a score. Never falling; (width + 1,).
    """

    order: Tuple[int, ...]
    harm: np.ndarray

    def gone(self, width: int) -> Tuple[int, ...]:
        """The classes that go for ``width`` to be left."""
        return self.order[: len(self.order) - width]


@dataclass(frozen=True)
class Evidence:
    """What a method may look at.

    Attributes:
        network: the graph and its groups.
        statistics: see statistics.py.
        seed: of what is random.
    """

    network: Network
    statistics: Statistics
    seed: int

    def array(self, name: str) -> np.ndarray:
        """A constant of the graph."""
        return next(
            numpy_helper.to_array(tensor) for tensor in self.network.model.graph.initializer if tensor.name == name
        )


Rank = Callable[[Evidence, Group], Ranking]


@dataclass
class _Reader:
    """A weight that reads a group, while channels go.

    Attributes:
        weight: (O, F) as it is now; the features of channels that are gone have zeros.
        inverse: of the Gram matrix of the features that are left, (F, F).
        root: a root R of G, so that RᵀR = G, (O, O).
        columns: of each class of the group, its features, (classes, features of a class).
    """

    weight: Tensor
    inverse: Tensor
    root: Tensor
    columns: Tensor

    def harms(self) -> Tensor:
        """Of each class, tr(G W_c (H⁻¹_cc)⁻¹ W_cᵀ): the least error without it, (classes,)."""
        blocks = self.inverse[self.columns[:, :, None], self.columns[:, None, :]]
        weights = (self.root @ self.weight)[:, self.columns].transpose(0, 1)
        solved = torch.linalg.solve(blocks + _tiny(blocks), weights.transpose(1, 2))
        return (weights * solved.transpose(1, 2)).sum((1, 2))

    def remove(self, index: int) -> None:
        """Let a class go, and all others make up for it."""
        gone = self.columns[index]
        block = self.inverse[gone][:, gone]
        factor = torch.linalg.solve(block + _tiny(block), self.inverse[gone])
        self.weight = self.weight - self.weight[:, gone] @ factor
        self.inverse = self.inverse - self.inverse[:, gone] @ factor
        self.weight[:, gone] = 0.0


def _tiny(blocks: Tensor) -> Tensor:
    """What keeps a block invertible after rounding."""
    diagonal = torch.diagonal(blocks, dim1=-2, dim2=-1)
    return torch.diag_embed(1e-9 * diagonal.abs().mean(-1, keepdim=True).clamp(min=1e-300).expand_as(diagonal))


def _obs(evidence: Evidence, group: Group) -> Ranking:
    """The optimal brain surgeon (Hassibi and Stork, NIPS 1992) on whole channels, of all weights that read them."""
    readers = [_reader(evidence, group, name) for name in group.readers if name in evidence.statistics.seen]
    left, order, harm = list(range(group.width)), [], [0.0]
    while left:
        harms = sum((reader.harms() for reader in readers), torch.zeros(group.width, dtype=torch.float64))
        best = min(left, key=lambda index: float(harms[index]))
        for reader in readers:
            reader.remove(best)
        left.remove(best)
        order.append(group.classes[best])
        harm.append(harm[-1] + max(float(harms[best]), 0.0) / evidence.statistics.outputs)
    return Ranking(tuple(order), np.array(harm))


def _reader(evidence: Evidence, group: Group, name: str) -> _Reader:
    node = _multiplying(evidence.network.model, name)
    matrix, axis, each = as_matrix(node, attributes_of(node), evidence.array(name))
    classes = evidence.network.axes[name, axis]
    repeats = matrix.shape[1] // (each * len(classes))
    classes = np.tile(classes, repeats)
    seen = evidence.statistics.seen[name]
    gram = seen.features.clone()
    ridge = RIDGE * float(torch.diagonal(gram)[:-1].mean())
    gram += ridge * torch.eye(len(gram), dtype=gram.dtype)
    columns = np.stack(
        [(each * np.flatnonzero(classes == one)[:, None] + np.arange(each)).ravel() for one in group.classes]
    )
    weight = torch.cat([torch.from_numpy(np.array(matrix)).double(), torch.zeros(len(matrix), 1).double()], 1)
    values, vectors = torch.linalg.eigh(seen.weight)
    root = values.clamp(min=0).sqrt()[:, None] * vectors.T
    return _Reader(weight, torch.linalg.inv(gram), root, torch.from_numpy(columns))


def _multiplying(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if len(node.input) > 1 and node.input[1] == name)


def _magnitudes(evidence: Evidence, group: Group, power: int) -> List[np.ndarray]:
    """Of each matrix that makes the group's channels, the sum of |w|^power over each channel's weights."""
    found = []
    for name, axis in group.makers:
        array = evidence.array(name)
        if array.ndim < 2 or array.shape[axis] == array.size:
            continue
        sums = np.moveaxis(np.abs(array.astype(np.float64)) ** power, axis, 0).reshape(array.shape[axis], -1).sum(1)
        classes = evidence.network.axes[name, axis]
        found.append(np.array([sums[classes == one].sum() for one in group.classes]))
    return found


def _by_score(group: Group, scores: np.ndarray, harm: Optional[np.ndarray] = None) -> Ranking:
    order = np.argsort(scores, kind="stable")
    each = scores[order] if harm is None else harm
    return Ranking(tuple(group.classes[index] for index in order), np.concatenate([[0.0], np.cumsum(each)]))


def _evenly(width: int) -> np.ndarray:
    """Harms by which all groups lose the same share of their channels."""
    return np.arange(1, width + 1) / width


def _l1(evidence: Evidence, group: Group) -> Ranking:
    """Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017: the sum of absolute weights; all layers alike."""
    scores = sum(_magnitudes(evidence, group, 1), np.zeros(group.width))
    return _by_score(group, scores, _evenly(group.width))


def _lamp(evidence: Evidence, group: Group) -> Ranking:
    """Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning", ICLR 2021, on channels: w² over the sum of
    all that are no smaller; scores of all layers are compared."""
    scores = np.zeros(group.width)
    for squared in _magnitudes(evidence, group, 2):
        order = np.argsort(squared, kind="stable")
        behind = np.cumsum(squared[order][::-1])[::-1]
        scores[order] += squared[order] / np.maximum(behind, 1e-300)
    return _by_score(group, scores)


def _random(evidence: Evidence, group: Group) -> Ranking:
    """Any; all layers alike."""
    place = [one.name for one in evidence.network.groups].index(group.name)
    scores = np.random.default_rng((evidence.seed, place)).random(group.width)
    return _by_score(group, scores, _evenly(group.width))


@dataclass(frozen=True)
class Method:
    """A way to choose channels.

    Attributes:
        rank: of one group.
        by_cost: whether harm is spent by the cost that it saves; else channel by channel, whatever they cost.
        predicts: whether harm is the error of the output.
    """

    rank: Rank
    by_cost: bool
    predicts: bool


#: By name, as --importance takes it.
METHODS: Dict[str, Method] = {
    "obs": Method(_obs, True, True),
    "l1": Method(_l1, False, False),
    "lamp": Method(_lamp, False, False),
    "random": Method(_random, False, False),
}


def rankings_of(evidence: Evidence, method: str) -> Mapping[str, Ranking]:
    """Group → ranking."""
    return {group.name: METHODS[method].rank(evidence, group) for group in evidence.network.groups}
