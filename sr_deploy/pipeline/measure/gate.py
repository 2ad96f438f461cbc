"""The gate joined up: read or run baseline and candidate, judge them, by the budget too, and alone where asked to."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Tuple

from sr_deploy.bench.compare import Ratio, paired_ratio
from sr_deploy.bench.interleave import InterleaveOptions, Session, interleave, opened_first
from sr_deploy.bench.monitor import no_watch, watch_machine
from sr_deploy.bench.options import BenchOptions
from sr_deploy.bench.result import Point, Result, load_result
from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment.default import read_default
from sr_deploy.core.deployment.manifest import MANIFEST_NAME, Deployment, open_deployment
from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.engine.index import EngineIndex
from sr_deploy.pipeline.kept_quality import quality_of
from sr_deploy.pipeline.measure.gate_request import GateRequest, budget_of
from sr_deploy.pipeline.runner import Resolved, check_backend, resolve, runner_for
from sr_deploy.report.budget import Budget
from sr_deploy.report.gate import (
    INCONCLUSIVE,
    STRADDLING,
    WITHIN,
    Finding,
    GateReport,
    check_budget,
    check_quality,
    compare_results,
    differences,
    judge_sessions,
    launches_compared,
    limit_ratio,
    look_confidence,
    overall,
    point_differences,
    position,
    refuse_unlike,
)
from sr_deploy.report.numbers import precision_of
from sr_deploy.run.base import Runner

Say = Callable[[str], None]


def run_gate(request: GateRequest, say: Say = lambda _: None) -> GateReport:
    """Judge a candidate.

    Raises:
        BadInput: unreadable files, a budget with an unknown key or without this device, or unlike results: the
            message names the differences.
        UsageError: ``in_turn`` without two deployments or without a size.
        What opening and measuring a deployment raises.
    """
    budget = budget_of(request)
    if request.in_turn:
        findings, points, method = _in_turn(request, budget, say)
        notes: Tuple[str, ...] = (_opening_note(request),)
    elif request.baseline is None:
        findings, points, method, notes = _alone(request, budget)
    else:
        findings, points, method, notes = _files(request, request.baseline, budget)
    device = next((point.device for point in points if point.device), "")
    judged = list(findings) + check_budget(points, budget.for_device(device))
    precision = next((name for name in map(precision_of, points) if name), "")
    judged += check_quality(budget.quality, quality_of(request, budget, precision))
    return GateReport(
        verdict=overall(judged),
        baseline=str(request.baseline or budget.source),
        candidate=str(request.candidate),
        device=device,
        scope=next((point.scope for point in points), request.scope),
        method=method,
        threshold_percent=budget.threshold_percent,
        floor_us=budget.floor_us,
        findings=tuple(judged),
        notes=notes,
        seed=request.rounds.seed if request.in_turn else None,
    )


#: What was judged, the candidate's points, how, and what a reader should know.
Judged = Tuple[Tuple[Finding, ...], Tuple[Point, ...], str, Tuple[str, ...]]


def _files(request: GateRequest, against: Path, budget: Budget) -> Judged:
    """Two results."""
    files, said = zip(*(_result_file(Path(one), request) for one in (against, request.candidate)))
    baseline, candidate = map(load_result, files)
    refuse_unlike(differences(baseline, candidate))
    findings, notes = compare_results(baseline, candidate, budget)
    notes = (*notes, *said[0], *said[1])
    several = baseline.variance and candidate.variance
    return findings, candidate.points, f"results of {'several processes' if several else 'one run each'}", notes


def _alone(request: GateRequest, budget: Budget) -> Judged:
    """One result, which the budget's bounds judge.

    Raises:
        UsageError: the budget has no bound at all, so that everything would pass.
    """
    if not any(device.sizes for device in budget.devices) and not budget.has_floors:
        raise UsageError(
            f"{budget.source} has no bound to hold one result against: no max_median_ms, max_p99_ms or quality floor",
            "absolute bounds in the budget, or a baseline",
            "compare the budget with engines/example.toml",
        )
    file, said = _result_file(Path(request.candidate), request)
    points = load_result(file).points
    bounded = {entry.size for device in budget.devices for entry in device.sizes}
    free = [format_size(point.size) for point in points if point.size not in bounded]
    notes = (f"{', '.join(free)}: no bound in the budget, not judged",) if free else ()
    return (), points, "absolute bounds, without a baseline", (*notes, *said)


def result_of(path: Path, request: GateRequest) -> Result:
    """A result file, or the result in a deployment's folder: of its default precision, if it has several.

    Raises:
        BadInput: no such file or folder, or a folder with none or several results; the message lists them.
    """
    return load_result(_result_file(Path(path), request)[0])


def _result_file(path: Path, request: GateRequest) -> Tuple[Path, Tuple[str, ...]]:
    """(the file of ``result_of``, what to say of its choice)."""
    if not path.is_dir():
        return path, ()
    found = _results(path, request, request.precision)
    if len(found) == 1:
        return found[0], ()
    default = read_default(path) if found and request.precision is None else None
    chosen = _results(path, request, default.precision) if default is not None else []
    if default is not None and len(chosen) == 1:
        return chosen[0], (f"{path}: {default.precision}, the deployment's default, of {len(found)} results",)
    raise BadInput(
        f"{path} has {len(found) or 'no'} results of the scope {request.scope}"
        + (": " + ", ".join(file.name for file in found) if found else ""),
        "one result",
        "--precision, --backend, or name the file itself"
        if found
        else f"srdeploy bench {path}, or srdeploy gate --interleave",
    )


def _results(path: Path, request: GateRequest, precision: Optional[str]) -> List[Path]:
    name = f"bench_{request.backend or '*'}_{precision or '*'}_{request.scope}.json"
    return sorted((path / "results").glob(name))


def _in_turn(request: GateRequest, budget: Budget, say: Say) -> Tuple[Tuple[Finding, ...], Tuple[Point, ...], str]:
    """Findings, the candidate's points and the method of running both."""
    check_backend(request.backend)
    if request.baseline is None:
        raise UsageError(f"{request.candidate} is given alone", "two deployment folders for --interleave")
    paths = (Path(request.baseline), Path(request.candidate))
    for path in paths:
        if not (path / MANIFEST_NAME).is_file():
            raise UsageError(f"{path} is not a deployment", "two deployment folders for --interleave")
    if not request.sizes:
        raise UsageError("no size to run", "--size 144,360 or --size 360x640")
    pair = (open_deployment(paths[0]), open_deployment(paths[1]))
    taken = [(one.manifest.contract.value_range, one.manifest.contract.io, one.manifest.contract.yuv) for one in pair]
    if taken[0] != taken[1]:
        raise BadInput(
            "the two deployments take different value ranges or types",
            "two forms of one network",
            "export both with the same --value-range and --io",
        )

    def side(deployment: Deployment) -> Resolved:
        return resolve(EngineIndex(deployment), request.backend, precision=request.precision, threads=request.threads)

    sides = (side(pair[0]), side(pair[1]))
    judged = [_size_in_turn(sides, size, request, budget, say) for size in request.sizes]
    method = "in turn (A B B A …), rounds of random order, a confirmation with newly opened runners"
    return tuple(finding for finding, _ in judged), tuple(point for _, point in judged), method


