"""Which tensors of a graph are kept whole, and which are made strip by strip on the way from one such to the next.

A tensor is kept whole where a global node reads or makes it, where the halo of what leads to it has grown too wide to
be computed twice, and where two regions need it and making it again costs more than a little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, List, Mapping, Sequence, Set, Tuple

import numpy as np
import onnx
from onnx import numpy_helper

from sr_deploy.graph.census import node_macs
from sr_deploy.graph.rewrite.rows import Constants, Local, Shape, local_rule

#: Rows of the input picture that a strip may compute beyond its own on each side.
HALO_LIMIT = 5.0
#: A tensor is made again, not kept, when that costs at most this share of the graph's multiply-accumulates …
CHEAP_SHARE = 0.02
#: … and needs at most this many rows of halo.
CHEAP_HALO = 1.0


@dataclass(frozen=True)
class Plan:
    """A graph taken apart.

    Attributes:
        nodes: all of them, in topological order.
        shapes, constants: of tensors.
        rules: output name → how a local node treats rows.
        whole: tensors that are kept whole.
        bytes: size of each tensor.
    """

    nodes: Tuple[onnx.NodeProto, ...]
    shapes: Mapping[str, Shape]
    constants: Constants
    rules: Mapping[str, Local]
    whole: Set[str]
    bytes: Mapping[str, int]

    def region_of(self, tensor: str) -> List[onnx.NodeProto]:
        """The local nodes between tensors kept whole and ``tensor``, in topological order; ``tensor``'s own is last."""
        return _region(self.nodes, self.rules, self.whole, tensor)

    def working_bytes(self, region: Sequence[onnx.NodeProto]) -> int:
        """The most that is alive at once inside a region that is run unstreamed, its last output not counted."""
        last_use = {name: index for index, node in enumerate(region) for name in node.input}
        made = {node.output[0] for node in region[:-1]}
        alive: Set[str] = set()
        peak = 0
        for index, node in enumerate(region):
            alive.update(set(node.output) & made)
            peak = max(peak, sum(self.bytes[name] for name in alive))
            alive = {name for name in alive if last_use[name] > index}
        return peak


