"""The channels of a graph: one run, node by node, that finds which constants hold which channel along which axis."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, Optional, Sequence, Set, Tuple

import numpy as np
import onnx
import torch

from sr_deploy.compress.labels import FROZEN, Labels
from sr_deploy.graph.rewrite.editor import attributes_of
from sr_deploy.precision.interpreter import GraphModule

#: What changes a node's attributes and constants when channels go: given the copy of the node, what tells how many of
#: some labels stay, and what stores a constant and gives its name.
Edit = Callable[[onnx.NodeProto, "Kept"], None]


@dataclass(frozen=True)
class Track:
    """The channels of a tensor.

    Attributes:
        axis: that they lie along.
        labels: of each, (C,).
    """

    axis: int
    labels: np.ndarray


@dataclass(frozen=True)
class Kept:
    """Which channels stay, as an edit asks for it.

    Attributes:
        mask: labels → whether each stays, bool.
        store: of an array, the name of a new constant of the graph.
    """

    mask: Callable[[np.ndarray], np.ndarray]
    store: Callable[[np.ndarray], str]

    def count(self, labels: np.ndarray) -> int:
        """How many of these stay."""
        return int(self.mask(labels).sum())


@dataclass(frozen=True)
class Use:
    """A node that reads a constant whose axis holds channels.

    Attributes:
        node: name of its first output, which names it.
        constant: name.
        axis: of the constant.
        labels: (length of the axis,).
        reads: whether the node sums over this axis, so that a channel that goes leaves the others as they are.
    """

    node: str
    constant: str
    axis: int
    labels: np.ndarray
    reads: bool


@dataclass
class Coupling:
    """What the run found.

    Attributes:
        model: the graph.
        labels: the classes.
        uses: of constants.
        edits: name of a node's first output → how the node changes.
        stopped: what operators tie channels that must stay, as "operator (first node)".
        tracks: tensor → its channels; None where nothing of it may go.
        shapes: tensor → shape at the size of the run.
    """

    model: onnx.ModelProto
    labels: Labels
    uses: List[Use] = field(default_factory=list)
    edits: Dict[str, List[Edit]] = field(default_factory=dict)
    stopped: Dict[str, str] = field(default_factory=dict)
    tracks: Dict[str, Optional[Track]] = field(default_factory=dict)
    shapes: Dict[str, Tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Spot:
    """A node as the run comes to it: what a rule sees.

    Attributes:
        node: it.
        attributes: plain values.
        inputs: tensors; None where one is left out.
        outputs: tensors.
        tracks: of the inputs; None where nothing of one may go.
        constants: names of the graph's floating constants.
        fixed: names of all its constants.
        coupling: what is being found.
    """

    node: onnx.NodeProto
    attributes: Mapping[str, Any]
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    tracks: Sequence[Optional[Track]]
    constants: FrozenSet[str]
    fixed: FrozenSet[str]
    coupling: Coupling

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.coupling.labels

    def is_constant(self, index: int) -> bool:
        """Whether an input is a floating constant of the graph."""
        return index < len(self.node.input) and self.node.input[index] in self.constants

    def is_fixed(self, index: int) -> bool:
        """Whether an input is a constant of the graph, of any type."""
        return index < len(self.node.input) and self.node.input[index] in self.fixed

    def cut(self, index: int, axis: int, labels: Optional[np.ndarray], reads: bool = False) -> None:
        """Say what channels the constant at an input holds along ``axis``; None: such as must stay."""
        if labels is None:
            labels = np.full(self.inputs[index].shape[axis], FROZEN)
        name = self.node.input[index]
        for known in self.coupling.uses:
            if (known.constant, known.axis) == (name, axis):
                self.labels.unite(known.labels, labels)
                break
        self.coupling.uses.append(Use(self.node.output[0], name, axis, labels, reads))

    def edit(self, change: Edit) -> None:
        """Say how the node changes when channels go."""
        self.coupling.edits.setdefault(self.node.output[0], []).append(change)

    def stop(self) -> List[Optional[Track]]:
        """Nothing that the node reads may go; gives its results, of which nothing may go either."""
        held = [track for track in self.tracks if track is not None]
        for track in held:
            self.labels.freeze(track.labels)
        if held:
            self.coupling.stopped.setdefault(self.node.op_type, self.node.name)
        return [None] * len(self.node.output)


#: Of a node, what its results hold.
Rule = Callable[[Spot], List[Optional[Track]]]


def coupling_of(model: onnx.ModelProto, rules: Mapping[str, Rule], picture: torch.Tensor) -> Coupling:
    """Find the channels of a graph.

    Args:
        model: float32, its constants initializers.
        rules: operator → rule. An operator without one ties what touches it.
        picture: (1, 3, H, W), any that the graph takes.

    Raises:
        UsageError: an operator that cannot be run here.
    """
    module = GraphModule(model)
    module.requires_grad_(False)
    found = Coupling(model, Labels())
    tracks = found.tracks
    constants, fixed = frozenset(module.constants), frozenset(tensor.name for tensor in model.graph.initializer)
    for node, inputs, result in module.walk(picture):
        outputs = result if isinstance(result, tuple) else (result,)
        held = [tracks.get(name) for name in node.input]
        spot = Spot(node, attributes_of(node), inputs, outputs, held, constants, fixed, found)
        rule = rules.get(node.op_type)
        known = spot.stop() if rule is None else rule(spot)
        tracks.update(zip(node.output, known))
        found.shapes.update((name, tuple(value.shape)) for name, value in zip(node.output, outputs))
        found.shapes.update(
            (name, tuple(value.shape)) for name, value in zip(node.input, inputs) if name and name not in found.shapes
        )
    last = tracks.get(model.graph.output[0].name)
    if last is not None:
        found.labels.freeze(last.labels)
    _freeze_other_uses(found)
    return found


def _freeze_other_uses(found: Coupling) -> None:
    """A constant that some node reads as a whole stays whole."""
    known: Dict[str, Set[str]] = {}
    for use in found.uses:
        known.setdefault(use.constant, set()).add(use.node)
    whole = {
        name
        for node in found.model.graph.node
        for name in node.input
        if name in known and node.output[0] not in known[name]
    }
    for use in found.uses:
        if use.constant in whole:
            found.labels.freeze(use.labels)
