"""Files to the board and home: by content, resumed where they stopped, checked before they count."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Tuple

from sr_deploy.core.artifact import explained_write_errors, sha256_of
from sr_deploy.core.errors import BadInput, CheckFailed, DiskFull, EnvironmentFault
from sr_deploy.remote.call import ask
from sr_deploy.remote.connect import Link
from sr_deploy.remote.job import LocalFile, client_id

BLOCK = 1 << 15
#: Room on the board beyond what is copied: the job's own notes, log and first results.
SPARE_BYTES = 1 << 20


def upload(link: Link, workdir: str, files: Dict[str, LocalFile], missing: Dict[str, int], free: int,
           progress: Callable[[int], None]) -> int:  # fmt: skip
    """Bring what the board's store lacks, and only that; an upload that was cut goes on where it stopped.

    Args:
        link: the connection.
        workdir: the board's, absolute.
        files: by SHA-256.
        missing: SHA-256 → bytes of it that are there already; from the agent's ``hello``.
        free: bytes free there.
        progress: told the bytes of every block.

    Returns:
        The bytes sent.

    Raises:
        DiskFull: it does not fit, found before or while copying; this machine's incomplete files are removed there.
        CheckFailed: a file arrives altered, twice.
        Dropped: the connection ended; what arrived stays for the next try.
    """
    sent = 0
    for _ in range(2):
        need = sum(files[sha].size - have for sha, have in missing.items()) + SPARE_BYTES
        if need > free:
            raise _full(link, list(missing), free, need)
        for sha, have in missing.items():
            sent += _send(link, f"{workdir}/store/.{sha}.{client_id()}.part", files[sha], have, list(missing), progress)
        bad = ask(link, "commit", files=list(missing), client=client_id())["bad"] if missing else []
        if not bad:
            return sent
        # Part of an earlier upload of another content, or altered on its way: once more, from the beginning.
        missing = dict.fromkeys(bad, 0)
    raise CheckFailed(
        f"{link.board.name}: {files[bad[0]].path} arrives altered", "the same SHA-256 there as here", "check its disk"
    )


def _send(
    link: Link, part: str, file: LocalFile, have: int, all_parts: List[str], progress: Callable[[int], None]
) -> int:
    """Append the rest of a file to its part on the board."""
    try:
        with open(file.path, "rb") as stream, link.sftp.open(part, "ab" if 0 < have <= file.size else "wb") as target:
            begin = have if have <= file.size else 0
            stream.seek(begin)
            # Without waiting for each block's answer. paramiko drops the answers to the last blocks, so what counts
            # is the size at the end.
            target.set_pipelined(True)
            for block in iter(lambda: stream.read(BLOCK), b""):
                target.write(block)
                progress(len(block))
            arrived = target.stat().st_size
            if arrived != file.size:
                raise OSError(f"{arrived} of {file.size} bytes arrived")
            return file.size - begin
    except OSError as error:
        if not link.alive() or "Socket is closed" in str(error):
            raise
        # SFTP has no code for a full disk: it says "Failure". So the board is asked what it has left.
        free = ask(link, "discard", files=[], client=client_id())["free_bytes"]
        if free < file.size - have:
            raise _full(link, all_parts, free, file.size - have) from error
        raise EnvironmentFault(
            f"{link.board.name}: cannot write {part} there: {error}", "a workdir that this user may write"
        ) from error


def _full(link: Link, shas: List[str], free: int, need: int) -> DiskFull:
    """Remove our incomplete files there and say what lacks."""
    after = ask(link, "discard", files=shas, client=client_id())["free_bytes"]
    return DiskFull(
        f"{link.board.name}: the board's disk is full: {max(free, after) / 2**20:.1f} MiB free in {link.board.workdir}",
        f"{need / 2**20:.1f} MiB; nothing incomplete was left there",
        "free some space there (old folders under deployments/ and store/ may go), or another `workdir`",
    )


def fetch(link: Link, files: Iterable[Dict[str, Any]], stage: Path, out: Path,
          progress: Callable[[int], None]) -> Tuple[Path, ...]:  # fmt: skip
    """Bring results home: all into ``stage`` first, each checked, then each to its place in ``out``.

    Args:
        link: the connection.
        files: dicts with ``path`` (there), ``to`` (inside ``out``), ``size`` and ``sha256``; from the board, so not
            trusted to stay inside ``out``.
        stage: a folder on the same disk; a file that is whole in it is not fetched again.
        out: the folder for the results.
        progress: told the bytes of every block.

    Raises:
        BadInput: the board names a place outside ``out``.
        CheckFailed: a file arrives altered.
        DiskFull, EnvironmentFault: it cannot be written here.
        Dropped: the connection ended; what is whole in ``stage`` stays.
    """
    wanted = list(files)
    for file in wanted:
        parts = Path(file["to"]).parts
        if not parts or os.path.isabs(file["to"]) or ".." in parts or "\\" in file["to"]:
            raise BadInput(f"{link.board.name} sends a file for {file['to']!r}", "a place inside the folder of results")
    placed = []
    for file in wanted:
        target = stage / file["to"]
        if not (target.is_file() and sha256_of(target) == file["sha256"]):
            _receive(link, file, target, progress)
    for file in wanted:
        target = out / file["to"]
        with explained_write_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(stage / file["to"], target)
        placed.append(target)
    shutil.rmtree(stage, ignore_errors=True)
    return tuple(placed)


def _receive(link: Link, file: Dict[str, Any], target: Path, progress: Callable[[int], None]) -> None:
    """One file into the stage; a second try when it arrives altered, since it may still have been written."""
    for _ in range(2):
        try:
            source = link.sftp.open(file["path"], "rb")
        except FileNotFoundError as error:
            raise EnvironmentFault(
                f"{link.board.name}: {file['path']} is gone from the board",
                "the job's results",
                "run the command again",
            ) from error
        with source, explained_write_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as stream:
                source.prefetch(file["size"])
                for offset in range(0, file["size"], BLOCK):
                    block = source.read(min(BLOCK, file["size"] - offset))
                    stream.write(block)
                    progress(len(block))
        if sha256_of(target) == file["sha256"]:
            return
        target.unlink()
    raise CheckFailed(
        f"{link.board.name}: {file['to']} arrives altered", "the SHA-256 that the job noted", "run the command again"
    )