def _size_in_turn(
    sides: Tuple[Resolved, Resolved], size: Size, request: GateRequest, budget: Budget, say: Say
) -> Tuple[Finding, Point]:
    """One size: a session, and where it does not pass at once, its confirmation."""
    confidence = look_confidence(len(request.rounds.looks))
    bench = BenchOptions(scope=request.scope, value_range=sides[0].deployment.manifest.contract.value_range)

    def ratio_and_limit(before, after) -> Tuple[Ratio, float]:
        ratio = paired_ratio(before, after, confidence)
        middle = sorted(before)[len(before) // 2]
        return ratio, limit_ratio(middle, budget.threshold_percent, budget.floor_us)

    def decided(before, after) -> bool:
        return position(*ratio_and_limit(before, after)) != STRADDLING

    ratios: List[Ratio] = []
    for attempt in range(2):
        first = opened_first(request.rounds.seed, size, attempt)
        rounds = dataclasses.replace(request.rounds, seed=request.rounds.seed + attempt, first=first)
        session = _session(sides, size, request, bench, rounds, decided)
        refuse_unlike(point_differences(*session.points))
        before, after = session.points
        invalid = before.invalid or after.invalid
        if invalid is not None:
            why = f"the samples are invalid: {invalid}"
            return Finding("latency", format_size(size), INCONCLUSIVE, why), after
        ratio, limit = ratio_and_limit(session.baseline_s, session.candidate_s)
        ratios.append(ratio)
        where = position(ratio, limit)
        say(f"{format_size(size)}: {ratio.count} rounds, {100 * (ratio.estimate - 1):+.2f} %: {where} the limit")
        if where == WITHIN or ratio.low == 0:
            break
    finding = judge_sessions(size, before.median_s or 0.0, after.median_s or 0.0, ratios, limit)
    return dataclasses.replace(finding, why=finding.why + launches_compared(before, after)), after


def _session(
    sides: Tuple[Resolved, Resolved],
    size: Size,
    request: GateRequest,
    bench: BenchOptions,
    rounds: InterleaveOptions,
    decided: Callable[[Any, Any], bool],
) -> Session:
    """Open both, ``rounds.first`` first, alternate, close both: the memory of each session is its own."""
    earlier, later = sides[rounds.first], sides[1 - rounds.first]
    with _opened(earlier, size) as one, _opened(later, size) as other:
        baseline, candidate = (other, one) if rounds.first else (one, other)
        watch = watch_machine if request.watch else no_watch
        return interleave(baseline, candidate, size, bench, rounds, decided, watch=watch)


def _opening_note(request: GateRequest) -> str:
    """Which side was opened first at each size, as memory that was taken first may be faster or slower throughout."""
    names = ("baseline", "candidate")
    firsts = (f"{names[opened_first(request.rounds.seed, s, 0)]} at {format_size(s)}" for s in request.sizes)
    return (
        f"seed {request.rounds.seed}: opened first was the {', the '.join(firsts)}, in a confirmation the other; an "
        "interval speaks of the runners as they were opened, and opening them anew moves a ratio by tenths of a percent"
    )


@contextlib.contextmanager
def _opened(side: Resolved, size: Size) -> Iterator[Runner]:
    chosen = runner_for(side, size)
    try:
        yield chosen.runner
    finally:
        chosen.runner.close()
