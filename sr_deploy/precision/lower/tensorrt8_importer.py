"""What the ONNX importer of TensorRT 8.5 and 8.6 takes, as a check of a graph.

Sources: builtin_op_importers.cpp (QuantizeLinear and DequantizeLinear, lines 1177-1260) and docs/operators.md of
onnx/onnx-tensorrt, branch release/8.5-GA. The rules for 8.5 hold for 8.6 too, which takes more. Passing this check was
not compared with a parser of 8.5, which runs on no machine that this project has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Dict, FrozenSet, List, Mapping, Optional, Tuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.graph.target import NO_TENSORRT_8_5

NEWEST_OPSET = 17
NEWEST_IR = 8
QDQ = ("QuantizeLinear", "DequantizeLinear")
#: Operators without an importer, besides those of graph/target.py (rows marked N in docs/operators.md).
NO_IMPORTER = NO_TENSORRT_8_5 | frozenset(
    {"BitShift", "Compress", "ConvInteger", "Det", "MatMulInteger", "MaxRoiPool", "MaxUnpool", "Multinomial", "Unique"}
    | {"ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceInsert", "SplitToSequence", "Col2Im", "Mish"}
    | {"DeformConv", "StringNormalizer", "TfIdfVectorizer", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"}
)
#: Attributes of Resize that it knows.
_RESIZE: Mapping[str, FrozenSet[str]] = {
    "mode": frozenset({"nearest", "linear"}),
    "coordinate_transformation_mode": frozenset(
        {"half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"}
    ),
    "nearest_mode": frozenset({"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"}),
}
#: Inputs, by index, that must be constants of the file: operator → {index: name}.
_CONSTANT_INPUTS: Mapping[str, Mapping[int, str]] = {
    "InstanceNormalization": {1: "scale", 2: "B"},
    "BatchNormalization": {1: "scale", 2: "B", 3: "mean", 4: "variance"},
    "Slice": {3: "axes"},
    "Squeeze": {1: "axes"},
    "Unsqueeze": {1: "axes"},
    "CumSum": {1: "axis"},
    "TopK": {1: "K"},
}
_TYPES_READ = frozenset(
    getattr(TensorProto, name) for name in ("FLOAT", "FLOAT16", "DOUBLE", "INT8", "INT32", "INT64", "BOOL", "UINT8")
)


@dataclass(frozen=True)
class Violation:
    """One rule broken by one node ("" for the whole file)."""

    node: str
    operator: str
    found: str
    wanted: str

    def __str__(self) -> str:
        where = f"node {self.node!r} ({self.operator})" if self.operator else "the file"
        return f"{where}: {self.found}; wanted {self.wanted}"


def check_legacy(model: onnx.ModelProto) -> Tuple[Violation, ...]:
    """Hold a graph against the rules; empty when it keeps them all.

    Args:
        model: any ONNX graph; subgraphs of If and Loop are looked into.
    """
    found: List[Violation] = []
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if not 0 < opset <= NEWEST_OPSET:
        found.append(Violation("", "", f"operator set {opset}", f"at most {NEWEST_OPSET}"))
    if model.ir_version > NEWEST_IR:
        found.append(Violation("", "", f"IR version {model.ir_version}", f"at most {NEWEST_IR}"))
    if model.functions:
        found.append(Violation("", "", f"{len(model.functions)} functions of its own", "nodes only"))
    _check_graph(model.graph, {}, found)
    return tuple(found)


class _Scope:
    """What is known of the tensors of one graph, those of the graph around it included."""

    def __init__(self, graph: onnx.GraphProto, outer: Mapping[str, onnx.TensorProto]) -> None:
        self.constants: Dict[str, onnx.TensorProto] = {**outer, **{t.name: t for t in graph.initializer}}
        self.producers = {name: node for node in graph.node for name in node.output}
        self.readers: Dict[str, List[Tuple[onnx.NodeProto, int]]] = {}
        self.types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
        for node in graph.node:
            for index, name in enumerate(node.input):
                self.readers.setdefault(name, []).append((node, index))
            if node.op_type == "Constant":
                value = next((a.t for a in node.attribute if a.name == "value"), None)
                if value is not None:
                    self.constants[node.output[0]] = value


def _check_graph(graph: onnx.GraphProto, outer: Mapping[str, onnx.TensorProto], found: List[Violation]) -> None:
    scope = _Scope(graph, outer)
    for node in graph.node:

        def broken(what: str, wanted: str, node: onnx.NodeProto = node) -> None:
            found.append(Violation(node.name or (node.output[0] if node.output else ""), node.op_type, what, wanted))

        if node.domain not in ("", "ai.onnx"):
            broken(f"an operator of the domain {node.domain!r}", "operators of ONNX itself")
        elif node.op_type in NO_IMPORTER:
            broken("an operator without importer", "operators that the 8.5 parser has")
        elif node.op_type in QDQ:
            _check_qdq(node, scope, broken)
        else:
            _check_operator(node, scope, broken)
        for name in node.input:
            kind = scope.constants[name].data_type if name in scope.constants else TensorProto.FLOAT
            if kind not in _TYPES_READ:
                broken(f"{name!r} is {TensorProto.DataType.Name(kind)}", "float32, float16, INT8, INT32, INT64 or BOOL")
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _check_graph(inner, scope.constants, found)


def _check_operator(node: onnx.NodeProto, scope: _Scope, broken: Callable[[str, str], None]) -> None:
    """Operators with restrictions."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Resize":
        for name, allowed in _RESIZE.items():
            have = attributes.get(name, b"").decode()
            if have and have not in allowed:
                advice = ", or a convolution or matrix product for a cubic one" if have == "cubic" else ""
                broken(f"{name} {have!r}", "one of " + ", ".join(sorted(allowed)) + advice)
    for index, name in _CONSTANT_INPUTS.get(node.op_type, {}).items():
        if index < len(node.input) and node.input[index] and node.input[index] not in scope.constants:
            broken(f"{name} is {node.input[index]!r}, which is computed", "a constant of the file")
    if node.op_type in ("Conv", "ConvTranspose"):
        weight = node.input[1]
        if weight not in scope.constants and _weight_behind(weight, scope) is None:
            broken(f"weights {weight!r}, which are computed", "a constant, or Q/DQ of a constant")
    if node.op_type == "MaxPool" and len(node.output) > 1 and node.output[1]:
        broken("the output Indices", "MaxPool with one output")
    if node.op_type == "Range":
        floats = [n for n in node.input if _is_float(n, scope)]
        if floats and any(name not in scope.constants for name in node.input):
            broken("floating-point inputs that are computed", "INT32 or INT64 inputs, or constants")


