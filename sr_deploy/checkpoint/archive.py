"""The containers that checkpoints come in: torch's zip archive, torch's legacy stream, safetensors.

Each is opened to the same thing: a tree of plain values in which tensors are descriptions, and a way to read the
numbers of those that are wanted. Optimiser states are never read.

``torch.load(weights_only=True)`` is not used: a crafted file makes it run code before PyTorch 2.6 (CVE-2025-32434) and
corrupt memory before 2.10 (CVE-2026-24747), and it decides by itself what kind of file it has. Here one reader
decides and checks, whichever PyTorch is installed.
"""

from __future__ import annotations

import contextlib
import io
import json
import struct
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

import torch

from sr_deploy.checkpoint.budget import (
    DIRECTORY_BYTES,
    HEADER_BYTES,
    PICKLE_BYTES,
    UNPACKED_BYTES,
    UNPACKED_TIMES,
    OverBudget,
    check_limit,
)
from sr_deploy.checkpoint.described import Malformed, StandIn, StorageRef, printable
from sr_deploy.checkpoint.pickled import Pickles, describe_pickle, steps_for_pickles
from sr_deploy.core.errors import BadCheckpoint, MissingPackage

#: The element types of torch's typed storages.
STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
#: First value of the legacy stream, and the version that follows it.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


@dataclass(frozen=True)
class Opened:
    """A container whose tree is known and whose numbers are still in the file.

    Attributes:
        container: "zip", "legacy" or "safetensors".
        root: the tree; its tensors are ``TensorRef`` (torch tensors for safetensors).
        kinds: classes and functions that were left as inert stand-ins.
        numbers: reads storages, given their descriptions; gives bytes by key.
        file_bytes: the size of the file.
    """

    container: str
    root: Any
    kinds: Tuple[str, ...]
    numbers: Callable[[Iterable[StorageRef]], Dict[str, bytes]]
    file_bytes: int


class _ZipFile(io.BufferedReader):
    """A file whose zip directory is refused before it is read when it is longer than any honest one.

    ``zipfile`` makes an object of half a kilobyte for every 47 bytes of it.
    """

    longest = DIRECTORY_BYTES

    def read(self, size: Optional[int] = -1, /) -> bytes:
        """As always; OverBudget for more than ``longest`` bytes at once."""
        check_limit(size or 0, self.longest, "bytes in its directory of entries")
        return super().read(size)


