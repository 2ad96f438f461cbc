"""Pictures through a deployment: read, computed and written at the same time, whole or in tiles."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.errors import SrDeployError, UsageError
from sr_deploy.core.media.encode import DEFAULT, Saving
from sr_deploy.core.overlap import ahead, behind
from sr_deploy.engine.index import EngineIndex
from sr_deploy.pipeline.pictures.files import Places, jobs_of
from sr_deploy.pipeline.pictures.finished import Finished
from sr_deploy.pipeline.pictures.held import Held
from sr_deploy.pipeline.pictures.stages import Course, compute_one, named_error, reader, writer
from sr_deploy.pipeline.runner import Resolved, resolve, runners
from sr_deploy.pipeline.tiling import WHOLE_SHARE, tiling_of

#: Pictures that wait to be computed, and results that wait to be written.
WAITING = 1
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


@dataclass(frozen=True)
class Upscaled:
    """What became of the pictures.

    Attributes:
        written: results, in order.
        kept: results of this request that were there before and were left as they are.
        skipped: pictures without a result, and why.
        seconds: from the first picture to the last result.
    """

    written: Tuple[Path, ...]
    kept: Tuple[Path, ...]
    skipped: Tuple[Tuple[Path, SrDeployError], ...]
    seconds: float = 0.0

    def to_dict(self) -> Dict[str, Any]:
        """Plain values for JSON."""
        return {
            "written": [str(path) for path in self.written],
            "kept": [str(path) for path in self.kept],
            "skipped": [
                {"picture": str(path), "error": error.found, "wanted": error.wanted, "next": error.todo}
                for path, error in self.skipped
            ],
        }

    def summary(self) -> Tuple[str, ...]:
        """Lines that count what was made, and name what was kept and what was skipped; none for a picture alone."""
        every = len(self.written) + len(self.kept) + len(self.skipped)
        lines = []
        if len(self.written) > 1:
            lines.append(f"{len(self.written)} pictures in {self.seconds:.1f} s")
        if self.kept:
            lines.append(f"{len(self.kept)} results were there already and were kept as they are")
        if self.skipped:
            lines.append(f"{len(self.skipped)} of {every} pictures were skipped:")
            lines += [f"  {named_error(path, error)}" for path, error in self.skipped]
            lines.append("mend or remove them; the same command with --resume does only what is missing")
        return tuple(lines)


def upscale_files(options: UpscaleOptions, say: Callable[[str], None] = lambda _: None) -> Upscaled:
    """Upscale every picture; each result is written whole or not at all.

    The next picture is read and the last result is written while one is computed. A picture that does not fit the
    engine or the memory is made in tiles. One that cannot be read, does not fit the network or the memory, or has no
    finite result is skipped, and the rest is done. A picture that comes alone has no rest: its error is raised.

    Raises:
        BadImage, CheckFailed, EnvironmentFault: a single picture, for the reasons above.
        BadDeployment, ForeignEngine, EnvironmentFault: nothing here can run, or no more can be written.
        UsageError: a result exists, and neither ``force`` nor ``resume`` is set; or see ``jobs_of``.
    """
    from sr_deploy.report.progress import track

    deployment = open_deployment(options.deployment)
    tiling = tiling_of(options.memory, options.allow_inexact, WHOLE_SHARE)
    resolved = resolve(EngineIndex(deployment), options.backend, options.engine, options.precision, tiling=tiling)
    course = course_of(options, resolved, say)
    began = time.monotonic()
    with runners(resolved, say) as runner_at, behind(writer(course), WAITING) as hand, ahead(
        reader(course), WAITING
    ) as pictures, course.held:
        for item in track(pictures, "upscaling", len(course.jobs)):
            compute_one(course, runner_at, hand, item)
    return done(course, time.monotonic() - began)


def done(course: Course, seconds: float) -> Upscaled:
    """What became of all."""
    return Upscaled(
        tuple(course.made[place] for place in sorted(course.made)),
        tuple(course.kept[place] for place in sorted(course.kept)),
        tuple((course.jobs[place].source, course.bad[place]) for place in sorted(course.bad)),
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
    finished = None if places.is_file else Finished(options.out)
    return Course(resolved, jobs, say, held, finished, options.resume, options.force, options.saving)
