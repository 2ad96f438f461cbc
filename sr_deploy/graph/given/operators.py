"""What a given graph may be made of: ONNX's own operators, of those that run here and that TensorRT's parser has.

Source of UNPARSED: docs/operators.md of onnx/onnx-tensorrt (rows marked N), compared with ``supports_operator`` of the
parser of TensorRT-RTX 1.7 in the tests.
"""

from __future__ import annotations

from typing import Dict, FrozenSet, List

import onnx
from onnx import numpy_helper
from onnx.inliner import inline_local_functions

from sr_deploy.core.errors import BadInput
from sr_deploy.core.text import plain
from sr_deploy.graph.given.read import GivenFile, nodes_of

#: Operators that a picture has no use for and that no TensorRT parser takes.
UNPARSED = frozenset({
    "AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad",
    "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger", "DFT", "DeformConv", "Det", "ImageDecoder",
    "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "Multinomial", "NegativeLogLikelihoodLoss",
    "Optional", "OptionalGetElement", "OptionalHasElement", "QLinearConv", "QLinearMatMul", "RegexFullMatch",
    "STFT", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
    "SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat", "StringNormalizer", "StringSplit",
    "TfIdfVectorizer", "Unique",
})  # fmt: skip
#: Operators that repeat a graph as often as a tensor says: no bound on time follows from the file.
REPEATING = frozenset({"Loop", "Scan"})
#: Operators that give something else each time.
RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
                   | {"RandomUniformLike"})  # fmt: skip
#: What a graph that was quantised already is made of.
QUANTISED = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})
#: Functions of functions are written out until there are so many nodes.
MOST_INLINED = 50_000
#: Nodes that a message names.
_SHOWN = 5


def check_given_operators(given: GivenFile) -> None:
    """Refuse what cannot be run here or parsed by TensorRT; raises BadInput that names node and operator."""
    local = {(function.domain, function.name) for function in given.model.functions}
    problems: Dict[str, List[str]] = {}
    training = _true_constants(given.model.graph)
    for node in nodes_of(given.model.graph):
        if (node.domain, node.op_type) not in local:
            why = _problem(node, given.opset)
            if not why and node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] in training:
                why = "dropout that was left on: two runs would differ"
            if why:
                problems.setdefault(why, []).append(named(node))
    if problems:
        listed = [f"{_some(nodes)}: {why}" for why, nodes in problems.items()]
        raise BadInput(
            f"{plain(str(given.path))} has operators that cannot be deployed: " + "; ".join(listed[:4]),
            "operators of ONNX that TensorRT's parser has",
            "replace them in the network and export it again; or give the checkpoint, with --model if it is your own",
        )


def _problem(node: onnx.NodeProto, opset: int) -> str:
    if node.domain not in ("", "ai.onnx"):
        return f"custom operators, of the domain {plain(node.domain, 60)}"
    if node.op_type in REPEATING:
        return "loops, whose length a tensor decides"
    if node.op_type in RANDOM:
        return "random values: two runs would differ"
    if node.op_type in QUANTISED:
        return "of a quantised graph; srdeploy quantises the float network itself, and proves what it costs"
    if node.op_type in UNPARSED:
        return "not in TensorRT's ONNX parser"
    if not onnx.defs.has(node.op_type, max_inclusive_version=opset):
        return f"no operators of ONNX's set {opset}"
    return ""


def _true_constants(graph: onnx.GraphProto) -> FrozenSet[str]:
    """Names of constants that are one true value, such as the training mode of Dropout."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    flags = {name: one for name, one in tensors.items() if one.data_type == onnx.TensorProto.BOOL and not one.dims}
    return frozenset(name for name, one in flags.items() if numpy_helper.to_array(one).all())


def named(node: onnx.NodeProto) -> str:
    """A node as messages name it: its operator, and its name or what it makes."""
    return f"{plain(node.op_type, 60)} {plain(node.name or ', '.join(node.output[:1]), 100)}"


def _some(nodes: List[str]) -> str:
    return ", ".join(nodes[:_SHOWN]) + (f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else "")


def without_functions(given: GivenFile) -> onnx.ModelProto:
    """The model with its own functions (as PyTorch's exporter wrote modules until 2.4) written out where they are used.

    Raises:
        BadInput: functions that call each other in a circle, or that come to far more nodes than any network has.
    """
    model = given.model
    if not model.functions:
        return model
    bodies = {(function.domain, function.name): function for function in model.functions}
    sizes: Dict[object, int] = {}

    def size(key: object, inside: frozenset = frozenset()) -> int:
        if key in inside or len(inside) > 50:
            raise BadInput(
                f"{plain(str(given.path))} has functions that call themselves",
                "functions that end",
                "export it again; do not trust a file that somebody gave you",
            )
        if key not in sizes:
            body = bodies[key]  # type: ignore[index]
            sizes[key] = sum(
                size((node.domain, node.op_type), inside | {key}) if (node.domain, node.op_type) in bodies else 1
                for node in body.node
            )
        return sizes[key]

    total = sum(
        size((node.domain, node.op_type)) if (node.domain, node.op_type) in bodies else 1
        for node in nodes_of(model.graph)
    )
    if total > MOST_INLINED:
        raise BadInput(
            f"{plain(str(given.path))} comes to {total:,} nodes",
            f"at most {MOST_INLINED:,}",
            "export it from its framework without functions, or in parts",
        )
    return inline_local_functions(model)
