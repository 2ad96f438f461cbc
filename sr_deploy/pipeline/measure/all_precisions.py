"""The same sweep of every precision that a deployment has, side by side: ``srdeploy bench --all``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Tuple

from sr_deploy.bench.result import Result
from sr_deploy.core.artifact import write_json
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.core.number_formats import ENGINE_PRECISIONS
from sr_deploy.engine.index import EngineIndex
from sr_deploy.pipeline.kept_quality import kept_quality
from sr_deploy.pipeline.measure.bench import BenchRequest, bench_deployment
from sr_deploy.pipeline.runner import check_backend
from sr_deploy.report.precisions import PrecisionTable, precision_table

#: How the names of its files begin.
PREFIX = "precisions_"

Say = Callable[[str], None]


#: The table, the sweeps, the files written.
Measured = Tuple[PrecisionTable, Tuple[Result, ...], Tuple[Path, ...]]


def bench_all(request: BenchRequest, say: Say = lambda _: None) -> Measured:
    """Measure the FP32 form and every precision with an engine.

    Returns:
        The table, the sweeps, and the files: each sweep's own, and the table's, or ``request.json_file`` for that.

    Raises:
        UsageError: a precision was named too.
        What ``bench_deployment`` raises.
    """
    check_backend(request.backend)
    if request.precision is not None:
        raise UsageError("--all measures every precision, and one is named", "--all or --precision")
    deployment = open_deployment(request.deployment)
    index = EngineIndex(deployment)
    results: List[Result] = []
    files: List[Path] = []
    for precision in precisions_of(index, request.backend):
        say(f"{precision}:")
        asked = dataclasses.replace(request, precision=precision, json_file=None)
        result, written = bench_deployment(asked, say)
        results.append(_with_precision(result, precision))
        files += written
    name = deployment.folder.resolve().name
    table = precision_table(name, results, qualities_by_precision(index), file_sizes(index))
    place = deployment.results_folder / f"{PREFIX}{request.backend or 'best'}_{request.scope}.json"
    place = request.json_file or place
    write_json(place, dataclasses.asdict(table))
    return table, tuple(results), (*files, place)


def _with_precision(result: Result, precision: str) -> Result:
    """A point that failed before anything was opened is still of the precision that was asked for."""
    points = [
        point if point.description.get("precision") else dataclasses.replace(
            point, description={**point.description, "precision": precision}
        )
        for point in result.points
    ]  # fmt: skip
    return dataclasses.replace(result, points=tuple(points))


def precisions_of(index: EngineIndex, backend: Any) -> Tuple[str, ...]:
    """FP32, which the graph always gives, and each precision of an engine of this backend, widest first."""
    found = {"fp32"}
    for path in index.paths:
        try:
            manifest = index.stated(path)
        except BadInput:
            # Named where it is asked for; here it adds no precision.
            continue
        if backend in (None, manifest.backend):
            found.add(manifest.precision)
    return tuple(one for one in ENGINE_PRECISIONS if one in found)


def qualities_by_precision(index: EngineIndex) -> Dict[str, Mapping[str, Any]]:
    """The newest report that verify kept of each precision."""
    kept = sorted((report for _, report in kept_quality(index)[0]), key=lambda report: report.created)
    return {report.precision: dataclasses.asdict(report) for report in kept}


def file_sizes(index: EngineIndex) -> Dict[str, int]:
    """sha256 → bytes, of the graphs and engines that are here."""
    deployment = index.deployment
    sizes = {graph.sha256: deployment.path_of(graph).stat().st_size for graph in deployment.manifest.graphs}
    for path in index.paths:
        try:
            sizes[index.stated(path).sha256] = path.stat().st_size
        except BadInput:
            continue
    return sizes
