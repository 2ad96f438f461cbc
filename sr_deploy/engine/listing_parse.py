"""Reading what TensorRT says of an engine's layers: the builder's log of TensorRT-RTX, and the inspector's JSON.

A build at DETAILED verbosity logs, in one verbose message, a line for each layer of the engine (seen with 1.7.1):

    Layers:
    Name: /c/Conv_myl0_1, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [1,8,4,4], Strides: […], StrideOrder:
    […], Datatype: Half, Format: (NHWC) … }], Constants: […], Outputs: […], TacticName: …, StreamId: 0, Metadata: [ONNX
    Layer: /c/Conv]<unit separator>[ONNX Layer: /c/Relu]

    I/O Tensors:

TensorRT 10 logs the same with "Format/Datatype: Half" and its constants among the inputs. Names are the user's: they
may hold commas, braces and brackets, so nothing is split at those. In the inspector's JSON a tensor's type stands in
"Format/Datatype" up to TensorRT 10, in "DataType" in 11 (migration guide of 11.0), and Myelin writes "Datatype".
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from sr_deploy.core.errors import BadInput
from sr_deploy.core.number_formats import FORMATS, LISTED
from sr_deploy.engine.listing import Layer, Listing, Tensor

#: Words for types, in lower case → ours.
_TYPES = {word: one.name for one in (*FORMATS, *LISTED) for word in one.words}
_WORD = re.compile(rf"\b({'|'.join(_TYPES)})\b", re.IGNORECASE)
_HEAD = re.compile(r"Name: (.*?), LayerType: (\w+)")
_SECTION = re.compile(r", (Inputs|Constants|Outputs): \[")
_TENSOR = re.compile(
    r" \{ Name: (.*?), (?:Location: \w+, )?Dimensions: \[([-\d,]*)\](?:, \w+: \[[-\d,]*\])*"
    r", (?:Format/)?Data[tT]ype: ([^{}\[\],]+?)(?:, Format: .*?)? \}(?=, \{ Name: |\])"
)
#: TensorRT 10 lists what Myelin has folded into constants among the inputs.
_FOLDED = re.compile(r"__mye\d+_*d?const")
_METADATA = re.compile(r", Metadata: (.*)$")
_NODE = re.compile(r"\[ONNX Layer: (.*)\]", re.DOTALL)
#: Between the nodes of one layer's metadata; without a separator they stand bracket to bracket.
_BETWEEN = re.compile("[\x1e\x1f]|(?<=\\])(?=\\[ONNX Layer: )")
#: What follows the layers in the builder's message.
_AFTER = re.compile(r"^(?:I/O Tensors|Bindings|Engine Metadata):", re.MULTILINE)


def type_in(text: str) -> str:
    """The type that TensorRT's words tell of, such as "Half" or "Channel major FP16 format": "float16"; or
    "unknown"."""
    found = _WORD.search(text)
    return _TYPES[found.group(1).lower()] if found else "unknown"


def nodes_of_layer(name: str, metadata: Optional[str]) -> Tuple[str, ...]:
    """The ONNX nodes of a layer, from its metadata (8.6 and later) or from its name, in which fusion joins names."""
    found = [match.group(1) for match in map(_NODE.match, _BETWEEN.split(metadata or "")) if match]
    if found:
        return tuple(dict.fromkeys(found))
    parts = re.split(r" \+ | \|\| |, ", re.sub(r"PWN\(|\)|\(|fused ", "", name))
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def is_listing(message: str) -> bool:
    """Whether a message of the builder tells of an engine's layers."""
    return message.startswith("Layers:") and "LayerType: " in message


def listing_from_log(messages: Sequence[str], products: Sequence[str]) -> Optional[Listing]:
    """The layers that a build has logged.

    Args:
        messages: those for which ``is_listing`` holds, in order; of several the last engine's is taken.
        products: the graph's convolutions and matrix products, see ``Listing``.

    Returns:
        None where the builder logged no layers.
    """
    if not messages:
        return None
    body = _AFTER.split(messages[-1].partition("\n")[2])[0]
    layers: List[Layer] = []
    unread: List[str] = []
    for line in filter(str.strip, body.split("\n")):
        layer = _layer_of_line(line)
        if layer is None:
            unread.append(line)
        else:
            layers.append(layer)
    return Listing("builder's log", tuple(layers), tuple(products), tuple(unread))


