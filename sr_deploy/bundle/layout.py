"""What a bundle looks like, byte by byte: an index, then the files that it lists, in a plain tar archive.

The archive is uncompressed ustar (POSIX.1-1988), so ``tar -xf`` reads it and nothing can swell when it is unpacked. All
of it follows from the index: every header, every byte of padding and the end. A reader therefore compares instead of
parsing, and an altered bundle is refused wherever the alteration lies. Headers are written here and not by ``tarfile``,
whose bytes differ between Python releases (the device fields of an ordinary file).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterable, Tuple

from pydantic import Field
from typing_extensions import Annotated, Literal

from sr_deploy.core.deployment.manifest import PRECISION_FOLDER
from sr_deploy.core.errors import BadInput
from sr_deploy.core.schema import Count, Sha256, described, value_from

KIND = "srdeploy bundle"
SCHEMA = 1
#: The first file of every bundle.
INDEX_NAME = "bundle.json"
RECIPE_NAME = "recipe.toml"
GOLDEN_FOLDER = "golden"

BLOCK = 512
#: Limits of what is accepted, so that a hostile index costs nothing. An ONNX file cannot exceed 2 GiB.
MAX_MEMBERS = 1000
MAX_INDEX_BYTES = 1 << 20
MAX_TOTAL_BYTES = 4 << 30
#: The name field of a ustar header.
MAX_NAME = 100

_WORD = r"[A-Za-z0-9_](?:[A-Za-z0-9_.+-]*[A-Za-z0-9_])?"
#: All that may be in a bundle. Engines are not: they are built where they run, and a plan can run code when loaded.
_ALLOWED = re.compile(
    rf"manifest\.json|{re.escape(RECIPE_NAME)}|{_WORD}\.(?:onnx|calibration|cache)|plan(?:[._-]{_WORD})?\.json"
    r"|weights\.npz"
    rf"|{GOLDEN_FOLDER}/[1-9][0-9]{{0,5}}x[1-9][0-9]{{0,5}}_(?:lr|sr|sr_{_WORD})\.npy"
    rf"|{PRECISION_FOLDER}/(?:{_WORD}/)?{_WORD}\.(?:json|toml|txt|onnx|calibration|cache|npy|npz)",
    re.ASCII,
)
_Plain = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,63}$")]
_AGAIN = "pack it again with srdeploy pack, or copy it again"
_AGAIN_OR_INSTALL = _AGAIN + "; for another schema, install that srdeploy here"


@described
@dataclass(frozen=True)
class Member:
    """One file of a bundle.

    Attributes:
        name: with ``/`` between folders.
        size: bytes.
        sha256: of its content.
    """

    name: str
    size: Count
    sha256: Sha256


@dataclass(frozen=True)
class Index:
    """What a bundle says of itself.

    Attributes:
        srdeploy: the version that packed it.
        target: the name of graph/target.py that its graphs fit.
        members: its files, sorted by name.
        schema: version of this layout.
    """

    srdeploy: str
    target: str
    members: Tuple[Member, ...]
    schema: int = SCHEMA


@described
@dataclass(frozen=True)
class IndexFile:
    """What stands in ``bundle.json``.

    Attributes:
        kind: that it is one.
        sha256: of all the rest, written in one way.
    """

    kind: Literal["srdeploy bundle"]
    srdeploy: _Plain
    target: _Plain
    members: Annotated[Tuple[Member, ...], Field(max_length=MAX_MEMBERS)]
    sha256: Sha256
    schema: int = SCHEMA


def is_allowed(name: str) -> bool:
    """Whether a file of this name may be in a bundle. No name with ``..``, a root, a drive or a hidden part is."""
    return len(name) <= MAX_NAME and _ALLOWED.fullmatch(name) is not None


def index_bytes(index: Index) -> bytes:
    """The index as the one text that it has: sorted keys, ASCII, its own SHA-256 under ``sha256``."""
    content: Dict[str, Any] = {
        "kind": KIND,
        "schema": index.schema,
        "srdeploy": index.srdeploy,
        "target": index.target,
        "members": [{"name": m.name, "size": m.size, "sha256": m.sha256} for m in index.members],
    }
    content["sha256"] = hashlib.sha256(_canonical(content)).hexdigest()
    return _canonical(content)


def _canonical(content: Dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode("ascii")


def index_from_bytes(raw: bytes, bundle: str) -> Index:
    """Read an index and check every word of it.

    Args:
        raw: the bytes of ``bundle.json``.
        bundle: how errors call the file.

    Raises:
        BadInput: not an index, of another schema, altered, or it lists files that no bundle may hold.
    """
    origin = f"the index of {bundle}"
    try:
        text = raw.decode("ascii")
    except ValueError as error:
        raise BadInput(f"{origin} is not ASCII: {error}", "an index that srdeploy pack wrote", _AGAIN) from error
    read = value_from(IndexFile, text, origin, _AGAIN_OR_INSTALL, said_as="bundle index")
    index = Index(read.srdeploy, read.target, read.members)
    if index_bytes(index) != raw:
        raise BadInput(f"{origin} was altered", "an index that srdeploy pack wrote", _AGAIN)
    check_members(index.members, bundle)
    return index


def check_members(members: Tuple[Member, ...], bundle: str) -> None:
    """Refuse lists that a bundle may not have: strange names, names twice, too many or too large files.

    Names that differ in case only are names twice: some file systems hold one of them.

    Raises:
        BadInput: naming the file.
    """
    if len(members) > MAX_MEMBERS:
        raise BadInput(f"{bundle} lists {len(members)} files", f"at most {MAX_MEMBERS}", _AGAIN)
    for member in members:
        if not is_allowed(member.name):
            raise BadInput(f"{bundle} lists a file {member.name!r}", "only what a board needs", _AGAIN)
    if sum(member.size for member in members) > MAX_TOTAL_BYTES:
        raise BadInput(f"{bundle} lists more than {MAX_TOTAL_BYTES >> 30} GiB", "a smaller bundle", _AGAIN)
    names = [member.name for member in members]
    if names != sorted(names) or len({name.lower() for name in names}) != len(names) or _folders_clash(names):
        raise BadInput(f"{bundle} lists files twice, out of order, or as file and folder at once", "", _AGAIN)


def _folders_clash(names: Iterable[str]) -> bool:
    """Whether one folder is written in two ways (``Precision``, ``precision``) or is a file too."""
    seen: Dict[str, Tuple[str, bool]] = {}
    for name in names:
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            kind = (path, depth == len(parts))
            if seen.setdefault(path.lower(), kind) != kind:
                return True
    return False


def padding(size: int) -> int:
    """Zero bytes after ``size`` bytes of content, up to the next block."""
    return -size % BLOCK


def archive_size(index: Index) -> int:
    """The length in bytes of a bundle with this index."""
    sizes = [len(index_bytes(index)), *(member.size for member in index.members)]
    return sum(BLOCK + size + padding(size) for size in sizes) + 2 * BLOCK


def header(name: str, size: int) -> bytes:
    """The ustar header of an ordinary file: mode 0644, owner 0, time 0. POSIX.1-1988, section 10.1.1."""
    fields = [
        name.encode("ascii").ljust(MAX_NAME, b"\0"),
        b"0000644\0",
        b"0000000\0" * 2,
        b"%011o\0" % size,
        b"%011o\0" % 0,
        b" " * 8,
        b"0".ljust(101, b"\0"),
        b"ustar\00000".ljust(72, b"\0"),
        b"0000000\0" * 2,
        bytes(167),
    ]
    checksum = b"%06o\0 " % sum(b"".join(fields))
    fields[5] = checksum
    return b"".join(fields)


def size_in_header(block: bytes) -> int:
    """The size field of a header; -1 when it is none. The caller compares the whole block with ``header``."""
    digits = block[124:135]
    return int(digits, 8) if len(block) == BLOCK and re.fullmatch(rb"[0-7]{11}", digits) else -1
