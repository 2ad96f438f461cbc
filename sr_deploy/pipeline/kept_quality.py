"""Quality that ``srdeploy verify`` kept in a deployment: found again by report and gate, where it still holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Set, Tuple

from sr_deploy.core.deployment.manifest import MANIFEST_NAME, open_deployment
from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.core.temporary import is_temporary
from sr_deploy.engine.index import EngineIndex
from sr_deploy.report.quality_file import QualityFile, read_quality

if TYPE_CHECKING:
    from sr_deploy.pipeline.measure.gate_request import GateRequest
    from sr_deploy.report.budget import Budget

#: How the names of its files begin.
PREFIX = "verify_"

#: (file name, report).
Kept = Tuple[str, QualityFile]


def kept_quality(index: EngineIndex) -> Tuple[Tuple[Kept, ...], Tuple[str, ...]]:
    """The reports of what the deployment holds now, and in words what is left out: unreadable, or of other files."""
    folder = index.deployment.results_folder
    found: List[Kept] = []
    problems: List[str] = []
    known = _hashes(index)
    for path in sorted(folder.glob(f"{PREFIX}*.json")) if folder.is_dir() else ():
        if is_temporary(path.name):
            continue
        try:
            report = read_quality(path)
        except BadInput as error:
            problems.append(f"{path.name} is left out: {error.found.replace(f'{path.parent}/', '')}")
            continue
        gone = [one.file for one in report.ran if one.sha256 not in known]
        if gone:
            problems.append(f"{path.name} is left out: it is of another {gone[0]} than is here; verify again")
        else:
            found.append((path.name, report))
    return tuple(found), tuple(problems)


def _hashes(index: EngineIndex) -> Set[str]:
    """Of all graphs and engines that the deployment's manifests name."""
    known = {graph.sha256 for graph in index.deployment.manifest.graphs}
    for path in index.paths:
        try:
            known.add(index.stated(path).sha256)
        except BadInput:
            # A damaged manifest vouches for nothing.
            continue
    return known


def quality_of(request: GateRequest, budget: Budget, precision: str) -> Optional[QualityFile]:
    """The quality that the budget's floors are held against; None where there are no floors.

    Args:
        request: with the report's file, or a candidate in whose deployment one may lie.
        budget: whose floors they are.
        precision: of what was timed; "" where it is not known.

    Raises:
        UsageError: floors and no report, or several; a report and no budget.
        BadInput: a report and no floors; the report is of another precision than was timed, or cannot be read.
    """
    if request.quality is not None and not budget.has_floors:
        kind = UsageError if request.budget is None else BadInput
        raise kind(f"--quality has no effect: {budget.source} has no floor of quality", "a budget with [quality]")
    if request.quality is not None:
        report = read_quality(request.quality)
        if precision and report.precision != precision:
            raise BadInput(
                f"{request.quality} is of {report.precision}, and {precision} was timed",
                f"the quality of {precision}",
                f"srdeploy verify … --precision {precision}",
            )
        return report
    if not budget.has_floors:
        return None
    folder = _deployment_of(request.candidate)
    found, problems = kept_quality(EngineIndex(open_deployment(folder))) if folder else ((), ())
    fitting = [(name, report) for name, report in found if precision in ("", report.precision)]
    if len(fitting) == 1:
        return fitting[0][1]
    told = f"{len(fitting)} reports fit: {', '.join(name for name, _ in fitting)}" if fitting else "none is known"
    told += "".join(f"\n  {problem}" for problem in problems)
    raise UsageError(
        f"{budget.source} has quality floors; of the candidate's quality {told}",
        "one report of srdeploy verify, given with --quality or kept in the candidate's deployment",
        f"srdeploy verify {folder or 'DEPLOYMENT'} --lr LR --hr HR"
        + (f" --precision {precision}" if precision else ""),
    )


def _deployment_of(candidate: Path) -> Optional[Path]:
    """The deployment that a candidate is or lies in the results of; None for a file elsewhere."""
    path = Path(candidate)
    places = [path] if path.is_dir() else [path.resolve().parent.parent]
    return next((place for place in places if (place / MANIFEST_NAME).is_file()), None)