def _is_float(name: str, scope: _Scope) -> bool:
    if name in scope.constants:
        return scope.constants[name].data_type == TensorProto.FLOAT
    producer = scope.producers.get(name)
    if producer is not None and producer.op_type == "Cast":
        return any(a.name == "to" and a.i == TensorProto.FLOAT for a in producer.attribute)
    return scope.types.get(name) == TensorProto.FLOAT


def _weight_behind(name: str, scope: _Scope) -> Optional[onnx.TensorProto]:
    """The constant whose Q/DQ gives the tensor ``name``; None when there is none."""
    for operator in reversed(QDQ):
        producer = scope.producers.get(name)
        if producer is None or producer.op_type != operator:
            return scope.constants.get(name)
        name = producer.input[0]
    return scope.constants.get(name)


def _check_qdq(node: onnx.NodeProto, scope: _Scope, broken: Callable[[str, str], None]) -> None:
    """QuantizeLinear and DequantizeLinear: float32 scales, an INT8 zero point of 0, three inputs."""
    if len(node.input) != 3 or not all(node.input):
        broken(f"{len([n for n in node.input if n])} inputs", "three: data, scale and zero point")
        return
    data, scale_name, zero_name = node.input
    constant = scope.constants.get(data)
    if constant is not None and node.op_type == "DequantizeLinear":
        kind = TensorProto.DataType.Name(constant.data_type)
        broken(f"{data!r} is a constant of type {kind}", "a float32 constant, QuantizeLinear, then DequantizeLinear")
    elif constant is not None and constant.data_type != TensorProto.FLOAT:
        broken(f"{data!r} is {TensorProto.DataType.Name(constant.data_type)}", "float32 data")
    elif scope.types.get(data) == TensorProto.UINT8:
        broken(f"{data!r} is UINT8", "float32 data, or INT8 for DequantizeLinear")
    scale, zero = scope.constants.get(scale_name), scope.constants.get(zero_name)
    if zero is None:
        broken(f"the zero point {zero_name!r} is computed", "a constant")
    elif zero.data_type != TensorProto.INT8:
        broken(f"a zero point of type {TensorProto.DataType.Name(zero.data_type)}", "INT8")
    elif np.any(numpy_helper.to_array(zero)):
        broken(f"a zero point {numpy_helper.to_array(zero).ravel()[:4].tolist()}", "all 0")
    if scale is None:
        broken(f"the scale {scale_name!r} is computed", "a constant")
        return
    if scale.data_type != TensorProto.FLOAT:
        broken(f"a scale of type {TensorProto.DataType.Name(scale.data_type)}", "FLOAT (the importer reads float32)")
        return
    values = numpy_helper.to_array(scale).ravel()
    if values.size == 0 or not all(math.isfinite(value) and value > 0 for value in values):
        broken(f"scales {values[:4].tolist()}", "finite scales above 0")
    if zero is not None and math.prod(zero.dims) != values.size:
        broken(f"{values.size} scales and {math.prod(zero.dims)} zero points", "as many of one as of the other")
    if values.size > 1:
        _check_channels(node, scope, values.size, broken)


def _check_channels(node: onnx.NodeProto, scope: _Scope, count: int, broken: Callable[[str, str], None]) -> None:
    """One scale for each channel: of weights only, along their output channels."""
    weight = _weight_behind(node.output[0] if node.op_type == "DequantizeLinear" else node.input[0], scope)
    if weight is None:
        broken(f"{count} scales for the activation {node.input[0]!r}", "one scale")
        return
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    axis += len(weight.dims) if axis < 0 else 0
    if not 0 <= axis < len(weight.dims) or weight.dims[axis] != count:
        broken(f"{count} scales along axis {axis} of weights {tuple(weight.dims)}", "one for each output channel")
    for reader, index in _users(node, scope):
        wanted = _channel_axis(reader, index)
        if wanted is None:
            broken(f"weights with {count} scales read by {reader.name!r} ({reader.op_type})", "Conv, Gemm or MatMul")
        elif axis != wanted:
            broken(f"axis {axis} for the weights of {reader.name!r} ({reader.op_type})", f"axis {wanted}")


def _users(node: onnx.NodeProto, scope: _Scope) -> List[Tuple[onnx.NodeProto, int]]:
    """Who reads the weights, through the DequantizeLinear behind a QuantizeLinear."""
    readers = scope.readers.get(node.output[0], [])
    through = [user for reader, _ in readers if reader.op_type in QDQ for user in _users(reader, scope)]
    return [(reader, index) for reader, index in readers if reader.op_type not in QDQ] + through


def _channel_axis(reader: onnx.NodeProto, index: int) -> Optional[int]:
    """The axis of the output channels in input ``index`` of a node; None when it has no such weights."""
    if index != 1:
        return None
    if reader.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in reader.attribute) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}.get(reader.op_type)
