"""One board from the first question to the results at home; goes on where it was when the connection drops."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Dict, List, Optional, Type

from sr_deploy.core.errors import BadInput, CheckFailed, EnvironmentFault, Inconclusive, SrDeployError, UsageError
from sr_deploy.core.text import log_line, plain
from sr_deploy.remote.call import WRONG_BOARD, ask
from sr_deploy.remote.check import check_doctor
from sr_deploy.remote.connect import Dropped, Link, Unreachable, connected
from sr_deploy.remote.follow import died, follow
from sr_deploy.remote.home import MOST_FILES, fetch, listing
from sr_deploy.remote.inventory import Board
from sr_deploy.remote.job import Job, client_id
from sr_deploy.remote.progress import Progress, Session
from sr_deploy.remote.replies import Doctor, Ended, Fetched, Hello, Holder, JobState, Start, Status
from sr_deploy.remote.transfer import asked_for, lacking_bytes, upload

#: Seconds between two tries to reach a board again.
RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
#: A network that lets every new connection live for a moment only is given up after so many.
MOST_DROPS = 200
#: So many connections in a row that end within FRUITLESS_SECONDS and bring not one byte are a board that never will.
MOST_FRUITLESS, FRUITLESS_SECONDS = 20, 60.0
#: Result files of one job: some for each picture that it was given, and what a benchmark with many sizes makes.
FILES_PER_INPUT, FILES_BESIDES = 4, 2000
#: The errors of the exit codes of srdeploy on the board; any other code is a fault of its environment.
ERRORS: Dict[int, Type[SrDeployError]] = {1: CheckFailed, 2: UsageError, 4: BadInput, 5: Inconclusive}


def bring_home(session: Session, progress: Progress) -> None:
    """Copy, start or attach, follow, fetch. A drop begins it anew, and what was done is found done.

    Raises:
        EnvironmentFault: the board cannot be reached, lacks something, is full, or is busy; each message says which.
        BadInput: the board says what no board says.
        CheckFailed, UsageError, BadInput, Inconclusive: the exit code of srdeploy on the board.
    """
    reached, tries, fruitless = False, 0, 0
    while not session.stopped.is_set():
        before, came, begun = progress.moved, progress.came, time.monotonic()
        try:
            progress.state = "connecting"
            with connected(session.board) as link:
                reached, progress.link = True, link
                _steps(session, progress, link)
                return
        except (Dropped, Unreachable) as error:
            if session.stopped.is_set():
                break
            if not reached:
                raise error if isinstance(error, SrDeployError) else _lost(session, progress, error) from error
            tries = 0 if progress.moved > before else tries + 1
            short = progress.came == came and time.monotonic() - begun < FRUITLESS_SECONDS
            fruitless = fruitless + 1 if short else 0
            if isinstance(error, Dropped):
                progress.drops += 1
                if tries == 0:
                    progress.went_on()
                session.say(
                    f"the connection dropped ({plain(str(error), 200)}); trying again for {session.patience:.0f} s"
                )
            tired = time.monotonic() - progress.moved > session.patience
            if tired or progress.drops > MOST_DROPS or (tries == 0 and fruitless > MOST_FRUITLESS):
                raise _lost(session, progress, error) from error
        finally:
            progress.link = None
        session.stopped.wait(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
    progress.state = "left running"


def _steps(session: Session, progress: Progress, link: Link) -> None:
    """Everything over one connection; safe to begin anew at any point."""
    needed = session.job.needed() if session.job else {}
    wanted = session.job.id if session.job else None
    hello = ask(link, Hello, files=list(needed), client=client_id(), srdeploy=session.board.srdeploy, job=wanted)
    asked_for(session.board.name, hello.missing, needed)
    progress.went_on()
    progress.job = _find(session, progress, link) if session.job is None else _started(session, progress, link, hello)
    folder = f"{hello.workdir}/jobs/{progress.job}"
    progress.state = "running"
    ended = follow(session, progress, link, folder)
    if ended is None:
        progress.state = "left running"
        return
    progress.state, progress.seconds, progress.exit_code = "fetching", ended.seconds, ended.exit_code
    most = MOST_FILES if session.job is None else FILES_BESIDES + FILES_PER_INPUT * len(session.job.inputs)
    files = listing(link, folder, ended, most)
    stage = session.out / f".incoming-{progress.job}"
    arrived = fetch(link, files, stage, session.out, progress.went_on, session.say)
    progress.files = arrived.files
    if not arrived.skipped:
        ask(link, Fetched, job=progress.job)
    for line in arrived.skipped:
        session.say(f"not brought home: {line}")
    if ended.exit_code != 0 or ended.error is not None:
        raise failure_of(session.board, ended, progress)
    if arrived.skipped:
        raise EnvironmentFault(
            f"{session.board.name}: {len(arrived.skipped)} of {len(files)} results cannot be kept here: "
            + arrived.skipped[0],
            "a file system that takes these names",
            f"another -o; the others are in {session.out}, all are still on the board",
        )
    progress.state = "done"


def _started(session: Session, progress: Progress, link: Link, hello: Hello) -> str:
    """The id of our job, which runs on the board or has ended; it is the one that this machine computed."""
    board, job = session.board, session.job
    assert job is not None
    known = hello.job or JobState(job.id, "absent", False)
    if known.state == "running" or (known.state == "ended" and not known.fetched):
        if progress.drops == 0:
            progress.attached = True
            session.say(f"job {job.id} is there already ({known.state}): attaching")
        progress.begun = True
        return job.id
    if known.state == "died" and progress.begun:
        raise died(board, job.id)
    if known.state == "died":
        session.say(f"job {job.id} ended without an exit status before; it is started again")
    if hello.busy is not None:
        raise _busy(board, hello.busy)
    progress.state = "checking"
    _check(session, link, hello, job)
    progress.state = "copying"
    _copy(session, progress, link, hello, job)
    started = ask(link, Start, job=job.to_dict(), command=hello.srdeploy)
    if started.busy is not None:
        raise _busy(board, started.busy)
    progress.log_offset, progress.begun = 0, True
    session.say(f"job {job.id} started: srdeploy {' '.join(job.arguments)}")
    return job.id


def _check(session: Session, link: Link, hello: Hello, job: Job) -> None:
    """Whether the board can do it, before anything is copied."""
    board = session.board
    for line in hello.skipped:
        session.say(f"note: not run, because others could change it: {line}")
    if hello.srdeploy is None:
        raise EnvironmentFault(
            f"{board.name} has no srdeploy{' that only root or you can change' if hello.skipped else ''} "
            f"({hello.skipped[0] if hello.skipped else f'looked for {board.srdeploy!r}'})",
            "srdeploy installed there",
            "there: pip install 'srdeploy[jetson]', or jetson/playbook.yml; another place: `srdeploy` in the inventory",
        )
    for note in check_doctor(board.name, ask(link, Doctor, command=hello.srdeploy), job.arguments):
        session.say(f"note: {note}")


def _copy(session: Session, progress: Progress, link: Link, hello: Hello, job: Job) -> None:
    needed = job.needed()
    if hello.missing:
        count = lacking_bytes(needed, hello.missing)
        session.say(f"copying {len(hello.missing)} of {len(needed)} files, {count / 2**20:.1f} MiB")

    def copied(count: int) -> None:
        progress.sent += count
        progress.went_on(count)

    upload(link, hello.workdir, needed, hello.missing, hello.free_bytes, copied)


def _find(session: Session, progress: Progress, link: Link) -> str:
    """The id of the job to attach to: the one that runs, else the newest that is not home yet, else the newest."""
    progress.attached = True
    name = session.board.name
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,100}", session.wanted):
        raise UsageError(f"{plain(session.wanted, 200)!r} is no job's id", "letters, digits, '.', '_' and '-'")
    found = ask(link, Status, job=session.wanted).jobs
    if not all(state.id.startswith(session.wanted) for state in found):
        raise BadInput(f"{name} names other jobs than it was asked for", session.wanted, WRONG_BOARD)
    if not found:
        named = f"no job {session.wanted!r}" if session.wanted else "no job"
        raise UsageError(f"{name} has {named} of this user", "a job that runs or has ended", "start one")
    if session.wanted and len(found) > 1 and session.wanted not in [state.id for state in found]:
        raise UsageError(f"{name} has several jobs {session.wanted}…", "one of " + ", ".join(s.id for s in found))
    state = found[-1]
    if state.state not in ("running", "ended"):
        raise died(session.board, state.id)
    session.say(f"attaching to {state.id} ({state.state}, since {state.since})")
    return state.id


def failure_of(board: Board, ended: Ended, progress: Progress) -> SrDeployError:
    """The board's exit code as an error of the same code; its message is in the log that was shown."""
    # A program that cleans up after a signal ends with 128 + its number, as shells count; others are told as negative.
    code = 128 - ended.exit_code if 128 < ended.exit_code <= 128 + 64 else ended.exit_code
    if ended.error is not None:
        return EnvironmentFault(
            f"{board.name}: the job could not run: {ended.error}",
            "a job that runs",
            "mend that on the board, then give the command again",
        )
    if code < 0:
        return EnvironmentFault(
            f"{board.name}: the job was ended by signal {-code}" + (" (out of memory?)" if code == -9 else ""),
            "a job that ends by itself",
            "free -h and dmesg on the board",
        )
    log = next((path for path in progress.files if path.name == "log" and path.parent.parent.name == "jobs"), None)
    error = next((line for line in reversed(_last_lines(log)) if line.startswith("error: ")), "error: see its log")
    return ERRORS.get(code, EnvironmentFault)(
        f"{board.name}: srdeploy ended with exit code {code}: {log_line(error[len('error: ') :][:1000])}",
        "",
        f"its log: {log}" if log else "",
    )


def _last_lines(log: Optional[Path]) -> List[str]:
    if log is None:
        return []
    with open(log, "rb") as stream:
        stream.seek(max(0, log.stat().st_size - (1 << 16)))
        return stream.read(1 << 16).decode("utf-8", "replace").splitlines()


def _busy(board: Board, holder: Holder) -> EnvironmentFault:
    return EnvironmentFault(
        f"{board.name} is busy: {holder.holder or 'someone'} runs {holder.command or 'a job'} "
        f"since {holder.since or '?'} (process {holder.pid or '?'})",
        "one job at a time, or the measurements are worth nothing",
        f"wait, or watch it: srdeploy remote {board.name} attach {holder.job}" if holder.mine else "wait",
    )


def _lost(session: Session, progress: Progress, error: Exception) -> EnvironmentFault:
    name = session.board.name
    job = f"job {progress.job} goes on there" if progress.job else "no job was started"
    return EnvironmentFault(
        f"{name} was lost for {session.patience:.0f} s: {plain(str(error), 200)}; {job}",
        "a connection",
        f"later: srdeploy remote {name} attach {progress.job}".rstrip() if progress.job else "the same command again",
    )
