"""One writer to a file, one measurement on a device: locks that end with their process, however it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import json
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional

from sr_deploy.bench.result import now_utc
from sr_deploy.core.artifact import explained_write_errors
from sr_deploy.core.errors import BadInput, EnvironmentFault
from sr_deploy.core.schema import Count, ShortText, described, value_from
from sr_deploy.core.text import plain


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
                f"{path} is being written by {holder}",
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
def _locked(path: Path, wait: bool) -> Iterator[Optional[str]]:
    """Hold the lock and yield None, or yield who holds it, in words."""
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
            os.pwrite(handle, json.dumps(dataclasses.asdict(_this_process())).encode(), 0)
        yield None
    finally:
        os.close(handle)


@described
@dataclass(frozen=True)
class Holder:
    """What a process writes of itself into the lock that it holds; for the message only."""

    pid: Count
    user: ShortText
    host: ShortText
    command: str
    since: ShortText


def _this_process() -> Holder:
    try:
        user = getpass.getuser()
    except Exception:
        # No user database, as in some containers; its exception differs between Python versions.
        user = str(os.getuid())
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return Holder(os.getpid(), user, os.uname().nodename, command, now_utc())


def _read_holder(handle: int) -> str:
    """Who holds the lock, in words; "another process" where it does not say, or says what none would."""
    try:
        return _words(value_from(Holder, os.pread(handle, 1 << 16, 0).decode(), "the lock"))
    except (OSError, ValueError, BadInput):
        return "another process"


def _words(holder: Holder) -> str:
    who = f"process {holder.pid} of {holder.user} on {holder.host} since {holder.since} ({holder.command})"
    return plain(who, 500)
