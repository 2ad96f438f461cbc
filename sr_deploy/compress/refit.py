"""Weights that make up for the channels that went: every convolution in turn, by least squares on its real inputs.

The whole graph and the narrower one run side by side. What a convolution of the narrower one should give is what the
whole one has there, and what the skip that is added to it is short of. Everything after it sees its new weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor

from sr_deploy.compress.groups import Network
from sr_deploy.compress.places import some_places, taps_at, values_at
from sr_deploy.graph.operators import FUNCTIONS
from sr_deploy.precision.interpreter import GraphModule, Walk

#: Ridge towards the weights as they are, as a share of the features' mean square.
RIDGE = 1e-5
#: Rounds over a graph that uses weights several times: the second sees what later uses read of the first's weights.
ROUNDS = 2
#: Places of a layer that are looked at in one batch, at most.
PLACES = 16384


@dataclass
class _Normal:
    """Normal equations of a weight: sums of x xᵀ and x yᵀ over places, x with a 1 at the end.

    Attributes:
        left: (groups, F + 1, F + 1).
        right: (groups, F + 1, outputs of a group).
    """

    left: Tensor
    right: Tensor


@dataclass(frozen=True)
class _Skip:
    """What is added to a convolution's result.

    Attributes:
        other: the tensor.
        gain: what the result is multiplied by before.
    """

    other: str
    gain: float


def refitted(
    network: Network, narrow: onnx.ModelProto, gone: FrozenSet[int], squares: Tensor, batch: int
) -> Dict[str, np.ndarray]:
    """New weights and biases of the narrower graph.

    Args:
        network: the whole.
        narrow: of ``narrowed``.
        gone: the classes that it lacks.
        squares: (N, 3, side, side), in the units of the graph.
        batch: squares at once.

    Returns:
        Constant → float32 array.
    """
    teacher, student = GraphModule(network.model), GraphModule(narrow)
    fit = _Fit(network, student, gone)
    parts = [squares[start : start + batch] for start in range(0, len(squares), batch)]
    with torch.no_grad():
        if fit.shared:
            fit.foresee(teacher, parts)
        for _ in range(ROUNDS if fit.shared else 1):
            fit.round(teacher, parts)
    return {name: student.constants[name].detach().numpy().copy() for name in fit.fitted}


class _Fit:
    """The narrower graph while its weights are found."""

    def __init__(self, network: Network, student: GraphModule, gone: FrozenSet[int]) -> None:
        self.student, self.network = student, network
        self.removed = np.array(sorted(gone), np.int64)
        self.attributes = {step.node.output[0]: step.attributes for step in student.steps}
        users: Dict[str, List[str]] = {}
        for step in student.steps:
            node = step.node
            if node.op_type == "Conv" and step.follows_picture and node.input[1] in student.constants:
                users.setdefault(node.input[1], []).append(node.output[0])
        self.users = users
        self.shared = {name for name, nodes in users.items() if len(nodes) > 1}
        self.skips = _skips([step.node for step in student.steps], student)
        self.fitted: Dict[str, None] = {}
        #: Node → its normal equations as they were met last.
        self.normals: Dict[str, _Normal] = {}

    def foresee(self, teacher: GraphModule, parts: Sequence[Tensor]) -> None:
        """The equations of weights that several nodes use, by what the whole graph has: the first use needs all."""
        walks = [teacher.walk(part) for part in parts]
        for met in zip(*walks):
            node = met[0][0]
            if node.op_type == "Conv" and node.input[1] in self.shared:
                reads = [self._left(node.input[0], inputs[0]) for _, inputs, _ in met]
                wanted = [self._left(node.output[0], result) for _, _, result in met]
                self.normals[node.output[0]] = self._normal(node, reads, wanted)

    def round(self, teacher: GraphModule, parts: Sequence[Tensor]) -> None:
        """Fit every convolution once, in order, on all squares together."""
        taught, learnt = [teacher.walk(part) for part in parts], [self.student.walk(part) for part in parts]
        off: Dict[str, List[Tensor]] = {}
        met = [next(walk) for walk in learnt]
        while True:
            node = met[0][0]
            expected = [self._left(node.output[0], result) for result in _results(taught, node)]
            results = [result for _, _, result in met]
            if node.op_type == "Conv" and node.input[1] in self.users:
                reads = [inputs[0] for _, inputs, _ in met]
                results = self._fitted(node, reads, self._wanted(node.output[0], expected, off))
            if any(skip.other in node.output for skip in self.skips.values()):
                off[node.output[0]] = [one - other for one, other in zip(expected, results)]
            try:
                met = [walk.send(result) for walk, result in zip(learnt, results)]
            except StopIteration:
                return

    def _wanted(self, name: str, expected: List[Tensor], off: Mapping[str, List[Tensor]]) -> List[Tensor]:
        skip = self.skips.get(name)
        if skip is None or skip.other not in off:
            return expected
        return [one + short / skip.gain for one, short in zip(expected, off[skip.other])]

    def _fitted(self, node: onnx.NodeProto, reads: List[Tensor], wanted: List[Tensor]) -> List[Tensor]:
        """What the node gives with the weights that fit best."""
        self.normals[node.output[0]] = self._normal(node, reads, wanted)
        known = [self.normals[name] for name in self.users[node.input[1]] if name in self.normals]
        constants = self.student.constants
        weight, bias = constants[node.input[1]], constants.get(node.input[2]) if len(node.input) > 2 else None
        group = self.attributes[node.output[0]].get("group", 1)
        rows = torch.cat([weight.flatten(1), (torch.zeros(len(weight)) if bias is None else bias)[:, None]], 1)
        before = rows.reshape(group, -1, rows.shape[1]).transpose(1, 2).double()
        solved = _solved(known, before, bias is not None)
        rows = solved.transpose(1, 2).reshape(rows.shape).float()
        weight.copy_(rows[:, :-1].reshape(weight.shape))
        self.fitted[node.input[1]] = None
        if bias is not None:
            bias.copy_(rows[:, -1])
            self.fitted[node.input[2]] = None
        return [FUNCTIONS["Conv"](self.attributes[node.output[0]], read, weight, bias) for read in reads]

    def _normal(self, node: onnx.NodeProto, reads: List[Tensor], wanted: List[Tensor]) -> _Normal:
        attributes = self.attributes[node.output[0]]
        group, kernel = attributes.get("group", 1), self.student.constants[node.input[1]].shape[2:]
        left: Any = 0.0
        right: Any = 0.0
        for index, (read, want) in enumerate(zip(reads, wanted)):
            places = some_places(want.shape, PLACES, index)
            x = taps_at(attributes, read, kernel, places)
            x = x.reshape(group, -1, x.shape[-1])
            x = torch.cat([x, torch.ones(group, 1, x.shape[-1])], 1)
            y = values_at(want, places).reshape(group, -1, x.shape[-1])
            left = left + (x @ x.transpose(1, 2)).double()
            right = right + (x @ y.transpose(1, 2)).double()
        return _Normal(left, right)

    def _left(self, name: str, tensor: Any) -> Any:
        """A tensor of the whole graph, without the channels that went."""
        track = self.network.coupling.tracks.get(name)
        if track is None or not isinstance(tensor, Tensor):
            return tensor
        stays = ~np.isin(self.network.coupling.labels.find(track.labels), self.removed)
        return tensor if stays.all() else tensor.index_select(track.axis, torch.from_numpy(np.flatnonzero(stays)))


def _results(walks: List[Walk], node: onnx.NodeProto) -> List[Any]:
    """What the whole graph has at the node: nodes that the narrower one lost are passed over."""
    found = []
    for walk in walks:
        for met, _, result in walk:
            if met.output[0] == node.output[0]:
                found.append(result)
                break
    return found


def _solved(known: List[_Normal], before: Tensor, biased: bool) -> Tensor:
    """The weights of all equations together, near those before where they do not tell, (groups, F + 1, outputs)."""
    left, right = sum(one.left for one in known), sum(one.right for one in known)
    assert isinstance(left, Tensor) and isinstance(right, Tensor)
    features = left.shape[-1] - 1
    ridge = RIDGE * torch.diagonal(left, dim1=1, dim2=2)[:, :features].mean(1).clamp(min=1e-30)
    pull = ridge[:, None] * torch.cat([torch.ones(features), torch.full((1,), 1e-6)]).double()
    if not biased:
        left[:, -1, :] = left[:, :, -1] = 0.0
        right[:, -1, :] = 0.0
        pull[:, -1] = 1.0
    return torch.linalg.solve(left + torch.diag_embed(pull), right + pull[..., None] * before)


def _skips(nodes: Sequence[onnx.NodeProto], student: GraphModule) -> Dict[str, _Skip]:
    """Result of a convolution that only an Add reads, multiplied by a number or not → what it is added to."""
    readers: Dict[str, List[onnx.NodeProto]] = {}
    order: Dict[str, int] = {}
    for index, node in enumerate(nodes):
        order.update((name, index) for name in node.output)
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: Dict[str, _Skip] = {}
    for node in nodes:
        name, gain = node.output[0], 1.0
        if node.op_type != "Conv" or len(readers.get(name, ())) != 1:
            continue
        after = readers[name][0]
        factor: Optional[Tensor] = next(
            (student.constants[one] for one in after.input if one in student.constants), None
        )
        if (
            after.op_type == "Mul"
            and factor is not None
            and factor.numel() == 1
            and len(readers.get(after.output[0], ())) == 1
        ):
            name, gain = after.output[0], float(factor)
            after = readers[name][0]
        others = [one for one in after.input if one != name]
        if (
            after.op_type == "Add"
            and len(others) == 1
            and order.get(others[0], len(nodes)) < order[node.output[0]]
            and gain
        ):
            found[node.output[0]] = _Skip(others[0], gain)
    return found
