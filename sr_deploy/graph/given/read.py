"""An ONNX file to a model that holds all its weights, within bounds of time and memory. Nothing in it is run.

Protobuf is parsed by the package onnx, which trusts sizes; so the file is walked first (core's walker, which steps over
weights), and what it says of itself is compared with what is there before anything is made as large as it says.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import onnx
from onnx import TensorProto, external_data_helper, helper

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.confine import confined
from sr_deploy.core.deployment.external_data import onnx_messages
from sr_deploy.core.errors import BadInput, EnvironmentFault
from sr_deploy.core.text import plain

#: Nodes, and messages of all kinds (attributes, tensors, graphs), of one file. The largest super-resolution
#: transformers have some 10,000 nodes after tracing; a second is enough to walk these.
MOST_NODES, MOST_MESSAGES = 50_000, 300_000
#: Messages inside each other: 3 for each graph inside a node. Real branches lie 2 graphs deep.
MOST_DEPTH = 24
#: Bytes of the file and of its external data together; protobuf itself ends at 2 GiB.
MOST_BYTES = (1 << 31) - (1 << 20)
#: Characters of a name.
MOST_LETTERS = 1000
#: Operator sets that are taken.
OLDEST_OPSET, NEWEST_OPSET = 9, 21

_WANTED = "an ONNX file of one super-resolution network"


@dataclass(frozen=True)
class GivenFile:
    """An ONNX file as it was found.

    Attributes:
        path, sha256: the file and its hash.
        model: with all weights inside.
        opset: its operator set.
        external: name of each file of external data, relative to the file's folder → sha256.
    """

    path: Path
    sha256: str
    model: onnx.ModelProto
    opset: int
    external: Dict[str, str]


def onnx_from_file(path: Path) -> GivenFile:
    """Read an ONNX file and its external data.

    Raises:
        BadInput: cut off, no ONNX, too large or too deep, weights that are not there or that lie outside the file's
            folder, an operator set older than 9 or newer than 21; the message names the tensor.
        EnvironmentFault: it may not be read.
    """
    path = Path(path)
    try:
        if not 0 < path.stat().st_size <= MOST_BYTES:
            raise _refused(path, f"has {path.stat().st_size:,} bytes", f"1 to {MOST_BYTES:,} bytes")
        external = _walk(path)
        # The package's own reading of external data follows any path; ours has been confined first.
        model = onnx.load(str(path), load_external_data=False)
        opset = _checked_opset(path, model)
        sizes = _files_of(path, model) if external else {}
        for node in nodes_of(model.graph):
            _check_names(path, node)
        for tensor in tensors_of(model.graph, tuple(model.functions)):
            _check_tensor(path, tensor)
        if sizes:
            external_data_helper.load_external_data_for_model(model, str(path.parent))
    except OSError as error:
        raise EnvironmentFault(
            f"cannot read {path}: {error.strerror}", "a file that you may read", "check the path and who may read it"
        ) from error
    except BadInput:
        raise
    except Exception as error:  # protobuf's DecodeError has moved between packages; whatever it is, the file is bad
        raise _refused(path, "is cut off or damaged", "the whole file") from error
    hashes = {name: sha256_of(path.parent / name) for name in sizes}
    return GivenFile(path, sha256_of(path), model, opset, hashes)


def _refused(path: Path, found: str, wanted: str = _WANTED, todo: str = "export the network again") -> BadInput:
    return BadInput(f"{plain(str(path))} {found}", wanted, todo)


def _walk(path: Path) -> bool:
    """Whether a tensor lies elsewhere; raises BadInput for a file that is larger or deeper than any network's."""
    nodes = messages = 0
    external = False
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for message in onnx_messages(data):
            messages += 1
            nodes += message.kind == "Node"
            external = external or message.external
            for amount, most, what in ((nodes, MOST_NODES, "nodes"), (messages, MOST_MESSAGES, "parts")):
                if amount > most:
                    raise _refused(path, f"has more than {most:,} {what}", f"at most {most:,}, as every network has")
            if message.depth > MOST_DEPTH:
                raise _refused(path, "has graphs inside graphs inside graphs", "branches that hold no branches")
    return external


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators; 0: the model names none."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _checked_opset(path: Path, model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators."""
    if not model.graph.node:
        raise _refused(path, "holds no graph, or an empty one")
    opset = opset_of(model)
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise _refused(
            path,
            f"is of ONNX operator set {opset}",
            f"operator set {OLDEST_OPSET} to {NEWEST_OPSET}",
            "export it again with opset_version=17",
        )
    return opset


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of branches inside nodes too."""
    waiting = [graph]
    while waiting:
        for node in waiting.pop().node:
            yield node
            waiting += [each for attribute in node.attribute for each in (attribute.g, *attribute.graphs) if each.node]


def tensors_of(graph: onnx.GraphProto, functions: Tuple[onnx.FunctionProto, ...] = ()) -> Iterator[TensorProto]:
    """All tensors with values, wherever they stand."""
    waiting = [graph]
    nodes: List[onnx.NodeProto] = [node for function in functions for node in function.node]
    while waiting or nodes:
        if waiting:
            inner = waiting.pop()
            yield from inner.initializer
            nodes += inner.node
        for node in nodes:
            for attribute in node.attribute:
                yield from ([attribute.t] if attribute.HasField("t") else [])
                yield from attribute.tensors
                waiting += [each for each in (attribute.g, *attribute.graphs) if each.node or each.initializer]
        nodes = []


def _files_of(path: Path, model: onnx.ModelProto) -> Dict[str, int]:
    """Name → bytes of the files that external tensors lie in, each inside the file's folder and large enough."""
    sizes: Dict[str, int] = {}
    for tensor in tensors_of(model.graph, tuple(model.functions)):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entry = {pair.key: pair.value for pair in tensor.external_data}
        where = f"{plain(str(path))}: the tensor {plain(tensor.name, 100)}"
        name = entry.get("location", "")
        file = confined(path.parent, name, where)
        if not file.is_file():
            raise BadInput(f"{where} lies in {plain(name, 200)}, which is not there", "the file beside the .onnx",
                           "copy it too: both belong together")  # fmt: skip
        sizes[name] = file.stat().st_size
        numbers = [entry.get("offset", "0"), entry.get("length", str(_bytes_of(tensor)))]
        if not all(number.isascii() and number.isdigit() and len(number) < 16 for number in numbers):
            raise BadInput(f"{where} has an offset or a length that is no number", _WANTED, "export it again")
        offset, length = map(int, numbers)
        if length != _bytes_of(tensor) or offset + length > sizes[name]:
            raise BadInput(
                f"{where} needs {_bytes_of(tensor):,} bytes from byte {offset:,} of {plain(name, 200)}, which has "
                f"{sizes[name]:,}", "all of its values", "copy the whole file"
            )  # fmt: skip
    if sum(sizes.values()) + path.stat().st_size > MOST_BYTES:
        raise _refused(path, "and its external data have more than 2 GiB")
    return sizes


