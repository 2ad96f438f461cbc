"""One command on one or several boards: the deployment goes there, runs there, and its results come home."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.errors import BadDeployment, SrDeployError, UsageError
from sr_deploy.core.media.image import find_images
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.core.text import log_line, plain
from sr_deploy.remote.call import ask
from sr_deploy.remote.connect import connected
from sr_deploy.remote.inventory import Board
from sr_deploy.remote.job import DEPLOYMENT_MARK, JOB_MARK, Job, LocalFile
from sr_deploy.remote.progress import Progress, Session
from sr_deploy.remote.replies import Status, Stop
from sr_deploy.remote.session import bring_home

COMMANDS = ("build", "bench", "verify", "run")
#: What is made on each machine for itself and so never copied to another.
OWN_FOLDERS = ("engines", "results")


@dataclass(frozen=True)
class RemoteOptions:
    """What ``srdeploy remote`` is asked for.

    Attributes:
        boards: where.
        out: results go to ``out/<board's name>/``.
        bundle: a deployment folder or a packed one (.srd); None to attach.
        command: one of COMMANDS; None to attach.
        arguments: options for the command on the board.
        pictures: option (``-i``, ``--lr``, ``--hr``) and the files and folders of this machine that it names.
        wanted: with None for command: the beginning of the id of the job to attach to, or "" for the newest.
        patience: seconds to go on trying when a connection has dropped.
        force: pictures that are home already may be replaced.
    """

    boards: Tuple[Board, ...]
    out: Path
    bundle: Optional[Path] = None
    command: Optional[str] = None
    arguments: Tuple[str, ...] = ()
    pictures: Tuple[Tuple[str, Tuple[Path, ...]], ...] = ()
    wanted: str = ""
    patience: float = 300.0
    force: bool = False


@dataclass(frozen=True)
class Outcome:
    """How it went on one board."""

    board: Board
    progress: Progress
    error: Optional[SrDeployError]

    def to_dict(self) -> Dict[str, Any]:
        """Plain values for JSON and the table."""
        error = self.error
        return {
            "board": self.board.name,
            "host": self.board.host,
            "state": self.progress.state,
            "job": self.progress.job,
            "attached": self.progress.attached,
            "dropped": self.progress.drops,
            "sent_bytes": self.progress.sent,
            "seconds": self.progress.seconds,
            "exit_code": self.progress.exit_code if error is None else error.exit_code,
            "files": [str(path) for path in self.progress.files],
            "error": None if error is None else {"found": error.found, "wanted": error.wanted, "next": error.todo},
        }


def run_remote(options: RemoteOptions, say: Callable[[str], None] = lambda _: None) -> Tuple[Outcome, ...]:
    """Do it on every board at once; one board's failure leaves the others alone.

    Returns:
        One outcome a board, in their order. An interruption leaves the jobs running and is raised again.

    Raises:
        BadDeployment, BadImage, UsageError: the bundle, pictures or options, before any board is asked.
    """
    if options.command is None:
        return _on_all(options, None, say)
    with opened_bundle(options.bundle or Path()) as folder:
        job = job_of(folder, _name_of(options.bundle or folder), options)
        for board in options.boards:
            _check_pictures(options, options.out / board.name)
        return _on_all(options, job, say)


def stop_jobs(options: RemoteOptions) -> Tuple[Tuple[str, str], ...]:
    """End the running job of every board: (board, what was done)."""
    done = []
    for board in options.boards:
        with connected(board) as link:
            jobs = [job for job in ask(link, Status, job=options.wanted).jobs if job.state == "running"]
            for job in jobs:
                stopped = ask(link, Stop, job=job.id).stopped
                done.append((board.name, f"{job.id} {'stopped' if stopped else 'does not stop'}"))
            if not jobs:
                done.append((board.name, "nothing runs"))
    return tuple(done)


@contextlib.contextmanager
def opened_bundle(path: Path) -> Iterator[Path]:
    """The deployment's folder: the path itself, or a packed deployment checked and unpacked for the while.

    Raises:
        BadDeployment: neither, or altered.
    """
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise BadDeployment(
            f"{path} does not exist", "a deployment folder, or one packed by srdeploy pack", "check the path"
        )
    from sr_deploy.bundle.open import unpack

    with temporary_folder() as temporary:
        folder = temporary / "deployment"
        unpack(path, folder)
        yield folder


def job_of(folder: Path, name: str, options: RemoteOptions) -> Job:
    """The job: every file of the deployment but what is made on each machine, the pictures, the command.

    Raises:
        BadDeployment, BadImage: see ``open_deployment`` and ``find_images``.
        UsageError: two pictures of one name under one option.
    """
    open_deployment(folder)
    files = {
        path.relative_to(folder).as_posix(): _local(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.relative_to(folder).parts[0] not in OWN_FOLDERS
    }
    arguments = [str(options.command), DEPLOYMENT_MARK, *options.arguments]
    inputs: Dict[str, LocalFile] = {}
    for option, paths in options.pictures:
        place = option.lstrip("-")
        for path in find_images(paths):
            if f"{place}/{path.name}" in inputs:
                raise UsageError(f"two pictures for {option} are called {plain(path.name)}", "different names")
            inputs[f"{place}/{path.name}"] = _local(path)
        arguments += [option, f"{JOB_MARK}/inputs/{place}"]
    if options.command == "run":
        arguments += ["-o", f"{JOB_MARK}/out"]
    return Job(str(options.command), name, files, inputs, tuple(arguments))


def _local(path: Path) -> LocalFile:
    return LocalFile(path, sha256_of(path), path.stat().st_size)


def _name_of(path: Path) -> str:
    """A name that is a folder's on every system."""
    stem = Path(path).resolve().name
    stem = stem[: -len(".srd")] if stem.endswith(".srd") else stem
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in stem).strip(".") or "deployment"


