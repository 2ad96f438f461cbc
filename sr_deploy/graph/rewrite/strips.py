"""Writing one tensor's computation as row strips that are joined at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Sequence, Tuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sr_deploy.core.contract import round_up
from sr_deploy.graph.rewrite.rows import Local, Rows, Shape, row_bounds


@dataclass
class Writer:
    """The graph being written.

    Attributes:
        shapes: of every tensor of the original graph.
        rules: output name → how its node treats rows, for local nodes.
        constants: values of the original graph's constants.
        nodes: written so far, in order.
        initializers: new constants by name.
        pieces: (tensor, rows) → the tensor that holds just these rows.
        strips: tensor → the strips it exists in, from top to bottom, while nothing has needed it whole.
    """

    shapes: Mapping[str, Shape]
    rules: Mapping[str, Local]
    constants: Mapping[str, np.ndarray]
    nodes: List[onnx.NodeProto] = field(default_factory=list)
    initializers: Dict[str, onnx.TensorProto] = field(default_factory=dict)
    pieces: Dict[Tuple[str, Rows], str] = field(default_factory=dict)
    strips: Dict[str, List[Tuple[Rows, str]]] = field(default_factory=dict)

    def height(self, name: str) -> int:
        """Rows of a tensor of the original graph."""
        return self.shapes[name][2]

    def constant(self, values: Sequence[int]) -> str:
        """The name of an int64 constant; equal ones are stored once."""
        name = "rows_" + "_".join(map(str, values))
        self.initializers.setdefault(name, numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def cut(self, name: str, have: Rows, want: Rows) -> str:
        """Rows ``want`` of a tensor that holds the rows ``have``."""
        if have == want:
            return name
        if (name, want) not in self.pieces:
            piece = self.pieces[(name, want)] = f"{name}/rows_{want[0]}_{want[1]}"
            first, last = (self.constant([value - have[0]]) for value in want)
            inputs = [name, first, last, self.constant([2]), self.constant([1])]
            self.nodes.append(helper.make_node("Slice", inputs, [piece], name=piece))
        return self.pieces[(name, want)]

    def rows_of(self, name: str, want: Rows) -> str:
        """Rows of a tensor that exists whole or in strips."""
        if name not in self.strips:
            return self.cut(name, (0, self.height(name)), want)
        if (name, want) not in self.pieces:
            parts = []
            for have, strip in self.strips[name]:
                first, last = max(have[0], want[0]), min(have[1], want[1])
                if first < last:
                    parts.append(self.cut(strip, have, (first, last)))
            label = f"{name}/rows_{want[0]}_{want[1]}"
            self.pieces[(name, want)] = parts[0] if len(parts) == 1 else self._joined(parts, label)
        return self.pieces[(name, want)]

    def join(self, name: str) -> None:
        """Let a tensor exist whole."""
        if name in self.strips:
            self._joined([strip for _, strip in self.strips.pop(name)], name)

    def _joined(self, parts: Sequence[str], name: str) -> str:
        self.nodes.append(helper.make_node("Concat", list(parts), [name], name=f"{name}/join", axis=2))
        return name


def write_strips(writer: Writer, region: Sequence[onnx.NodeProto], strips: int, label: str) -> None:
    """Write the last node's output, made by ``region`` in ``strips`` strips of rows; one strip copies the nodes.

    Args:
        writer: gets the nodes.
        region: local nodes in topological order; what they read and do not make exists whole.
        strips: how many; fewer are written where the picture has not enough rows.
        label: makes names unique: a tensor may be made again for another region.
    """
    target = region[-1].output[0]
    if strips <= 1:
        again = {name for node in writer.nodes for name in node.output}
        made = {node.output[0]: f"{node.output[0]}/{label}" for node in region[:-1] if node.output[0] in again}
        for node in region:
            for name in node.input:
                writer.join(name)
            writer.nodes.append(_copied(node, made, label if node.output[0] in made else ""))
        return
    parts = []
    for index, rows in enumerate(strip_rows(writer, region, strips)):
        parts.append((rows, _write_strip(writer, region, rows, f"{label}{index}")))
    writer.strips[target] = parts


def strip_rows(writer: Writer, region: Sequence[onnx.NodeProto], strips: int) -> List[Rows]:
    """The rows of each strip: equal as far as possible, and whole rows at the region's lowest resolution."""
    heights = [writer.height(name) for node in region for name in (node.output[0], node.input[0])]
    height = writer.height(region[-1].output[0])
    unit = height // min(heights) if height % min(heights) == 0 else 1
    count = height // unit
    strips = min(strips, count)
    edges = [unit * (count * index // strips) for index in range(strips)] + [height]
    return list(zip(edges, edges[1:]))


def demands(writer: Writer, region: Sequence[onnx.NodeProto], rows: Rows) -> Dict[str, Rows]:
    """Which rows of each tensor made in the region ``rows`` of its last output need.

    Rounded up to what a node that enlarges gives, so that nothing has to be cut off at the larger resolution.
    """
    made = {node.output[0] for node in region}
    align = _alignments(writer, region, made)
    needed: Dict[str, Rows] = {region[-1].output[0]: rows}
    for node in reversed(region):
        out = node.output[0]
        if out not in needed:
            continue
        step = align[out]
        first, last = needed[out]
        needed[out] = (first // step * step, min(round_up(last, step), writer.height(out)))
        rule = writer.rules[out]
        for name in {node.input[index] for index in rule.streamed} & made:
            first, last = rule.needs(needed[out], writer.height(name))
            before = needed.get(name, (first, last))
            needed[name] = (min(first, before[0]), max(last, before[1]))
    return needed


def _alignments(writer: Writer, region: Sequence[onnx.NodeProto], made: set) -> Dict[str, int]:
    """Output name → multiple of rows that it can be made in without cutting a result."""
    align: Dict[str, int] = {}
    for node in region:
        rule = writer.rules[node.output[0]]
        keeps_rows = (rule.window, rule.stride, rule.before, rule.after) == (1, 1, 0, 0)
        sources = {node.input[index] for index in rule.streamed} & made if keeps_rows else set()
        inherited = [align[name] for name in sources]
        align[node.output[0]] = rule.enlarge * math.lcm(1, *inherited)
    return align


def _write_strip(writer: Writer, region: Sequence[onnx.NodeProto], rows: Rows, label: str) -> str:
    """Write one strip; the tensor that holds exactly ``rows``."""
    needed = demands(writer, region, rows)
    made: Dict[str, Tuple[str, Rows]] = {}
    for node in region:
        out = node.output[0]
        if out not in needed:
            continue
        rule, height = writer.rules[out], writer.height(out)
        inputs = {}
        held = [made[node.input[i]][1] for i in rule.streamed if node.input[i] in made]
        source_height = writer.height(node.input[rule.streamed[0]])
        want = rule.needs(needed[out], source_height)
        if held and not rule.is_exact:
            want = (max(first for first, _ in held), min(last for _, last in held))
        for index in rule.streamed:
            name = node.input[index]
            inputs[index] = writer.cut(*made[name], want) if name in made else writer.rows_of(name, want)
        copy = _copied(node, {}, label)
        for index, name in inputs.items():
            copy.input[index] = name
        _set_padding(writer, copy, rule, want, source_height)
        writer.nodes.append(copy)
        given = rule.gives(want, source_height)
        made[out] = (copy.output[0], (given[0], min(given[1], height)))
    name, have = made[region[-1].output[0]]
    return writer.cut(name, have, rows)


def _copied(node: onnx.NodeProto, renamed: Mapping[str, str], label: str) -> onnx.NodeProto:
    """The node under a name of its own; pins travel with it in the doc_string."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for index, name in enumerate(copy.input):
        copy.input[index] = renamed.get(name, name)
    if label:
        copy.name = f"{node.name}/{label}"
        copy.output[0] = f"{node.output[0]}/{label}"
    return copy


def _set_padding(writer: Writer, node: onnx.NodeProto, rule: Local, rows: Rows, height: int) -> None:
    """Keep a node's own padding only where the piece it reads ends at the picture's border."""
    if node.op_type == "Slice" and rule.is_exact:
        _cut_columns_only(writer, node, rows, height)
        return
    before, after = (rule.before if rows[0] == 0 else 0), (rule.after if rows[1] == height else 0)
    if (before, after) == (rule.before, rule.after):
        return
    if node.op_type == "Pad":
        pads = [int(value) for value in writer.constants[node.input[1]]]
        pads[2], pads[6] = before, after
        node.input[1] = writer.constant(pads)
        return
    for attribute in node.attribute:
        if attribute.name == "pads":
            attribute.ints[0], attribute.ints[2] = before, after


def _cut_columns_only(writer: Writer, node: onnx.NodeProto, rows: Rows, height: int) -> None:
    """Let a Slice that cuts rows off keep all of ``rows``, which were chosen without those."""
    found = row_bounds(node, height, writer.constants)
    assert found is not None, "the rule of this Slice came from its bounds"
    place = found[2]
    for index, value in ((1, 0), (2, rows[1] - rows[0])):
        bounds = [int(bound) for bound in np.ravel(writer.constants[node.input[index]])]
        bounds[place] = value
        node.input[index] = writer.constant(bounds)