def _bytes_of(tensor: TensorProto) -> int:
    """What the values of a tensor take, by its shape and type."""
    try:
        item = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError):
        item = 0
    if item == 0 or tensor.data_type == TensorProto.STRING or any(edge < 0 for edge in tensor.dims):
        raise BadInput(
            f"the tensor {plain(tensor.name, 100)} is of a type or shape that no network has",
            _WANTED,
            "export it again; do not trust a file that somebody gave you",
        )
    return math.prod(tensor.dims) * item


def _check_names(path: Path, node: onnx.NodeProto) -> None:
    """Refuse names that are no text (protobuf gives bytes for what is not UTF-8), or longer than any."""
    for name in (node.op_type, node.domain, node.name, *node.input, *node.output):
        if not isinstance(name, str) or len(name) > MOST_LETTERS:
            raise _refused(path, "has a node with a name that is no text, or of more than 1,000 letters")


def _check_tensor(path: Path, tensor: TensorProto) -> None:
    """Refuse a tensor that says it is larger than what is there: whoever reads it would make room for it first."""
    if not isinstance(tensor.name, str) or len(tensor.name) > MOST_LETTERS:
        raise _refused(path, "has a tensor with a name that is no text, or of more than 1,000 letters")
    wanted = _bytes_of(tensor)
    if tensor.data_location == TensorProto.EXTERNAL:
        return
    count = math.prod(tensor.dims)
    stored = [tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data]
    there = len(tensor.raw_data) == wanted if tensor.HasField("raw_data") else max(map(len, stored)) == count
    if not there:
        raise _refused(
            path,
            f"says that the tensor {plain(tensor.name, 100)} has the shape {list(tensor.dims)[:8]}, and holds another "
            "number of values",
        )
