"""An entry for a public table, and the table: ``bench --submit`` and ``report --catalogue``."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Callable, Dict, List, Tuple

from sr_deploy import __version__
from sr_deploy.bench.result import Result
from sr_deploy.core.artifact import atomic_file
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.errors import BadInput, CheckFailed, UsageError
from sr_deploy.engine.index import EngineIndex
from sr_deploy.pipeline.kept_quality import kept_quality
from sr_deploy.pipeline.measure.bench import BenchRequest
from sr_deploy.pipeline.report import check_page
from sr_deploy.pipeline.runner import resolve
from sr_deploy.report.quality_file import QualityFile
from sr_deploy.report.submission import (
    SUFFIX,
    NetworkFacts,
    Submission,
    check_name,
    read_submission,
    save_submission,
    sealed,
)
from sr_deploy.report.submission_checks import FEWEST_SAMPLES, problems_between, problems_of

#: Loads of an entry where none are asked for: pictures a second, and so many at once.
PACE, BURST = 30.0, 4

#: Writes the entry of a sweep.
Submit = Callable[[Result], None]


def prepared(request: BenchRequest, path: Path) -> Tuple[BenchRequest, Submit]:
    """Look before measuring whether an entry can be made: (the request with its loads, what writes the entry).

    Raises:
        UsageError: another suffix, a scope that times no picture, too few runs, no or several qualities of it.
        BadDeployment: not a deployment.
    """
    check_name(path)
    if request.scope == "enqueue":
        raise UsageError("an entry tells how long a picture takes, and the scope enqueue does not", "another --scope")
    if request.runs is not None and request.runs < FEWEST_SAMPLES:
        raise UsageError(f"--runs {request.runs} is too few for an entry", f"{FEWEST_SAMPLES} or more")
    deployment = open_deployment(request.deployment)
    index = EngineIndex(deployment)
    precision = resolve(index, request.backend, precision=request.precision).runs_in
    quality = _quality(index, precision)
    manifest = deployment.manifest
    graph = manifest.graphs[0]
    facts = NetworkFacts(
        name=deployment.folder.resolve().name,
        architecture=manifest.architecture,
        scale=manifest.scale,
        parameters=graph.parameters,
        macs_per_pixel=graph.macs / (graph.macs_size[0] * graph.macs_size[1]),
        graph_sha256=graph.sha256,
        checkpoint_sha256=manifest.source["sha256"],
    )

    def submit(result: Result) -> None:
        points = tuple(point for point in result.points if point.size in request.sizes)
        entry = sealed(__version__, facts, dataclasses.replace(result, points=points), quality)
        problems = problems_of(entry)
        if problems:
            raise CheckFailed(
                "this measurement is no entry:" + "".join(f"\n  {told}" for told in problems),
                "what a catalogue takes",
                "measure again; what is invalid or failed is left out by leaving its size out of --size",
            )
        save_submission(path, entry)

    pace = PACE if request.pace is None else request.pace
    burst = BURST if request.burst is None else request.burst
    return dataclasses.replace(request, pace=pace, burst=burst), submit


def _quality(index: EngineIndex, precision: str) -> QualityFile:
    found, _ = kept_quality(index)
    fitting = [(name, report) for name, report in found if report.precision == precision]
    if len(fitting) != 1:
        names = ", ".join(name for name, _ in fitting)
        folder = index.deployment.folder
        raise UsageError(
            f"{folder} has {f'{len(fitting)} reports' if fitting else 'no report'} of quality in {precision}"
            + (f": {names}" if names else ""),
            "one set of pictures, verified",
            f"srdeploy verify {folder} --lr LR --hr HR --precision {precision}"
            if not fitting
            else f"take away what the entry is not of: {names}",
        )
    return fitting[0][1]


def write_catalogue(folder: Path, out: Path, title: str, force: bool) -> Path:
    """All entries below a folder as one static page; one that cannot be true refuses the whole.

    Args:
        folder: is searched for ``*.entry.json``, folders in it too.
        out: the HTML file.
        title: of the page.
        force: replace an existing file.

    Raises:
        UsageError: the file exists, or the folder has no entry.
        BadInput: no folder; or entries that are refused, each with all reasons.
    """
    from sr_deploy.report.page_catalogue import catalogue_page

    check_page(out, force)
    if not Path(folder).is_dir():
        raise BadInput(f"{folder} is no folder", "one with entries, or folders of them, in it", "check the path")
    files = sorted(Path(folder).rglob(f"*{SUFFIX}"))
    if not files:
        raise UsageError(f"{folder} has no entry", f"files that end in {SUFFIX}", "srdeploy bench DIR --submit FILE")
    entries: Dict[str, Submission] = {}
    refused: Dict[str, List[str]] = {}
    for path in files:
        name = path.relative_to(folder).as_posix()
        try:
            entries[name] = read_submission(path)
        except BadInput as error:
            refused[name] = [error.found.replace(f"{path.parent}/", "")]
            continue
        problems = problems_of(entries[name])
        if problems:
            refused[name] = problems
    for name, problems in problems_between(entries).items():
        refused[name] = refused.get(name, []) + problems
    if refused:
        lines = [f"\n  {name}: {told}" for name, problems in sorted(refused.items()) for told in problems]
        raise BadInput(
            f"{len(refused)} of {len(files)} entries cannot be true:{''.join(lines)}",
            "entries as srdeploy bench --submit writes them",
            "measure them again, or take them out of the folder",
        )
    made = f"Made {datetime.date.today().isoformat()} by srdeploy {__version__} of {len(entries)} entries"
    with atomic_file(out) as temporary:
        temporary.write_text(catalogue_page(title, made, entries), encoding="utf-8")
    return out
