"""The gate: results × budget × baseline → PASS, REGRESSION or INCONCLUSIVE, and why. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from sr_deploy.bench.compare import Ratio, fewest_for, process_ratio, single_run_ratio
from sr_deploy.bench.interval import binomial_tail, effective_sample_size, median_interval
from sr_deploy.bench.result import Point, Result
from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.errors import BadInput
from sr_deploy.core.host.device import environment_identity
from sr_deploy.core.quality.metrics import METRICS
from sr_deploy.core.schema import described
from sr_deploy.report.budget import Budget, DeviceBudget, QualityFloors
from sr_deploy.report.quality_file import QualityFile

PASS, REGRESSION, INCONCLUSIVE = "PASS", "REGRESSION", "INCONCLUSIVE"
#: From the best to the worst: what is proved bad outweighs what is not known.
ORDER = (PASS, INCONCLUSIVE, REGRESSION)

#: Where an interval lies against the limit.
BEYOND, WITHIN, STRADDLING = "beyond", "within", "straddling"

#: Of one comparison: of a hundred, one may give an interval that misses the true ratio.
CONFIDENCE = 0.99

#: What two sweeps must share of their options: it changes what a sample is. How long they measured may differ.
SAME_OPTIONS = ("scope", "value_range", "seed", "timer", "cuda_graph", "wait", "streams")
#: What a runner's description may differ in: names, and the reason for a choice.
FREE_DESCRIPTION = ("file", "provider_reason", "runtime_cache")


@described
@dataclass(frozen=True)
class Finding:
    """One thing that was judged.

    Attributes:
        what: "latency", "median budget", "p99 budget" or the quality floor's name.
        size: "HxW", or "" for what does not belong to a size.
        verdict: PASS, REGRESSION or INCONCLUSIVE.
        why: one sentence with the figures.
        baseline_ms, candidate_ms: medians, milliseconds, for a comparison.
        ratio, low, high: candidate over baseline with its interval, for a comparison; None for an end without bound.
    """

    what: str
    size: str
    verdict: str
    why: str
    baseline_ms: Optional[float] = None
    candidate_ms: Optional[float] = None
    ratio: Optional[float] = None
    low: Optional[float] = None
    high: Optional[float] = None


@described
@dataclass(frozen=True)
class GateReport:
    """All findings, and what they add up to.

    Attributes:
        verdict: the worst of the findings.
        baseline, candidate: what was compared, for people.
        device: where it was measured.
        scope: what one sample spans.
        method: how the ratio's interval came about.
        threshold_percent, floor_us: both must be exceeded for a regression.
        findings: in the order judged.
        notes: what a reader should know and what does not count.
        seed: of what was drawn in running in turn: the order of the rounds and who was opened first; None for files.
        schema: version of this layout.
    """

    verdict: str
    baseline: str
    candidate: str
    device: str
    scope: str
    method: str
    threshold_percent: float
    floor_us: float
    findings: Tuple[Finding, ...]
    notes: Tuple[str, ...] = ()
    seed: Optional[int] = None
    schema: int = 1

    def to_dict(self) -> Dict[str, Any]:
        """Ready for JSON."""
        return dataclasses.asdict(self)


def overall(findings: Sequence[Finding]) -> str:
    """The worst verdict; INCONCLUSIVE when nothing was judged."""
    return max((finding.verdict for finding in findings), key=ORDER.index, default=INCONCLUSIVE)


def look_confidence(looks: int) -> float:
    """The confidence of each interval, so that all looks of a session together miss the true ratio no more often than
    CONFIDENCE allows (Bonferroni's inequality)."""
    return 1 - (1 - CONFIDENCE) / looks


def limit_ratio(baseline_s: float, threshold_percent: float, floor_us: float) -> float:
    """The ratio that must be exceeded: the relative threshold or the floor, whichever allows more."""
    return 1 + max(threshold_percent / 100, floor_us * 1e-6 / baseline_s)


def position(ratio: Ratio, limit: float) -> str:
    """BEYOND when the whole interval lies above the limit, WITHIN when none of it does, else STRADDLING."""
    if ratio.low > limit:
        return BEYOND
    return WITHIN if ratio.high <= limit else STRADDLING


def launches_compared(before: Point, after: Point) -> str:
    """For a finding's reason: that a side's times are the host's launches; "" where they are the device's work."""
    bound = [name for name, point in (("baseline", before), ("candidate", after)) if point.launch_bound]
    return f"; launch-bound ({' and '.join(bound)}): it compares launches, not kernels" if bound else ""


def judge_sessions(size: Size, baseline_s: float, candidate_s: float, ratios: Sequence[Ratio], limit: float) -> Finding:
    """One size that ran in turn.

    A first session that lies within passes. Otherwise a confirmation with newly opened runners decides, and a
    regression takes both: the confirmation wholly beyond the limit, and the first session's estimate beyond it too.

    Args:
        size: input (height, width).
        baseline_s, candidate_s: medians over all rounds.
        ratios: of the first session, then of the confirmation if there was one.
        limit: see ``limit_ratio``.
    """
    last, where = ratios[-1], position(ratios[-1], limit)
    confirmed = len(ratios) > 1
    if where == WITHIN:
        verdict = PASS
    elif where == BEYOND and confirmed and ratios[0].estimate > limit:
        verdict = REGRESSION
    else:
        verdict = INCONCLUSIVE
    why = f"{_comparison(last, limit)}; {last.count} rounds, worth {last.effective:.0f} independent ones"
    if confirmed:
        why += f"; confirmation of {_percent(ratios[0].estimate)} ({_range(ratios[0])}) with newly opened runners"
    if verdict == INCONCLUSIVE and where == BEYOND:
        why += "; the two sessions disagree" if confirmed else "; not confirmed"
    return _finding(size, verdict, why, baseline_s, candidate_s, last)


def compare_results(baseline: Result, candidate: Result, budget: Budget) -> Tuple[Tuple[Finding, ...], Tuple[str, ...]]:
    """Two result files: (findings, notes). One finding for each size of the baseline.

    Raises:
        BadInput: they are not alike, see ``differences``; or no size is in both.
    """
    findings: List[Finding] = []
    for before in baseline.points:
        after = candidate.point_for(before.size)
        if before.failure is not None:
            continue
        findings.append(_judged_points(before, after, baseline, candidate, budget))
    if not any(candidate.point_for(point.size) for point in baseline.points):
        raise BadInput(
            "the two results have no size in common",
            "the baseline's sizes: " + ", ".join(format_size(point.size) for point in baseline.points),
            "measure the candidate with the same --size",
        )
    new = [format_size(p.size) for p in candidate.points if baseline.point_for(p.size) is None]
    notes = [f"{', '.join(new)}: not in the baseline, not judged"] if new else []
    failed = [format_size(p.size) for p in baseline.points if p.failure is not None]
    notes += [f"{', '.join(failed)}: failed in the baseline, not judged"] if failed else []
    return tuple(findings), tuple(notes)


def differences(baseline: Result, candidate: Result) -> List[str]:
    """In what two results differ that they must share, each as "name: … and …"; empty when they may be compared.

    Machine, power mode, versions, scope and device settings must agree. The engine's or graph's bytes may differ: that
    is what is compared.
    """
    old, new = ({key: result.options.get(key) for key in SAME_OPTIONS} for result in (baseline, candidate))
    found = _differing(environment_identity(baseline.environment), environment_identity(candidate.environment), "")
    found += _differing(old, new, "options")
    for before in baseline.points:
        after = candidate.point_for(before.size)
        if after is not None and before.failure is None and after.failure is None:
            found += point_differences(before, after)
    return list(dict.fromkeys(found))


def point_differences(before: Point, after: Point) -> List[str]:
    """As ``differences``, for the runners of two points."""
    same = ("scope", "runtime", "device", "timer", "in_flight", "settings")
    old, new = ({key: getattr(point, key) for key in same} for point in (before, after))
    for facts, point in ((old, before), (new, after)):
        facts["runner"] = {k: v for k, v in point.description.items() if k not in FREE_DESCRIPTION}
    return _differing(old, new, "")


def refuse_unlike(found: Sequence[str]) -> None:
    """Raise BadInput that names the differences, when there are any."""
    if found:
        more = f" (and {len(found) - 6} more)" if len(found) > 6 else ""
        raise BadInput(
            f"baseline and candidate are not alike: {'; '.join(found[:6])}{more}",
            "the same machine, power mode, versions, runtime, scope and settings; only the network may differ",
            "measure the baseline again here, or compare both deployments with srdeploy gate --interleave",
        )


def check_budget(points: Sequence[Point], device: DeviceBudget) -> List[Finding]:
    """Absolute bounds on the candidate: one finding for each bound.

    The median is judged by its interval. The 99th percentile passes when the measured one is within, and is a
    regression when so many samples lie above the bound that its true value must, too.
    """
    findings: List[Finding] = []
    for entry in device.sizes:
        point = next((p for p in points if p.size == entry.size), None)
        for what, bound, judge in (
            ("median budget", entry.max_median_ms, _judge_median),
            ("p99 budget", entry.max_p99_ms, _judge_p99),
        ):
            if bound is None:
                continue
            if point is None:
                verdict, why = INCONCLUSIVE, "not measured"
            elif point.failure is not None:
                verdict, why = REGRESSION, f"failed: {point.failure}"
            elif point.invalid is not None:
                verdict, why = INCONCLUSIVE, f"invalid: {point.invalid}"
            else:
                verdict, why = judge(point, bound)
            findings.append(Finding(what, format_size(entry.size), verdict, why))
    return findings


def check_quality(floors: QualityFloors, report: Optional[QualityFile]) -> List[Finding]:
    """Quality floors against the report of ``srdeploy verify``: one finding for each floor.

    Args:
        floors: None where there is no floor.
        report: its mean and its largest difference are judged; None judges nothing.
    """
    findings: List[Finding] = []
    if report is None:
        return findings
    for what, value, bound, upper, unit in _quality_rows(floors, report):
        if bound is None:
            continue
        word = "at most" if upper else "at least"
        if value is None:
            why = f"not in the quality report; {word} {bound:g} wanted"
            findings.append(Finding(what, "", INCONCLUSIVE, why))
            continue
        good = value <= bound if upper else value >= bound
        why = f"{value:.4f} {unit}, {word} {bound:g} wanted".replace("  ", " ").replace(" ,", ",")
        findings.append(Finding(what, "", PASS if good else REGRESSION, why))
    return findings


def _quality_rows(
    floors: QualityFloors, report: QualityFile
) -> List[Tuple[str, Optional[float], Optional[float], bool, str]]:
    """(what, figure, bound, whether it is an upper one, unit): each metric, then losses, then the difference."""
    rows = []
    for metric in METRICS:
        what = f"{metric.title} against HR" if metric.needs_reference else metric.title
        bound = getattr(floors, metric.bound_key)
        rows.append((what, getattr(report.mean, metric.key), bound, not metric.higher_is_better, metric.unit))
    for metric in (one for one in METRICS if one.against_torch):
        lost = metric.lost(getattr(report.mean, metric.torch_key), getattr(report.mean, metric.key))
        rows.append((f"{metric.title} lost against FP32", lost, getattr(floors, metric.loss_key), True, metric.unit))
        each = [metric.lost(getattr(i, metric.torch_key), getattr(i, metric.key)) for i in report.images]
        known = [one for one in each if one is not None]
        worst = max(known) if known and len(known) == len(each) else None
        what, bound = f"{metric.title} lost in the worst picture", getattr(floors, metric.worst_loss_key)
        rows.append((what, worst, bound, True, metric.unit))
    rows.append(("largest difference from FP32", report.largest_difference, floors.max_difference, True, "of 255"))
    rows.append(("patch further off than FP32", report.largest_structure, floors.max_structure, True, "of 255"))
    return rows


def _judged_points(before: Point, after: Optional[Point], old: Result, new: Result, budget: Budget) -> Finding:
    """One size of two files."""
    size = format_size(before.size)
    if after is None:
        return Finding("latency", size, INCONCLUSIVE, "the candidate was not measured at this size")
    if after.failure is not None:
        return Finding("latency", size, REGRESSION, f"the candidate fails where the baseline ran: {after.failure}")
    for name, point in (("baseline", before), ("candidate", after)):
        if point.invalid is not None:
            return Finding("latency", size, INCONCLUSIVE, f"the {name}'s samples are invalid: {point.invalid}")
    sides = (process_medians(old, before.size), process_medians(new, before.size))
    if sides[0] and sides[1]:
        ratio = process_ratio(sides[0], sides[1], CONFIDENCE)
        fewest = fewest_for(CONFIDENCE)
        advice = f"the gate compares {fewest} processes or builds, or more, of each" if ratio.low == 0 else ""
    else:
        ratio = single_run_ratio(before.samples_s, after.samples_s, budget.run_noise_percent / 100, CONFIDENCE)
        advice = "one run cannot tell; srdeploy gate --interleave, or bench --processes 5 on both sides, can"
    limit = limit_ratio(before.median_s or 0.0, budget.threshold_percent, budget.floor_us)
    where = position(ratio, limit)
    verdict = {BEYOND: REGRESSION, WITHIN: PASS, STRADDLING: INCONCLUSIVE}[where]
    why = _comparison(ratio, limit) + (f"; {advice}" if advice and where == STRADDLING else "")
    why += f" [{ratio.method}]" + launches_compared(before, after)
    return _finding(before.size, verdict, why, before.median_s or 0.0, after.median_s or 0.0, ratio)


def process_medians(result: Result, size: Size) -> Tuple[float, ...]:
    """The independent medians of a size, seconds: of builds where there are several, else of processes; () for one run.

    Processes of one build share the build, so with several builds the mean of each is one observation.
    """
    table = next((entry for entry in result.variance if tuple(entry["size"]) == tuple(size)), None)
    if table is None:
        return ()
    medians, each = tuple(table["process_medians_s"]), table["processes"]
    if table["builds"] > 1:
        medians = tuple(sum(medians[i : i + each]) / each for i in range(0, len(medians), each))
    return medians if len(medians) > 1 else ()


def _judge_median(point: Point, bound_ms: float) -> Tuple[str, str]:
    interval = median_interval(point.samples_s, CONFIDENCE)
    low, high = interval or (0.0, float("inf"))
    verdict = REGRESSION if low * 1e3 > bound_ms else PASS if high * 1e3 <= bound_ms else INCONCLUSIVE
    text = f"{low * 1e3:.3f} … {high * 1e3:.3f} ms" if interval else "unknown: too few independent samples"
    return verdict, f"median {1e3 * (point.median_s or 0):.3f} ms ({text}), at most {bound_ms:g} ms wanted"


def _judge_p99(point: Point, bound_ms: float) -> Tuple[str, str]:
    beyond = [float(sample * 1e3 > bound_ms) for sample in point.samples_s]
    above, count = int(sum(beyond)), len(beyond)
    worth = min(effective_sample_size(point.samples_s), effective_sample_size(beyond))
    # The share above must exceed one in a hundred by more than chance, as in so many independent samples.
    certain = binomial_tail(int(worth), int(above * worth / count), 0.01) < 1 - CONFIDENCE
    within = (point.p99_s or 0.0) * 1e3 <= bound_ms
    verdict = PASS if within else REGRESSION if certain else INCONCLUSIVE
    why = f"p99 {1e3 * (point.p99_s or 0):.3f} ms, at most {bound_ms:g} ms wanted; {above} of {count} samples above"
    return verdict, why


def _finding(size: Size, verdict: str, why: str, baseline_s: float, candidate_s: float, ratio: Ratio) -> Finding:
    low, high = (value if 0 < value < float("inf") else None for value in (ratio.low, ratio.high))
    return Finding(
        "latency", format_size(size), verdict, why, baseline_s * 1e3, candidate_s * 1e3, ratio.estimate, low, high
    )


def _comparison(ratio: Ratio, limit: float) -> str:
    return f"{_percent(ratio.estimate)} ({_range(ratio)} at {100 * ratio.confidence:.3g} %), limit {_percent(limit)}"


def _range(ratio: Ratio) -> str:
    if not 0 < ratio.low <= ratio.high < float("inf"):
        return "no interval: too few independent rounds or processes"
    return f"{_percent(ratio.low)} … {_percent(ratio.high)}"


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.2f} %"


def _differing(old: Any, new: Any, name: str) -> List[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [text for key in keys for text in _differing(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))]
    return [] if old == new else [f"{name}: {old!r} and {new!r}"]
