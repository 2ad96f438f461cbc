"""An ONNX graph that is easy to change: constants as arrays, who makes and reads each tensor, clean-up at the end."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Set

import numpy as np
import onnx
from onnx import numpy_helper

#: The beginning of the doc_string of nodes pinned to float32 (graph/export.py writes it).
PIN_MARK = "precision: float32"


class Editor:
    """A copy of a model, opened for change. ``finish`` gives the changed model; the original stays as it is.

    Attributes:
        nodes: the nodes in topological order; Constant nodes and Identity of constants have become ``constants``.
        constants: tensor name → array.
        output: name of the graph's only output.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        graph = self._model.graph
        self.constants: Dict[str, np.ndarray] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.nodes: List[onnx.NodeProto] = []
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            elif node.op_type == "Identity" and node.input[0] in self.constants:
                self.constants[node.output[0]] = self.constants[node.input[0]]
            else:
                self.nodes.append(node)
        self._given: Set[str] = set()
        self.output = graph.output[0].name
        self.input = graph.input[0].name
        self.index()

    def index(self) -> None:
        """Look again at who makes and who reads each tensor, after a change."""
        self._maker = {name: node for node in self.nodes for name in node.output}
        self._readers: Dict[str, List[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append(node)

    def maker(self, tensor: str) -> Optional[onnx.NodeProto]:
        """The node that makes ``tensor``; None for inputs and constants."""
        return self._maker.get(tensor)

    def readers(self, tensor: str) -> List[onnx.NodeProto]:
        """The nodes that read ``tensor``, each once."""
        return self._readers.get(tensor, [])

    def only_reader(self, tensor: str) -> Optional[onnx.NodeProto]:
        """The one node that reads ``tensor``, where there is exactly one and it is no output of the graph."""
        readers = self.readers(tensor)
        return readers[0] if len(readers) == 1 and tensor != self.output else None

    def constant(self, node: onnx.NodeProto, position: int) -> Optional[np.ndarray]:
        """The constant at an input of ``node``; None when there is no input there, or it is not constant."""
        if position >= len(node.input):
            return None
        return self.constants.get(node.input[position])

    def add_constant(self, name: str, value: np.ndarray) -> str:
        """Store a constant under a name not yet used; the name."""
        unique, number = name, 1
        while unique in self.constants:
            unique, number = f"{name}_{number}", number + 1
        self.constants[unique] = value
        return unique

    def fresh(self, name: str) -> str:
        """A name that no tensor of the graph has, and that is not given again: ``name``, with a number if need be."""
        unique, number = name, 1
        while unique in self._maker or unique in self.constants or unique in self._given:
            unique, number = f"{name}_{number}", number + 1
        self._given.add(unique)
        return unique

    def make(
        self,
        operator: str,
        inputs: Sequence[str],
        output: str,
        like: onnx.NodeProto,
        role: str = "",
        **attributes: Any,
    ) -> onnx.NodeProto:
        """A node that stands for ``like``: named after it (plus ``role``), pinned when it is. Not placed yet."""
        name = f"{like.name}{'/' + role if role else ''}"
        node = onnx.helper.make_node(operator, list(inputs), [output], name=name, **attributes)
        node.doc_string = like.doc_string
        return node

    def replace(self, old: Sequence[onnx.NodeProto], new: Sequence[onnx.NodeProto]) -> None:
        """Put ``new`` where the last of ``old`` stood and drop ``old``."""
        identities = {id(node) for node in old}
        last = max(index for index, node in enumerate(self.nodes) if id(node) in identities)
        before = [node for node in self.nodes[:last] if id(node) not in identities]
        self.nodes = [*before, *new, *self.nodes[last + 1 :]]
        self.index()

    def move_up(self, old: onnx.NodeProto, new: Sequence[onnx.NodeProto]) -> None:
        """Drop ``old`` and put ``new``, in this order, as early as what they read is there."""
        self.nodes = [node for node in self.nodes if node is not old]
        own = {name for node in new for name in node.output}
        reads = {name for node in new for name in node.input} - own
        place = max((index + 1 for index, node in enumerate(self.nodes) if reads.intersection(node.output)), default=0)
        self.nodes[place:place] = new
        self.index()

    def drop_unread(self) -> Set[str]:
        """Drop the nodes of which nothing reads a result; the names of the tensors that are left and read."""
        needed, kept = {self.output}, []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]
        self.index()
        return needed

    def finish(self) -> onnx.ModelProto:
        """The changed model: without what nothing reads, checked, in topological order."""
        needed = self.drop_unread()
        graph = self._model.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(
            numpy_helper.from_array(np.asarray(value, order="C"), name)
            for name, value in self.constants.items()
            if name in needed
        )
        onnx.checker.check_model(self._model)
        return self._model


def is_pinned(node: onnx.NodeProto) -> bool:
    """Whether a node must stay float32."""
    return node.doc_string.startswith(PIN_MARK)


def attributes_of(node: onnx.NodeProto) -> Dict[str, Any]:
    """A node's attributes by name; of what type a value is, the operator's definition tells, not Python's."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
