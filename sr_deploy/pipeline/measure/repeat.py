"""The same sweep in several fresh processes, and of several builds of the engine: where does the spread come from?"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple

from sr_deploy.bench.compare import fewest_for
from sr_deploy.bench.lock import locked_file
from sr_deploy.bench.result import Point, Result, save_result
from sr_deploy.bench.variance import VarianceTable, typical_point, variance_table
from sr_deploy.core.artifact import atomic_folder
from sr_deploy.core.deployment.manifest import MANIFEST_NAME, Deployment, open_deployment
from sr_deploy.core.errors import UsageError
from sr_deploy.engine.index import EngineIndex
from sr_deploy.pipeline.engines.build import build_engines
from sr_deploy.pipeline.engines.request import BuildOptions
from sr_deploy.pipeline.measure.bench import BenchRequest, result_path
from sr_deploy.pipeline.measure.subprocess_bench import bench_in_fresh_process
from sr_deploy.pipeline.runner import check_backend, resolve
from sr_deploy.report.gate import CONFIDENCE


@dataclasses.dataclass(frozen=True)
class Repeated:
    """What came of it.

    Attributes:
        result: for each size the process in the middle (by its median), and in ``variance`` the tables.
        tables: one for each size that has any.
        files: the result, the plot, and after them every process's own result.
    """

    result: Result
    tables: Tuple[VarianceTable, ...]
    files: Tuple[Path, ...]


def bench_repeatedly(
    request: BenchRequest, processes: int, builds: int = 1, say: Callable[[str], None] = lambda _: None
) -> Repeated:
    """Measure in ``processes`` fresh processes for each of ``builds`` engines built anew.

    The processes of the builds take turns, so that a slow hour of the machine falls on all builds. Every process keeps
    a result file of its own, in a folder beside the result; with ``request.resume`` what is complete there is kept.

    Raises:
        UsageError: less than one process or build, or so few processes of one build that nothing can be compared.
        SrDeployError: what a process raised.
    """
    from sr_deploy.report.plots import check_axis, latency_plot

    check_backend(request.backend)
    check_axis(request.axis)
    _check_counts(processes, builds, say)
    deployment = open_deployment(request.deployment)
    resolved = resolve(EngineIndex(deployment), request.backend, precision=request.precision)
    target = result_path(request, resolved)
    parts = target.with_suffix("")
    with locked_file(target):
        if not request.resume and parts.exists():
            shutil.rmtree(parts)
        folders = [request.deployment]
        if builds > 1:
            folders = [_built(deployment, parts / f"build{number + 1}", request, say) for number in range(builds)]
        results: List[List[Optional[Result]]] = [[None] * processes for _ in folders]
        paths: List[Path] = []
        for process in range(processes):
            for build, folder in enumerate(folders):
                file = parts / f"build{build + 1}_process{process + 1}.json"
                say(f"build {build + 1} of {builds}, process {process + 1} of {processes}")
                part = dataclasses.replace(request, deployment=folder, result_file=file, json_file=None)
                results[build][process] = bench_in_fresh_process(part)
                paths.append(file)
        whole = [[result for result in row if result is not None] for row in results]
        result, tables = combined(whole, deployment.folder.resolve().name, request.sizes)
        save_result(target, result)
        plot = target.with_suffix(".png")
        latency_plot([result], plot, request.axis)
        if request.json_file is not None:
            save_result(request.json_file, result)
    return Repeated(result, tables, (request.json_file or target, plot, *paths))


def _check_counts(processes: int, builds: int, say: Callable[[str], None]) -> None:
    """Before anything is measured: whether the gate can compare what will come of it."""
    if processes < 1 or builds < 1:
        raise UsageError(f"{processes} processes and {builds} builds measure nothing", "1 or more of each")
    fewest = fewest_for(CONFIDENCE)
    if builds == 1 and 1 < processes < fewest:
        raise UsageError(
            f"{processes} processes are too few to compare anything with: the ranks of {processes} and {processes} "
            f"runs give no interval at {100 * CONFIDENCE:g} %",
            f"--processes {fewest} or more, or 1",
            f"srdeploy bench … --processes {fewest}, or compare two deployments with srdeploy gate --interleave",
        )
    if 1 < builds < fewest:
        say(f"note: {builds} builds show how builds differ; the gate compares {fewest} builds or more")


def combined(
    results: Sequence[Sequence[Result]], name: str, sizes: Sequence[Tuple[int, int]]
) -> Tuple[Result, Tuple[VarianceTable, ...]]:
    """One result of many: (the typical points with the variance beside them, the tables).

    Args:
        results: builds, of processes.
        name: of the deployment.
        sizes: in the order of the record.
    """
    points: List[Point] = []
    tables: List[VarianceTable] = []
    for size in sizes:
        found = [[result.point_for(size) for result in row] for row in results]
        present = [[point for point in row if point is not None] for row in found]
        points.append(typical_point([point for row in present for point in row]))
        table = variance_table(present)
        if table is not None:
            tables.append(table)
    first = results[0][0]
    variance = tuple(table.record() for table in tables)
    return dataclasses.replace(first, deployment=name, points=tuple(points), variance=variance), tuple(tables)


def _built(deployment: Deployment, folder: Path, request: BenchRequest, say: Callable[[str], None]) -> Path:
    """A copy of the deployment with engines of its own for every size; one that is there already is kept."""
    if (folder / MANIFEST_NAME).is_file():
        return folder
    with atomic_folder(folder) as copy:
        for file in (MANIFEST_NAME, *(graph.file for graph in deployment.manifest.graphs)):
            shutil.copy2(deployment.folder / file, copy / file)
        build_engines(BuildOptions(copy, request.backend, sizes=request.sizes), say)
    return folder
