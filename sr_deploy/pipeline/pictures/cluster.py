"""Pictures on the workers of a Dask cluster, one job a picture: see pipeline/dask_jobs.py.

A worker does with one picture what this machine would do, and sends the file; it is written here, and noted for
``--resume``. A worker that dies loses the picture that it was making, which another one begins again.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Callable, List, Tuple

from sr_deploy.core.artifact import atomic_file
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.errors import BadImage, CheckFailed, SrDeployError, UsageError
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.engine.index import EngineIndex
from sr_deploy.pipeline.dask_jobs import Failed, Job, on_dask
from sr_deploy.pipeline.pictures.stages import Course
from sr_deploy.pipeline.runner import resolve
from sr_deploy.pipeline.tiling import tiling_of
from sr_deploy.pipeline.upscale import Upscaled, UpscaleOptions, course_of, done, upscale_files


def upscale_on_cluster(options: UpscaleOptions, address: str, say: Callable[[str], None] = lambda _: None) -> Upscaled:
    """``upscale_files`` with the workers of a Dask scheduler at ``address``; their files are the same.

    Raises:
        EnvironmentFault, MissingPackage: see ``on_dask``; or as ``upscale_files``.
    """
    deployment = open_deployment(options.deployment)
    tiling = tiling_of(options.memory, options.allow_inexact)
    resolved = resolve(EngineIndex(deployment), options.backend, options.engine, options.precision, tiling=tiling)
    course = course_of(options, resolved, say)
    began = time.monotonic()
    jobs = _jobs(course, options)
    for job, found in on_dask(address, jobs, say) if jobs else ():
        place = job.arguments[2]
        if isinstance(found, Failed):
            course.skip(place, _error_of(found.error, job.label))
            continue
        data, told = found
        picture = course.jobs[place]
        for line in told:
            say(line)
        course.begin(place)
        with atomic_file(picture.target) as temporary:
            temporary.write_bytes(data)
        course.made[place] = picture.target
    return done(course, time.monotonic() - began)


def _jobs(course: Course, options: UpscaleOptions) -> List[Job]:
    """One for each picture that is to be made."""
    jobs: List[Job] = []
    for place, picture in enumerate(course.jobs):
        try:
            course.requests[place] = course.request(picture)
            if course.keeps(place, course.requests[place]):
                continue
        except OSError as error:
            found = f"cannot read {picture.source}: {error.strerror}"
            course.skip(place, BadImage(found, "a picture", "check the path"))
        except UsageError as error:
            course.skip(place, error)
        else:
            alone = dataclasses.replace(options, inputs=(picture.source,), resume=False)
            jobs.append(Job(str(picture.source), make_picture, (alone, picture.target.name, place)))
    return jobs


def _error_of(error: BaseException, label: str) -> SrDeployError:
    if isinstance(error, SrDeployError):
        return error
    return CheckFailed(f"the worker that made {label} failed: {error!r}", "a worker that ends its jobs", "--resume")


def make_picture(options: UpscaleOptions, name: str, _: int) -> Tuple[bytes, List[str]]:
    """What a worker does: one picture.

    Args:
        options: of it alone; its paths are reachable here.
        name: of the result.

    Returns:
        The file, and what there was to say.

    Raises:
        SrDeployError: see ``upscale_files``.
    """
    told: List[str] = []
    with temporary_folder() as folder:
        out = Path(folder) / name
        upscale_files(dataclasses.replace(options, out=out, suffix=None), told.append)
        return out.read_bytes(), [line for line in told if name in line]
