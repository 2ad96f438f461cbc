"""Results on their way home: what a board may send, and where it may be written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple
from unicodedata import normalize

from sr_deploy.core.artifact import explained_write_errors, sha256_of
from sr_deploy.core.confine import confined
from sr_deploy.core.errors import BadInput, CheckFailed, DiskFull, EnvironmentFault
from sr_deploy.core.schema import value_from
from sr_deploy.core.text import plain
from sr_deploy.remote.board_files import BLOCK, opened, spoken
from sr_deploy.remote.call import WRONG_BOARD
from sr_deploy.remote.connect import Link
from sr_deploy.remote.replies import MOST_LINE, Ended, ResultFile

#: Result files of one job, and bytes of their listing, whatever was asked for.
MOST_FILES, MOST_LISTING = 100_000, 32 << 20
#: How a file system says that it cannot hold a name.
_NO_NAME = (errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Arrived:
    """What came home, and what did not: its name and why."""

    files: Tuple[Path, ...]
    skipped: Tuple[str, ...]


def listing(link: Link, folder: str, ended: Ended, most: int = MOST_FILES) -> Tuple[ResultFile, ...]:
    """The result files of a job, each line checked while it is read.

    Args:
        link: the connection.
        folder: the job's there, .../jobs/ID.
        ended: its status, which says how many files and bytes there are.
        most: files that what was asked for can have made.

    Raises:
        BadInput: not as described, too many, a place that no result has, twice the same, a file as folder of another.
    """
    board, job = link.board.name, folder.rsplit("/", 1)[-1]
    if ended.files > min(most, MOST_FILES):
        raise BadInput(f"{board} announces {ended.files} result files", f"at most {most}", WRONG_BOARD)
    files = [
        value_from(ResultFile, line, f"{board}: line {number} of its results", WRONG_BOARD, said_as="result file")
        for number, line in enumerate(_lines(link, f"{folder}/files", ended.files), 1)
    ]
    if (len(files), sum(file.size for file in files)) != (ended.files, ended.bytes):
        raise BadInput(f"{board} lists other results than it announces", f"{ended.files} files", WRONG_BOARD)
    homes = {file.home for file in files}
    for file in files:
        if not _is_result(file.home, job):
            raise BadInput(f"{board} sends a file for {plain(repr(file.home), 200)}", PLACES, WRONG_BOARD)
        parts = file.home.split("/")
        above = next((up for up in ("/".join(parts[:n]) for n in range(1, len(parts))) if up in homes), None)
        if above is not None:
            raise BadInput(f"{board} sends {plain(above, 200)} as a file and as a folder", "one of them", WRONG_BOARD)
    if len(homes) != len(files):
        raise BadInput(f"{board} sends two files for one place", "each place once", WRONG_BOARD)
    return tuple(files)


PLACES = "engines/NAME.json, results/…, pictures/… (of run), jobs/ID/log or jobs/ID/output, nothing hidden"


def _is_result(home: str, job: str) -> bool:
    """Whether a command makes results of that name."""
    first, *rest = home.split("/")
    if not rest or any(not part or part.startswith(".") for part in rest) or len(rest) > 20:
        return False
    if first == "engines":
        return rest[-1].endswith(".json")
    if first == "jobs":
        return rest in ([job, "log"], [job, "output"])
    return first == "results" or (first == "pictures" and job.startswith("run-"))


def _lines(link: Link, path: str, most: int) -> List[str]:
    """At most ``most`` lines; one more line, a long line or a long listing is an error."""
    found: List[bytes] = []
    rest, read = b"", 0
    try:
        with opened(link, path) as stream:
            while True:
                with spoken(link, path):
                    block = stream.read(BLOCK)
                read += len(block)
                *whole, rest = (rest + block).split(b"\n")
                found += whole
                longest = max(map(len, [rest, *whole]))
                if len(found) > most or longest > MOST_LINE or read > MOST_LISTING or (rest and not block):
                    raise BadInput(f"{link.board.name}: its list of results is not one", f"{most} lines", WRONG_BOARD)
                if not block:
                    return [line.decode("utf-8", "replace") for line in found]
    except FileNotFoundError:
        return []


def fetch(link: Link, files: Sequence[ResultFile], stage: Path, out: Path, progress: Callable[[int], None],
          say: Callable[[str], None]) -> Arrived:  # fmt: skip
    """Bring results home: all into ``stage`` first, each checked, then each to its place in ``out``.

    Args:
        link: the connection.
        files: of ``listing``.
        stage: a folder in ``out``; a file that is whole in it is not fetched again.
        out: the folder for the results. Nothing is written outside it, nothing removed but what was made here.
        progress: told the bytes of every block.
        say: told how much there is.

    Raises:
        BadInput: a place that a link leads out of ``out``.
        CheckFailed: a file arrives altered.
        DiskFull, EnvironmentFault: it cannot be written here.
        Dropped: the connection ended; what is whole in ``stage`` stays.
    """
    origin = link.board.name
    with explained_write_errors(stage):
        stage.mkdir(parents=True, exist_ok=True)
    if stage.is_symlink():
        raise BadInput(f"{plain(str(stage))} is a link", "a folder of srdeploy's own", "remove the link")
    skipped = {file: "a control character in its name" for file in files if _CONTROL.search(file.home)}
    named = [file for file in files if file not in skipped]
    places = {file: confined(stage, file.home, origin, portable=False) for file in named}
    targets = {file: confined(out, file.home, origin, portable=False) for file in named}
    lacking = [file for file in named if not _whole(places[file], file)]
    _check_room(origin, sum(file.size for file in lacking), out)
    say(f"fetching {len(files)} files, {sum(file.size for file in files) / 2**20:.1f} MiB")
    skipped.update(_doubles(named, stage))
    for file in lacking:
        if file not in skipped:
            why = _receive(link, file, places[file], progress)
            skipped.update({file: why} if why else {})
    for file in named:
        if file not in skipped:
            with explained_write_errors(targets[file]):
                targets[file].parent.mkdir(parents=True, exist_ok=True)
                os.replace(places[file], targets[file])
    _remove_folders(stage, list(places.values()))
    return Arrived(
        tuple(targets[file] for file in named if file not in skipped),
        tuple(f"{plain(file.home)}: {why}" for file, why in skipped.items()),
    )


def _whole(path: Path, file: ResultFile) -> bool:
    with contextlib.suppress(OSError):
        return path.is_file() and path.stat().st_size == file.size and sha256_of(path) == file.sha256
    return False


def _check_room(board: str, need: int, out: Path) -> None:
    """Refuse more than half of what is free: a board must not be able to fill this machine's disk."""
    free = shutil.disk_usage(out).free
    if need > free // 2:
        raise DiskFull(
            f"{board}: the results have {need / 2**20:.0f} MiB; {plain(str(out))} has {free / 2**20:.0f} MiB free",
            "results of at most half of what is free",
            "if you expect so much: free some space, or another -o; the results stay on the board",
        )


