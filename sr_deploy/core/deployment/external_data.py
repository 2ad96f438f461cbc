"""Whether an ONNX file is all of its graph: weights in other files would be outside the hash of a manifest.

ONNX lets a tensor say "my bytes are in that file" (TensorProto.data_location and external_data, onnx.proto3), and every
runtime then reads that file. The graphs of a deployment hold their weights themselves, so such a tensor is refused. The
protobuf is walked here, without the package onnx, which no board has; weights are stepped over, not read.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

from sr_deploy.core.errors import BadDeployment
from sr_deploy.core.text import plain

#: Message → field number → the message in it, of onnx.proto3: all ways that lead to a TensorProto.
_INSIDE: Dict[str, Dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
#: TensorProto.external_data and data_location.
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: Fields that are looked at in one file: a second or two. A transformer of 5,000 nodes has some 100,000.
_MOST_FIELDS = 2_000_000


def check_self_contained(path: Path) -> None:
    """Refuse a graph of which a part lies in other files.

    Raises:
        BadDeployment: a tensor has external data, or the file is no protobuf that can be walked.
    """
    with open(path, "rb") as stream:
        try:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                external = any(message.external for message in onnx_messages(data))
        except (ValueError, IndexError) as error:
            # An empty file cannot be mapped either.
            raise BadDeployment(f"{plain(str(path))} is not an ONNX file", "a graph of srdeploy export",
                                "export it again") from error  # fmt: skip
    if external:
        raise BadDeployment(
            f"{plain(str(path))} keeps weights in another file, which no hash covers",
            "a graph that holds its weights itself, as srdeploy export writes it",
            "export it again",
        )


class Message(NamedTuple):
    """One message of an ONNX file: its kind, a key of ``_INSIDE``, how deep it lies, and whether it is a tensor whose
    bytes are in another file."""

    kind: str
    depth: int
    external: bool


def onnx_messages(data: Any) -> Iterator[Message]:
    """The graphs, nodes, attributes, functions and tensors of a ModelProto, one by one; weights are stepped over.

    Args:
        data: the bytes of the file, mapped or in memory.

    Raises:
        ValueError, IndexError: it is no protobuf that can be walked.
    """
    waiting: List[Tuple[str, int, int, int]] = [("Model", 0, len(data), 0)]
    fields = 0
    while waiting:
        kind, place, end, depth = waiting.pop()
        inside, external = _INSIDE[kind], False
        while place < end:
            tag, place = _varint(data, place)
            number, wire = tag >> 3, tag & 7
            if kind == "Tensor" and number in (_EXTERNAL_DATA, _DATA_LOCATION):
                value = _varint(data, place)[0] if wire == _VARINT else 1
                external = external or bool(value) or number == _EXTERNAL_DATA
            start, place = _value(data, place, wire)
            fields += 1
            if place > end or fields > _MOST_FIELDS:
                raise ValueError("a field is longer than its message, or there are more than any graph has")
            if wire == _BYTES and number in inside:
                waiting.append((inside[number], start, place, depth + 1))
        yield Message(kind, depth, external)


def _value(data: Any, place: int, kind: int) -> Tuple[int, int]:
    """Where the value that begins at ``place`` has its content, and where it ends."""
    if kind == _VARINT:
        return place, _varint(data, place)[1]
    if kind == _BYTES:
        length, start = _varint(data, place)
        return start, start + length
    if kind in (_FIXED64, _FIXED32):
        return place, place + (8 if kind == _FIXED64 else 4)
    raise ValueError("a field of a kind that ONNX does not have")


def _varint(data: Any, place: int) -> Tuple[int, int]:
    """The number at ``place`` and the place after it."""
    value = 0
    for index in range(10):
        byte = data[place + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, place + index + 1
    raise ValueError("a number of more than ten bytes")
