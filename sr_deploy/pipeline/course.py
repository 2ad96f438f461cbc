"""One ``srdeploy run`` over pictures: what was asked, what is to be done, and what became of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

from sr_deploy.core.errors import SrDeployError, UsageError
from sr_deploy.core.media.encode import DEFAULT, Saving
from sr_deploy.pipeline.finished import Finished, request_of
from sr_deploy.pipeline.held import Held
from sr_deploy.pipeline.picture_files import Job, Places, jobs_of
from sr_deploy.pipeline.runner import Resolved
from sr_deploy.pipeline.upscaled import Upscaled, named

#: Pictures that are read ahead and results that wait may take this part of the memory.
WAITING_SHARE = 0.25


@dataclass(frozen=True)
class UpscaleOptions:
    """What ``srdeploy run`` is asked for.

    Attributes:
        deployment: the folder.
        inputs: pictures and folders of pictures.
        out: the folder to write to; or the file, where one picture is given and this ends like one.
        backend, engine, precision: which runtime; see pipeline/runner.py.
        suffix: of core/media/encode.py without its dot; None keeps each picture's own.
        force: overwrite results that exist; with ``resume``, only those that this request did not make.
        resume: keep results that this very request has made, and make the others.
        memory: bytes that may be used; None: half of what is free.
        allow_inexact: tiles of a network that is not local are taken as they are.
        recursive: search folders in folders too, and keep their structure.
        saving: how results are written.
    """

    deployment: Path
    inputs: Tuple[Path, ...]
    out: Path
    backend: Optional[str] = None
    engine: Optional[Path] = None
    suffix: Optional[str] = None
    force: bool = False
    precision: Optional[str] = None
    resume: bool = False
    memory: Optional[int] = None
    allow_inexact: bool = False
    recursive: bool = False
    saving: Saving = DEFAULT

    @property
    def places(self) -> Places:
        """What it says of files."""
        return Places(self.inputs, self.out, self.suffix, self.recursive, self.force)


@dataclass
class Course:
    """One command under way.

    Attributes:
        options, resolved, jobs: what is done.
        say: told each step.
        held: the memory of pictures that wait.
        finished: the record for ``--resume``; None for a picture alone.
        made, kept, bad: what became of each job, by its place.
    """

    options: UpscaleOptions
    resolved: Resolved
    jobs: Tuple[Job, ...]
    say: Callable[[str], None]
    held: Held
    finished: Optional[Finished]
    made: Dict[int, Path] = field(default_factory=dict)
    kept: Dict[int, Path] = field(default_factory=dict)
    bad: Dict[int, SrDeployError] = field(default_factory=dict)

    @property
    def memory(self) -> Optional[int]:
        """Bytes that may be used."""
        return self.resolved.tiling.memory if self.resolved.tiling is not None else None

    def skip(self, place: int, error: SrDeployError) -> None:
        """Leave a picture out, and go on with the others; raises the error of a picture that came alone."""
        if len(self.jobs) == 1:
            raise error
        self.bad[place] = error
        self.say(f"skipped {named(self.jobs[place].source, error)}")

    def request(self, job: Job) -> str:
        """The sha256 of all that a result follows from; see ``request_of``.

        Raises:
            OSError: the picture cannot be read.
        """
        options = {"format": job.target.suffix, **asdict(self.options.saving)}
        return request_of(job.source, _network_of(self.resolved), options)

    def keeps(self, place: int, request: str) -> bool:
        """Whether the result is there, made by this very request, and shall stay.

        Raises:
            UsageError: another request made what is there.
        """
        job = self.jobs[place]
        if self.finished is None:
            return False
        if self.options.resume and self.finished.has(job.target, request):
            self.kept[place] = job.target
            return True
        _check_free(self.options, job)
        return False

    def begin(self, job: Job, request: str) -> None:
        """Note that a result is going to be made."""
        if self.finished is not None:
            self.finished.begin(job.target, request)

    def done(self, seconds: float) -> Upscaled:
        """What became of all."""
        return Upscaled(
            tuple(self.made[place] for place in sorted(self.made)),
            tuple(self.kept[place] for place in sorted(self.kept)),
            tuple((self.jobs[place].source, self.bad[place]) for place in sorted(self.bad)),
            seconds,
        )


def course_of(options: UpscaleOptions, resolved: Resolved, say: Callable[[str], None]) -> Course:
    """What is to be done; refuses to overwrite."""
    places = options.places
    options.saving.check()
    jobs = jobs_of(places)
    if options.resume and places.is_file:
        raise UsageError("--resume goes on with a folder, and -o names one picture", "a folder, or no --resume")
    there = [job.target for job in jobs if job.target.exists()]
    if there and not options.force and not options.resume:
        raise UsageError(
            f"{there[0]} exists already",
            "a new file",
            "choose another -o, keep what is there and make the rest with --resume, or overwrite with --force",
        )
    memory = resolved.tiling.memory if resolved.tiling is not None else None
    held = Held(None if memory is None else int(WAITING_SHARE * memory))
    return Course(options, resolved, jobs, say, held, None if places.is_file else Finished(options.out))


def _check_free(options: UpscaleOptions, job: Job) -> None:
    """Refuse to replace a result that another request made."""
    if options.resume and not options.force and job.target.exists():
        raise UsageError(
            f"{job.target} is there, and was not made by this command from {job.source} as it is now",
            "a result of the same picture, network and options to keep, or none",
            "--resume --force replaces what this command did not make",
        )


def _network_of(resolved: Resolved) -> Dict[str, Any]:
    """What a result follows from, of what runs: not which of two equal engines."""
    engine = resolved.engine
    graphs = resolved.deployment.manifest.graphs
    return {
        "graph": graphs[0].sha256,
        "engine": None if engine is None else resolved.index.proved(engine).sha256,
        "backend": resolved.backend,
        "precision": resolved.runs_in,
        "inexact": resolved.tiling is not None and resolved.tiling.inexact,
    }