def plan_of(model: onnx.ModelProto) -> Plan:
    """Take a static graph apart. Tensors whose shape is not known make their nodes global."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                constants[node.output[0]] = numpy_helper.to_array(attribute.t)
    shapes: Dict[str, Shape] = {name: value.shape for name, value in constants.items()}
    sizes: Dict[str, int] = {}
    for value in [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]:
        tensor = value.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
        if -1 not in dims:
            shapes[value.name] = tuple(dims)
            item = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).itemsize
            sizes[value.name] = math.prod(dims) * item
    nodes = tuple(node for node in model.graph.node if node.op_type != "Constant")
    rules = {}
    for node in nodes:
        rule = local_rule(node, shapes, constants)
        if rule is not None and all(name in sizes for name in node.output):
            rules[node.output[0]] = rule
    whole = _forced(model, nodes, rules, constants)
    macs = {node.output[0]: node_macs(node, shapes) for node in nodes if node.output[0] in rules}
    picture = shapes[model.graph.input[0].name][2]
    last_use = {name: index for index, node in enumerate(nodes) for name in node.input}
    last_use.update({value.name: len(nodes) for value in [*model.graph.input, *model.graph.output]})
    choice = _Choice(nodes, shapes, rules, whole, sizes, macs, picture, last_use)
    choice.limit_halos()
    choice.keep_shared()
    return Plan(nodes, shapes, constants, rules, whole, sizes)


def _forced(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    rules: Mapping[str, Local],
    constants: Constants,
) -> Set[str]:
    """What is whole in any case: the ends of the graph, what global nodes read and make, what is read whole."""
    whole = {value.name for value in [*model.graph.input, *model.graph.output]}
    for node in nodes:
        rule = rules.get(node.output[0])
        read = [name for index, name in enumerate(node.input) if rule is None or index not in rule.streamed]
        whole.update(name for name in read if name and name not in constants)
        if rule is None:
            whole.update(node.output)
    return whole


def _region(
    nodes: Sequence[onnx.NodeProto], rules: Mapping[str, Local], whole: Set[str], tensor: str
) -> List[onnx.NodeProto]:
    wanted = {tensor}
    found = []
    for node in reversed(nodes):
        out = node.output[0]
        if out in wanted and out in rules:
            found.append(node)
            wanted.update(node.input[i] for i in rules[out].streamed if node.input[i] not in whole)
    return found[::-1]


@dataclass
class _Choice:
    """The choice under way; ``whole`` grows."""

    nodes: Sequence[onnx.NodeProto]
    shapes: Mapping[str, Shape]
    rules: Mapping[str, Local]
    whole: Set[str]
    bytes: Mapping[str, int]
    macs: Mapping[str, int]
    picture: int
    last_use: Mapping[str, int]

    def halos(self) -> Dict[str, float]:
        """Tensor → rows of the picture that one of its rows needs beyond its own, back to tensors kept whole."""
        reach: Dict[str, Tuple[float, float]] = {}
        for node in self.nodes:
            out = node.output[0]
            if out not in self.rules:
                continue
            rule = self.rules[out]
            inner = [(0.0, 0.0) if node.input[i] in self.whole else reach[node.input[i]] for i in rule.streamed]
            rows = self.picture / self.shapes[node.input[rule.streamed[0]]][2]
            above, below = (rows * value for value in rule.reach())
            reach[out] = (max(up for up, _ in inner) + above, max(down for _, down in inner) + below)
        return {name: max(pair) for name, pair in reach.items()}

    def is_cheap(self, tensor: str, halo: Mapping[str, float]) -> bool:
        """Whether a tensor is better made again than kept: little work, and what it is made from is no larger.

        What is alive until its last use anyway costs nothing.
        """
        if halo.get(tensor, 0.0) > CHEAP_HALO:
            return False
        region = _region(self.nodes, self.rules, self.whole, tensor)
        made = {node.output[0] for node in region}
        sources = {name for node in region for name in node.input if name in self.bytes} - made
        held = sum(self.bytes[name] for name in sources if self.last_use[name] < self.last_use[tensor])
        cost = sum(self.macs[name] for name in made)
        return held <= self.bytes[tensor] and cost <= CHEAP_SHARE * sum(self.macs.values())

    def limit_halos(self) -> None:
        """Keep tensors whole where a halo would pass HALO_LIMIT: all that is alive at the place where that is least."""
        start = 0
        while True:
            halo = self.halos()
            late = [
                index
                for index, node in enumerate(self.nodes)
                if index > start and halo.get(node.output[0], 0.0) > HALO_LIMIT
            ]
            if not late:
                return
            end = late[0]
            place, frontier = self._best_cut(start, end, halo)
            self.whole.update(frontier or {name for name in self.nodes[end].input if name in self.rules})
            start = place if frontier else end

    def _best_cut(self, start: int, end: int, halo: Mapping[str, float]) -> Tuple[int, Set[str]]:
        """The place after ``start`` and up to ``end`` where the least has to be kept, the last of equals."""
        best: Tuple[int, int, Set[str]] = (-1, end, set())
        for place in range(end, start, -1):
            made = {node.output[0] for node in self.nodes[:place] if node.output[0] in self.rules}
            used = {name for node in self.nodes[place:] for name in node.input}
            alive = {name for name in made & used if name in self.whole or not self.is_cheap(name, halo)}
            frontier = alive - self.whole
            size = sum(self.bytes[name] for name in alive)
            if frontier and (best[0] < 0 or size < best[0]):
                best = (size, place, frontier)
        return best[1], best[2]

    def keep_shared(self) -> None:
        """Keep what several regions would make again at more than little cost."""
        changed = True
        while changed:
            changed = False
            halo = self.halos()
            uses: Dict[str, int] = {}
            for tensor in [node.output[0] for node in self.nodes if node.output[0] in self.rules]:
                if tensor in self.whole:
                    for node in _region(self.nodes, self.rules, self.whole, tensor)[:-1]:
                        uses[node.output[0]] = uses.get(node.output[0], 0) + 1
            for node in self.nodes:
                name = node.output[0]
                if uses.get(name, 0) > 1 and name not in self.whole and not self.is_cheap(name, halo):
                    self.whole.add(name)
                    changed = True
                    break
