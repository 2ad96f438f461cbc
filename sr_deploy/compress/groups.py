"""Groups of channels that are like each other: what of a graph may become narrower, and the narrower graph."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Set, Tuple

import numpy as np
import onnx
import torch

from sr_deploy.compress.coupling import Coupling, Kept, coupling_of
from sr_deploy.compress.labels import FROZEN
from sr_deploy.compress.operators import RULES
from sr_deploy.graph.rewrite.editor import Editor


@dataclass(frozen=True)
class Group:
    """Channels any of which may go.

    Attributes:
        name: of the first node that makes them.
        classes: of Labels; each is one channel, or several that go together.
        readers: constants that are summed over, by name: the weights that read the channels.
        makers: (constant, axis) of those whose rows are the channels.
    """

    name: str
    classes: Tuple[int, ...]
    readers: Tuple[str, ...]
    makers: Tuple[Tuple[str, int], ...]

    @property
    def width(self) -> int:
        """How many there are."""
        return len(self.classes)


@dataclass(frozen=True)
class Network:
    """A graph, its channels and its groups.

    Attributes:
        model: float32; all constants are initializers, and biases are shared by no two weights.
        coupling: of its channels.
        groups: in the graph's order.
        axes: (constant, axis) → the class of each place along it, int64.
    """

    model: onnx.ModelProto
    coupling: Coupling
    groups: Tuple[Group, ...]
    axes: Mapping[Tuple[str, int], np.ndarray]

    @property
    def widths(self) -> Dict[str, int]:
        """Group → how many channels."""
        return {group.name: group.width for group in self.groups}


def network_of(model: onnx.ModelProto, picture: torch.Tensor) -> Network:
    """Find what may become narrower in a graph.

    Args:
        model: float32, "lr" (1, 3, H, W) to "sr".
        picture: (1, 3, H, W), any that the graph takes.

    Raises:
        UsageError: an operator that cannot be run here; see GraphModule.
    """
    plain = plain_graph(model)
    coupling = coupling_of(plain, RULES, picture)
    return _grouped(plain, coupling)


def without(network: Network, names: FrozenSet[str]) -> Network:
    """The same network, of which the channels of some groups stay."""
    groups = tuple(group for group in network.groups if group.name not in names)
    return Network(network.model, network.coupling, groups, network.axes)


def plain_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with its constants as initializers, and a copy of a vector for every weight that it belongs to."""
    editor = Editor(model)
    owners: Dict[str, str] = {}
    for node in editor.nodes:
        if node.op_type not in ("Conv", "ConvTranspose") or len(node.input) < 3:
            continue
        weight, bias = node.input[1], node.input[2]
        if bias in editor.constants and owners.setdefault(bias, weight) != weight:
            key = f"{bias} of {weight}"
            if key not in editor.constants:
                editor.constants[key] = editor.constants[bias].copy()
            node.input[2] = key
    return editor.finish()


def _grouped(model: onnx.ModelProto, coupling: Coupling) -> Network:
    axes: Dict[Tuple[str, int], np.ndarray] = {}
    touched: Dict[int, Counter] = {}
    reads: Dict[int, Set[str]] = {}
    makes: Dict[int, Dict[Tuple[str, int], None]] = {}
    for use in coupling.uses:
        place = (use.constant, use.axis)
        known = coupling.labels.find(use.labels)
        axes.setdefault(place, known)
        for one, count in zip(*np.unique(known, return_counts=True)):
            if one == FROZEN:
                continue
            touched.setdefault(int(one), Counter())[place] = int(count)
            if use.reads:
                reads.setdefault(int(one), set()).add(use.constant)
            else:
                makes.setdefault(int(one), {})[place] = None
    alike: Dict[Tuple, List[int]] = {}
    for one, places in touched.items():
        if one in makes:
            alike.setdefault(tuple(sorted(places.items())), []).append(one)
    made_by = _makers(model)
    groups = []
    for classes in alike.values():
        if len(classes) < 2:
            continue
        first = classes[0]
        makers = tuple(makes[first])
        matrices = [place for place in makers if place[0] in made_by]
        name = made_by[(matrices or [("", 0)])[0][0]] if matrices else makers[0][0]
        groups.append(Group(name, tuple(sorted(classes)), tuple(sorted(reads.get(first, ()))), makers))
    return Network(model, coupling, _named_apart(groups), axes)


def _makers(model: onnx.ModelProto) -> Dict[str, str]:
    """Weight → the first node that multiplies by it."""
    found: Dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and len(node.input) > 1:
            found.setdefault(node.input[1], node.name)
    return found


def _named_apart(groups: List[Group]) -> Tuple[Group, ...]:
    """Parts of one layer's output get numbers."""
    counts = Counter(group.name for group in groups)
    seen: Counter = Counter()
    named = []
    for group in groups:
        seen[group.name] += 1
        name = group.name if counts[group.name] == 1 else f"{group.name} ({seen[group.name]})"
        named.append(Group(name, group.classes, group.readers, group.makers))
    return tuple(named)


def narrowed(
    network: Network, gone: FrozenSet[int], weights: Optional[Mapping[str, np.ndarray]] = None
) -> onnx.ModelProto:
    """The graph without some channels: all constants cut, nodes changed where they say how many there are.

    Args:
        network: the whole.
        gone: classes.
        weights: constants of the whole that replace the graph's own before they are cut.
    """
    editor = Editor(network.model)
    editor.constants.update(weights or {})
    find, removed = network.coupling.labels.find, np.array(sorted(gone), np.int64)
    kept = Kept(
        mask=lambda labels: ~np.isin(find(labels), removed),
        store=lambda values: editor.add_constant("kept_channels", values),
    )
    for (name, axis), classes in network.axes.items():
        editor.constants[name] = np.compress(~np.isin(classes, removed), editor.constants[name], axis)
    for node in editor.nodes:
        for edit in network.coupling.edits.get(node.output[0], ()):
            edit(node, kept)
    model = editor.finish()
    del model.graph.value_info[:]
    return model


def zeroed(network: Network, gone: FrozenSet[int]) -> Dict[str, np.ndarray]:
    """The weights that read some channels, with zeros where they do: what ``narrowed`` must be equal to."""
    removed = np.array(sorted(gone), np.int64)
    arrays: Dict[str, np.ndarray] = {}
    initial = {tensor.name: tensor for tensor in network.model.graph.initializer}
    for use in network.coupling.uses:
        classes = network.axes[use.constant, use.axis]
        if not use.reads or not np.isin(classes, removed).any():
            continue
        if use.constant not in arrays:
            arrays[use.constant] = onnx.numpy_helper.to_array(initial[use.constant]).copy()
        index: List[Any] = [slice(None)] * arrays[use.constant].ndim
        index[use.axis] = np.isin(classes, removed)
        arrays[use.constant][tuple(index)] = 0.0
    return arrays