def _layer_of_line(line: str) -> Optional[Layer]:
    """One layer; None for a line that is not of the known form."""
    head = _HEAD.match(line)
    if head is None:
        return None
    tensors: Dict[str, Tuple[Tensor, ...]] = {"Inputs": (), "Constants": (), "Outputs": ()}
    at = head.end()
    section = _SECTION.match(line, at)
    while section is not None:
        read = _tensors_of_line(line, section.end())
        if read is None:
            return None
        tensors[section.group(1)], at = read
        section = _SECTION.match(line, at)
    # An input or output that does not parse leaves its section unread: only what may follow is known to be harmless.
    known = (", ParameterType: ", ", TacticName: ", ", StreamId: ", ", Metadata: ")
    if not line.startswith(known, at) and at != len(line):
        return None
    metadata = _METADATA.search(line, at)
    nodes = nodes_of_layer(head.group(1), metadata.group(1) if metadata else None)
    return _layer(head.group(1), head.group(2), nodes, tensors["Inputs"], tensors["Constants"], tensors["Outputs"])


def _layer(
    name: str, kind: str, nodes: Tuple[str, ...], inputs: Iterable[Tensor], constants: Iterable[Tensor],
    outputs: Iterable[Tensor],
) -> Layer:  # fmt: skip
    """The layer, with its constants in one place."""
    read = tuple(inputs)
    folded = tuple(tensor for tensor in read if _FOLDED.match(tensor.name))
    given = tuple(tensor for tensor in read if tensor not in folded)
    return Layer(name, kind, nodes, given, (*constants, *folded), tuple(outputs))


def _tensors_of_line(line: str, at: int) -> Optional[Tuple[Tuple[Tensor, ...], int]]:
    """The tensors from behind a "[" to behind its "]", and where that is; None where they are not of the known form."""
    found: List[Tensor] = []
    while not line.startswith("]", at):
        match = _TENSOR.match(line, at + 1 if found and line.startswith(",", at) else at)
        if match is None:
            return None
        shape = tuple(int(extent) for extent in match.group(2).split(",") if extent)
        found.append(Tensor(match.group(1), shape, type_in(match.group(3))))
        at = match.end()
    return tuple(found), at + 1


def listing_from_inspector(text: str, products: Sequence[str], origin: str = "the engine inspector") -> Listing:
    """The layers that an engine inspector tells of.

    Args:
        text: of ``EngineInspector.get_engine_information(JSON)`` or ``trtexec --exportLayerInfo``.
        products: see ``Listing``.
        origin: for messages.

    Raises:
        BadInput: it is not such JSON, or it holds names only.
    """
    wanted = "the inspector's JSON of an engine that was built with detailed profiling verbosity"
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{origin} gave no JSON: {error}", wanted, "build it again with srdeploy") from error
    entries = raw.get("Layers") if isinstance(raw, dict) else None
    if not isinstance(entries, list):
        raise BadInput(f"{origin} gave JSON without layers", wanted, "build it again with srdeploy")
    if not all(isinstance(entry, dict) for entry in entries):
        raise BadInput(f"{origin} gave names of layers only", wanted, "build it again with srdeploy")
    return Listing("engine inspector", tuple(map(_inspected, entries)), tuple(products))


def _inspected(entry: Mapping[str, Any]) -> Layer:
    """One layer of the inspector's JSON; a classic convolution's weights are told as a type and a count."""
    name, kind = str(entry.get("Name", "")), str(entry.get("LayerType", ""))
    constants = list(_tensors(entry.get("Constants")))
    # "ConvWeights" where 8.x has fused a pooling too (ConvActPool).
    weights = entry.get("Weights", entry.get("ConvWeights"))
    if isinstance(weights, dict) and isinstance(weights.get("Count", 1), int) and weights.get("Count", 1) > 0:
        constants.insert(0, Tensor("weights", (weights.get("Count", 1),), type_in(str(weights.get("Type", "")))))
    metadata = entry.get("Metadata")
    nodes = nodes_of_layer(name, metadata if isinstance(metadata, str) else None)
    return _layer(name, kind, nodes, _tensors(entry.get("Inputs")), constants, _tensors(entry.get("Outputs")))


def _tensors(value: Any) -> Iterable[Tensor]:
    for tensor in value if isinstance(value, list) else ():
        if isinstance(tensor, dict):
            told = next((tensor[key] for key in ("DataType", "Datatype", "Format/Datatype") if key in tensor), "")
            shape = tensor.get("Dimensions")
            # Without a shape nothing is known of its size, which -1 says.
            if not isinstance(shape, list) or not all(type(extent) is int for extent in shape):
                shape = [-1]
            yield Tensor(str(tensor.get("Name", "")), tuple(shape), type_in(str(told)))
