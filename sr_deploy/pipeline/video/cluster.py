"""A clip's segments on the workers of a Dask cluster: see pipeline/dask_jobs.py.

A worker makes one segment whole and sends the file; it is the file that this machine would make with the same engine. A
worker that dies loses the segment that it was making, which another one begins again.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Callable, Dict, Tuple

from sr_deploy.core.artifact import atomic_file
from sr_deploy.core.errors import CheckFailed, SrDeployError
from sr_deploy.core.media.video.clip import Damage, read_frames
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.pipeline.dask_jobs import Failed, Job, on_dask
from sr_deploy.pipeline.runner import runners
from sr_deploy.pipeline.video.request import ClipOptions, Task, task_of
from sr_deploy.pipeline.video.segments import Work, make_segments
from sr_deploy.pipeline.video.unfinished import Unfinished, begun
from sr_deploy.report.progress import Counting


def make_on_cluster(options: ClipOptions, task: Task, unfinished: Unfinished, damage: Damage, shown: Counting,
                    stop: Callable[[], bool], say: Callable[[str], None]) -> None:  # fmt: skip
    """Make the segments that are missing; each is added when all before it are there.

    Raises:
        CheckFailed: a worker runs another engine or graph than this machine would, or failed with no error of ours.
        SrDeployError: what a worker raised.
        EnvironmentFault, MissingPackage: see ``on_dask``.
    """
    assert options.cluster is not None
    frames, each = sum(1 for _ in read_frames(task.clip, damage)), options.segment_frames
    first = len(unfinished.state.segments)
    jobs = [
        Job(f"frames from {start} on", make_segment, (dataclasses.replace(options, cluster=None), start))
        for start in range(first * each, frames, each)
    ]
    waiting: Dict[int, Tuple[Path, int]] = {}
    for job, found in on_dask(options.cluster, jobs, say) if jobs else ():
        if isinstance(found, Failed):
            raise found.error if isinstance(found.error, SrDeployError) else CheckFailed(
                f"the worker that made {job.label} failed: {found.error!r}", "a worker that ends its jobs", "--resume"
            )  # fmt: skip
        data, made, network = found
        if network != task.network:
            raise CheckFailed(
                f"the worker that made {job.label} runs {network[:12]}…, and this machine {task.network[:12]}…",
                "one engine or graph everywhere, for the same frames",
                "name it with --engine, or run the graph with --backend onnxruntime",
            )
        place = job.arguments[1] // each
        path = unfinished.folder / f"{place:06d}{task.encoding.suffix}"
        with atomic_file(path) as temporary:
            temporary.write_bytes(data)
        waiting[place] = (path, made)
        while len(unfinished.state.segments) in waiting:
            unfinished.add(*waiting.pop(len(unfinished.state.segments)))
        for _ in range(made):
            shown.advance()
        if stop():
            return


def make_segment(options: ClipOptions, start: int) -> Tuple[bytes, int, str]:
    """What a worker does: one segment.

    Args:
        options: of the whole clip; its paths are reachable here.
        start: the first frame.

    Returns:
        The file, its number of frames, and the sha256 of the engine or graph that ran.
    """
    task = task_of(options)
    with temporary_folder() as folder:
        unfinished = begun(folder / options.out.name, {}, False, False)
        with runners(task.resolved, lambda _: None) as runner_at:
            contract, runner = task.deployment.manifest.contract, runner_at(task.clip.size)
            work = Work(task.clip, task.encoding, contract, runner, options.segment_frames, unfinished)
            frames = itertools.islice(read_frames(task.clip, Damage()), start, start + options.segment_frames)
            make_segments(work, Damage(), Counting(lambda _: None), lambda: False, frames)
        return unfinished.files[0].read_bytes(), unfinished.frames, task.network
