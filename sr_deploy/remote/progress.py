"""How far one board is, and what does not change while it works."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional, Tuple

from sr_deploy.remote.connect import Link
from sr_deploy.remote.inventory import Board
from sr_deploy.remote.job import Job


@dataclass
class Progress:
    """How far one board is; read by other threads, written by its own.

    Attributes:
        state: of the table: connecting, checking, copying, running, fetching, done, failed, left running.
        job: its id, once known.
        sent: bytes copied to the board.
        drops: how often the connection ended.
        attached: the job was found there, not started.
        seconds: the job's own time, once it has ended.
        exit_code: of srdeploy on the board.
        files: at home.
        log_offset: bytes of the log that were shown.
        begun: the job ran when it was last seen, or had ended.
        came: bytes of files and logs, both ways.
        link: the connection, while there is one.
    """

    state: str = "waiting"
    job: str = ""
    sent: int = 0
    drops: int = 0
    attached: bool = False
    seconds: Optional[float] = None
    exit_code: Optional[int] = None
    files: Tuple[Path, ...] = ()
    log_offset: int = 0
    begun: bool = False
    moved: float = field(default_factory=time.monotonic)
    came: int = 0
    link: Optional[Link] = None

    def went_on(self, count: int = 0) -> None:
        """Something came through, ``count`` bytes of it: the patience with the network begins anew."""
        self.moved = time.monotonic()
        self.came += count

    def hang_up(self) -> None:
        """End the connection from another thread; whoever waits for the board stops waiting."""
        link = self.link
        if link is not None:
            with contextlib.suppress(Exception):
                link.client.close()


@dataclass(frozen=True)
class Session:
    """What does not change while one board works.

    Attributes:
        board: which.
        job: what to start; None attaches to what is there.
        wanted: with None for job: the beginning of a job's id, or "" for the newest.
        out: the folder for this board's results.
        patience: seconds to go on trying when the connection has dropped.
        say: told each line, without the board's name.
        stopped: set when the user wants to leave; the job goes on.
    """

    board: Board
    job: Optional[Job]
    wanted: str
    out: Path
    patience: float
    say: Callable[[str], None]
    stopped: threading.Event
