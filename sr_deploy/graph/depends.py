"""On which rows, or columns, of the picture each value of a graph depends: an interpretation of the graph in intervals.

Instead of numbers every tensor carries, for each of its elements, the first and the last row of the input that the
element depends on. Operators that move data move the intervals, arithmetic joins them, windows join neighbours. So no
layout is special: pixel shuffles, windows of a transformer and rolls are followed element by element, and what comes
out is exact up to holes within an interval.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Dict, List, Mapping, Optional, Tuple

import numpy as np
import onnx
from onnx import numpy_helper

from sr_deploy.core.reach import GlobalNode
from sr_deploy.graph.interval_rules import REDUCING, RULES, WINDOWED
from sr_deploy.graph.intervals import NOWHERE, Depends

#: An interval over more of the picture than this counts as all of it.
ALL_FROM = 0.75


@dataclass
class Interpretation:
    """The graph under way, for one axis of the picture.

    Attributes:
        length: rows (or columns) of the picture.
        axis: 0 for rows, 1 for columns.
        shapes: of every tensor.
        constants: values of those that depend on nothing.
        opsets: of the graph.
        known: tensor → what it depends on.
        findings: the global nodes so far, by name.
        ratios: name of a Resize → its factor along this axis.
        grew: many nodes together made an interval too long for this picture; a larger one tells more.
    """

    length: int
    axis: int
    shapes: Mapping[str, Tuple[int, ...]]
    constants: Mapping[str, np.ndarray]
    opsets: List[onnx.OperatorSetIdProto]
    known: Dict[str, Depends] = field(default_factory=dict)
    findings: Dict[str, GlobalNode] = field(default_factory=dict)
    ratios: Dict[str, Fraction] = field(default_factory=dict)
    grew: bool = False

    def run(self, node: onnx.NodeProto) -> None:
        """Interpret one node; every input of it must be known or constant."""
        data = [name for name in node.input if name in self.known]
        if not data:
            return  # what depends on nothing has been folded to a constant, or is never asked for
        rule = next((rule for kinds, rule in RULES if node.op_type in kinds), None)
        results: Optional[List[Depends]] = None
        if rule is not None and all(name in self.shapes for name in node.output if name):
            results = rule(self, node)
        if results is None:
            self.find(node, f"does with {node.op_type} what is not known to be local")
            results = [self._all(self.shapes.get(name, (1,))) for name in node.output]
        before = max(self.known[name].extent for name in data)
        for name, result in zip(node.output, results):
            if result.extent >= ALL_FROM * self.length:
                if before >= ALL_FROM * self.length or node.op_type in WINDOWED:
                    self.grew = True
                else:
                    self.find(node, self._why(node))
                result = self._place_of(result)
            self.known[name] = result

    def find(self, node: onnx.NodeProto, why: str) -> None:
        """Note a global node."""
        name = node.name or node.output[0]
        self.findings.setdefault(name, GlobalNode(name[:1000], node.op_type, why))

    def _why(self, node: onnx.NodeProto) -> str:
        """What a node does whose result suddenly depends on all of the picture."""
        if node.op_type in REDUCING or node.op_type == "InstanceNormalization":
            return "takes a mean or maximum over the whole picture"
        if node.op_type == "MatMul":
            return "mixes places of the whole picture (a Fourier unit, or attention over shifted windows)"
        return "joins places of the whole picture"

    def _place_of(self, result: Depends) -> Depends:
        """A tensor as if each element depended on its own place alone: so the next global node is found too."""
        shape = result.shape
        axis = len(shape) - 2 + self.axis
        if len(shape) != 4 or shape[axis] == 1:
            nowhere = np.full((1,) * len(shape), NOWHERE, np.int32)
            return Depends(nowhere, -nowhere, shape)
        line = (np.arange(shape[axis]) * self.length // shape[axis]).astype(np.int32)
        line = line.reshape([-1 if index == axis else 1 for index in range(4)])
        return Depends(line, line, shape)

    def _all(self, shape: Tuple[int, ...]) -> Depends:
        one = (1,) * len(shape)
        return Depends(np.zeros(one, np.int32), np.full(one, self.length - 1, np.int32), shape)


def picture(shape: Tuple[int, ...], rows_at: int, axis: int) -> Depends:
    """The input itself: each element depends on its own row (``axis`` 0) or column (1); rows are axis ``rows_at``."""
    place = rows_at + axis
    line = np.arange(shape[place], dtype=np.int32)
    line = line.reshape([-1 if index == place else 1 for index in range(len(shape))])
    return Depends(line, line, shape)


def constants_of(model: onnx.ModelProto) -> Dict[str, np.ndarray]:
    """Initializers and Constant nodes by name."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                found[node.output[0]] = numpy_helper.to_array(attribute.t)
    return found
