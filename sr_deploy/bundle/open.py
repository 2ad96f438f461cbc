"""Reading a bundle: it is whole and unaltered or it is refused, and nothing is written outside the folder asked for."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Iterator, Optional, Tuple

from sr_deploy.bundle.golden import read_goldens
from sr_deploy.bundle.layout import (
    BLOCK,
    INDEX_NAME,
    MAX_INDEX_BYTES,
    RECIPE_NAME,
    Index,
    Member,
    archive_size,
    header,
    index_bytes,
    index_from_bytes,
    padding,
    size_in_header,
)
from sr_deploy.bundle.recipe import read_recipe
from sr_deploy.core.artifact import atomic_folder, sha256_of
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.errors import BadInput

_AGAIN = "copy it again, or pack it again with srdeploy pack"


def read_index(bundle: Path) -> Index:
    """The index of a bundle whose length is right; its files are not read.

    Raises:
        BadInput: it is no bundle, of another schema, truncated, or its index was altered.
    """
    with _opened(bundle) as stream:
        return _index(stream, bundle)


def check_bundle(bundle: Path) -> Index:
    """Read all of a bundle and compare every byte with what its index says; nothing is written.

    Raises:
        BadInput: it is not exactly what srdeploy pack wrote.
    """
    with _opened(bundle) as stream:
        index = _index(stream, bundle)
        for member in index.members:
            _copy(stream, member, bundle, None)
        _end(stream, bundle)
    return index


@contextlib.contextmanager
def unpacking(
    bundle: Path, folder: Path, force: bool = False, sha256: Optional[str] = None
) -> Iterator[Tuple[Index, Path]]:
    """A bundle's index and a temporary folder with its files, which becomes ``folder`` when the block ends well.

    The hashes in a bundle tell damage and careless changes. Against someone who makes a whole new bundle, compare
    ``sha256`` with what ``srdeploy pack`` printed.

    Args:
        bundle: the file.
        folder: the deployment folder to make; beside the deployment it gets ``bundle.json``, ``recipe.toml`` and
            ``golden/``.
        force: replace an existing folder.
        sha256: of the whole file, when it must be one certain bundle.

    Raises:
        BadInput: truncated, altered, of another schema, not the bundle that ``sha256`` names, or no deployment.
        UsageError: the folder exists and ``force`` is False.
        DiskFull, EnvironmentFault: it cannot be written.
    """
    bundle, folder = Path(bundle), Path(folder)
    with _opened(bundle) as stream:
        if sha256 is not None:
            _compare_whole(stream, bundle, sha256.lower())
        index = _index(stream, bundle)
        with atomic_folder(folder, force) as temporary:
            (temporary / INDEX_NAME).write_bytes(index_bytes(index))
            for member in index.members:
                # Joined here and nowhere else; the index has been checked, so a name is plain words below the folder.
                path = temporary.joinpath(*member.name.split("/"))
                path.parent.mkdir(exist_ok=True, parents=True)
                with open(path, "xb") as out:
                    _copy(stream, member, bundle, out)
            _end(stream, bundle)
            _check_content(temporary, index, bundle)
            yield index, temporary


def unpack(bundle: Path, folder: Path, force: bool = False, sha256: Optional[str] = None) -> Index:
    """Make a deployment folder from a bundle; it appears whole or not at all. Arguments and errors: ``unpacking``."""
    with unpacking(bundle, folder, force, sha256) as (index, _):
        return index


def unpacked_before(bundle: Path, folder: Path, sha256: Optional[str] = None) -> Optional[Index]:
    """The index of a bundle whose files all lie in ``folder`` as it tells of them, beside what was made there since.

    Args:
        bundle, folder, sha256: as for ``unpack``.

    Returns:
        None where one is missing or another.

    Raises:
        BadInput: as for ``unpack``, but that the bundle's files are not read without ``sha256``.
    """
    with _opened(bundle) as stream:
        if sha256 is not None:
            _compare_whole(stream, bundle, sha256.lower())
        index = _index(stream, bundle)
    own = Path(folder) / INDEX_NAME
    if not own.is_file() or own.read_bytes() != index_bytes(index):
        return None
    places = [(Path(folder).joinpath(*member.name.split("/")), member.sha256) for member in index.members]
    return index if all(path.is_file() and sha256_of(path) == wanted for path, wanted in places) else None


def _compare_whole(stream: BinaryIO, bundle: Path, wanted: str) -> None:
    digest = hashlib.sha256()
    for block in iter(lambda: stream.read(1 << 20), b""):
        digest.update(block)
    stream.seek(0)
    if digest.hexdigest() != wanted:
        raise BadInput(f"{bundle} is another bundle: its sha256 is {digest.hexdigest()}", wanted, _AGAIN)


def _opened(bundle: Path) -> BinaryIO:
    if not Path(bundle).is_file():
        raise BadInput(f"there is no bundle {bundle}", "a file made by srdeploy pack", "srdeploy pack DIR -o net.srd")
    try:
        return open(bundle, "rb")
    except OSError as error:
        raise BadInput(
            f"cannot read {bundle}: {error.strerror}",
            "a file made by srdeploy pack",
            "check the path and who may read it",
        ) from error


def _index(stream: BinaryIO, bundle: Path) -> Index:
    """Read the index and compare the length of the whole file with it."""
    block = stream.read(BLOCK)
    size = size_in_header(block)
    if not 0 < size <= MAX_INDEX_BYTES or block != header(INDEX_NAME, size):
        raise BadInput(f"{bundle} is no bundle, or its beginning was altered", "a file made by srdeploy pack", _AGAIN)
    raw = stream.read(size)
    if len(raw) != size:
        raise BadInput(f"{bundle} ends within its index", "the whole file", _AGAIN)
    index = index_from_bytes(raw, str(bundle))
    _zeros(stream, padding(size), bundle, "its index")
    have, want = os.fstat(stream.fileno()).st_size, archive_size(index)
    if have != want:
        raise BadInput(f"{bundle} has {have} bytes", f"the {want} bytes that its index tells of", _AGAIN)
    return index


def _copy(stream: BinaryIO, member: Member, bundle: Path, out: Optional[BinaryIO]) -> None:
    """Compare one file with the index, and write it to ``out`` where that is given."""
    if stream.read(BLOCK) != header(member.name, member.size):
        raise BadInput(f"{bundle} was altered before {member.name}", "the header that its index tells of", _AGAIN)
    digest, left = hashlib.sha256(), member.size
    while left:
        data = stream.read(min(left, 1 << 20))
        if not data:
            raise BadInput(f"{bundle} ends within {member.name}", "the whole file", _AGAIN)
        digest.update(data)
        left -= len(data)
        if out is not None:
            out.write(data)
    if digest.hexdigest() != member.sha256:
        raise BadInput(
            f"{member.name} in {bundle} was altered: its sha256 is {digest.hexdigest()[:12]}…",
            f"{member.sha256[:12]}…, as the index says",
            _AGAIN,
        )
    _zeros(stream, padding(member.size), bundle, member.name)


def _zeros(stream: BinaryIO, count: int, bundle: Path, after: str) -> None:
    if stream.read(count) != bytes(count):
        raise BadInput(f"{bundle} was altered after {after}", "zeros up to the next block", _AGAIN)


def _end(stream: BinaryIO, bundle: Path) -> None:
    if stream.read(2 * BLOCK + 1) != bytes(2 * BLOCK):
        raise BadInput(f"the end of {bundle} was altered", "two blocks of zeros", _AGAIN)


def _check_content(folder: Path, index: Index, bundle: Path) -> None:
    """A bundle holds a deployment, a recipe and golden pictures that fit together.

    Raises:
        BadInput: it does not; the message names the file in the bundle.
    """
    try:
        deployment = open_deployment(folder)
        manifest = deployment.manifest
        names = {member.name for member in index.members}
        strangers = [graph.file for graph in manifest.graphs if graph.file not in names]
        if strangers:
            raise BadInput(f"its manifest names {' '.join(strangers)}", "graphs of the bundle", _AGAIN)
        read_recipe(folder / RECIPE_NAME)
        read_goldens(folder, manifest.contract, manifest.scale)
    except BadInput as error:
        found = error.found.replace(f"{folder}/", "").replace(str(folder), "the bundle")
        raise BadInput(f"{bundle} cannot be used: {found}", error.wanted, _AGAIN) from error
