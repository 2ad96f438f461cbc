"""Files to the board: by content, resumed where they stopped, checked before they count."""

from __future__ import annotations

from typing import Callable, Dict, Iterable, List

from sr_deploy.core.errors import BadInput, CheckFailed, DiskFull, EnvironmentFault
from sr_deploy.core.text import plain
from sr_deploy.remote.board_files import garbled
from sr_deploy.remote.call import WRONG_BOARD, ask
from sr_deploy.remote.connect import Link
from sr_deploy.remote.job import LocalFile, client_id
from sr_deploy.remote.replies import Commit, Discard

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
        need = lacking_bytes(files, missing) + SPARE_BYTES
        if need > free:
            raise _full(link, list(missing), free, need)
        for sha, have in missing.items():
            sent += _send(link, f"{workdir}/store/.{sha}.{client_id()}.part", files[sha], have, list(missing), progress)
        # All of them: the board hashes again what lay there before.
        bad = asked_for(link.board.name, ask(link, Commit, files=list(files), client=client_id()).bad, files)
        if not bad:
            return sent
        # Part of an earlier upload of another content, or altered on its way: once more, from the beginning.
        missing = dict.fromkeys(bad, 0)
    raise CheckFailed(
        f"{link.board.name}: {plain(str(files[bad[0]].path))} arrives altered",
        "the same SHA-256 there as here",
        "check its disk",
    )


def lacking_bytes(files: Dict[str, LocalFile], missing: Dict[str, int]) -> int:
    """Bytes to send: of each missing file what is not there yet; what is longer there is sent anew."""
    return sum(files[sha].size - (have if have <= files[sha].size else 0) for sha, have in missing.items())


def asked_for(name: str, shas: Iterable[str], files: Dict[str, LocalFile]) -> List[str]:
    """The hashes that a board names.

    Raises:
        BadInput: one that it was not asked for.
    """
    named = list(shas)
    if not set(named) <= set(files):
        raise BadInput(f"{name} asks for a file that this job does not have", "files of the job", WRONG_BOARD)
    return named


def _send(
    link: Link, part: str, file: LocalFile, have: int, all_parts: List[str], progress: Callable[[int], None]
) -> int:
    """Append the rest of a file to its part on the board."""
    try:
        begin = have if have <= file.size else 0
        with garbled(link), open(file.path, "rb") as stream, link.sftp.open(part, "ab" if begin else "wb") as target:
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
        free = ask(link, Discard, files=[], client=client_id()).free_bytes
        if free < file.size - begin:
            raise _full(link, all_parts, free, file.size - begin) from error
        raise EnvironmentFault(
            f"{link.board.name}: cannot write {plain(part)} there: {plain(str(error), 200)}",
            "a workdir that this user may write",
            "another --workdir, or df -h and ls -ld of it on the board",
        ) from error


def _full(link: Link, shas: List[str], free: int, need: int) -> DiskFull:
    """Remove our incomplete files there and say what lacks."""
    after = ask(link, Discard, files=shas, client=client_id()).free_bytes
    return DiskFull(
        f"{link.board.name}: the board's disk is full: {max(free, after) / 2**20:.1f} MiB free in {link.board.workdir}",
        f"{need / 2**20:.1f} MiB; nothing incomplete was left there",
        "free some space there (old folders under deployments/ and store/ may go), or another `workdir`",
    )
