"""In which types the layers really run, against the plan.

Two sources. The network after parsing: in a strongly typed one the types are fixed there already, so it can be checked
without a GPU. The engine: its inspector's JSON, which a runtime gives only on a GPU that the engine was built for
(TensorRT-RTX 1.7.1 opens no engine without a GPU), and with types only when it was built with detailed profiling
verbosity. Up to TensorRT 10 a tensor's type stands in "Format/Datatype", in 11 in a key of its own, and "Bindings" is
called "I/O Tensors" (migration guide of 11.0).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from sr_deploy.core.errors import BadInput, CheckFailed, UsageError

_WIDTH = {"int8": 8, "float16": 16, "float32": 32}
#: Words for types in either source → the plan's; others (Int32, Bool, FP8, …) are no types of a plan.
_TYPES = {"int8": "int8", "half": "float16", "fp16": "float16", "float": "float32", "fp32": "float32"}
_WORD = re.compile(r"\b(Int8|Half|FP16|Float|FP32)\b", re.IGNORECASE)
_METADATA = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_PRODUCTS = frozenset({"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "FULLY_CONNECTED"})


@dataclass(frozen=True)
class Layer:
    """One layer of a network or engine.

    Attributes:
        name: TensorRT's.
        kind: TensorRT's, such as "CONVOLUTION" or "CaskConvolution".
        nodes: the ONNX nodes it computes.
        computes: "int8", "float16" or "float32"; None for what is none of them, or not told.
        product: whether it is a convolution or a matrix product.
    """

    name: str
    kind: str
    nodes: Tuple[str, ...]
    computes: Optional[str]
    product: bool


def nodes_of_layer(name: str, metadata: Optional[str]) -> Tuple[str, ...]:
    """The ONNX nodes of a layer, from its metadata (8.6 and later) or from its name, in which fusion joins names."""
    found = _METADATA.findall(metadata or "")
    if found:
        return tuple(dict.fromkeys(found))
    parts = re.split(r" \+ | \|\| |, ", re.sub(r"PWN\(|\)|\(|fused ", "", name))
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _plan_type(text: str) -> Optional[str]:
    found = _WORD.search(text)
    return _TYPES[found.group(1).lower()] if found else None


def network_layers(network: Any) -> Tuple[Layer, ...]:
    """The layers of a parsed, strongly typed network.

    A product computes in INT8 when all its floating inputs come from DequantizeLinear: that is what TensorRT fuses.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    quantised = {
        layer.get_output(index).name
        for layer in layers
        if layer.type.name == "DEQUANTIZE"
        for index in range(layer.num_outputs)
    }
    result: List[Layer] = []
    for layer in layers:
        kind = layer.type.name
        product = kind in _PRODUCTS
        output = layer.get_output(0) if layer.num_outputs else None
        computes = _plan_type(output.dtype.name) if output is not None else None
        read = [tensor.name for tensor in map(layer.get_input, range(min(2, layer.num_inputs))) if tensor is not None]
        if product and read and all(name in quantised for name in read):
            computes = "int8"
        nodes = nodes_of_layer(layer.name, getattr(layer, "metadata", None))
        result.append(Layer(layer.name, kind, nodes, computes, product))
    return tuple(result)


def parse_inspector(text: str, origin: str = "the engine inspector") -> Tuple[Layer, ...]:
    """The layers that an engine inspector tells of, from its JSON.

    Args:
        text: of ``EngineInspector.get_engine_information(JSON)`` or ``trtexec --exportLayerInfo``.
        origin: for messages.

    Raises:
        BadInput: it is not such JSON, or it holds names only.
    """
    wanted = "the inspector's JSON of an engine that was built with detailed profiling verbosity"
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{origin} gave no JSON: {error}", wanted) from error
    entries = raw.get("Layers") if isinstance(raw, dict) else None
    if not isinstance(entries, list):
        raise BadInput(f"{origin} gave JSON without layers", wanted)
    if not all(isinstance(entry, dict) for entry in entries):
        raise BadInput(f"{origin} gave names of layers only", wanted, "build it again with srdeploy")
    return tuple(_inspected(entry) for entry in entries)


def _inspected(entry: Mapping[str, Any]) -> Layer:
    name, kind = str(entry.get("Name", "")), str(entry.get("LayerType", ""))
    weights = entry.get("Weights")
    weights_type = None
    if isinstance(weights, dict) and weights.get("Count", 1):
        weights_type = _plan_type(str(weights.get("Type", "")))
    tensors = [*_tensors(entry, "Inputs")[:1], *_tensors(entry, "Outputs")[:1]]
    types = [_plan_type(str(tensor.get("DataType", tensor.get("Format/Datatype", "")))) for tensor in tensors]
    told = f"{kind} {entry.get('ParameterType', '')}".lower()
    product = any(word in told for word in ("conv", "gemm", "matrixmultiply", "matrix_multiply"))
    product = product and "reformat" not in told
    computes = weights_type or next((kind for kind in types if kind is not None), None)
    return Layer(name, kind, nodes_of_layer(name, entry.get("Metadata")), computes, product)


