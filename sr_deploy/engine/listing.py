"""What a builder made of a graph, layer by layer: kinds, types, shapes, the ONNX nodes of each, bytes that it moves.

A file beside the engine (``x.engine`` + ``x.layers.json``), bound to the engine's bytes by their sha256. It comes from
the builder's log (TensorRT-RTX, also without a GPU) or from the engine inspector; engine/listing_parse.py reads both.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from pydantic import Field
from typing_extensions import Annotated, Literal

from sr_deploy.core.errors import BadDeployment
from sr_deploy.core.number_formats import FORMATS, LISTED
from sr_deploy.core.schema import Sha256, ShortText, described, read_described
from sr_deploy.core.text import plain

SCHEMA: Literal[1] = 1
#: An extent of a shape; -1 is not fixed.
Extent = Annotated[int, Field(ge=-1, le=2**62)]
#: Bits of a value; of a type that is not here no bytes are known.
BITS = {one.name: one.bits for one in (*FORMATS, *LISTED)}
#: Kinds that wait, mark or compute shapes: no kernel runs for them.
NO_KERNEL = frozenset({"signal", "wait", "shape_call", "noop", "constant"})
#: Parts of the kinds of layers that compute products: TensorRT's own and Myelin's (correlation is its convolution).
PRODUCT_KINDS = ("conv", "correlation", "gemm", "matrixmultiply", "matrix_multiply", "fullyconnected", "fusion",
                 "runtime_function")  # fmt: skip


@described
@dataclass(frozen=True)
class Tensor:
    """A tensor of a layer.

    Attributes:
        name: the builder's.
        shape: -1 for an extent that is not fixed.
        type: such as "float16"; "unknown" where it was not told.
    """

    name: str
    shape: Tuple[Extent, ...]
    type: ShortText

    @property
    def bytes(self) -> Optional[int]:
        """Its size; None for a shape that is not fixed or a type of unknown width."""
        if self.type not in BITS or any(extent < 0 for extent in self.shape):
            return None
        return -(-math.prod(self.shape) * BITS[self.type] // 8)


@described
@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    Attributes:
        name: the builder's.
        kind: the builder's, such as "correlation", "kgen" or "CaskConvolution".
        nodes: the ONNX nodes that it computes, or a part of.
        inputs, constants, outputs: its tensors; constants are weights, biases, scales.
    """

    name: str
    kind: str
    nodes: Tuple[str, ...]
    inputs: Tuple[Tensor, ...]
    constants: Tuple[Tensor, ...]
    outputs: Tuple[Tensor, ...]

    @property
    def is_kernel(self) -> bool:
        """Whether something runs on the GPU for it."""
        return self.kind.lower() not in NO_KERNEL

    @property
    def bytes_read(self) -> Optional[int]:
        """Of its inputs, constants left out; one that is listed twice is read once. None where one is not known."""
        each: Dict[str, int] = {}
        for tensor in self.inputs:
            if tensor.bytes is None:
                return None
            each[tensor.name] = max(tensor.bytes, each.get(tensor.name, 0))
        return sum(each.values())

    @property
    def bytes_written(self) -> Optional[int]:
        """Of its outputs. None where one is not known."""
        each = [tensor.bytes for tensor in self.outputs]
        return None if None in each else sum(size for size in each if size is not None)

    @property
    def bytes_moved(self) -> Optional[int]:
        """Read and written."""
        read, written = self.bytes_read, self.bytes_written
        return None if read is None or written is None else read + written


