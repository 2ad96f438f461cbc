"""Latency over sizes: each point is saved as soon as it exists, an interrupted sweep goes on where it stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, List, Optional, Sequence, Tuple

from sr_deploy.bench.lock import locked_file
from sr_deploy.bench.measure import configure, measure
from sr_deploy.bench.monitor import Watch, no_watch
from sr_deploy.bench.options import BenchOptions
from sr_deploy.bench.result import Point, Result, description_of, load_result, now_utc, options_record, save_result
from sr_deploy.core.contract import Size
from sr_deploy.core.errors import BadInput, CheckFailed, EnvironmentFault, MissingPackage, UsageError
from sr_deploy.core.host.device import environment_identity
from sr_deploy.run.base import Runner


@dataclass(frozen=True)
class Job:
    """One size to measure and what to measure it with.

    Attributes:
        size: input (height, width), pixels.
        sha256: of the engine, or of the graph that the runtime loads.
        open_runner: gives the runner as a context: ``contextlib.closing(new_runner)`` for one that the sweep shall
            close after this size, ``contextlib.nullcontext(runner)`` for one that the caller keeps for all sizes.
            It may raise what opening an engine raises.
    """

    size: Size
    sha256: str
    open_runner: Callable[[], ContextManager[Runner]]


def sweep(
    jobs: Sequence[Job],
    options: BenchOptions,
    deployment: str,
    environment: Dict[str, Any],
    save_to: Optional[Path] = None,
    on_point: Callable[[Point, bool], None] = lambda point, kept: None,
    resume: bool = True,
    clock: Callable[[], float] = time.perf_counter,
    watch: Callable[[], ContextManager[Watch]] = no_watch,
) -> Result:
    """Measure every job; one that fails becomes a point that says why, and the sweep goes on.

    With ``save_to``, the file is written after every point, and no other process may write it meanwhile. If it exists,
    it must be a sweep of the same deployment, options and environment, or ``resume`` must be False. Then a finished
    point is kept when its file's sha256, its runtime, its device and everything that the runner says of itself are the
    same now; failed and invalid ones are tried again. Points of that file at sizes that are not asked for now stay.

    Args:
        jobs: sizes and runners, in the order to measure.
        options: scope and stop rules, for all sizes.
        deployment: its name, for the record.
        environment: from ``core.device.environment()``.
        save_to: the result file, or None.
        on_point: called with each point, and True when it was kept from the file.
        resume: False measures everything anew and replaces the file.
        clock, watch: see ``measure``.

    Raises:
        UsageError: no job, a size twice, or ``save_to`` holds another sweep and ``resume`` is True.
        BadInput: ``save_to`` exists and is not a result file (it is not overwritten).
        DiskFull, EnvironmentFault: the file cannot be written, or another process is writing it.
    """
    sizes = [tuple(job.size) for job in jobs]
    if not sizes or len(set(sizes)) < len(sizes):
        raise UsageError("no size to measure" if not sizes else "a size is given twice", "different sizes HxW")
    with locked_file(save_to) if save_to is not None else contextlib.nullcontext():
        return _sweep_alone(jobs, options, deployment, environment, save_to, on_point, resume, clock, watch)


def _sweep_alone(
    jobs: Sequence[Job],
    options: BenchOptions,
    deployment: str,
    environment: Dict[str, Any],
    save_to: Optional[Path],
    on_point: Callable[[Point, bool], None],
    resume: bool,
    clock: Callable[[], float],
    watch: Callable[[], ContextManager[Watch]],
) -> Result:
    """``sweep``, when no other process writes the file."""
    # Through JSON once: what was measured then and now is compared in the form that the file holds.
    result = Result(
        deployment, _as_json(environment), options_record(_as_json(dataclasses.asdict(options))), (), now_utc()
    )
    if save_to is not None and Path(save_to).exists():
        earlier = load_result(save_to)
        if resume:
            result = _continued(earlier, result, save_to)
    for job in jobs:
        earlier_point = result.point_for(job.size)
        point = _point_of(job, options, earlier_point, clock, watch)
        result = dataclasses.replace(result, points=_with_point(result.points, point))
        if save_to is not None:
            save_result(save_to, result)
        on_point(point, point is earlier_point)
    return result


def _point_of(
    job: Job,
    options: BenchOptions,
    earlier: Optional[Point],
    clock: Callable[[], float],
    watch: Callable[[], ContextManager[Watch]],
) -> Point:
    """The earlier point if it still holds, else a new one, else one that tells the failure."""
    runtime, device, description = "", "", description_of({})
    try:
        with job.open_runner() as runner:
            runtime, device = runner.runtime, runner.device
            if earlier is not None and earlier.usable:
                configure(runner, options)
                runner.prepare(job.size)
                description = description_of(_as_json(runner.describe()))
                same = (earlier.sha256, earlier.runtime, earlier.device, earlier.description)
                if same == (job.sha256, runtime, device, description):
                    return earlier
            point = measure(runner, job.size, options, clock, watch)
            return dataclasses.replace(point, sha256=job.sha256, description=_as_json(point.description))
    except MissingPackage:
        # Not a matter of this size: nothing can be measured.
        raise
    except (BadInput, CheckFailed, EnvironmentFault) as error:
        failure = error.found
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        failure = f"out of memory: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
    return Point(
        size=(job.size[0], job.size[1]),
        scope=options.scope,
        runtime=runtime,
        device=device,
        description=description,
        sha256=job.sha256,
        failure=failure,
    )


def _is_out_of_memory(error: Exception) -> bool:
    """Every runtime has its own class for it; the words are much the same."""
    words = r"out of memory|outofmemory|failed to allocate|bad_alloc|cannot allocate|cudaErrorMemoryAllocation"
    return (
        isinstance(error, MemoryError) or re.search(words, f"{type(error).__name__} {error}", re.IGNORECASE) is not None
    )


def _continued(earlier: Result, now: Result, path: Path) -> Result:
    """The earlier result, if new points may stand beside its own.

    Raises:
        UsageError: it is another sweep; the message names the differences.
    """
    differences = _differences(
        {"deployment": earlier.deployment, "options": earlier.options, **environment_identity(earlier.environment)},
        {"deployment": now.deployment, "options": now.options, **environment_identity(now.environment)},
    )
    if differences:
        raise UsageError(
            f"{path} holds another sweep: {'; '.join(differences[:5])}",
            "a sweep of the same deployment, options and environment to go on with",
            "name another file, or begin anew without --resume",
        )
    return dataclasses.replace(earlier, environment=now.environment)


def _differences(old: Any, new: Any, name: str = "") -> List[str]:
    """Where two JSON values differ, each as "name was … and is …"."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [text for key in keys for text in _differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))]
    return [] if old == new else [f"{name} was {old!r} and is {new!r}"]


def _with_point(points: Sequence[Point], point: Point) -> Tuple[Point, ...]:
    """The points with the new one in the place of the one of its size, or at the end."""
    kept: List[Point] = [point if old.size == point.size else old for old in points]
    return tuple(kept if any(old.size == point.size for old in points) else [*kept, point])


def _as_json(value: Any) -> Any:
    """A value as a JSON file gives it back (lists for tuples)."""
    return json.loads(json.dumps(value))
