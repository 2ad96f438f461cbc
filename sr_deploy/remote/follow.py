"""Following a job: its log as it grows, to a bound, until it has an exit status."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import List, Optional

from sr_deploy.core.errors import BadInput, EnvironmentFault
from sr_deploy.core.schema import value_from
from sr_deploy.core.text import log_line
from sr_deploy.remote.board_files import read_at
from sr_deploy.remote.call import WRONG_BOARD, ask
from sr_deploy.remote.connect import Link
from sr_deploy.remote.inventory import Board
from sr_deploy.remote.progress import Progress, Session
from sr_deploy.remote.replies import MOST_STATUS, Ended, JobState, Status

#: Seconds between two looks at the log. A look is one read by the board's SFTP server, which costs a benchmark
#: next to nothing; starting a process there for it would not.
LOOK_SECONDS = 0.5
#: A log that says nothing for so long is a reason to ask whether the job still runs.
SILENT_SECONDS = 20.0
#: Bytes of one look, and of the whole log that are shown. All of it comes home as a file.
LOOK_BYTES, MOST_LOG = 1 << 18, 64 << 20
#: Lines of one look and characters of one line that are shown.
MOST_LINES, MOST_LINE = 1000, 2000


@dataclass
class LogTail:
    """The end of the log that is no whole line yet."""

    rest: bytes = b""

    def lines(self, grown: bytes) -> List[str]:
        """What can be shown now, fit for a terminal and a CI log."""
        *whole, self.rest = (self.rest + grown).split(b"\n")
        if len(self.rest) > LOOK_BYTES:
            whole, self.rest = [*whole, self.rest], b""
        left_out = [f"… {len(whole) - MOST_LINES} lines are not shown"] if len(whole) > MOST_LINES else []
        return left_out + [_line(line) for line in whole[-MOST_LINES:]]


def _line(line: bytes) -> str:
    # A progress bar rewrites its line: its last state is enough.
    text = line.rstrip(b"\r").rsplit(b"\r", 1)[-1]
    cut = "…" if len(text) > MOST_LINE else ""
    return log_line(text[:MOST_LINE].decode("utf-8", "replace").expandtabs()) + cut


def follow(session: Session, progress: Progress, link: Link, folder: str) -> Optional[Ended]:
    """Show the log as it grows until the job has a status; None when the user leaves.

    Args:
        session, progress: of this board.
        link: the connection.
        folder: the job's on the board.

    Raises:
        EnvironmentFault: the job has ended without a status.
        BadInput: the status is none.
    """
    heard, tail = time.monotonic(), LogTail()
    while not session.stopped.is_set():
        ended = _status(link, f"{folder}/status.json")
        grown = _grown(session, progress, link, folder)
        for line in tail.lines(grown):
            session.say(line)
        if ended is not None and not grown:
            if tail.rest:
                session.say(_line(tail.rest))
            return ended
        if grown:
            heard = time.monotonic()
        if ended is None:
            session.stopped.wait(LOOK_SECONDS)
        if time.monotonic() - heard > SILENT_SECONDS:
            heard = time.monotonic()
            _still_there(session.board, link, folder)
    return None


def _grown(session: Session, progress: Progress, link: Link, folder: str) -> bytes:
    """What the log has more than was shown; nothing beyond MOST_LOG."""
    if progress.log_offset >= MOST_LOG:
        return b""
    grown = read_at(link, f"{folder}/log", progress.log_offset, LOOK_BYTES) or b""
    if grown:
        progress.log_offset += len(grown)
        progress.went_on(len(grown))
        if progress.log_offset >= MOST_LOG:
            session.say(f"the log is longer than {MOST_LOG >> 20} MiB; the rest of it is not shown")
    return grown


def _status(link: Link, path: str) -> Optional[Ended]:
    raw = read_at(link, path, 0, MOST_STATUS + 1)
    if raw is None:
        return None
    name = f"{link.board.name}: the job's status"
    if len(raw) > MOST_STATUS:
        raise BadInput(f"{name} is longer than {MOST_STATUS >> 10} KiB", "what the agent writes", WRONG_BOARD)
    return value_from(Ended, raw.decode("utf-8", "replace"), name, todo=WRONG_BOARD, said_as="status of a job")


def _still_there(board: Board, link: Link, folder: str) -> None:
    """Raise where the job neither runs nor has a status; both may have come since the last look."""
    name = folder.rsplit("/", 1)[-1]
    state = next((job for job in ask(link, Status, job=name).jobs if job.id == name), JobState(name, "absent", False))
    if state.state == "running" or _status(link, f"{folder}/status.json") is not None:
        return
    raise died(board, name)


def died(board: Board, name: str) -> EnvironmentFault:
    """The error for a job that has neither a process nor an exit status."""
    return EnvironmentFault(
        f"{board.name}: job {name} ended without an exit status (killed, or the board restarted)",
        "a job that ends by itself",
        "dmesg on the board tells of memory and power; the same command starts it again",
    )