def _check_pictures(options: RemoteOptions, out: Path) -> None:
    """As ``run`` itself, refuse to overwrite pictures before an hour is lost on the board."""
    pictures = out / "pictures"
    if options.command == "run" and not options.force and pictures.is_dir() and any(pictures.iterdir()):
        raise UsageError(f"{pictures} holds pictures already", "a new folder", "another -o, or overwrite with --force")


def _on_all(options: RemoteOptions, job: Optional[Job], say: Callable[[str], None]) -> Tuple[Outcome, ...]:
    """One thread a board."""
    stopped = threading.Event()
    progresses = [Progress(job=job.id if job else "") for _ in options.boards]
    many = len(options.boards) > 1
    lock = threading.Lock()

    def one(board: Board, progress: Progress) -> Outcome:
        def tell(text: str) -> None:
            with lock:
                # The last place where a board's words could do more than be read.
                say(log_line(f"[{board.name}] {text}" if many else text))

        session = Session(board, job, options.wanted, options.out / board.name, options.patience, tell, stopped)
        try:
            bring_home(session, progress)
            return Outcome(board, progress, None)
        except SrDeployError as error:
            progress.state = "failed"
            if many:
                tell(f"failed: {error.found}")
            return Outcome(board, progress, error)

    with concurrent.futures.ThreadPoolExecutor(len(options.boards)) as pool:
        futures: List[Any] = [pool.submit(one, *pair) for pair in zip(options.boards, progresses)]
        try:
            return tuple(future.result() for future in futures)
        except KeyboardInterrupt:
            stopped.set()
            for board, progress in zip(options.boards, progresses):
                progress.hang_up()
                if progress.state == "running":
                    say(f"{progress.job} goes on there; later: srdeploy remote {board.name} attach {progress.job}")
            raise


def worst(outcomes: Sequence[Outcome]) -> Optional[SrDeployError]:
    """None when all is well; one board's own error; of several, the gravest with how many failed."""
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    if not failed:
        return None
    error = min(failed, key=lambda one: (one.exit_code != 3, one.exit_code))
    if len(outcomes) == 1:
        return error
    return type(error)(f"{len(failed)} of {len(outcomes)} boards failed; {error.found}", error.wanted, error.todo)
