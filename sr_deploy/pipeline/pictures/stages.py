"""The stages of a run over pictures: read, compute, write, each in a thread of its own, with little waiting between."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Union

from sr_deploy.core.contract import Size
from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.core.errors import (
    BadDeployment,
    BadImage,
    BadInput,
    CheckFailed,
    EnvironmentFault,
    SrDeployError,
    UsageError,
)
from sr_deploy.core.media.encode import DEFAULT, Saving
from sr_deploy.core.media.image import (
    Picture,
    check_writable,
    from_network,
    read_picture,
    said_but_not_kept,
    to_network,
    write_picture,
)
from sr_deploy.core.media.imagefile import FileFacts
from sr_deploy.core.media.room import check_room, decoded_bytes
from sr_deploy.core.media.rows import is_written_by_rows
from sr_deploy.engine.onnxruntime_cuda import CPU
from sr_deploy.engine.runtimes import GRAPH_RUNTIME
from sr_deploy.pipeline.memory import check_memory
from sr_deploy.pipeline.pictures.files import Job
from sr_deploy.pipeline.pictures.finished import Finished, request_of
from sr_deploy.pipeline.pictures.held import Held
from sr_deploy.pipeline.pictures.in_tiles import (
    Estimate,
    amount,
    bytes_in_tiles,
    check_memory_of,
    upscale_in_tiles,
    write_tiles,
)
from sr_deploy.pipeline.runner import Resolved, decide
from sr_deploy.run.base import Runner, upscale
from sr_deploy.run.tiled import TiledRunner


@dataclass
class Course:
    """One command under way.

    Attributes:
        resolved, jobs: what is done.
        resume, force, saving: see UpscaleOptions.
        say: told each step.
        held: the memory of pictures that wait.
        finished: the record for ``--resume``; None for a picture alone.
        requests: what each result follows from, by its place, see ``request``.
        made, kept, bad: what became of each job, by its place.
    """

    resolved: Resolved
    jobs: Tuple[Job, ...]
    say: Callable[[str], None]
    held: Held
    finished: Optional[Finished]
    resume: bool = False
    force: bool = False
    saving: Saving = DEFAULT
    requests: Dict[int, str] = field(default_factory=dict)
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
        self.say(f"skipped {named_error(self.jobs[place].source, error)}")

    def request(self, job: Job) -> str:
        """The sha256 of all that a result follows from; raises OSError where the picture cannot be read."""
        options = {"format": job.target.suffix, **asdict(self.saving)}
        return request_of(job.source, _network_of(self.resolved), options)

    def keeps(self, place: int, request: str) -> bool:
        """Whether the result is there, made by this very request, and shall stay.

        Raises:
            UsageError: another request made what is there.
        """
        job = self.jobs[place]
        if self.finished is None:
            return False
        if self.resume and self.finished.has(job.target, request):
            self.kept[place] = job.target
            return True
        _check_free(self, job)
        return False

    def begin(self, place: int) -> None:
        """Note that a result is going to be made; the first one makes the folder."""
        if self.finished is not None:
            self.finished.begin(self.jobs[place].target, self.requests[place])


#: A picture that was read, with the memory it holds; or why there is none.
Read = Tuple[int, Union[Picture, SrDeployError], int]
#: A result, with the memory that its picture held; None where tiles have written it.
Made = Tuple[int, Optional[Picture], int]


def compute_one(course: Course, runner_at: Callable[[Size], Runner], hand: Callable[[Made], None], item: Read) -> None:
    """Compute what was read, and hand the result to the writer."""
    place, read, held = item
    if isinstance(read, SrDeployError):
        course.skip(place, read)
        return
    try:
        result = _upscaled(course, runner_at, place, read)
    except _BadPicture as bad:
        course.held.give_back(held)
        course.skip(place, bad.error)
    else:
        hand((place, result, held))


def reader(course: Course) -> Iterator[Read]:
    """The pictures that are to be made, one after the other."""
    memory = course.memory
    for place, job in enumerate(course.jobs):
        taken: List[int] = []

        def admit(facts: FileFacts, source: Path = job.source, taken: List[int] = taken) -> None:
            check_room(facts, source, 0)
            need = decoded_bytes(facts)
            if memory is not None and need > memory:
                raise BadImage(
                    f"{source} needs {amount(need)} to be decoded, and {amount(memory)} may be used",
                    "a picture that can be decoded",
                    f"--memory {2 * need / 1e6 + 1:.0f}MB, or cut it into pieces",
                )
            course.held.take(need)
            taken.append(need)

        try:
            course.requests[place] = course.request(job)
            if course.keeps(place, course.requests[place]):
                continue
            picture = read_picture(job.source, room=admit)
            check_writable(job.target, picture, course.saving)
            lost = said_but_not_kept(picture, job.target, course.saving)
            if lost:
                course.say(f"{job.target.name} has no place for what {job.source.name} says besides its pixels: "
                           + ", ".join(lost))  # fmt: skip
        except OSError as error:
            yield place, BadImage(f"cannot read {job.source}: {error.strerror}", "a picture", "check the path"), 0
        except (BadImage, UsageError) as error:
            course.held.give_back(sum(taken))
            yield place, error, 0
        else:
            yield place, picture, sum(taken)


def _check_free(course: Course, job: Job) -> None:
    """Refuse to replace a result that another request made."""
    if course.resume and not course.force and job.target.exists():
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


def writer(course: Course) -> Callable[[Made], None]:
    """What writes a result: None where tiles have written it."""

    def write(item: Made) -> None:
        place, result, held = item
        target = course.jobs[place].target
        try:
            if result is not None:
                write_picture(result, target, course.saving)
            course.made[place] = target
        except UsageError as error:
            course.skip(place, error)
        finally:
            course.held.give_back(held)

    return write


def named_error(path: Path, error: SrDeployError) -> str:
    """What is wrong with a picture, with its name once."""
    return error.found if str(path) in error.found else f"{path}: {error.found}"


class _BadPicture(Exception):
    """The picture is at fault, not the deployment or the machine."""

    def __init__(self, error: SrDeployError) -> None:
        self.error = error
        super().__init__(str(error))


def _upscaled(course: Course, runner_at: Callable[[Size], Runner], place: int, picture: Picture) -> Optional[Picture]:
    """The result of one picture; None where it was written in tiles."""
    deployment, job = course.resolved.deployment, course.jobs[place]
    try:
        decide(course.resolved, picture.size)
    except (BadImage, EnvironmentFault) as error:
        raise _BadPicture(error) from error
    runner = runner_at(picture.size)
    estimate = None
    try:
        if isinstance(runner, TiledRunner):
            estimate = _estimate_of(course, runner, job, picture)
        else:
            _check_activations(deployment, runner, picture.size)
    except EnvironmentFault as error:
        raise _BadPicture(error) from error
    course.begin(place)
    try:
        if estimate is None or not isinstance(runner, TiledRunner):
            return upscale_picture(deployment, runner, picture)
        _write_in_tiles(course, runner, job, picture, estimate)
    except BadDeployment:
        raise
    except (BadInput, CheckFailed, UsageError) as error:
        raise _BadPicture(error) from error
    return None


def _estimate_of(course: Course, runner: TiledRunner, job: Job, picture: Picture) -> Estimate:
    """What a picture in tiles will take; raises EnvironmentFault where that is more than may be used."""
    scale = course.resolved.deployment.manifest.scale
    layout = runner.cut.layout(picture.size)
    tile = layout.tile[0] * layout.tile[1] * runner.cut.bytes_per_pixel
    need = bytes_in_tiles(layout, picture, scale, tile, is_written_by_rows(job.target))
    estimate = Estimate(layout, need, None)
    check_memory_of(estimate, course.memory, job.target)
    return estimate


def _write_in_tiles(course: Course, runner: TiledRunner, job: Job, picture: Picture, estimate: Estimate) -> None:
    """One picture in tiles to its file: the estimate before, and the difference after where tiles are not equal."""
    if runner.cut.exact or runner.inexact:
        estimate = replace(estimate, seconds=runner.seconds_for(picture.size))
    course.say(f"{job.source.name}: {estimate.explained(runner.cut.halo)}")
    write_tiles(runner, picture, course.resolved.deployment.manifest.contract, job.target, course.saving)
    if not runner.cut.exact:
        course.say(
            f"{job.source.name}: tiles differ by up to {runner.seams.largest:.3g} of 255 along their borders, "
            f"{runner.seams.mean:.2g} in the mean"
        )


def _check_activations(deployment: Deployment, runner: Runner, size: Size) -> None:
    """Raise EnvironmentFault for what the network itself needs, where it is known: the graph on the processor."""
    about = runner.describe()
    if about.get("provider") == CPU:
        graph = deployment.graph_for(size, GRAPH_RUNTIME)
        if about["file"] == graph.file:
            check_memory(graph, size)


def upscale_picture(deployment: Deployment, runner: Runner, picture: Picture) -> Picture:
    """One picture through a runner, grey, alpha and depth kept."""
    contract = deployment.manifest.contract
    if isinstance(runner, TiledRunner):
        return upscale_in_tiles(runner, picture, contract)
    return from_network(upscale(runner, to_network(picture, contract)), contract, picture)
