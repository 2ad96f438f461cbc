"""Whether an ONNX file is all of its graph: weights in other files would be outside the hash of a manifest.

ONNX lets a tensor say "my bytes are in that file" (TensorProto.data_location and external_data, onnx.proto3), and every
runtime then reads that file. The graphs of a deployment hold their weights themselves, so such a tensor is refused. The
protobuf is walked here, without the package onnx, which no board has; weights are stepped over, not read.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any, Dict, List, Tuple

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


def check_self_contained(path: Path) -> None:
    """Refuse a graph of which a part lies in other files.

    Raises:
        BadDeployment: a tensor has external data, or the file is no protobuf that can be walked.
    """
    with open(path, "rb") as stream:
        try:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                external = _has_external(data)
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


def _has_external(data: Any) -> bool:
    """Whether any tensor of the ModelProto says that its bytes are elsewhere; ValueError or IndexError if none."""
    waiting: List[Tuple[str, int, int]] = [("Model", 0, len(data))]
    while waiting:
        message, place, end = waiting.pop()
        inside = _INSIDE[message]
        while place < end:
            tag, place = _varint(data, place)
            number, kind = tag >> 3, tag & 7
            if message == "Tensor" and number in (_EXTERNAL_DATA, _DATA_LOCATION):
                value = _varint(data, place)[0] if kind == _VARINT else 1
                if value or number == _EXTERNAL_DATA:
                    return True
            start, place = _value(data, place, kind)
            if place > end:
                raise ValueError("a field is longer than its message")
            if kind == _BYTES and number in inside:
                waiting.append((inside[number], start, place))
    return False


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
