"""Writing a bundle: the same files give the same bytes, on every machine and at every time."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Mapping, Union

from sr_deploy import __version__
from sr_deploy.bundle.layout import (
    BLOCK,
    INDEX_NAME,
    Index,
    Member,
    check_members,
    header,
    index_bytes,
    padding,
)
from sr_deploy.bundle.open import check_bundle
from sr_deploy.core.artifact import atomic_file, check_free, sha256_of

#: What a file of the bundle holds: a file to copy, or its bytes.
Content = Union[Path, bytes]


def index_of(files: Mapping[str, Content], target: str) -> Index:
    """The index of these files, by their names in the bundle.

    Raises:
        BadInput: a name that no bundle may hold, or too much.
    """
    members = tuple(_member(name, files[name]) for name in sorted(files))
    check_members(members, "the bundle")
    return Index(__version__, target, members)


def _member(name: str, content: Content) -> Member:
    if isinstance(content, bytes):
        return Member(name, len(content), hashlib.sha256(content).hexdigest())
    return Member(name, content.stat().st_size, sha256_of(content))


def write_bundle(path: Path, files: Mapping[str, Content], target: str, force: bool = False) -> Index:
    """Write a bundle, read it back and check it; it appears whole or not at all.

    Args:
        path: the file to make.
        files: name in the bundle → what it holds.
        target: the name of graph/target.py that the graphs fit.
        force: replace an existing file.

    Raises:
        UsageError: ``path`` exists and ``force`` is False.
        BadInput: a file that no bundle may hold, or one that changed while it was read.
        DiskFull, EnvironmentFault: it cannot be written.
    """
    path = Path(path)
    check_free(path, force and path.is_file(), "a new file", "choose another -o, or replace it with --force")
    index = index_of(files, target)
    with atomic_file(path) as temporary:
        with open(temporary, "wb") as stream:
            text = index_bytes(index)
            stream.write(header(INDEX_NAME, len(text)) + text + bytes(padding(len(text))))
            for member in index.members:
                stream.write(header(member.name, member.size))
                content = files[member.name]
                if isinstance(content, bytes):
                    stream.write(content)
                else:
                    with open(content, "rb") as source:
                        shutil.copyfileobj(source, stream, 1 << 20)
                stream.write(bytes(padding(member.size)))
            stream.write(bytes(2 * BLOCK))
        check_bundle(temporary)
    return index
