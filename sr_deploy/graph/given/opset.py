"""A graph of one of ONNX's operator sets 9 to 21 as one of the set that a target reads.

onnx.version_converter does it, but for what it has no way down for (Pad, Split, Gelu, Mish, GridSample, the group and
the layer normalisation), which ``_LOWERED`` writes in older words first and hides from it in a domain of their own.
Source: the change log of ONNX's operators (docs/Changelog.md of onnx/onnx). Whether the result is equal, the export's
proof tells.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
import onnx
from onnx import helper, numpy_helper, version_converter

from sr_deploy.core.errors import BadInput
from sr_deploy.graph.given.operators import named
from sr_deploy.graph.given.read import nodes_of, opset_of

#: The domain that what needs no conversion hides in.
_KEPT = "srdeploy.kept"
#: From this set on, ReduceMean takes its axes as an input.
_REDUCED_BY_INPUT = 18


class _Words:
    """Writes nodes that stand in place of one: ``add`` gives the name of the result."""

    def __init__(self, graph: onnx.GraphProto, node: onnx.NodeProto, opset: int) -> None:
        self.opset = opset
        self.graph, self.node, self.nodes = graph, node, []  # type: ignore[var-annotated]
        self.attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        for other in graph.node:
            if other.op_type == "Constant" and other.attribute and other.attribute[0].name == "value":
                self.constants[other.output[0]] = other.attribute[0].t

    def text(self, name: str, default: str) -> str:
        """An attribute that is text."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def constant(self, index: int) -> Optional[np.ndarray]:
        """An input's value, where it is constant."""
        name = self.node.input[index] if index < len(self.node.input) else ""
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def stored(self, value: np.ndarray) -> str:
        """A new constant."""
        name = f"{self.node.output[0]}/constant_{len(self.graph.initializer)}"
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def number(self, value: float) -> str:
        """A new float32 constant of one element."""
        return self.stored(np.array(value, np.float32))

    def add(self, operator: str, inputs: List[str], last: bool = False, **attributes: Any) -> str:
        """One more node; ``last``: it makes what the replaced one made."""
        out = self.node.output[0] if last else f"{self.node.output[0]}/{len(self.nodes)}"
        name = self.node.name if last else f"{self.node.name}/{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [out], name=name, **attributes))
        return out


def _pad(words: _Words) -> None:
    """Without the axes of set 18: pads of all axes, in their order. Mode "wrap" is of set 19."""
    inputs, axes, pads = list(words.node.input), words.constant(3), words.constant(1)
    if words.text("mode", "constant") == "wrap":
        raise _no_way(words.node, "its mode wrap")
    if len(inputs) > 3 and inputs[3]:
        if axes is None or pads is None:
            raise _no_way(words.node, "axes that the graph computes")
        whole = np.zeros((2, 4), np.int64)
        for place, axis in enumerate(axes.tolist()):
            whole[:, axis] = pads.reshape(2, -1)[:, place]
        inputs[1] = words.stored(whole.reshape(-1))
    words.add("Pad", inputs[:3], last=True, mode=words.text("mode", "constant"))


def _split(words: _Words) -> None:
    """Set 18 may name the number of parts; the older ones split evenly into as many as there are outputs."""
    node = helper.make_node("Split", list(words.node.input), list(words.node.output), name=words.node.name)
    if "axis" in words.attributes:
        node.attribute.append(helper.make_attribute("axis", words.attributes["axis"]))
    words.nodes.append(node)


def _gelu(words: _Words) -> None:
    """0.5·x·(1 + erf(x/√2)), or its approximation by tanh: the operator's definition."""
    x = words.node.input[0]
    half = words.add("Mul", [x, words.number(0.5)])
    if words.text("approximate", "none") == "tanh":
        cube = words.add("Mul", [words.add("Mul", [x, x]), x])
        inner = words.add("Add", [x, words.add("Mul", [cube, words.number(0.044715)])])
        inner = words.add("Tanh", [words.add("Mul", [inner, words.number((2 / np.pi) ** 0.5)])])
    else:
        inner = words.add("Erf", [words.add("Mul", [x, words.number(2**-0.5)])])
    words.add("Mul", [half, words.add("Add", [inner, words.number(1.0)])], last=True)


def _mish(words: _Words) -> None:
    """x·tanh(softplus(x)): the operator's definition."""
    x = words.node.input[0]
    words.add("Mul", [x, words.add("Tanh", [words.add("Softplus", [x])])], last=True)


