"""One board from the first question to the results at home; goes on where it was when the connection drops."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple, Type

from sr_deploy.core.errors import BadInput, CheckFailed, EnvironmentFault, Inconclusive, SrDeployError, UsageError
from sr_deploy.remote.call import ask
from sr_deploy.remote.check import check_doctor
from sr_deploy.remote.connect import Dropped, Link, Unreachable, connected
from sr_deploy.remote.inventory import Board
from sr_deploy.remote.job import Job, client_id
from sr_deploy.remote.transfer import fetch, upload

#: Seconds between two looks at the log. A look is one read by the board's SFTP server, which costs a benchmark
#: next to nothing; starting a process there for it would not.
LOOK_SECONDS = 0.5
#: A log that says nothing for so long is a reason to ask whether the job still runs.
SILENT_SECONDS = 20.0
#: Seconds between two tries to reach a board again.
RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
#: A network that lets every new connection live for a moment only is given up after so many.
MOST_DROPS = 200
#: The errors of the exit codes of srdeploy on the board; any other code is a fault of its environment.
ERRORS: Dict[int, Type[SrDeployError]] = {1: CheckFailed, 2: UsageError, 4: BadInput, 5: Inconclusive}


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
    moved: float = field(default_factory=time.monotonic)

    def went_on(self, count: int = 0) -> None:
        """Something came through: the patience with the network begins anew."""
        self.moved = time.monotonic()


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


def bring_home(session: Session, progress: Progress) -> None:
    """Copy, start or attach, follow, fetch. A drop begins it anew, and what was done is found done.

    Raises:
        EnvironmentFault: the board cannot be reached, lacks something, is full, or is busy; each message says which.
        CheckFailed, UsageError, BadInput, Inconclusive: the exit code of srdeploy on the board.
    """
    reached, tries = False, 0
    while True:
        before = progress.moved
        try:
            progress.state = "connecting"
            with connected(session.board) as link:
                reached = True
                _steps(session, progress, link)
                return
        except (Dropped, Unreachable) as error:
            if not reached:
                raise error if isinstance(error, SrDeployError) else _lost(session, progress, error) from error
            tries = 0 if progress.moved > before else tries + 1
            if isinstance(error, Dropped):
                progress.drops += 1
                if tries == 0:
                    progress.went_on()
                session.say(f"the connection dropped ({error}); trying again for {session.patience:.0f} s")
            if time.monotonic() - progress.moved > session.patience or progress.drops > MOST_DROPS:
                raise _lost(session, progress, error) from error
        if session.stopped.wait(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)]):
            return


def _steps(session: Session, progress: Progress, link: Link) -> None:
    """Everything over one connection; safe to begin anew at any point."""
    state = _attached_or_started(session, progress, link)
    progress.job = state["id"]
    workdir = state["workdir"]
    folder = f"{workdir}/jobs/{state['id']}"
    progress.state = "running"
    status = _follow(session, progress, link, folder)
    if status is None:
        progress.state = "left running"
        return
    progress.state, progress.seconds, progress.exit_code = "fetching", status.get("seconds"), status["exit_code"]
    stage = session.out / f".incoming-{state['id']}"
    progress.files = fetch(link, status.get("files", ()), stage, session.out, progress.went_on)
    ask(link, "fetched", job=state["id"])
    if status["exit_code"] != 0:
        raise failure_of(session.board, status, progress)
    progress.state = "done"


def _attached_or_started(session: Session, progress: Progress, link: Link) -> Dict[str, Any]:
    """The state of the job on the board, which runs or has ended."""
    board, job = session.board, session.job
    needed = job.needed() if job else {}
    wanted = job.id if job else None
    hello = ask(link, "hello", files=list(needed), client=client_id(), srdeploy=board.srdeploy, job=wanted)
    progress.went_on()
    if job is None:
        progress.attached = True
        return dict(_find(session, link), workdir=hello["workdir"])
    known = hello["job"]
    if known["state"] == "running" or (known["state"] == "ended" and not known["fetched"]):
        if progress.drops == 0:
            progress.attached = True
            session.say(f"job {job.id} is there already ({known['state']}): attaching")
        return dict(known, workdir=hello["workdir"])
    if known["state"] == "died" and progress.job == job.id:
        raise _died(session.board, job.id)
    if known["state"] == "died":
        session.say(f"job {job.id} ended without an exit status before; it is started again")
    if hello["busy"] is not None:
        raise _busy(board, hello["busy"])
    progress.state = "checking"
    if hello["srdeploy"] is None:
        raise EnvironmentFault(
            f"{board.name} has no srdeploy (looked for {board.srdeploy!r})",
            "srdeploy installed there",
            "there: pip install 'srdeploy[jetson]', or jetson/playbook.yml; another place: `srdeploy` in the inventory",
        )
    for note in check_doctor(board.name, ask(link, "doctor", command=hello["srdeploy"]), job.arguments):
        session.say(f"note: {note}")
    progress.state = "copying"
    missing = hello["missing"]
    if missing:
        count = sum(needed[sha].size - have for sha, have in missing.items())
        session.say(f"copying {len(missing)} of {len(needed)} files, {count / 2**20:.1f} MiB")

    def copied(count: int) -> None:
        progress.sent += count
        progress.went_on()

    upload(link, hello["workdir"], needed, missing, hello["free_bytes"], copied)
    state = ask(link, "start", job=job.to_dict(), command=hello["srdeploy"])
    if "busy" in state:
        raise _busy(board, state["busy"])
    progress.log_offset = 0
    session.say(f"job {job.id} started: srdeploy {' '.join(job.arguments)}")
    return dict(state, workdir=hello["workdir"])


def _find(session: Session, link: Link) -> Dict[str, Any]:
    """The job to attach to: the one that runs, else the newest that is not home yet, else the newest."""
    found: List[Dict[str, Any]] = ask(link, "status", job=session.wanted)["jobs"]
    if not found:
        named = f"no job {session.wanted!r}" if session.wanted else "no job"
        raise UsageError(f"{session.board.name} has {named}", "a job that runs or has ended", "start one")
    if session.wanted and len(found) > 1 and session.wanted not in [state["id"] for state in found]:
        raise UsageError(
            f"{session.board.name} has several jobs {session.wanted}…", "one of " + ", ".join(s["id"] for s in found)
        )
    state = found[-1]
    if state["state"] not in ("running", "ended"):
        raise _died(session.board, state["id"])
    session.say(f"attaching to {state['id']} ({state['state']}, since {state['since']})")
    return state


def _follow(session: Session, progress: Progress, link: Link, folder: str) -> Optional[Dict[str, Any]]:
    """Show the log as it grows until the job has a status; None when the user leaves.

    Raises:
        EnvironmentFault: the job has ended without a status.
    """
    heard = time.monotonic()
    rest = b""
    while True:
        status = _status(link, f"{folder}/status.json")
        grown = _read_from(link, f"{folder}/log", progress.log_offset)
        if grown:
            progress.log_offset += len(grown)
            progress.went_on()
            heard = time.monotonic()
            *whole, rest = (rest + grown).split(b"\n")
            for line in whole:
                # A progress bar rewrites its line: its last state is enough.
                session.say(line.decode("utf-8", "replace").rstrip("\r").rsplit("\r", 1)[-1])
        if status is not None and not grown:
            if rest:
                session.say(rest.decode("utf-8", "replace"))
            return status
        if status is None and session.stopped.wait(LOOK_SECONDS):
            return None
        if status is None and time.monotonic() - heard > SILENT_SECONDS:
            heard = time.monotonic()
            name = folder.rsplit("/", 1)[-1]
            (state,) = [s for s in ask(link, "status", job=name)["jobs"] if s["id"] == name] or [{"state": "absent"}]
            if state["state"] not in ("running", "ended"):
                raise _died(session.board, name)


def _status(link: Link, path: str) -> Optional[Dict[str, Any]]:
    try:
        with link.sftp.open(path, "rb") as stream:
            return json.loads(stream.read().decode("utf-8"))
    except FileNotFoundError:
        return None


def _read_from(link: Link, path: str, offset: int) -> bytes:
    try:
        with link.sftp.open(path, "rb") as stream:
            stream.seek(offset)
            return stream.read(1 << 18)
    except FileNotFoundError:
        return b""


def failure_of(board: Board, status: Dict[str, Any], progress: Progress) -> SrDeployError:
    """The board's exit code as an error of the same code; its message is in the log that was shown."""
    code = status["exit_code"]
    if "error" in status:
        return EnvironmentFault(f"{board.name}: the job could not run: {status['error']}", "a job that runs")
    if code < 0:
        return EnvironmentFault(
            f"{board.name}: the job was ended by signal {-code}" + (" (out of memory?)" if code == -9 else ""),
            "a job that ends by itself",
            "free -h and dmesg on the board",
        )
    log = next((path for path in progress.files if path.name == "log"), None)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log else []
    error = next((line for line in reversed(lines) if line.startswith("error: ")), "error: see its log")
    return ERRORS.get(code, EnvironmentFault)(
        f"{board.name}: srdeploy ended with exit code {code}: {error[len('error: ') :]}",
        "",
        f"its log: {log}" if log else "",
    )


def _busy(board: Board, holder: Dict[str, Any]) -> EnvironmentFault:
    who = holder.get("holder", "someone")
    return EnvironmentFault(
        f"{board.name} is busy: {who} runs {holder.get('command', 'a job')} since {holder.get('since', '?')} "
        f"(process {holder.get('pid', '?')})",
        "one job at a time, or the measurements are worth nothing",
        f"wait, or watch it: srdeploy remote {board.name} attach {holder.get('job', '')}".rstrip(),
    )


def _died(board: Board, name: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"{board.name}: job {name} ended without an exit status (killed, or the board restarted)",
        "a job that ends by itself",
        "dmesg on the board tells of memory and power; the same command starts it again",
    )


def _lost(session: Session, progress: Progress, error: Exception) -> EnvironmentFault:
    name = session.board.name
    job = f"job {progress.job} goes on there" if progress.job else "no job was started"
    return EnvironmentFault(
        f"{name} was lost for {session.patience:.0f} s: {error}; {job}",
        "a connection",
        f"later: srdeploy remote {name} attach {progress.job}".rstrip() if progress.job else "the same command again",
    )