@described
@dataclass(frozen=True)
class Listing:
    """The layers of an engine.

    Attributes:
        source: "builder's log" or "engine inspector".
        layers: in the order they run.
        products: the convolutions and matrix products of the graph, by the names of their ONNX nodes.
        unread: lines of the log that should be layers and could not be read.
        schema: version of this layout.
    """

    source: str
    layers: Tuple[Layer, ...]
    products: Tuple[str, ...]
    unread: Tuple[str, ...] = ()
    schema: Literal[1] = SCHEMA

    @property
    def kernels(self) -> int:
        """How many layers run on the GPU."""
        return sum(layer.is_kernel for layer in self.layers)

    @property
    def bytes_moved(self) -> Optional[int]:
        """What all layers read and write, weights left out; None where the input's size is not fixed."""
        each = [layer.bytes_moved for layer in self.layers]
        return None if None in each else sum(size for size in each if size is not None)

    def product_layers(self) -> Dict[str, Layer]:
        """Product → the layer that computes it; products that no layer names are left out.

        A layer that only prepares its input (padding to four channels) names the convolution too, so one of a kind
        that computes products comes first. Without such a one the last one computes it: small 1×1 convolutions and
        matrix products become part of a pointwise kernel.
        """
        found: Dict[str, Layer] = {}
        for layer in self.layers:
            for node in layer.nodes:
                if node not in found or computes_products(layer) or not computes_products(found[node]):
                    found[node] = layer
        return {node: found[node] for node in self.products if node in found}


def computes_products(layer: Layer) -> bool:
    """Whether layers of its kind compute convolutions or matrix products (and others, in fused kinds)."""
    kind = layer.kind.lower()
    return any(word in kind for word in PRODUCT_KINDS) and "reformat" not in kind


def summary(listing: Listing) -> Dict[str, Any]:
    """What a listing comes to, JSON-able.

    ``kernels``; ``products``, "input → output" type → number; ``products_found`` of ``products_in_graph``;
    ``bytes_moved`` (None where it is not known); ``unread_lines``; ``source``.
    """
    found = listing.product_layers()
    types = Counter(f"{_type(layer.inputs)} → {_type(layer.outputs)}" for layer in found.values())
    return {
        "source": listing.source,
        "kernels": listing.kernels,
        "products_in_graph": len(listing.products),
        "products_found": len(found),
        "products": dict(types.most_common()),
        "bytes_moved": listing.bytes_moved,
        "unread_lines": len(listing.unread),
    }


def layer_facts(listing: Listing) -> List[Dict[str, Any]]:
    """One dict for each layer that runs on the GPU, what moves most first: ``name``, ``kind``, ``products`` (those that
    it computes), ``nodes``, ``types`` ("float16 → float16"), ``shape`` of the first output, ``bytes_read``,
    ``bytes_written``."""
    kernels = [layer for layer in listing.layers if layer.is_kernel]
    found = listing.product_layers()
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "products": [node for node in layer.nodes if found.get(node) is layer],
            "nodes": list(layer.nodes),
            "types": f"{_type(layer.inputs)} → {_type(layer.outputs)}",
            "shape": list(layer.outputs[0].shape) if layer.outputs else [],
            "bytes_read": layer.bytes_read,
            "bytes_written": layer.bytes_written,
        }
        for layer in sorted(kernels, key=lambda layer: -(layer.bytes_moved or 0))
    ]


def _type(tensors: Tuple[Tensor, ...]) -> str:
    return tensors[0].type if tensors else "–"


@described
@dataclass(frozen=True)
class _Written(Listing):
    """A listing as its file has it: with the hash of the engine that it is of."""

    engine_sha256: Sha256 = ""


def listing_path(engine: Path) -> Path:
    """Where the listing of an engine lies: the same name, ending in ``.layers.json``."""
    return Path(engine).with_suffix(".layers.json")


def listing_text(listing: Listing, engine_sha256: str) -> str:
    """The file's text."""
    content = {"schema": SCHEMA, "engine_sha256": engine_sha256, **dataclasses.asdict(listing)}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def open_listing(engine: Path, engine_sha256: str) -> Optional[Listing]:
    """Read the listing beside an engine.

    Args:
        engine: the engine's file.
        engine_sha256: of its bytes, from its manifest.

    Returns:
        None where there is none: ONNX Runtime's engines, and what srdeploy built before it kept listings.

    Raises:
        BadDeployment: it is damaged, of another schema, or of another engine.
    """
    path = listing_path(engine)
    if not path.is_file():
        return None
    rebuild = "build the engine again with srdeploy build --force"
    written = read_described(_Written, path, "listing of layers", rebuild, BadDeployment)
    if written.engine_sha256 != engine_sha256:
        found = f"{plain(str(path))} is the listing of another engine"
        raise BadDeployment(found, f"one of {engine_sha256[:12]}…", rebuild)
    return Listing(**{field.name: getattr(written, field.name) for field in dataclasses.fields(Listing)})