def _group_normalisation(words: _Words) -> None:
    """InstanceNormalization of groups, then scale and bias of each channel (of each group in sets 18 to 20)."""
    x, scale, bias = words.node.input[:3]
    groups = int(words.attributes["num_groups"])
    one, zero = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    flat = words.add("Reshape", [x, words.stored(np.array([0, groups, -1], np.int64))])
    epsilon = float(words.attributes.get("epsilon", 1e-5))
    normal = words.add("InstanceNormalization", [flat, words.stored(one), words.stored(zero)], epsilon=epsilon)
    values = [words.constant(1), words.constant(2)]
    if values[0] is None or values[1] is None:
        raise _no_way(words.node, "a scale that the graph computes")
    if len(values[0]) == groups:
        normal = words.add("Mul", [normal, words.stored(values[0].reshape(1, -1, 1))])
        normal = words.add("Add", [normal, words.stored(values[1].reshape(1, -1, 1))])
        words.add("Reshape", [normal, words.add("Shape", [x])], last=True)
        return
    normal = words.add("Reshape", [normal, words.add("Shape", [x])])
    normal = words.add("Mul", [normal, words.stored(values[0].reshape(1, -1, 1, 1))])
    words.add("Add", [normal, words.stored(values[1].reshape(1, -1, 1, 1))], last=True)


def _layer_normalisation(words: _Words) -> None:
    """(x − mean) / √(variance + ε) over the last axes, times a scale, plus a bias: the operator's definition."""
    x, axis = words.node.input[0], int(words.attributes.get("axis", -1))
    if axis >= 0:
        raise _no_way(words.node, "an axis that is counted from the front")
    axes = list(range(axis, 0))

    def mean(tensor: str) -> str:
        if words.opset >= _REDUCED_BY_INPUT:
            return words.add("ReduceMean", [tensor, words.stored(np.array(axes, np.int64))])
        return words.add("ReduceMean", [tensor], axes=axes)

    centred = words.add("Sub", [x, mean(x)])
    variance = mean(words.add("Mul", [centred, centred]))
    padded = words.add("Add", [variance, words.number(float(words.attributes.get("epsilon", 1e-5)))])
    normal = words.add("Div", [centred, words.add("Sqrt", [padded])])
    bias = words.node.input[2] if len(words.node.input) > 2 else ""
    scaled = words.add("Mul", [normal, words.node.input[1]], last=not bias)
    if bias:
        words.add("Add", [scaled, bias], last=True)


def _grid_sample(words: _Words) -> None:
    """Modes have other names since set 20."""
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(words.text("mode", "linear"), "nearest")
    rest = {"align_corners": int(words.attributes.get("align_corners", 0))}
    padding = words.text("padding_mode", "zeros")
    words.add("GridSample", list(words.node.input), last=True, mode=mode, padding_mode=padding, **rest)


#: Operators that the converter has no way down for → the newest set without their form, how they are written then.
_LOWERED: Dict[str, Tuple[int, Callable[[_Words], None]]] = {
    "Pad": (17, _pad),
    "Split": (17, _split),
    "Mish": (17, _mish),
    "GroupNormalization": (17, _group_normalisation),
    "Gelu": (19, _gelu),
    "GridSample": (19, _grid_sample),
    "LayerNormalization": (16, _layer_normalisation),
}


def at_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The graph in another operator set; ``model`` is not modified.

    Raises:
        BadInput: a node has no form in that set; the message names it.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    found = opset_of(result)
    try:
        if found <= 10 < opset:
            result = _with_coordinates(version_converter.convert_version(result, 11))
        elif opset < found:
            _lower(result, opset)
        if found != opset:
            result = version_converter.convert_version(result, opset)
    except BadInput:
        raise
    except Exception as error:  # its assertions arrive as RuntimeError or its own ConvertError
        text = " ".join(str(error).split())
        words = {node.op_type: node for node in nodes_of(model.graph)}
        blamed = next((words[word] for word in text.replace("$", " ").split() if word in words), None)
        what = named(blamed) if blamed is not None else text[-120:]
        raise BadInput(
            f"{what} cannot be written in ONNX operator set {opset} (the graph is of set {found})",
            "operators that both sets have",
            f"export the network again with opset_version={opset}, or give its checkpoint",
        ) from error
    for node in result.graph.node:
        node.domain = "" if node.domain == _KEPT else node.domain
    del result.opset_import[:]
    result.opset_import.append(helper.make_opsetid("", opset))
    return result


def _lower(model: onnx.ModelProto, opset: int) -> None:
    graph, nodes, found = model.graph, [], opset_of(model)
    for node in graph.node:
        lacking, write = _LOWERED.get(node.op_type, (0, None))
        if write is None or not opset <= lacking < found:
            nodes.append(node)
            continue
        words = _Words(graph, node, found)
        write(words)
        for made in words.nodes:
            made.domain = _KEPT if made.op_type in _LOWERED else ""
        nodes += words.nodes
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    model.opset_import.append(helper.make_opsetid(_KEPT, 1))


def _with_coordinates(model: onnx.ModelProto) -> onnx.ModelProto:
    """Resize of sets 9 and 10 as set 11 must be told it: the converter leaves set 11's defaults, which are others."""
    for node in nodes_of(model.graph):
        if node.op_type == "Resize" and all(one.name != "coordinate_transformation_mode" for one in node.attribute):
            node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
            node.attribute.append(helper.make_attribute("nearest_mode", "floor"))
    return model


def _no_way(node: onnx.NodeProto, why: str) -> BadInput:
    return BadInput(
        f"{named(node)} cannot be written in an older operator set because of {why}",
        "a graph of operator set 17 or older",
        "export the network again with dynamo=False and opset_version=17",
    )