def _doubles(files: Sequence[ResultFile], stage: Path) -> Dict[ResultFile, str]:
    """Files that this file system takes for one with an earlier one, because it does not tell case or accents apart."""
    if _tells_case_apart(stage):
        return {}
    seen: Dict[str, str] = {}
    doubles = {}
    for file in files:
        key = normalize("NFC", file.home).casefold()
        if key in seen:
            doubles[file] = f"the same name as {plain(seen[key])} on this file system"
        seen.setdefault(key, file.home)
    return doubles


def _tells_case_apart(stage: Path) -> bool:
    return not (stage.parent / stage.name.swapcase()).exists()


def _receive(link: Link, file: ResultFile, target: Path, progress: Callable[[int], None]) -> Optional[str]:
    """One file into the stage; why not, where this file system cannot hold its name.

    A second try when it arrives altered, since it may still have been written.
    """
    board = link.board.name
    for _ in range(2):
        try:
            with opened(link, file.there) as source, explained_write_errors(target):
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    stream = open(target, "wb")  # noqa: SIM115
                except OSError as error:
                    if error.errno in _NO_NAME:
                        return f"this file system cannot hold the name ({error.strerror})"
                    raise
                with stream:
                    digest = _copied(link, file, source, stream, progress)
        except FileNotFoundError as error:
            raise EnvironmentFault(
                f"{board}: {plain(os.fsdecode(file.there), 200)} is gone from the board",
                "the job's results",
                "run the command again",
            ) from error
        if digest == file.sha256:
            return None
        target.unlink()
    raise CheckFailed(
        f"{board}: {plain(file.home, 200)} arrives altered", "the SHA-256 that the job noted", "run the command again"
    )


def _copied(link: Link, file: ResultFile, source: Any, stream: Any, progress: Callable[[int], None]) -> str:
    """Copy as many bytes as were announced and no more, fewer where the file is shorter; their SHA-256."""
    digest, left = hashlib.sha256(), file.size
    while left:
        with spoken(link, file.there):
            block = source.read(min(BLOCK, left))
        if not block:
            break
        stream.write(block)
        digest.update(block)
        left -= len(block)
        progress(len(block))
    return digest.hexdigest()


def _remove_folders(stage: Path, files: Sequence[Path]) -> None:
    """Remove the stage's empty folders; what somebody else put in there stays."""
    above = {up for path in files for up in path.parents if stage in (up, *up.parents)}
    for folder in sorted({stage, *above}, key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
