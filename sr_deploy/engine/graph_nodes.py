"""The names of a graph's nodes, read from the ONNX file itself: a board that builds an engine has no package onnx.

Field numbers are of onnx.proto3: ModelProto.graph = 7, GraphProto.node = 1, NodeProto.name = 3. Everything else is
skipped, weights without being copied.
"""

from __future__ import annotations

from pathlib import Path
from typing import FrozenSet, Iterator, Tuple

from sr_deploy.core.errors import BadDeployment

_GRAPH, _NODE, _NAME = 7, 1, 3
#: Wire types of protobuf: a number of up to ten bytes, eight bytes, a length and so many bytes, four bytes.
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


def node_names(graph: Path) -> FrozenSet[str]:
    """Names of all nodes of the main graph; nodes without one are left out.

    Raises:
        BadDeployment: the file is no ONNX graph.
    """
    data = memoryview(Path(graph).read_bytes())
    try:
        return frozenset(
            bytes(name).decode()
            for main in _fields(data, _GRAPH)
            for node in _fields(main, _NODE)
            for name in _fields(node, _NAME)
            if name
        )
    except (IndexError, ValueError) as error:
        raise BadDeployment(f"{graph} is no ONNX graph: {error}", "an ONNX file", "export it again") from error


def _fields(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Content of each field of one message that has this number and holds bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _BYTES:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("it ends too early")
            if number == wanted:
                yield message[at : at + length]
            at += length
        elif kind in (_EIGHT, _FOUR):
            at += 8 if kind == _EIGHT else 4
        else:
            raise ValueError(f"it holds wire type {kind}")


def _varint(message: memoryview, at: int) -> Tuple[int, int]:
    """A number, seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
