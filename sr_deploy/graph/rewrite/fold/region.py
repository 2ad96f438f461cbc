"""A part of a graph between two of its tensors, and the same as a torch module."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.graph.operators import FUNCTIONS
from sr_deploy.graph.rewrite.editor import Editor, attributes_of, is_pinned
from sr_deploy.graph.rewrite.fold.structure import Structure

#: Operators that weigh values: what several of them do, one convolution may do.
LAYERS = frozenset({"Conv", "ConvTranspose", "MatMul", "BatchNormalization", "AveragePool"})
#: Operators that tracing writes no size of the picture or the batch into.
_FREE = frozenset({"Add", "Sub", "Sum", "Mul", "Div", "Neg", "Identity", "Pad", "Concat", "Slice", "Split"}) | LAYERS
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Region:
    """The nodes on all ways from one tensor to another.

    Attributes:
        entry, exit: the tensors.
        nodes: what computes the exit from the entry in the graph's order, size arithmetic and weights included.
        ways: those of the nodes that lie on a way from the entry to the exit.
        sizes: tensor outside whose shape is read → channels, and rows and columns more than the entry has.
    """

    entry: str
    exit: str
    nodes: Tuple[onnx.NodeProto, ...]
    ways: Tuple[onnx.NodeProto, ...]
    sizes: Mapping[str, Tuple[int, int, int]]

    @property
    def layers(self) -> int:
        """How many nodes on the ways weigh values."""
        return sum(node.op_type in LAYERS for node in self.ways)

    @property
    def free(self) -> bool:
        """Whether no node can hold a size or a batch that tracing wrote into it."""
        return all(node.op_type in _FREE for node in self.nodes)

    def branches(self, follows: Set[str]) -> bool:
        """Whether ways part and meet again, at a node that reads two tensors which follow from the picture."""
        return any(len(follows.intersection(node.input)) > 1 for node in self.ways)

    def costs_more(self, constants: Mapping[str, np.ndarray]) -> bool:
        """Whether it is plain without a probe that one convolution multiplies more: a cheap look, not the decision.

        In a row of convolutions none of whose weights is zero, one of a single group joins all channels, and each makes
        the kernel larger.
        """
        rows, columns, macs, joins = 1, 1, 0, False
        for node in self.ways:
            if node.op_type != "Conv" or node.input[1] not in constants:
                return False
            weight, attributes = constants[node.input[1]], attributes_of(node)
            if weight.ndim != 4 or not weight.all():
                return False
            dilations = attributes.get("dilations", (1, 1))
            rows += dilations[0] * (weight.shape[2] - 1)
            columns += dilations[1] * (weight.shape[3] - 1)
            macs += weight.size
            joins = joins or attributes.get("group", 1) == 1
        first, last = constants[self.ways[0].input[1]], constants[self.ways[-1].input[1]]
        inputs = first.shape[1] * attributes_of(self.ways[0]).get("group", 1)
        return joins and rows * columns * inputs * last.shape[0] > macs

    def description(self) -> str:
        """For example "3 Conv, 2 Add", the most frequent first."""
        counts = Counter(node.op_type for node in self.ways)
        return ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in counts.most_common())


def region_between(
    editor: Editor,
    structure: Structure,
    ends: Tuple[str, str],
    new: Sequence[onnx.NodeProto] = (),
    gone: Sequence[onnx.NodeProto] = (),
) -> Optional[Region]:
    """The region between two tensors, of which the first is a dominator of the second.

    None where something outside reads what is computed inside (it would have to be computed all the same), where a
    node is pinned to float32 or not known, where numbers are of another type than float32, or where a size is read
    that does not follow from the entry's.

    Args:
        editor, structure: the graph.
        ends: entry and exit.
        new, gone: nodes to take as if they were in the graph (sums of what follows from the picture), and as if not.
    """
    search = _Search(editor, structure, ends[0], new)
    if not search.reach(ends[1]):
        return None
    found = search.found
    left = {id(node) for node in gone}
    made = {name for node in found.values() for name in node.output} & (search.inside | search.derived)
    for name in made - {ends[1]}:
        if name == editor.output or not all(id(one) in found or id(one) in left for one in editor.readers(name)):
            return None
    nodes = [node for node in editor.nodes if id(node) in found] + [node for node in new if id(node) in found]
    if any(is_pinned(node) or node.op_type not in FUNCTIONS for node in nodes):
        return None
    weights = [editor.constants[name] for node in nodes for name in node.input if name in editor.constants]
    if any(value.dtype.kind == "f" and value.dtype != np.float32 for value in weights):
        return None
    return Region(*ends, tuple(nodes), tuple(node for node in nodes if id(node) in search.on_way), search.sizes)


class _Search:
    """Backwards from the exit to the entry, to constants, and to sizes.

    Attributes:
        found: the nodes of the region, by id.
        on_way: ids of those on a way from entry to exit.
        inside: tensors whose values follow from the entry, the entry included.
        derived: what is computed from the sizes of such tensors.
        sizes: see Region.
    """

    def __init__(self, editor: Editor, structure: Structure, entry: str, new: Sequence[onnx.NodeProto]) -> None:
        self._editor, self._structure, self._entry = editor, structure, entry
        self._new = {name: node for node in new for name in node.output}
        self.found: Dict[int, onnx.NodeProto] = {}
        self.on_way: Set[int] = set()
        self.inside = {entry}
        self.derived: Set[str] = set()
        self.sizes: Dict[str, Tuple[int, int, int]] = {}
        self._known: Set[str] = set()

    def _maker(self, name: str) -> Optional[onnx.NodeProto]:
        return self._new.get(name) or self._editor.maker(name)

    def reach(self, exit: str) -> bool:
        """Collect what ``exit`` needs; whether all of it follows from the entry, constants and sizes."""
        wanted: List[str] = [exit]
        others: List[str] = []
        while wanted:
            name = wanted.pop()
            if name in self.inside:
                continue
            self.inside.add(name)
            node = self._maker(name)
            if node is None:
                return False
            self.found[id(node)] = node
            self.on_way.add(id(node))
            self.inside.update(node.output)
            for source in node.input:
                follows = source in self._structure.follows or source in self._new
                (wanted if follows else others).append(source)
        return all(self._collect(name) for name in others)

    def _collect(self, name: str) -> bool:
        """Add what makes a tensor that does not follow from the picture: weights and sizes."""
        if not name or name in self._known or name in self._editor.constants:
            return True
        self._known.add(name)
        node = self._maker(name)
        if node is None:
            return False
        self.found[id(node)] = node
        if node.op_type in ("Shape", "Size"):
            return self._collect_size(node)
        if not all(self._collect(source) for source in node.input):
            return False
        if any(source in self.derived for source in node.input):
            self.derived.update(node.output)
        return True

    def _collect_size(self, node: onnx.NodeProto) -> bool:
        """Add what makes the tensor whose shape is read, or note its shape where it lies outside."""
        source = node.input[0]
        if source not in self._structure.follows:
            return self._collect(source)
        if self._within(source):
            self.derived.update(node.output)
            return True
        larger = self._structure.larger(source, self._entry)
        if larger is None or node.op_type == "Size":
            return False
        self.sizes[source] = larger
        return True

    def _within(self, name: str) -> bool:
        """Whether a tensor is computed from the entry alone; adds what computes it."""
        if name in self.inside:
            return True
        node = self._maker(name)
        if node is None or name == self._editor.input:
            return False
        follows = self._structure.follows
        before = (dict(self.found), set(self.inside), set(self._known), set(self.derived))
        if all(self._within(source) if source in follows else self._collect(source) for source in node.input):
            self.found[id(node)] = node
            self.inside.update(node.output)
            return True
        self.found, self.inside, self._known, self.derived = before
        return False


class RegionModule(torch.nn.Module):
    """A region as a function of its entry: (N, C, H, W) to (N, C_out, H', W').

    Args:
        region: the nodes.
        constants: tensor name → array.
        dtype: the type of all floating-point numbers in it.
    """

    def __init__(self, region: Region, constants: Mapping[str, np.ndarray], dtype: torch.dtype) -> None:
        super().__init__()
        self.region, self.dtype = region, dtype
        self._batches = region.free
        self._attributes = [self._plain(node) for node in region.nodes]
        self._own = _follow_size_alone(region)
        #: What was computed from the shape of an entry: by the shape.
        self._sized: Dict[Tuple[int, ...], Dict[str, torch.Tensor]] = {}
        read = {name for node in region.nodes for name in node.input}
        self._constants: Dict[str, torch.Tensor] = {}
        for number, name in enumerate(sorted(read.intersection(constants))):
            value = torch.from_numpy(np.array(constants[name]))
            if value.is_floating_point():
                value = value.to(dtype)
                self.register_buffer(f"constant{number}", value)
            self._constants[name] = value

    def _plain(self, node: onnx.NodeProto) -> Dict[str, Any]:
        """The attributes of a node as the functions of operators.py take them."""
        found: Dict[str, Any] = {}
        for attribute in node.attribute:
            value = helper.get_attribute_value(attribute)
            if isinstance(value, bytes):
                value = value.decode()
            elif isinstance(value, TensorProto):
                value = torch.from_numpy(np.array(numpy_helper.to_array(value)))
                value = value.to(self.dtype) if value.is_floating_point() else value
            found[attribute.name] = value
        if node.op_type == "Split":
            found["outputs"] = len(node.output)
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The exit for the entry ``x``; pictures of a batch one by one where the graph may fix the batch to one."""
        if self._batches or x.shape[0] == 1:
            return self._run(x)
        return torch.cat([self._run(one) for one in x.split(1)])

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        values: Dict[str, Any] = {**self._constants, self.region.entry: x, **self._sized.get(tuple(x.shape), {})}
        fresh: Dict[str, torch.Tensor] = {}
        for node, attributes, own in zip(self.region.nodes, self._attributes, self._own):
            if node.output[0] in values:
                continue
            result = self._result(node, attributes, values, x)
            made = dict(zip(node.output, result if isinstance(result, tuple) else (result,)))
            values.update(made)
            if own:
                fresh.update(made)
        if fresh:
            self._sized[tuple(x.shape)] = fresh
        return values[self.region.exit]

    def _result(self, node: onnx.NodeProto, attributes: Dict[str, Any], values: Dict[str, Any], x: torch.Tensor) -> Any:
        if node.op_type == "Shape" and node.input[0] not in values:
            channels, rows, columns = self.region.sizes[node.input[0]]
            shape = [x.shape[0], channels, x.shape[2] + rows, x.shape[3] + columns]
            return torch.tensor(shape[attributes.get("start", 0) : attributes.get("end")])
        inputs: List[Any] = [values[name] if name else None for name in node.input]
        if node.op_type == "Cast" and attributes["to"] in _FLOATS:
            return inputs[0].to(self.dtype)
        return FUNCTIONS[node.op_type](attributes, *inputs)


def _follow_size_alone(region: Region) -> List[bool]:
    """For each node of a region whether its values follow from the size of the entry, or from nothing."""
    follows = {region.entry}
    alone = []
    for node in region.nodes:
        alone.append(node.op_type in ("Shape", "Size") or not follows.intersection(node.input))
        if not alone[-1]:
            follows.update(node.output)
    return alone
