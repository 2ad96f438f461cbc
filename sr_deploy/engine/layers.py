"""In which types the layers of a parsed network compute, against what was asked for and planned: before the build.

In a strongly typed network the types are fixed by the parser, so it can be checked without a GPU. What the builder then
makes of it is checked after the build: engine/read_back.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Set, Tuple

from sr_deploy.core.errors import CheckFailed, UsageError
from sr_deploy.core.number_formats import FLOAT8, FLOAT32, FORMAT_BITS, FORMATS, INT8
from sr_deploy.engine.listing_parse import nodes_of_layer, type_in

_PRODUCTS = frozenset({"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "FULLY_CONNECTED"})
#: What may lie between a constant and the product that it is the weights of.
_BETWEEN = frozenset({"QUANTIZE", "DEQUANTIZE", "CAST", "SHUFFLE", "IDENTITY"})


@dataclass(frozen=True)
class NetworkLayer:
    """One layer of a parsed network.

    Attributes:
        name: TensorRT's.
        kind: TensorRT's, such as "CONVOLUTION".
        nodes: the ONNX nodes it was made from.
        computes: a name of core/number_formats.py; None for what is none of them.
        product: whether it is a convolution or a matrix product.
        weighted: whether one of its factors is a constant.
    """

    name: str
    kind: str
    nodes: Tuple[str, ...]
    computes: Optional[str]
    product: bool
    weighted: bool = False


def network_layers(network: Any) -> Tuple[NetworkLayer, ...]:
    """The layers of a parsed network; their types are those it will compute in where it is strongly typed.

    A product computes in 8 bits when all its floating inputs come from DequantizeLinear: that is what TensorRT fuses.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {layer.get_output(index).name: layer for layer in layers for index in range(layer.num_outputs)}
    result: List[NetworkLayer] = []
    for layer in layers:
        kind = layer.type.name
        product = kind in _PRODUCTS
        output = layer.get_output(0) if layer.num_outputs else None
        told = type_in(output.dtype.name) if output is not None else ""
        computes = told if told in FORMAT_BITS else None
        read = [tensor.name for tensor in map(layer.get_input, range(min(2, layer.num_inputs))) if tensor is not None]
        if product and read and all(name in makers and makers[name].type.name == "DEQUANTIZE" for name in read):
            computes = _narrowest(makers[name] for name in read)
        metadata = getattr(layer, "metadata", None)
        # Without metadata the name is one node's; it is not taken apart as an engine's are.
        nodes = nodes_of_layer(layer.name, metadata) if metadata else (layer.name,)
        weighted = product and (len(read) < 2 or any(_is_constant(name, makers) for name in read))
        result.append(NetworkLayer(layer.name, kind, nodes, computes, product, weighted))
    return tuple(result)


def _narrowest(dequantisers: Iterable[Any]) -> str:
    """The 8-bit format of what these DequantizeLinear read; INT8 where it is not told."""
    told = {type_in(one.get_input(0).dtype.name) for one in dequantisers if one.get_input(0) is not None}
    return FLOAT8.name if FLOAT8.name in told else INT8.name


def _is_constant(name: str, makers: Mapping[str, Any]) -> bool:
    """Whether a tensor follows from a constant alone."""
    for _ in makers:
        maker = makers.get(name)
        if maker is None or maker.type.name not in _BETWEEN:
            return maker is not None and maker.type.name == "CONSTANT"
        first = maker.get_input(0)
        if first is None:
            return False
        name = first.name
    return False


def types_text(types: Iterable[Optional[str]]) -> str:
    """How many products run in which type, such as "int8 20, float16 2"."""
    counts: Dict[str, int] = {}
    for kind in types:
        counts[kind or "unknown"] = counts.get(kind or "unknown", 0) + 1
    return ", ".join(f"{kind} {counts[kind]}" for kind in sorted(counts, key=lambda kind: FORMAT_BITS.get(kind, 99)))


def differences(layers: Iterable[NetworkLayer], planned: Mapping[str, str]) -> Tuple[str, ...]:
    """Where layers of a strongly typed network have another type than planned, one line each.

    A layer narrower than planned, or in another type of its width, is always a difference. A wider one is, when it is a
    product: that activations and sums run in a wider type costs no exactness.

    Args:
        layers: from ``network_layers``.
        planned: ONNX node name → type.
    """
    lines: List[str] = []
    for layer in layers:
        asked = [planned[node] for node in layer.nodes if node in planned]
        if layer.computes is None or not asked or layer.kind in ("QUANTIZE", "DEQUANTIZE", "CONSTANT", "SHAPE"):
            continue
        wanted = min(asked, key=FORMAT_BITS.__getitem__)
        have = FORMAT_BITS[layer.computes]
        if is_less(layer.computes, wanted) or (layer.product and have > FORMAT_BITS[wanted]):
            lines.append(f"{layer.name} ({layer.kind}): planned {wanted}, runs in {layer.computes}")
    return tuple(lines)


def is_less(runs: str, asked: str) -> bool:
    """Whether a type does not hold what another does: it is narrower, or another one of the same width."""
    return runs != asked and FORMAT_BITS[runs] <= FORMAT_BITS[asked]


def _fits(precision: str, layers: Tuple[NetworkLayer, ...], have: Set[Optional[str]], quantised: bool) -> bool:
    """Whether a network's types are those of a precision; of "auto" any are."""
    one = next((one for one in FORMATS if one.precision == precision), None)
    if one is None:
        return True
    if not one.floating:
        return any(layer.product and layer.computes == one.name for layer in layers)
    narrower = {other.name for other in FORMATS if other is not one and is_less(other.name, one.name)}
    return not quantised and (one is FLOAT32 or one.name in have) and not have & narrower


def not_as_planned(wrong: Tuple[str, ...], where: str) -> CheckFailed:
    """The error for layers that run in other types than planned: one line each, the first eight."""
    more = f"\n  and {len(wrong) - 8} more" if len(wrong) > 8 else ""
    return CheckFailed(
        f"{len(wrong)} layers of {where} do not run as planned\n  " + "\n  ".join(wrong[:8]) + more,
        "each layer in the type that the plan gives it",
        "give the plan the types that this TensorRT can build, or build with another precision",
    )


def check_network(
    layers: Tuple[NetworkLayer, ...], precision: str, planned: Mapping[str, str], graph: str
) -> Dict[str, str]:
    """Hold a strongly typed network against what was asked for, before anything is built.

    Args:
        layers: from ``network_layers``.
        precision: one of ENGINE_PRECISIONS.
        planned: ONNX node name → type; empty compares nothing.
        graph: the file, for messages.

    Returns:
        For the manifest: ``products``, how many products compute in which type; empty for "fp32".

    Raises:
        UsageError: the graph's types are not those of ``precision``.
        CheckFailed: layers have other types than planned.
    """
    products = types_text(layer.computes for layer in layers if layer.product)
    have = {layer.computes for layer in layers if layer.kind not in ("CONSTANT", "CAST", "SHUFFLE")}
    quantised = any(layer.kind == "DEQUANTIZE" for layer in layers)
    if not _fits(precision, layers, have, quantised):
        raise UsageError(
            f"precision {precision} was asked for, and the products of {graph} are: {products or 'none'}"
            + (", with Q/DQ" if quantised else ""),
            f"a graph whose types are those of {precision}",
            f"srdeploy build DIR --precision {precision}",
        )
    different = differences(layers, planned)
    if different:
        raise not_as_planned(different, graph)
    return {} if precision == "fp32" else {"products": products}
