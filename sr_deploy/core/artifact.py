"""Files that are whole or not there at all: hashes, atomic writes, JSON."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Iterator, Optional

from sr_deploy.core.errors import DiskFull, EnvironmentFault, UsageError
from sr_deploy.core.exchange import exchange
from sr_deploy.core.temporary import NEW, OLD, sweep, temporary_file, workplace
from sr_deploy.core.text import plain


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


#: What the system says of a place that cannot be written: rights, or a file where a folder should be.
_NOT_WRITABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
)


@contextlib.contextmanager
def explained_write_errors(target: Path, wanted: Optional[Path] = None) -> Iterator[None]:
    """Turn the system's write errors into ours.

    Args:
        target: what is written.
        wanted: what the message names, where that is another.

    Raises:
        DiskFull: no space or quota left.
        EnvironmentFault: not allowed to write, or not a place that can be written.
    """
    try:
        yield
    except OSError as error:
        shown = plain(str(wanted or target))
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(
                f"no space left while writing {shown}",
                "room for the whole file",
                "free some space or choose another folder; what was there before is unchanged",
            ) from error
        if error.errno in _NOT_WRITABLE or _is_on_the_way(error, target):
            raise EnvironmentFault(
                f"cannot write {shown}: {error.strerror}",
                "a writable place",
                "choose another folder, or make it writable",
            ) from error
        raise


def _is_on_the_way(error: OSError, target: Path) -> bool:
    """Whether an error is about the folder of ``target``, one above it, or a new file in it: /proc says ENOENT."""
    if not isinstance(error.filename, str):
        return False
    folder, failed = os.path.abspath(str(Path(target).parent)), os.path.abspath(error.filename)
    return os.path.dirname(failed) == folder or os.path.commonpath([failed, folder]) == failed


@contextlib.contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Give a temporary path beside ``target``; move it there when the block ends well, remove it otherwise.

    Example:
        >>> with atomic_file(Path("a.json")) as temporary:
        ...     temporary.write_text("{}")
    """
    target = Path(target)
    with explained_write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(target) as temporary:
            yield temporary
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, target)


@contextlib.contextmanager
def atomic_folder(target: Path, force: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside ``target``; it becomes ``target`` when the block ends well, else it is removed.

    Args:
        target: the folder to make.
        force: replace an existing folder; without it an existing one is an error. The old one stays until the
            new one is complete, also when the process is killed: see ``_replace``.

    Raises:
        UsageError: the target exists and ``force`` is False.
    """
    target = Path(os.path.abspath(str(target)))
    if not target.is_dir() or any(target.iterdir()):
        check_free(target, force, "a new folder", "choose another -o, or replace it with --force")
    with explained_write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with workplace(target) as place:
            yield place / NEW
            _replace(target, place)


def _replace(target: Path, place: Path) -> None:
    """Put NEW of a workplace to ``target``, and into the workplace what was there.

    In one step where the file system can. Elsewhere ``target`` is missing between two renames; of a process that is
    killed there, the next one that writes beside it, or opens it, puts the old one back (see core/temporary.py).
    """
    new, old = place / NEW, place / OLD
    if not os.path.lexists(str(target)):
        os.rename(str(new), str(target))
    elif not exchange(new, target):
        os.rename(str(target), str(old))
        try:
            os.rename(str(new), str(target))
        except BaseException:
            os.rename(str(old), str(target))
            raise


def check_free(target: Path, force: bool, wanted: str, todo: str) -> None:
    """Refuse to replace what exists, or a place that cannot be written, before long work is done for it; and clear away
    what killed processes left beside it.

    Args:
        target: the file or folder that shall be made.
        force: it may be replaced.
        wanted, todo: for the message.

    Raises:
        UsageError: it exists, and ``force`` is False.
        DiskFull, EnvironmentFault: see ``check_can_write``.
    """
    sweep(Path(target).parent)
    if Path(target).exists() and not force:
        raise UsageError(f"{target} exists already", wanted, todo)
    check_can_write(target)


def check_can_write(target: Path) -> None:
    """Refuse a place that cannot be written, before long work is done for it: a file is made there and removed.

    Where the folder of ``target`` is not there yet, the nearest one above it that is there is tried.

    Raises:
        DiskFull: no space left.
        EnvironmentFault: not allowed to write, or not a place that can be written.
    """
    target = Path(os.path.abspath(str(target)))
    with explained_write_errors(target):
        with contextlib.suppress(FileNotFoundError):
            os.lstat(str(target))
        folder = target.parent
        while not folder.exists():
            folder = folder.parent
    tried = folder / target.name
    with explained_write_errors(tried, target), temporary_file(tried) as temporary:
        temporary.touch()


def write_json(target: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically, with a final newline."""
    with atomic_file(target) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
