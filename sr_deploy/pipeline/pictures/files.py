"""Which pictures are read and where their results go."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Tuple

from PIL import Image

from sr_deploy.core.errors import BadImage, UsageError
from sr_deploy.core.media.encode import suffix_names
from sr_deploy.core.media.image import SUFFIXES
from sr_deploy.core.media.imagefile import WANTED


@dataclass(frozen=True)
class Job:
    """A picture and its result."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Places:
    """What a user said of files.

    Attributes:
        inputs: pictures and folders.
        out: the folder for the results; or the file, where one picture is given and this ends like one.
        suffix: of the results, without its dot; None keeps each picture's own.
        recursive: folders in folders are searched too, and their structure is kept.
        force: results that exist are replaced.
    """

    inputs: Tuple[Path, ...]
    out: Path
    suffix: Optional[str] = None
    recursive: bool = False
    force: bool = False

    @property
    def is_file(self) -> bool:
        """Whether ``out`` is the file for the one picture."""
        return self.out.suffix.lower() in SUFFIXES and not self.out.is_dir()


def jobs_of(places: Places) -> Tuple[Job, ...]:
    """Every picture with the place of its result, in the order given, folders by name.

    Raises:
        BadImage: an input that does not exist, or a folder without pictures.
        UsageError: two results would be one file, a result its own picture; or the results would lie among the
            pictures, and ``force`` is not set; or ``out`` is a file and there are several pictures.
    """
    if places.suffix is not None and places.suffix.lower() not in suffix_names():
        raise UsageError(f"--format {places.suffix} is not written here", "one of " + ", ".join(suffix_names()))
    found: List[Tuple[Path, Path]] = []
    for path in places.inputs:
        found += _found_in(path, places)
    found = list(dict(found).items())
    _check_out(places)
    if places.is_file:
        return (_one_job(places, [source for source, _ in found]),)
    jobs = []
    for source, relative in found:
        suffix = f".{places.suffix.lower()}" if places.suffix else source.suffix
        jobs.append(Job(source, places.out / relative.parent / (source.stem + suffix)))
    _check_apart(jobs, places)
    return tuple(jobs)


def _check_out(places: Places) -> None:
    """Refuse the name of a picture that is not written here: a folder of that name is not what was meant."""
    if places.is_file or places.out.is_dir() or not places.out.suffix:
        return
    foreign = Image.registered_extensions().get(places.out.suffix.lower())
    if foreign is not None:
        raise UsageError(
            f"-o {places.out} names a picture in {foreign}, which is not written here",
            "a name that ends in one of " + ", ".join(SUFFIXES) + "; or a folder",
            f"-o {places.out.with_suffix('.png')}",
        )


def _one_job(places: Places, sources: List[Path]) -> Job:
    """The job where ``out`` is a file."""
    if len(sources) != 1 or places.inputs[0].is_dir():
        raise UsageError(
            f"-o {places.out} names one picture, and {len(sources)} are to be made", "a folder", "leave the suffix away"
        )
    if places.suffix is not None and places.out.suffix.lower() != f".{places.suffix.lower()}":
        raise UsageError(f"-o {places.out} is not the format of --format {places.suffix}", "one of the two")
    job = Job(sources[0], places.out)
    _check_apart([job], places)
    return job


def _found_in(path: Path, places: Places) -> List[Tuple[Path, Path]]:
    """Pictures that an input names, each with its place below it."""
    if not path.is_dir():
        if not path.exists():
            raise BadImage(f"{path} does not exist", f"{WANTED}, or a folder of them", "check the path")
        return [(path, Path(path.name))]
    found: List[Tuple[Path, Path]] = []
    for folder, inside, names in os.walk(str(path)):
        inside[:] = sorted(name for name in inside if not name.startswith(".")) if places.recursive else []
        files = [Path(folder) / name for name in sorted(names) if not name.startswith(".")]
        pictures = [file for file in files if file.suffix.lower() in SUFFIXES]
        # A link that leads nowhere is named when it is read; a pipe would be waited for.
        found += [(file, file.relative_to(path)) for file in pictures if file.is_file() or file.is_symlink()]
    if not found:
        raise BadImage(
            f"no pictures in the folder {path}",
            "files ending in " + ", ".join(SUFFIXES) + " (in any case)"
            + ("" if places.recursive else ", directly inside it"),
            "name another folder, or the files themselves" + ("" if places.recursive else "; --recursive looks deeper"),
        )  # fmt: skip
    return found


def _check_apart(jobs: List[Job], places: Places) -> None:
    """Refuse results that would replace each other, or a picture, or be taken for pictures by the next run."""
    targets = [job.target for job in jobs]
    if len(set(targets)) < len(targets):
        twice = next(target for target in targets if targets.count(target) > 1)
        raise UsageError(f"two inputs would be written to {twice}", "different file names", "run them separately")
    sources = {os.path.realpath(job.source) for job in jobs}
    for job in jobs:
        if os.path.realpath(job.target) in sources:
            raise UsageError(f"{job.target} is one of the pictures, and would be replaced", "another -o")
    out = os.path.realpath(places.out.parent if places.is_file else places.out)
    for path in places.inputs:
        folder = os.path.realpath(path)
        inside = places.recursive and os.path.commonpath([folder, out]) == folder
        if path.is_dir() and (folder == out or inside) and not places.force:
            raise UsageError(
                f"the results would lie in {path} among the pictures, and the next run would enlarge them too",
                "another folder",
                "another -o; or say that it is meant with --force",
            )
