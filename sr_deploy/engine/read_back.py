"""What was built against what was planned: after the build, and after the engine is saved.

A layer's inputs and outputs do not tell in which type it computes: a float32 LayerNorm in a float16 graph becomes one
kernel that reads and writes float16, and DequantizeLinear with SiLU one that reads int8. Of products (convolutions and
matrix products) it can be told: by their weights, or where both factors are activations by what they read. So products
are judged, each that the graph has; of the rest it is counted where inputs and outputs are narrower than planned.

An engine with a product that is narrower than planned, or in another type of that width, is refused. A wider one is as
exact, and a builder may compute Q/DQ with a convolution in float16 (TensorRT-RTX 1.7.1: each ConvTranspose, and all for
SM75): that is a warning, unless nothing at all runs in the 8-bit type that was planned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

from sr_deploy.core.errors import CheckFailed, SrDeployError
from sr_deploy.core.number_formats import FORMAT, FORMAT_BITS, QUANTISED
from sr_deploy.engine.layers import NetworkLayer, is_less, not_as_planned, types_text
from sr_deploy.engine.listing import Layer, Listing, Tensor, computes_products
from sr_deploy.engine.listing_parse import listing_from_inspector, listing_from_log


@dataclass(frozen=True)
class ReadBack:
    """What reading an engine back found.

    Attributes:
        settings: for the manifest: ``built`` ("int8 19, float16 3", by the types that products run in),
            ``products_found`` ("22 of 22"), ``narrow_nodes_not_told`` (nodes planned in 8 bits that no layer names) and
            ``io_narrower_than_planned`` (layers without a product that neither read nor write the planned float32).
        warnings: for the manifest.
        refusal: why the engine must not be used; None where nothing speaks against it.
    """

    settings: Dict[str, str]
    warnings: Tuple[str, ...] = ()
    refusal: Optional[SrDeployError] = None


def products_of(layers: Sequence[NetworkLayer]) -> Dict[str, NetworkLayer]:
    """ONNX node → the product that the parser made of it."""
    return {node: layer for layer in layers if layer.product for node in layer.nodes}


def listing_of(
    trt: Any, runtime: Callable[[], Any], plan: bytes, logged: Sequence[str], products: Sequence[str]
) -> Optional[Listing]:
    """The layers of an engine that was just built.

    Args:
        trt: of the flavour that built it.
        runtime: opens engines, see ``runtime_for`` of engine/dla.py; called only where the inspector is needed.
        plan: the engine's bytes.
        logged: the builder's messages that tell of layers; where there are any, they are taken. Of TensorRT-RTX they
            are known well and cost nothing; of others the inspector is, and the caller gives none.
        products: the graph's, from ``products_of``.

    Returns:
        None where nothing was logged and this machine cannot open the engine.

    Raises:
        BadInput: the inspector tells no types.
    """
    listing = listing_from_log(logged, products)
    if listing is not None:
        return listing
    engine = runtime().deserialize_cuda_engine(plan)
    if engine is None:
        return None
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return listing_from_inspector(text, products)


def read_back(
    listing: Listing, layers: Sequence[NetworkLayer], planned: Mapping[str, str], strongly_typed: bool, graph: str
) -> ReadBack:
    """Hold an engine's layers against the network, where that has types, and else against the plan.

    Args:
        listing: of the engine.
        layers: of the parsed network.
        planned: ONNX node name → type; empty compares nothing with a plan.
        strongly_typed: whether the network's types are those it computes in. Elsewhere (TensorRT 8) a product planned
            in float16 may run in float32 without a word: the flag allows float16, it does not ask for it.
        graph: the file, for messages.
    """
    products = products_of(layers)
    found = listing.product_layers()
    several = _counted(found)
    types = {
        node: _types_of_product(layer, products[node].weighted, several[layer.name] > 1)
        for node, layer in found.items()
    }
    wanted = {node: products[node].computes if strongly_typed else planned.get(node) for node in found}
    narrower: List[str] = []
    wider: List[str] = []
    for node, layer in found.items():
        asked, runs = wanted[node], types[node]
        if asked is None or not runs or asked in runs:
            continue
        line = f"{node}: planned {asked}, runs in {_words(runs)} ({layer.kind} {layer.name})"
        if any(is_less(kind, asked) for kind in runs):
            narrower.append(line)
        elif strongly_typed or not FORMAT[asked].floating:
            wider.append(line)
    settings = {
        "built": types_text(map(_words, types.values())) or "none",
        "products_found": f"{len(found)} of {len(products)}",
        **_notes(listing, planned),
    }
    refusal = _none_found(listing, products, graph) if products and not found else None
    if narrower or any(_absent(one.name, wanted, types) for one in QUANTISED):
        refusal = not_as_planned((*narrower, *wider), f"the engine of {graph}")
    return ReadBack(settings, (*_wider(wider, len(found)), *_untold(listing, products, found)), refusal)


def _absent(kind: str, wanted: Mapping[str, Optional[str]], types: Mapping[str, FrozenSet[str]]) -> bool:
    """Whether products were planned in an 8-bit type and none runs in it."""
    asked = [node for node, one in wanted.items() if one == kind]
    return bool(asked) and not any(kind in types[node] or not types[node] for node in asked)


def _words(types: FrozenSet[str]) -> str:
    """One type, or those between which it cannot be told: "float16 or float32"."""
    return " or ".join(sorted(types, key=FORMAT_BITS.__getitem__)) or "unknown"


def _wider(lines: Sequence[str], products: int) -> Tuple[str, ...]:
    more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
    what = f"{len(lines)} of {products} products run in a wider type than planned: "
    return (what + "; ".join(lines[:3]) + more,) if lines else ()


def _counted(found: Mapping[str, Layer]) -> Dict[str, int]:
    """Layer name → how many products it computes."""
    counts: Dict[str, int] = {}
    for layer in found.values():
        counts[layer.name] = counts.get(layer.name, 0) + 1
    return counts


def _types_of_product(layer: Layer, weighted: bool, several: bool) -> frozenset[str]:
    """The types that a layer's product may run in; one, where it can be told. Empty where nothing is told.

    A cast may be fused before a product and after it, so its weights say more than its input. In a layer that computes
    several, or that is no product's kind, each tensor may belong to another node.
    """
    constants = [tensor for tensor in layer.constants if _volume(tensor) > 1]
    if several or not computes_products(layer):
        operands: Sequence[Tensor] = [*constants, *layer.inputs]
    elif weighted and constants:
        largest = max(map(_volume, constants))
        operands = [tensor for tensor in constants if _volume(tensor) == largest]
    else:
        operands = layer.inputs
    return frozenset(tensor.type for tensor in operands if tensor.type in FORMAT_BITS)


def _volume(tensor: Tensor) -> int:
    return math.prod(abs(extent) for extent in tensor.shape)


def _notes(listing: Listing, planned: Mapping[str, str]) -> Dict[str, str]:
    """What is counted and proves nothing."""
    told = {node for layer in listing.layers for node in layer.nodes}
    hidden = sum(not FORMAT[kind].floating and node not in told for node, kind in planned.items())
    computing = {layer.name for layer in listing.product_layers().values()}
    narrow = 0
    for layer in listing.layers:
        types = {tensor.type for tensor in (*layer.inputs, *layer.outputs)} & set(FORMAT_BITS)
        wide = any(planned.get(node) == "float32" for node in layer.nodes)
        narrow += wide and layer.name not in computing and bool(types) and "float32" not in types
    notes = {"narrow_nodes_not_told": hidden, "io_narrower_than_planned": narrow}
    return {name: str(count) for name, count in notes.items() if count}


def _none_found(listing: Listing, products: Mapping[str, Any], graph: str) -> Optional[CheckFailed]:
    """The error for a listing in which no product is named; None where TensorRT 8 hides all in one opaque layer."""
    if any("ForeignNode[" in layer.name for layer in listing.layers):
        return None
    unread = f", and {len(listing.unread)} more lines could not be read" if listing.unread else ""
    return CheckFailed(
        f"the {listing.source} names none of the {len(products)} products of {graph}: it lists {len(listing.layers)} "
        f"layers{unread}",
        "layers that name the graph's convolutions and matrix products",
        "report this TensorRT's version; nothing is known of the types in which this engine computes",
    )


def _untold(listing: Listing, products: Mapping[str, Any], found: Mapping[str, Layer]) -> Tuple[str, ...]:
    """What of the engine could not be judged."""
    lines = []
    missing = [node for node in products if node not in found]
    if missing:
        more = ", …" if len(missing) > 3 else ""
        lines.append(
            f"{len(missing)} of {len(products)} products are named by no layer, so their types are not known: "
            + ", ".join(missing[:3]) + more
        )  # fmt: skip
    if listing.unread:
        lines.append(
            f"{len(listing.unread)} lines of the {listing.source} could not be read as layers, the first: "
            f"{listing.unread[0][:120]}"
        )
    return tuple(lines)
