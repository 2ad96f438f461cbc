"""The gate joined up: read or run baseline and candidate, judge them, keep a new baseline when asked to."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Tuple

from sr_deploy.bench.compare import Ratio, paired_ratio
from sr_deploy.bench.interleave import InterleaveOptions, Session, interleave, opened_first
from sr_deploy.bench.monitor import no_watch, watch_machine
from sr_deploy.bench.options import BenchOptions
from sr_deploy.bench.result import Point, Result, load_result, save_result
from sr_deploy.core.confine import confined
from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment.manifest import MANIFEST_NAME, Deployment, open_deployment
from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.engine.index import EngineIndex
from sr_deploy.pipeline.runner import Resolved, check_backend, resolve, runner_for
from sr_deploy.report.budget import Budget, read_budget
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
from sr_deploy.report.quality_file import read_quality
from sr_deploy.run.base import Runner

Say = Callable[[str], None]


@dataclass(frozen=True)
class GateRequest:
    """What ``srdeploy gate`` is asked for.

    Attributes:
        baseline, candidate: result files, or deployment folders.
        budget: a TOML file, see report/budget.py; None for the defaults and no absolute bounds.
        threshold_percent, floor_us, run_noise_percent: in place of the budget's; None leaves those.
        quality: the JSON report of ``srdeploy verify --json`` for the candidate; None judges no quality.
        in_turn: run both deployments, A B B A …, in this process.
        sizes: inputs (height, width) to run in turn.
        backend, precision, threads: of both, see ``runner_for``.
        scope: what one sample spans.
        rounds: of running in turn.
        watch: mark sessions invalid in which the machine throttled or changed its clocks.
    """

    baseline: Path
    candidate: Path
    budget: Optional[Path] = None
    threshold_percent: Optional[float] = None
    floor_us: Optional[float] = None
    run_noise_percent: Optional[float] = None
    quality: Optional[Path] = None
    in_turn: bool = False
    sizes: Tuple[Size, ...] = ()
    backend: Optional[str] = None
    precision: Optional[str] = None
    threads: Optional[int] = None
    scope: str = "compute"
    rounds: InterleaveOptions = InterleaveOptions()
    watch: bool = True


def run_gate(request: GateRequest, say: Say = lambda _: None) -> GateReport:
    """Judge a candidate.

    Raises:
        BadInput: unreadable files, a budget with an unknown key or without this device, or unlike results: the
            message names the differences.
        UsageError: ``in_turn`` without two deployments or without a size.
        What opening and measuring a deployment raises.
    """
    budget = budget_of(request)
    quality = None if request.quality is None else read_quality(request.quality)
    if request.in_turn:
        findings, points, method = _in_turn(request, budget, say)
        notes: Tuple[str, ...] = (_opening_note(request),)
    else:
        baseline, candidate = (result_of(path, request) for path in (request.baseline, request.candidate))
        refuse_unlike(differences(baseline, candidate))
        findings, notes = compare_results(baseline, candidate, budget)
        points = candidate.points
        several = baseline.variance and candidate.variance
        method = "results of several processes" if several else "results of one run each"
    device = next((point.device for point in points if point.device), "")
    judged = list(findings) + check_budget(points, budget.for_device(device))
    if quality is not None:
        judged += check_quality(budget.quality, quality)
    elif budget.quality != type(budget.quality)():
        notes += ("the budget has quality floors; they are judged with --quality REPORT only",)
    return GateReport(
        verdict=overall(judged),
        baseline=str(request.baseline),
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


def budget_of(request: GateRequest) -> Budget:
    """The budget file's, with what the request puts in its place."""
    budget = Budget() if request.budget is None else read_budget(request.budget)
    names = ("threshold_percent", "floor_us", "run_noise_percent")
    asked = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
    for name, value in asked.items():
        if not 0 <= value < float("inf"):
            raise UsageError(f"--{name.replace('_', '-')} {value}", "a number that is not negative")
    return dataclasses.replace(budget, **asked)