def _tensors(entry: Mapping[str, Any], key: str) -> List[Mapping[str, Any]]:
    value = entry.get(key)
    return [tensor for tensor in value if isinstance(tensor, dict)] if isinstance(value, list) else []


def types_text(layers: Iterable[Layer]) -> str:
    """How many products run in which type, such as "int8 20, float16 2"."""
    counts: Dict[str, int] = {}
    for layer in layers:
        if layer.product:
            counts[layer.computes or "unknown"] = counts.get(layer.computes or "unknown", 0) + 1
    return ", ".join(f"{kind} {counts[kind]}" for kind in sorted(counts, key=lambda kind: _WIDTH.get(kind, 99)))


def differences(layers: Iterable[Layer], planned: Mapping[str, str]) -> Tuple[str, ...]:
    """Where layers run in another type than planned, one line each.

    A layer narrower than planned is always a difference. A wider one is, when it is a product: activations and sums
    run in whatever type they were fused into, which costs no exactness.

    Args:
        layers: from ``network_layers`` or ``parse_inspector``.
        planned: ONNX node name → "int8", "float16" or "float32".
    """
    lines: List[str] = []
    for layer in layers:
        asked = [planned[node] for node in layer.nodes if node in planned]
        if layer.computes is None or not asked or layer.kind.upper() in ("QUANTIZE", "DEQUANTIZE", "CONSTANT", "SHAPE"):
            continue
        # Of nodes that were fused into one layer, the product's type is the layer's; it is the narrowest planned.
        wanted = min(asked, key=_WIDTH.__getitem__)
        have = _WIDTH[layer.computes]
        if have < _WIDTH[wanted] or (layer.product and have > _WIDTH[wanted]):
            lines.append(f"{layer.name} ({layer.kind}): planned {wanted}, runs in {layer.computes}")
    return tuple(lines)


def check_layers(layers: Iterable[Layer], planned: Mapping[str, str], where: str) -> None:
    """Refuse layers that run in other types than planned.

    Args:
        layers: from ``network_layers`` or ``parse_inspector``.
        planned: ONNX node name → type, a plan's ``nodes``.
        where: what the layers are of, for the message.

    Raises:
        CheckFailed: naming the layers with both types.
    """
    wrong = differences(layers, planned)
    if wrong:
        more = f"\n  and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise CheckFailed(
            f"{len(wrong)} layers of {where} do not run as planned\n  " + "\n  ".join(wrong[:8]) + more,
            "each layer in the type that the plan gives it",
            "give the plan the types that this TensorRT can build, or build with another precision",
        )


def check_network(network: Any, precision: str, planned: Mapping[str, str], graph: str) -> Dict[str, str]:
    """Hold a strongly typed network against what was asked for, before anything is built.

    Args:
        network: parsed.
        precision: "fp32", "fp16", "int8" or "mixed".
        planned: ONNX node name → type; empty compares nothing.
        graph: the file, for messages.

    Returns:
        For the manifest: ``products``, how many products compute in which type; empty for "fp32".

    Raises:
        UsageError: the graph's types are not those of ``precision``.
        CheckFailed: layers have other types than planned.
    """
    layers = network_layers(network)
    have = {layer.computes for layer in layers if layer.kind not in ("CONSTANT", "CAST", "SHUFFLE")}
    quantised = any(layer.kind == "DEQUANTIZE" for layer in layers)
    wrong = {
        "fp32": quantised or "float16" in have,
        "fp16": quantised or "float16" not in have,
        "int8": not any(layer.product and layer.computes == "int8" for layer in layers),
    }
    if wrong.get(precision, False):
        raise UsageError(
            f"precision {precision} was asked for, and the products of {graph} are: {types_text(layers) or 'none'}"
            + (", with Q/DQ" if quantised else ""),
            f"a graph whose types are those of {precision}",
            f"srdeploy build DIR --precision {precision}",
        )
    check_layers(layers, planned, graph)
    return {} if precision == "fp32" else {"products": types_text(layers)}


def read_back(trt: Any, runtime: Any, plan: bytes, planned: Mapping[str, str], graph: str) -> Dict[str, str]:
    """Ask a built engine for the types of its layers and hold them against the plan.

    Args:
        trt: the module of the flavour that built it.
        runtime: from ``runtime_for``, so that an engine for a DLA opens on its core.
        plan: the engine's bytes.
        planned: ONNX node name → type; empty compares nothing.
        graph: the file, for messages.

    Returns:
        For the manifest: ``built``, how many products run in which type, and ``int8_nodes_not_told``, how many nodes
        planned as INT8 the inspector names in no layer (large fusions name their ends only). Empty where this machine
        cannot open the engine.

    Raises:
        BadInput: the inspector tells no types.
        CheckFailed: layers run in other types than planned.
    """
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return {}
    inspector = engine.create_engine_inspector()
    layers = parse_inspector(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    check_layers(layers, planned, f"the engine of {graph}")
    told = {node for layer in layers for node in layer.nodes}
    hidden = sum(kind == "int8" and node not in told for node, kind in planned.items())
    return {"built": types_text(layers), **({"int8_nodes_not_told": str(hidden)} if hidden else {})}
