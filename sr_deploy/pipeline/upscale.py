"""Pictures through a deployment: read, computed and written at the same time, whole or in tiles."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Tuple, Union

from sr_deploy.core.contract import Size
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.errors import (
    BadDeployment,
    BadImage,
    BadInput,
    CheckFailed,
    EnvironmentFault,
    SrDeployError,
    UsageError,
)
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
from sr_deploy.core.overlap import ahead, behind
from sr_deploy.engine.index import EngineIndex
from sr_deploy.engine.onnxruntime_cuda import CPU
from sr_deploy.engine.runtimes import GRAPH_RUNTIME
from sr_deploy.pipeline.course import Course, UpscaleOptions, course_of
from sr_deploy.pipeline.large_picture import (
    Estimate,
    amount,
    bytes_in_tiles,
    check_memory_of,
    upscale_in_tiles,
    write_tiles,
)
from sr_deploy.pipeline.memory import check_memory
from sr_deploy.pipeline.picture_files import Job
from sr_deploy.pipeline.runner import decide, resolve, runners
from sr_deploy.pipeline.tiling import WHOLE_SHARE, tiling_of
from sr_deploy.pipeline.upscaled import Upscaled
from sr_deploy.run.base import Runner, upscale
from sr_deploy.run.tiled import TiledRunner

#: Pictures that wait to be computed, and results that wait to be written.
WAITING = 1


#: A picture that was read, with the memory it holds; or why there is none.
_Read = Tuple[int, Union[Picture, SrDeployError], int]
#: A result, with the memory that its picture held; None where tiles have written it.
_Made = Tuple[int, Optional[Picture], int]


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
    with runners(resolved, say) as runner_at, behind(_writer(course), WAITING) as hand, ahead(
        _reader(course), WAITING
    ) as pictures, course.held:
        for item in track(pictures, "upscaling", len(course.jobs)):
            _one(course, runner_at, hand, item)
    return course.done(time.monotonic() - began)


def _one(course: Course, runner_at: Callable[[Size], Runner], hand: Callable[[_Made], None], item: _Read) -> None:
    """Compute what was read, and hand the result to the writer."""
    place, read, held = item
    if isinstance(read, SrDeployError):
        course.skip(place, read)
        return
    try:
        result = _upscaled(course, runner_at, course.jobs[place], read)
    except _BadPicture as bad:
        course.held.give_back(held)
        course.skip(place, bad.error)
    else:
        hand((place, result, held))


def _reader(course: Course) -> Iterator[_Read]:
    """The pictures that are to be made, one after the other."""
    options, memory = course.options, course.memory
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
            request = course.request(job)
            if course.keeps(place, request):
                continue
            picture = read_picture(job.source, room=admit)
            check_writable(job.target, picture, options.saving)
            lost = said_but_not_kept(picture, job.target, options.saving)
            if lost:
                course.say(f"{job.target.name} has no place for what {job.source.name} says besides its pixels: "
                           + ", ".join(lost))  # fmt: skip
            course.begin(job, request)
        except OSError as error:
            yield place, BadImage(f"cannot read {job.source}: {error.strerror}", "a picture", "check the path"), 0
        except (BadImage, UsageError) as error:
            course.held.give_back(sum(taken))
            yield place, error, 0
        else:
            yield place, picture, sum(taken)


def _writer(course: Course) -> Callable[[_Made], None]:
    """What writes a result: None where tiles have written it."""

    def write(item: _Made) -> None:
        place, result, held = item
        target = course.jobs[place].target
        try:
            if result is not None:
                write_picture(result, target, course.options.saving)
            course.made[place] = target
        except UsageError as error:
            course.skip(place, error)
        finally:
            course.held.give_back(held)

    return write


class _BadPicture(Exception):
    """The picture is at fault, not the deployment or the machine."""

    def __init__(self, error: SrDeployError) -> None:
        self.error = error
        super().__init__(str(error))


def _upscaled(course: Course, runner_at: Callable[[Size], Runner], job: Job, picture: Picture) -> Optional[Picture]:
    """The result of one picture; None where it was written in tiles."""
    deployment = course.resolved.deployment
    try:
        decide(course.resolved, picture.size)
    except (BadImage, EnvironmentFault) as error:
        raise _BadPicture(error) from error
    runner = runner_at(picture.size)
    try:
        if isinstance(runner, TiledRunner):
            _in_tiles(course, runner, job, picture)
            return None
        _check_activations(deployment, runner, picture.size)
    except EnvironmentFault as error:
        raise _BadPicture(error) from error
    except (UsageError, CheckFailed) as error:
        raise _BadPicture(error) from error
    try:
        return upscale_picture(deployment, runner, picture)
    except BadDeployment:
        raise
    except (BadInput, CheckFailed) as error:
        raise _BadPicture(error) from error


def _in_tiles(course: Course, runner: TiledRunner, job: Job, picture: Picture) -> None:
    """One picture in tiles to its file, with an estimate before and the differences after."""
    manifest = course.resolved.deployment.manifest
    layout = runner.cut.layout(picture.size)
    tile = layout.tile[0] * layout.tile[1] * runner.cut.bytes_per_pixel
    need = bytes_in_tiles(layout, picture, manifest.scale, tile, is_written_by_rows(job.target))
    check_memory_of(Estimate(layout, need, None), course.memory, job.target)
    allowed = runner.cut.exact or runner.inexact
    estimate = Estimate(layout, need, runner.seconds_for(picture.size) if allowed else None)
    course.say(f"{job.source.name}: {estimate.explained(runner.cut.halo)}")
    write_tiles(runner, picture, manifest.contract, job.target, course.options.saving)
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