def result_of(path: Path, request: GateRequest) -> Result:
    """A result file, or the result in a deployment's folder.

    Raises:
        BadInput: no such file or folder, or a folder with none or several results; the message lists them.
    """
    path = Path(path)
    if not path.is_dir():
        return load_result(path)
    prefix = f"bench_{request.backend or '*'}{'_' + request.precision if request.precision else ''}"
    found = sorted((path / "results").glob(f"{prefix}_{request.scope}.json"))
    if len(found) == 1:
        return load_result(found[0])
    raise BadInput(
        f"{path} has {len(found) or 'no'} results of the scope {request.scope}"
        + (": " + ", ".join(file.name for file in found) if found else ""),
        "one result",
        "name the file itself" if found else f"srdeploy bench {path}, or srdeploy gate --interleave",
    )


def update_baseline(candidate: Result, baselines: Path) -> Tuple[Path, List[str]]:
    """Make a candidate the baseline of its device and deployment: (file written, the difference as lines).

    Args:
        candidate: every point must be usable.
        baselines: the folder, ``engines/baselines``; the file is ``<device>/<deployment>.json`` below it.

    Raises:
        BadInput: a point failed or is invalid, or the file there is not a result.
        DiskFull, EnvironmentFault: it cannot be written.
    """
    bad = [point for point in candidate.points if not point.usable]
    if bad or not candidate.points:
        why = f"{format_size(bad[0].size)}: {bad[0].failure or bad[0].invalid}" if bad else "it has no point"
        raise BadInput(f"this result cannot be a baseline: {why}", "valid points only", "measure it again")
    folder = Path(baselines) / device_folder(candidate.points[0].device)
    target = confined(folder, f"{candidate.deployment}.json", "the result's key deployment")
    old = load_result(target) if target.exists() else None
    lines = baseline_changes(old, candidate)
    save_result(target, candidate)
    return target, lines


def baseline_changes(old: Optional[Result], new: Result) -> List[str]:
    """What a new baseline changes, one line a size or a fact of the environment."""
    if old is None:
        return [f"+ {format_size(p.size)}: median {1e3 * (p.median_s or 0):.3f} ms" for p in new.points]
    lines = [f"! {text}" for text in differences(old, new)]
    for point in old.points:
        if new.point_for(point.size) is None:
            lines.append(f"- {format_size(point.size)}: median {1e3 * (point.median_s or 0):.3f} ms")
    for point in new.points:
        before = old.point_for(point.size)
        if before is None or not before.median_s or not point.median_s:
            lines.append(f"+ {format_size(point.size)}: median {1e3 * (point.median_s or 0):.3f} ms")
        else:
            change = 100 * (point.median_s / before.median_s - 1)
            lines.append(
                f"~ {format_size(point.size)}: median {1e3 * before.median_s:.3f} → {1e3 * point.median_s:.3f} ms "
                f"({change:+.2f} %)"
            )
    return lines


def device_folder(device: str) -> str:
    """A device's name as a folder: "NVIDIA H200" gives "nvidia-h200"."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") or "unknown"


def _in_turn(request: GateRequest, budget: Budget, say: Say) -> Tuple[Tuple[Finding, ...], Tuple[Point, ...], str]:
    """Findings, the candidate's points and the method of running both."""
    check_backend(request.backend)
    for path in (request.baseline, request.candidate):
        if not (Path(path) / MANIFEST_NAME).is_file():
            raise UsageError(f"{path} is not a deployment", "two deployment folders for --interleave")
    if not request.sizes:
        raise UsageError("no size to run", "--sizes 144,360 or --sizes 360x640")
    pair = (open_deployment(request.baseline), open_deployment(request.candidate))
    taken = [(one.manifest.contract.value_range, one.manifest.contract.io, one.manifest.contract.yuv) for one in pair]
    if taken[0] != taken[1]:
        raise BadInput("the two deployments take different value ranges or types", "two forms of one network")

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
