"""What TensorRT would not fuse in a graph with Q/DQ, and how many conversions between types it asks for.

The rules are those of the TensorRT developer guide ("Q/DQ placement recommendations") and of the issues of
NVIDIA/TensorRT that are named. Nothing is measured here: a cost is given where its source gives one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

import onnx

from sr_deploy.core.number_formats import FORMATS

#: Operators that become INT8 kernels when their inputs come from DequantizeLinear.
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ACTIVATIONS = ("Relu", "PRelu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "Elu", "Softplus", "Gelu")
#: What a conversion of types passes unchanged.
_THROUGH = ("Cast", "Identity")

#: Rule → why it matters, what it costs as far as a source says, and the source.
RULES: Mapping[str, Tuple[str, str, str]] = {
    "activation": (
        "Q/DQ between a convolution and its activation keeps the two from fusing",
        "one more kernel that reads and writes the tensor",
        "developer guide, Q/DQ placement recommendations",
    ),
    "skip": (
        "the sum is stored in 8 bits but its skip is floating, so the convolution writes floats",
        "the tensor is written in 16 or 32 bits and quantised by a kernel of its own; can be slower than FP16",
        "#2204, #3038",
    ),
    "shuffle": (
        "the PixelShuffle reads a dequantised tensor and moves floats",
        "one conversion of the tensor for nothing",
        "developer guide; DepthToSpace has no INT8 form in the importer of 8.5",
    ),
    "concat": ("the parts of a concatenation are quantised, not its result", "about 30 % slower in #4366", "#4366"),
    "depthwise": ("a depthwise or grouped convolution in INT8", "no gain over FP16 reported", "#1409, #4529"),
    "silu": (
        "Sigmoid(x)·x behind an INT8 convolution is read as floats",
        "the convolution writes floats, and the product does",
        "#2204, #3861",
    ),
    "leaky": (
        "LeakyRelu behind an INT8 convolution",
        "not fused by TensorRT built with CUDA before 11; JetPack 5 has 11.4",
        "#993",
    ),
    "transposed": (
        "a ConvTranspose in INT8 with an activation behind it",
        "not fused, or wrong results",
        "#4366, #1699",
    ),
    "pad": ("Q/DQ between a Pad and its convolution", "the Pad runs by itself", "#2592"),
}


@dataclass(frozen=True)
class Finding:
    """One place that would not fuse: the rule broken, and the node to look at."""

    rule: str
    node: str
    operator: str

    @property
    def why(self) -> str:
        """What is wrong."""
        return RULES[self.rule][0]

    @property
    def cost(self) -> str:
        """What it costs, as far as a source says."""
        return RULES[self.rule][1]

    @property
    def source(self) -> str:
        """Where that stands; "#n" is an issue of NVIDIA/TensorRT."""
        return RULES[self.rule][2]


@dataclass(frozen=True)
class LintReport:
    """What was found.

    Attributes:
        findings: in the graph's order.
        narrow_products: convolutions and matrix products that read 8 bits, INT8 or FP8.
        quantises: quantisations that no INT8 kernel does while it writes its result; a float kernel or one of their
            own does.
        dequantises: tensors that are held in 8 bits and read as floats by something other than an INT8 product or a
            sum that fuses with one.
        casts: changes between float types on the picture's way.
    """

    findings: Tuple[Finding, ...]
    narrow_products: int
    quantises: int
    dequantises: int
    casts: int

    @property
    def reformats(self) -> int:
        """Conversions between INT8 and floats outside INT8 kernels."""
        return self.quantises + self.dequantises

    def to_dict(self) -> Dict[str, Any]:
        """Plain values for JSON."""
        findings = [
            {**dataclasses.asdict(found), "why": found.why, "cost": found.cost, "source": found.source}
            for found in self.findings
        ]
        return {**dataclasses.asdict(self), "findings": findings, "reformats": self.reformats}


def lint(model: onnx.ModelProto) -> LintReport:
    """Look through a graph with Q/DQ, typed or float32.

    Args:
        model: from ``typed_graph`` or ``legacy_graph``, or any other ONNX graph. Not modified.
    """
    view = _View(model)
    found: List[Finding] = []
    for node in model.graph.node:
        found += [Finding(rule, node.name or node.output[0], node.op_type) for rule in _broken(node, view)]
    return LintReport(
        findings=tuple(found),
        narrow_products=sum(view.is_narrow(node) for node in model.graph.node),
        quantises=sum(view.on_activation(n) and not view.fuses_backwards(n) for n in view.of("QuantizeLinear")),
        dequantises=sum(view.on_activation(n) and _read_as_float(n, view) for n in view.of("DequantizeLinear")),
        casts=sum(view.changes_width(node) for node in view.of("Cast")),
    )


class _View:
    """Who makes and who reads each tensor, looking through casts."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = model.graph.node
        self.constants: Set[str] = {t.name for t in model.graph.initializer}
        self.constants.update(n.output[0] for n in self.nodes if n.op_type == "Constant")
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.direct: Dict[str, List[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.direct.setdefault(name, []).append(node)
        self.outputs = {value.name for value in model.graph.output}
        inferred = onnx.shape_inference.infer_shapes(model)
        values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.fixed = self._made_from_constants()

    def _made_from_constants(self) -> Set[str]:
        """Tensors that do not depend on the graph's inputs, such as weights behind Q/DQ, and sizes."""
        fixed = set(self.constants)
        for node in self.nodes:
            if node.op_type in ("Shape", "Size") or all(name in fixed or not name for name in node.input):
                fixed.update(node.output)
        return fixed

    def of(self, operator: str) -> List[onnx.NodeProto]:
        """Nodes of one operator."""
        return [node for node in self.nodes if node.op_type == operator]

    def maker(self, name: str) -> Optional[onnx.NodeProto]:
        """The node that makes a tensor, before casts."""
        node = self.makers.get(name)
        return self.maker(node.input[0]) if node is not None and node.op_type in _THROUGH else node

    def readers(self, name: str) -> List[onnx.NodeProto]:
        """The nodes that read a tensor, behind casts."""
        found: List[onnx.NodeProto] = []
        for node in self.direct.get(name, []):
            found += self.readers(node.output[0]) if node.op_type in _THROUGH else [node]
        return found

    def is_dequantised(self, name: str) -> bool:
        """Whether a tensor comes from DequantizeLinear."""
        made = self.maker(name)
        return made is not None and made.op_type == "DequantizeLinear"

    def quantised_from(self, name: str) -> Optional[onnx.NodeProto]:
        """The node whose result was quantised and dequantised into ``name``; None where that is not so."""
        made = self.maker(name)
        if made is None or made.op_type != "DequantizeLinear":
            return None
        quantiser = self.maker(made.input[0])
        return self.maker(quantiser.input[0]) if quantiser is not None else None

    def on_activation(self, node: onnx.NodeProto) -> bool:
        """Whether Q or DQ acts on something that depends on the picture."""
        return node.input[0] not in self.fixed

    def is_narrow(self, node: Optional[onnx.NodeProto]) -> bool:
        """Whether a node is a product that reads 8 bits."""
        return node is not None and node.op_type in _PRODUCTS and all(map(self.is_dequantised, node.input[:2]))

    def changes_width(self, node: onnx.NodeProto) -> bool:
        """Whether a Cast goes between float types, on the picture's way."""
        floats = {one.onnx_type for one in FORMATS if one.floating}
        pair = (self.types.get(node.input[0]), self.types.get(node.output[0]))
        return node.input[0] not in self.fixed and set(pair) <= floats and pair[0] != pair[1]

    def is_alone(self, name: str) -> bool:
        """Whether one node at most reads a tensor, and the caller of the graph does not."""
        return len(self.readers(name)) <= 1 and name not in self.outputs

    def fuses_backwards(self, node: onnx.NodeProto) -> bool:
        """Whether the INT8 kernel that makes a Q's input can write 8 bits itself: convolution, Add, activation, Q."""
        made = self.maker(node.input[0])
        while made is not None and all(map(self.is_alone, made.output)):
            if self.is_narrow(made):
                return True
            if made.op_type in _ACTIVATIONS:
                made = self.maker(made.input[0])
            elif made.op_type == "Add":
                made = self.fused_product(made)
            else:
                return False
        return False

    def fused_product(self, add: onnx.NodeProto) -> Optional[onnx.NodeProto]:
        """The INT8 product that does an Add while it writes: its other input is in 8 bits or a constant."""
        for mine, other in ((add.input[0], add.input[1]), (add.input[1], add.input[0])):
            made = self.maker(mine)
            if self.is_narrow(made) and self.is_alone(mine) and (self.is_dequantised(other) or other in self.fixed):
                return made
        return None


def _broken(node: onnx.NodeProto, view: _View) -> List[str]:
    """The rules that are broken at one node."""
    broken: List[str] = []
    source = view.maker(node.input[0]) if node.input else None
    if node.op_type in _ACTIVATIONS:
        before = view.quantised_from(node.input[0])
        if before is not None and before.op_type in _PRODUCTS:
            broken.append("activation")
        if node.op_type == "LeakyRelu" and view.is_narrow(source):
            broken.append("leaky")
        if source is not None and source.op_type == "ConvTranspose" and view.is_narrow(source):
            broken.append("transposed")
    if node.op_type == "DepthToSpace" and view.is_dequantised(node.input[0]):
        broken.append("shuffle")
    if node.op_type == "Concat" and any(view.is_dequantised(name) for name in node.input):
        broken.append("concat")
    if node.op_type == "Add" and _has_float_skip(node, view):
        broken.append("skip")
    if node.op_type == "Mul" and _is_float_silu(node, view):
        broken.append("silu")
    if view.is_narrow(node):
        if any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute):
            broken.append("depthwise")
        before = view.quantised_from(node.input[0])
        if before is not None and before.op_type == "Pad":
            broken.append("pad")
    return broken


def _is_stored_in_8_bits(name: str, view: _View) -> bool:
    """Whether a tensor, or what one activation makes of it, is quantised."""
    readers = view.readers(name)
    if len(readers) == 1 and readers[0].op_type in _ACTIVATIONS:
        readers = view.readers(readers[0].output[0])
    return any(reader.op_type == "QuantizeLinear" for reader in readers)


def _has_float_skip(add: onnx.NodeProto, view: _View) -> bool:
    """Whether an INT8 convolution would do this Add in 8 bits, were its other input quantised."""
    if not _is_stored_in_8_bits(add.output[0], view) or view.fused_product(add) is not None:
        return False
    products = [name for name in add.input if view.is_narrow(view.maker(name)) and view.is_alone(name)]
    return bool(products)


def _is_float_silu(mul: onnx.NodeProto, view: _View) -> bool:
    """Whether this is Sigmoid(x)·x of an INT8 convolution, read by anything but quantisations."""
    for one, other in ((mul.input[0], mul.input[1]), (mul.input[1], mul.input[0])):
        gate = view.maker(one)
        if gate is None or gate.op_type != "Sigmoid":
            continue
        made = view.maker(gate.input[0])
        if made is view.maker(other) and view.is_narrow(made):
            return any(reader.op_type != "QuantizeLinear" for reader in view.readers(mul.output[0]))
    return False


def _read_as_float(node: onnx.NodeProto, view: _View) -> bool:
    """Whether something reads a dequantised tensor as floats."""
    for reader in view.readers(node.output[0]):
        fuses = reader.op_type == "Add" and view.fused_product(reader) is not None
        if not view.is_narrow(reader) and not fuses:
            return True
    return node.output[0] in view.outputs