@contextlib.contextmanager
def _opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    with _ZipFile(io.FileIO(path)) as stream, zipfile.ZipFile(stream) as archive:
        stream.longest = sys.maxsize
        yield archive


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of an entry, its checksum compared.

    Never more than it says that it has: ``ZipFile.read`` unpacks all that is there before it cuts off the surplus.
    """
    with archive.open(name) as stream:
        data = stream.read(archive.getinfo(name).file_size)
        stream.read(1)  # at the end the checksum is compared
        return data


def open_zip(path: Path) -> Opened:
    """Open what ``torch.save`` has written since PyTorch 1.6.

    Raises:
        BadCheckpoint: a zip archive of something else.
        OverBudget: one that unpacks to far more than its size, or has too many entries.
        AsksToRun, Malformed and others: as ``describe_pickle``; ``zipfile.BadZipFile`` for a damaged archive.
    """
    size = path.stat().st_size
    with _opened_zip(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        prefix = _prefix_of(path, entries)
        _check_entries(archive.infolist(), f"{prefix}data.pkl", size)
        if f"{prefix}byteorder" in entries and _entry(archive, f"{prefix}byteorder") != b"little":
            raise BadCheckpoint(
                f"{path} was written on a big-endian machine, or its byte order is damaged",
                "a little-endian checkpoint",
                "load it in PyTorch on a PC and write it again with torch.save",
            )
        # Read whole, so that its checksum is compared before it is believed.
        described = describe_pickle(Pickles(_entry(archive, f"{prefix}data.pkl")), steps_for_pickles())

    def numbers(refs: Iterable[StorageRef]) -> Dict[str, bytes]:
        with _opened_zip(path) as archive:
            return {ref.key: _entry(archive, f"{prefix}data/{ref.key}") for ref in refs}

    return Opened("zip", described.root, described.kinds, numbers, size)


def _check_entries(entries: List[zipfile.ZipInfo], pickle: str, size: int) -> None:
    """Refuse an archive that unpacks to far more than its size, or whose entries are not those of torch.save."""
    unpacked = sum(entry.file_size for entry in entries)
    limit = max(UNPACKED_BYTES, UNPACKED_TIMES * size)
    if unpacked > limit:
        raise OverBudget(f"it has {size:,} bytes and says that it unpacks to {unpacked:,}", f"at most {limit:,}")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise Malformed("an entry is packed in a way that torch.save never uses")
    if len({entry.filename for entry in entries}) < len(entries):
        raise Malformed("two entries have one name")
    (length,) = (entry.file_size for entry in entries if entry.filename == pickle)
    check_limit(length, PICKLE_BYTES, "bytes in its pickle")


def _prefix_of(path: Path, entries: Dict[str, zipfile.ZipInfo]) -> str:
    """The folder inside the archive that holds data.pkl, with its slash; says what else the archive may be."""
    prefixes = [name[: -len("data.pkl")] for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(prefixes) == 1:
        prefix = prefixes[0]
        if f"{prefix}constants.pkl" not in entries and not any(name.startswith(f"{prefix}code/") for name in entries):
            return prefix
        raise BadCheckpoint(
            f"{path} is a TorchScript archive: it holds code, which is neither run nor read here",
            "a state dict, as torch.save(model.state_dict(), FILE) writes it",
            "load it in PyTorch with torch.jit.load and save its state_dict()",
        )
    what = "is a zip archive of something else"
    if "config.json" in entries and any(name.endswith(".h5") for name in entries):
        what = "is a Keras model"
    elif entries and all(name.endswith(".npy") for name in entries):
        what = "is a NumPy archive (.npz)"
    elif any(name.endswith((".pth", ".pt", ".ckpt", ".safetensors")) for name in entries):
        what = "is a zip archive with checkpoints inside, to be unpacked first"
    raise BadCheckpoint(
        f"{path} {what}: it has {', '.join(map(printable, sorted(entries)[:4])) or 'no entries'}",
        "a PyTorch checkpoint (with one data.pkl) or a safetensors file",
        "give the file that torch.save wrote",
    )


def open_legacy(path: Path) -> Opened:
    """Open what ``torch.save`` wrote before PyTorch 1.6: five pickles, then the numbers of each storage.

    Raises:
        BadCheckpoint: a pickle that is not from ``torch.save``.
        AsksToRun, Malformed and others: as ``describe_pickle``.
    """
    size = path.stat().st_size
    places: Dict[str, Tuple[int, int]] = {}
    budget = steps_for_pickles()
    with open(path, "rb") as stream:
        # The five pickles are read from memory, where a length that is not true reserves nothing.
        pickles = Pickles(stream.read(PICKLE_BYTES))
        first = describe_pickle(pickles, budget).root
        if type(first) is not int or first != LEGACY_MAGIC:
            kind = printable(first.kind.path) if isinstance(first, StandIn) else type(first).__name__
            raise BadCheckpoint(
                f"{path} is a pickle ({kind}) that torch.save did not write; nothing in it was run",
                "a PyTorch checkpoint or a safetensors file",
                "load it where it was made and write its tensors with torch.save(state_dict, FILE)",
            )
        if describe_pickle(pickles, budget).root != LEGACY_PROTOCOL:
            raise Malformed("it has another version of the legacy format")
        about = describe_pickle(pickles, budget).root
        if not isinstance(about, dict) or about.get("little_endian") is not True:
            raise Malformed("it does not say that it is little-endian")
        described = describe_pickle(pickles, budget)
        keys = describe_pickle(pickles, budget).root
        if not isinstance(keys, list):
            raise Malformed("its list of storages is no list")
        budget.spend(len(keys))
        # After the last pickle: for each storage its number of elements (8 bytes) and the elements.
        stream.seek(pickles.tell())
        for key in map(str, keys):
            ref = described.storages[key]
            (count,) = struct.unpack("<q", stream.read(8))
            length = count * element_bytes(ref)
            if count != ref.count or stream.tell() + length > size:
                raise Malformed(f"storage {key} should have {ref.count} elements, and the file does not have them")
            places[key] = (stream.tell(), length)
            stream.seek(length, 1)

    def numbers(refs: Iterable[StorageRef]) -> Dict[str, bytes]:
        out = {}
        with open(path, "rb") as stream:
            for ref in refs:
                start, length = places[ref.key]
                stream.seek(start)
                out[ref.key] = stream.read(length)
        return out

    return Opened("legacy", described.root, described.kinds, numbers, size)


def element_bytes(ref: StorageRef) -> int:
    """Bytes of one element of a storage.

    Raises:
        Malformed: torch has no storage of that name that holds plain numbers (quantised ones are not read).
    """
    if ref.dtype not in STORAGE_DTYPES:
        raise Malformed(f"storage {ref.key} is a {ref.dtype}, which is not read here")
    return STORAGE_DTYPES[ref.dtype].itemsize


def open_safetensors(path: Path) -> Opened:
    """Open a safetensors file; its tensors are read at once, and checked by the safetensors package.

    Raises:
        MissingPackage: safetensors is not installed.
        Malformed: the header or the offsets are not those of a whole file.
    """
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise MissingPackage(
            f"{path} is a safetensors file, and the package that reads it is not installed: {error}",
            "the package safetensors",
            "pip install safetensors (it comes with srdeploy[export])",
        ) from error
    data = path.read_bytes()
    check_limit(int.from_bytes(data[:8], "little"), HEADER_BYTES, "bytes in its header")
    try:
        # From bytes: tensors of a mapped file would change when the file is written again.
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise Malformed(f"safetensors says: {error}") from error
    # The package gives them in another order each time.
    return Opened("safetensors", {key: tensors[key] for key in sorted(tensors)}, (), lambda refs: {}, len(data))
