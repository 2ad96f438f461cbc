"""One command against one hostile board, and what must hold afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import signal
import threading
import time
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Sequence
from unittest import mock

import sr_deploy.remote.call as call
import sr_deploy.remote.connect as connect
import sr_deploy.remote.follow as follow
import sr_deploy.remote.session as session

#: Seconds after which the user presses Ctrl-C, and within which he has his prompt again.
PATIENCE, LEAVING = 4.0, 2.0
#: What a command may take more memory than before: a reply and a look at a log are 256 KiB, a listing 32 MiB.
MOST_MEMORY = 150 << 20
#: A board's words that would do something if they reached the terminal or a CI log as they are.
_COMMAND = re.compile(r"^\s*::|##\w*\[", re.MULTILINE)


@dataclass
class Verdict:
    """How it went: exit code, seconds, bytes of memory beyond what was used before and in all, and what
    must not be."""

    code: int = -1
    seconds: float = 0.0
    memory: int = 0
    peak: int = 0
    interrupted: bool = False
    said: str = ""
    problems: List[str] = field(default_factory=list)


def prepare(base: Path, board: str) -> Dict[str, str]:
    """Things that no board may touch, inside and outside ``-o``; their state."""
    home = base / "out" / board
    for path in (
        base / "victim/.ssh/authorized_keys",
        base / "out/precious",
        home / "notes",
        home / ".incoming-x/keep",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    (home / "results").mkdir()
    for link in (home / "linked", home / "results" / "link"):
        link.symlink_to(base / "victim")
    return state_of(base)


def state_of(base: Path) -> Dict[str, str]:
    """Every path below and its content."""
    found = {}
    for folder, folders, names in os.walk(os.fsencode(base)):
        for name in folders + names:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                found[os.fsdecode(path)] = "-> " + os.fsdecode(os.readlink(path))
            elif os.path.isfile(path):
                with open(path, "rb") as stream:
                    found[os.fsdecode(path)] = hashlib.sha256(stream.read()).hexdigest()
    return found


def suffer(words: Sequence[str], base: Path, board: str, patience: float = PATIENCE) -> Verdict:
    """Run ``srdeploy`` with these words and judge; Ctrl-C comes after ``patience`` seconds."""
    before, verdict = state_of(base), Verdict()
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape") for _ in range(2))
    _peak_reset()
    used, begun = _memory("VmRSS"), time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _short_times(), _uncaught(verdict):  # noqa: SIM117
        with _interrupted_after(patience, verdict):
            verdict.code = _main(words, verdict)
    verdict.seconds, verdict.peak = time.monotonic() - begun, _memory("VmHWM")
    verdict.memory = max(0, verdict.peak - used)
    for stream in (out, err):
        stream.flush()
        verdict.said += stream.buffer.getvalue().decode("utf-8", "surrogateescape")  # type: ignore[attr-defined]
    if verdict.seconds > patience + LEAVING:
        verdict.problems.append(f"{verdict.seconds:.1f} s")
    _judge(verdict, before, state_of(base), base, board)
    return verdict


def _main(words: Sequence[str], verdict: Verdict) -> int:
    from sr_deploy.cli import main

    try:
        main(list(words))
    except SystemExit as stop:
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return 130
    except BaseException as error:
        verdict.problems.append(f"traceback: {type(error).__name__}: {str(error)[:200]}")
        return -1
    return 0


def _judge(verdict: Verdict, before: Dict[str, str], after: Dict[str, str], base: Path, board: str) -> None:
    problems = verdict.problems
    if "Traceback (most recent call last)" in verdict.said:
        problems.append("traceback on the screen")
    problems += [f"changed or removed: {path}" for path, was in before.items() if after.get(path) != was]
    home = str(base / "out" / board)
    allowed = tuple(f"{home}/{name}" for name in ("engines/", "results/", "pictures/", "jobs/", ".incoming-"))
    problems += [f"written: {path}" for path in after if path not in before and not path.startswith(allowed)]
    if verdict.code not in (0, 1, 2, 3, 4, 5, 130):
        problems.append(f"exit code {verdict.code}")
    if verdict.code == 130 and not verdict.interrupted:
        problems.append("interrupted by nobody")
    if verdict.memory > MOST_MEMORY:
        problems.append(f"{verdict.memory >> 20} MiB")
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs") and letter != "\n" for letter in verdict.said):
        problems.append("a control character on the screen")
    if _COMMAND.search(verdict.said):
        problems.append("a command for a CI log on the screen")


@contextlib.contextmanager
def _short_times():
    """The waits of a real network, shortened; no limit is."""
    with contextlib.ExitStack() as stack:
        for module, name, value in (
            (call, "REPLY_SECONDS", 1.5), (connect, "ANSWER_SECONDS", 1.5), (follow, "LOOK_SECONDS", 0.02),
            (follow, "SILENT_SECONDS", 0.3), (session, "RETRY_SECONDS", (0.02,)),
        ):  # fmt: skip
            stack.enter_context(mock.patch.object(module, name, value))
        yield


@contextlib.contextmanager
def _uncaught(verdict: Verdict):
    """Errors that end a thread are tracebacks too; those of the hostile board's own threads are not ours."""
    kept = threading.excepthook

    def note(told) -> None:
        place = told.exc_traceback
        files = []
        while place is not None:
            files.append(place.tb_frame.f_code.co_filename)
            place = place.tb_next
        if not any(name.endswith(("hostile.py", "sftp_server.py")) for name in files):
            verdict.problems.append(f"traceback of a thread: {told.exc_type.__name__}: {told.exc_value}")

    threading.excepthook = note
    try:
        yield
    finally:
        threading.excepthook = kept


@contextlib.contextmanager
def _interrupted_after(seconds: float, verdict: Verdict):
    def press(number, frame):
        verdict.interrupted = True
        raise KeyboardInterrupt

    kept = signal.signal(signal.SIGALRM, press)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, kept)


def _memory(key: str) -> int:
    """Bytes, from /proc/self/status."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) << 10 if found else 0


def _peak_reset() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
