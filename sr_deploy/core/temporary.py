"""Temporary files and folders that a later command knows to be ours and dead, and clears away.

A process that is killed (``kill -9``, out of memory) removes nothing. So everything temporary has a name of one kind,
``.NAME.srdeploy-0a1b2c3d``, and is locked by the kernel (flock) for as long as its process lives, however that ends;
who writes into the same folder next removes what nobody holds. A process id in the name would not do: it means another
process in another container or on another machine. On a network file system the lock holds as far as that system's
flock does; where nothing can be locked, nothing is cleared.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Iterator, List, Optional, Set

#: Names that are ours: ``.NAME.srdeploy-0a1b2c3d``, and for a file its target's suffix.
_OURS = re.compile(r"\..*\.srdeploy-[0-9a-f]{8}(\.[^.]*)?", re.DOTALL)
#: So many characters of the target's name are in a temporary one, which must stay below the file system's 255 bytes.
_SHOWN = 40
#: In a workplace: the lock, whose content is the target's name; what is being made; what was there before.
_LOCK, NEW, OLD = "lock", "new", "old"
#: Folders that this process has swept: once is enough, and a folder of pictures is long.
_swept: Set[str] = set()


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is something temporary of ours, alive or dead."""
    return _OURS.fullmatch(name) is not None


@contextlib.contextmanager
def temporary_file(target: Path) -> Iterator[Path]:
    """An empty file beside ``target``, with its suffix; it is removed at the end, unless it was moved away.

    Raises:
        OSError: it cannot be written.
    """
    sweep(target.parent)
    while True:
        path = _fresh_name(target, target.suffix)
        try:
            handle = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue
        if _lock(handle) is False or not _is_at(handle, path):
            os.close(handle)  # a sweep of another process came between
            continue
        break
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        os.close(handle)


@contextlib.contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` with an empty folder NEW in it; it is removed at the end with all that is in it.

    What lies under OLD in it when its process is killed is put back to ``target``.

    Raises:
        OSError: it cannot be written.
    """
    sweep(target.parent)
    while True:
        path = _fresh_name(target, "")
        try:
            path.mkdir(0o700)
        except FileExistsError:
            continue
        try:
            # Not the folder itself is locked: NFS locks only what is open for writing.
            handle = os.open(str(path / _LOCK), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileNotFoundError:
            continue  # a sweep of another process came between
        if _lock(handle) is False or not _is_at(handle, path / _LOCK):
            os.close(handle)
            continue
        break
    try:
        os.write(handle, os.fsencode(target.name))
        (path / NEW).mkdir()
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """An empty folder of the system's temporary ones, for as long as the block runs."""
    with workplace(Path(tempfile.gettempdir()) / "work") as place:
        yield place / NEW


def sweep(folder: Path) -> None:
    """Remove from a folder what killed processes of this user left there, and put back what they had moved aside.

    Done once in a process for each folder. What cannot be removed stays; nothing is raised.
    """
    key = os.path.abspath(str(folder))
    if key in _swept:
        return
    _swept.add(key)
    for path in _ours_in(Path(key)):
        with contextlib.suppress(OSError), _dead(path) as place:
            if place is None:
                path.unlink()
            else:
                _put_back(place, path.parent)
                shutil.rmtree(place, ignore_errors=True)


def put_back(target: Path) -> None:
    """Where ``target`` is missing because a process was killed while it replaced it, put the old one back."""
    target = Path(os.path.abspath(str(target)))
    if os.path.lexists(str(target)):
        return
    for path in _ours_in(target.parent):
        if path.name.startswith(f".{target.name[:_SHOWN]}.") and (path / OLD).exists():
            with contextlib.suppress(OSError), _dead(path) as place:
                _put_back(place or path, target.parent)


def _put_back(place: Path, parent: Path) -> None:
    """Move OLD of a dead workplace to where it was, if nothing is there now."""
    name = os.fsdecode((place / _LOCK).read_bytes())
    old = place / OLD
    if name in ("", ".", "..") or "/" in name or "\0" in name or not os.path.lexists(str(old)):
        return
    if not os.path.lexists(str(parent / name)):
        os.rename(str(old), str(parent / name))


def _fresh_name(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name[:_SHOWN]}.srdeploy-{secrets.token_hex(4)}{suffix[:_SHOWN]}")


def _ours_in(folder: Path) -> List[Path]:
    """What is temporary in a folder and belongs to this user; nothing where it cannot be listed."""
    found: List[Path] = []
    with contextlib.suppress(OSError), os.scandir(str(folder)) as entries:
        for entry in entries:
            with contextlib.suppress(OSError, AttributeError):  # no getuid: no system with flock either
                if is_temporary(entry.name) and entry.stat(follow_symlinks=False).st_uid == os.getuid():
                    found.append(Path(entry.path))
    return found


@contextlib.contextmanager
def _dead(path: Path) -> Iterator[Optional[Path]]:
    """Hold the lock of a temporary file (then None) or of a workplace (then its path).

    Raises:
        OSError: it is held by a living process, is gone, is neither, or cannot be locked here.
    """
    mode = path.lstat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(f"{path} is not ours")
    is_folder = stat.S_ISDIR(mode)
    lock = path / _LOCK if is_folder else path
    # A workplace without a lock file was left, or is being made: who makes it then starts again elsewhere.
    handle = os.open(str(lock), os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if is_folder else 0), 0o600)
    try:
        if not _lock(handle) or not _is_at(handle, lock):
            raise OSError(f"{path} is held, or gone")
        yield path if is_folder else None
    finally:
        os.close(handle)


def _lock(handle: int) -> Optional[bool]:
    """Take the kernel's lock: True, False where another process has it, None where there are no locks."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(str(path)))
    except FileNotFoundError:
        return False
