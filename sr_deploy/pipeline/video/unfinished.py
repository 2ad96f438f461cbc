"""A clip that is being upscaled: finished segments in a folder beside the result, until all are there.

Each segment begins with a key frame and holds a fixed number of frames, so a run that was ended anywhere goes on with
the next one, and its frames are those of a run that was not.
"""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Tuple

from pydantic import Field
from typing_extensions import Annotated

from sr_deploy.core.artifact import explained_write_errors, sha256_of, write_json
from sr_deploy.core.confine import FileName, confined
from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.core.schema import Positive, Sha256, ShortText, described, read_described

#: Added to the result's name.
FOLDER_SUFFIX = ".unfinished"
STATE_NAME = "state.json"
SCHEMA = 1


@described
@dataclass(frozen=True)
class SegmentFile:
    """One finished segment.

    Attributes:
        file: name in the folder.
        frames: how many it holds.
        sha256: of the file.
    """

    file: FileName
    frames: Positive
    sha256: Sha256


@described
@dataclass(frozen=True)
class UnfinishedState:
    """What is done of a clip; ``state.json`` in the folder.

    Attributes:
        request: what decides the frames and their bytes: the clip and what runs by their sha256, the encoder, …
        segments: the finished ones in order.
        schema: version of this layout.
    """

    request: Dict[ShortText, ShortText]
    segments: Annotated[Tuple[SegmentFile, ...], Field(max_length=1_000_000)] = ()
    schema: int = SCHEMA


class Unfinished:
    """The folder, and what is in it. Made by ``begun``."""

    def __init__(self, folder: Path, state: UnfinishedState) -> None:
        self.folder, self.state = folder, state

    @property
    def frames(self) -> int:
        """How many frames are done."""
        return sum(segment.frames for segment in self.state.segments)

    @property
    def files(self) -> List[Path]:
        """The finished segments in order."""
        return [self._path(segment.file) for segment in self.state.segments]

    def next_file(self, suffix: str) -> Path:
        """Where the next segment goes."""
        return self.folder / f"{len(self.state.segments):06d}{suffix}"

    def add(self, path: Path, frames: int) -> None:
        """Count a segment that is whole."""
        segment = SegmentFile(path.name, frames, sha256_of(path))
        self.state = dataclasses.replace(self.state, segments=(*self.state.segments, segment))
        write_json(self.folder / STATE_NAME, dataclasses.asdict(self.state))

    def check(self) -> None:
        """Raise BadInput where a segment is not what it was."""
        for segment in self.state.segments:
            path = self._path(segment.file)
            if not path.is_file() or sha256_of(path) != segment.sha256:
                raise BadInput(f"{path} is missing or altered", "the segment that was written", "begin with --force")

    def remove(self) -> None:
        """Remove the folder; the clip is finished, or to be begun anew."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return confined(self.folder, name, str(self.folder / STATE_NAME), BadInput)


def begun(out: Path, request: Dict[str, str], force: bool, resume: bool) -> Unfinished:
    """The folder of a result, new or as an ended run left it.

    Args:
        out: the file that will be written.
        request: see ``UnfinishedState``.
        force: what is there is removed first.
        resume: what is there is gone on with; without it and ``force`` it is an error.

    Raises:
        UsageError: something is there and neither is given, both are, or it was made by another request.
        BadInput: what is there is damaged.
        DiskFull, EnvironmentFault: the folder cannot be written.
    """
    if force and resume:
        raise UsageError("--force begins anew and --resume goes on", "one of the two")
    folder = out.with_name(out.name + FOLDER_SUFFIX)
    if force:
        shutil.rmtree(folder, ignore_errors=True)
    found = (folder / STATE_NAME).is_file()
    if not resume:
        _refuse_what_is_there(out, folder, found, force)
    if resume and found:
        return _gone_on_with(folder, request)
    if resume and out.exists():
        raise UsageError(f"{out} is finished", "a result that is not", "choose another -o, or replace it with --force")
    with explained_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    made = Unfinished(folder, UnfinishedState(request))
    write_json(folder / STATE_NAME, dataclasses.asdict(made.state))
    return made


def _refuse_what_is_there(out: Path, folder: Path, found: bool, force: bool) -> None:
    if found:
        raise UsageError(
            f"{folder} holds an unfinished run of {out}", "a new result", "go on with --resume, or begin with --force"
        )
    if out.exists() and not force:
        raise UsageError(f"{out} exists already", "a new file", "choose another -o, or replace it with --force")


def _gone_on_with(folder: Path, request: Dict[str, str]) -> Unfinished:
    todo = "begin with --force"
    state = read_described(UnfinishedState, folder / STATE_NAME, "state of an unfinished clip", todo, BadInput)
    names = sorted({*state.request, *request})
    other = [name for name in names if state.request.get(name) != request.get(name)]
    if other:
        was = ", ".join(f"{name} ({state.request.get(name)})" for name in other)
        raise UsageError(
            f"{folder} was begun with another {was}", "the request that it was begun with", f"use that, or {todo}"
        )
    left = Unfinished(folder, state)
    left.check()
    return left
