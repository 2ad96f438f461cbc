"""One writer to a file, one measurement on a device: locks that end with their process, however it ends."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator

from sr_deploy.bench.result import now_utc
from sr_deploy.core.artifact import explained_write_errors
from sr_deploy.core.errors import EnvironmentFault


@contextlib.contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Be the only writer of ``path`` while the block runs.

    The lock is the kernel's (flock) on ``.<name>.lock`` beside the file, so a killed process leaves none behind; the
    small file itself stays. On a network file system it holds as far as that system's flock does.

    Raises:
        EnvironmentFault: another process writes it; the message names that process.
    """
    path = Path(path)
    with _locked(path.with_name(f".{path.name}.lock"), wait=False) as holder:
        if holder is not None:
            raise EnvironmentFault(
                f"{path} is being written by {_words(holder)}",
                "one sweep at a time into one file",
                "wait until it has ended, or name another result with --json",
            )
        yield


@contextlib.contextmanager
def locked_device(name: str) -> Iterator[None]:
    """Be the only measurement on a device of this machine while the block runs; waits for the one before.

    Only measurements that take this lock keep out of each other's way: those of a matrix, in any of its workers.

    Args:
        name: of the device, such as "NVIDIA H200" or the processor's model name.
    """
    word = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "device"
    with _locked(Path(tempfile.gettempdir()) / f"srdeploy-{os.getuid()}-{word}.lock", wait=True):
        yield


@contextlib.contextmanager
def _locked(path: Path, wait: bool) -> Iterator[Any]:
    """Hold the lock and yield None, or yield what the holder wrote of itself."""
    # fcntl is not on every system that can at least read results.
    import fcntl

    with explained_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(str(path), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield _read_holder(handle)
            return
        # Who holds it is told for the message only: where the disk is full, the lock holds without.
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(_this_process()).encode(), 0)
        yield None
    finally:
        os.close(handle)


def _this_process() -> Dict[str, Any]:
    try:
        user = getpass.getuser()
    except Exception:
        # No user database, as in some containers; its exception differs between Python versions.
        user = str(os.getuid())
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {"pid": os.getpid(), "user": user, "host": os.uname().nodename, "command": command, "since": now_utc()}


def _read_holder(handle: int) -> Dict[str, Any]:
    try:
        found = json.loads(os.pread(handle, 1 << 16, 0).decode())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _words(holder: Dict[str, Any]) -> str:
    if not holder:
        return "another process"
    return "process {pid} of {user} on {host} since {since} ({command})".format(
        **{key: holder.get(key, "?") for key in ("pid", "user", "host", "since", "command")}
    )
