"""From a deployment's float32 graph to a precision plan, proved on pictures: what builds below FP32 start with."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional

from sr_deploy.core.artifact import atomic_folder, sha256_of, write_json
from sr_deploy.core.deployment.manifest import Deployment, GraphFile
from sr_deploy.core.deployment.plan import PLAN_NAME, Plan, open_plan, plan_file, save_plan
from sr_deploy.core.deployment.plan_report import (
    FLOAT32_QUALITY_KEY,
    QUALITY_KEY,
    REPORT_NAME,
    PictureRecord,
    read_plan_report,
)
from sr_deploy.core.errors import BadInput, CheckFailed
from sr_deploy.core.media.image import to_network
from sr_deploy.core.number_formats import AUTO, FLOAT16, FORMATS, QUANTISED, NumberFormat
from sr_deploy.core.quality.metrics import CRITERION
from sr_deploy.core.quality.structure import OFF_STEPS, WINDOW
from sr_deploy.core.text import counted, decibels_lost
from sr_deploy.core.tolerance import COLOUR_SHIFT, LOUD_LOSS, STRUCTURE
from sr_deploy.pipeline.precision.auto import auto_plan
from sr_deploy.pipeline.precision.calibrate import open_calibration
from sr_deploy.pipeline.precision.deployed_plan import (
    Planned,
    PrecisionOptions,
    find_planned,
    folder_name,
    request_of,
)
from sr_deploy.pipeline.precision.int8 import calibrated_plan
from sr_deploy.pipeline.precision.plan_forms import write_lowered
from sr_deploy.pipeline.precision.plan_inputs import Workbench, scan, workbench
from sr_deploy.pipeline.precision.plan_needs import check_needs, plannable
from sr_deploy.precision.choose.islands import Kinds
from sr_deploy.precision.choose.picture_ends import picture_ends
from sr_deploy.precision.choose.plan_from_ranges import floating_plan, narrow_share
from sr_deploy.precision.evaluate import Judged, PictureJudged, prove_factors

#: What may be asked for → its format.
_FORMAT = {one.precision: one for one in FORMATS}

if TYPE_CHECKING:
    from sr_deploy.precision.calibrate.ranges import Ranges


def plan_for(deployment: Deployment, options: PrecisionOptions, say: Callable[[str], None] = lambda _: None) -> Planned:
    """Make a plan for the deployment's graph, or take the one given; lower it, and prove it on pictures.

    It lands in ``DIR/precision/NAME``, whole or not at all.

    Raises:
        UsageError: options that contradict each other, or a precision that does not exist.
        BadInput: no pictures, or a plan that does not fit the graph.
        CheckFailed: NaN or infinite values, or more dB lost than the budget allows.
    """
    check_needs(deployment, options)
    graph = plannable(deployment)
    name = folder_name(options)
    folder = deployment.precision_folder / name
    bench = workbench(deployment, graph, options, say)
    facts: Dict[str, Any] = {}
    if options.plan is not None:
        plan, weights = open_plan(options.plan)
        plan = _explained(plan, bench.kinds)
        if weights and _edited(options.plan):
            say("the plan was edited, and its weights were fitted to what it was: --precision auto fits them anew")
    elif options.precision == AUTO:
        bench, plan, weights, facts = auto_plan(deployment, bench, options, say)
    elif _FORMAT[options.precision].floating:
        plan, weights = _floating(bench, _FORMAT[options.precision], say), {}
    else:
        plan, weights = calibrated_plan(deployment, bench, options, say)
    plan = dataclasses.replace(plan, target=options.target or plan.target)
    prove_factors(bench.model, plan, [to_network(bench.scenes[0].lr, bench.contract)], bench.contract.value_range)
    judged = bench.judged(plan, weights)
    report = {**report_of(bench, plan, judged), **facts, "request": request_of(options)}
    for line in describe(report):
        say(line)
    _check_quality(judged, options, plan, say)
    _check_share(report, options, plan)
    with atomic_folder(folder, force=True) as temporary:
        if options.plan is not None and folder.is_dir():
            # A fine-tuned plan has its plots and records beside it.
            shutil.copytree(folder, temporary, dirs_exist_ok=True)
        plan = save_plan(temporary, plan, weights)
        ranges = known_ranges(deployment, graph, plan)
        report.update(write_lowered(temporary, bench.model, plan, weights, ranges))
        write_json(temporary / REPORT_NAME, {**report, "plan_sha256": sha256_of(temporary / PLAN_NAME)})
    planned = find_planned(deployment, name)
    assert planned is not None
    return planned


def _floating(bench: Workbench, one: NumberFormat, say: Callable[[str], None]) -> Plan:
    """Everything in one float of 16 bits but what float16 cannot hold, or what bfloat16 is too coarse for."""
    wide = scan(bench, say) if one is FLOAT16 else picture_ends(bench.model)
    return floating_plan(bench.kinds, bench.graph.sha256, wide, one)


def _edited(path: Path) -> bool:
    """Whether a plan is not the one that the report beside it is of."""
    path = plan_file(path)
    if not (path.parent / REPORT_NAME).is_file() or path.name != PLAN_NAME:
        return False
    return read_plan_report(path.parent).get("plan_sha256") not in (None, sha256_of(path))


def _explained(plan: Plan, kinds: Kinds) -> Plan:
    """A plan given, with a reason for each wider node that has none: someone set it so."""
    wider: List[str] = []
    narrow = set(plan.quantised)
    if narrow:
        wider += [name for name in plan.nodes if name in kinds.candidates and name not in narrow]
    wider += [name for name in plan.nodes_of("float32") if plan.rest != "float32"]
    reasons = {name: why for name, why in plan.reasons.items() if name not in narrow}
    return dataclasses.replace(plan, reasons={**dict.fromkeys(wider, "set by hand"), **reasons})


def known_ranges(deployment: Deployment, graph: GraphFile, plan: Plan) -> Optional[Ranges]:
    """The ranges that a plan's scales come from, if the deployment still has them."""
    method = plan.calibration.get("method")
    try:
        return None if method is None else open_calibration(deployment, str(method), graph=graph).ranges
    except BadInput:
        return None


def report_of(bench: Workbench, plan: Plan, judged: Judged) -> Dict[str, Any]:
    """What is written beside a plan, JSON-able."""
    total = sum(bench.macs.values())
    work = dict.fromkeys((one.name for one in FORMATS), 0)
    for name, macs in bench.macs.items():
        work[plan.nodes.get(name, plan.rest)] += macs
    shares = {dtype: round(macs / max(total, 1), 4) for dtype, macs in work.items()}
    return {
        "macs_share": shares,
        "narrow_share_outside_pinned": round(narrow_share(plan, bench.macs, bench.kinds), 4),
        QUALITY_KEY: round(judged.psnr, 4),
        FLOAT32_QUALITY_KEY: round(judged.reference_psnr, 4),
        "loss_db": round(judged.loss, 4),
        "noise": round(judged.noise, 4),
        "mean_shift": round(judged.mean_shift, 4),
        "worst_shift": round(judged.worst_shift, 4),
        "pictures": judged.pictures,
        "worst_loss_db": round(judged.worst.loss, 4),
        "worst_picture": f"{judged.worst.name} ({judged.worst.kind})",
        "largest_off_share": round(max(one.off for one in judged.each), 4),
        "largest_structure": round(max(one.structure for one in judged.each), 2),
        "judged": [_rounded(one) for one in judged.each],
    }


def _rounded(one: PictureJudged) -> Dict[str, Any]:
    facts = {key: getattr(one, key) for key in PictureRecord.__annotations__}
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in facts.items()}


def describe(report: Mapping[str, Any]) -> List[str]:
    """A plan's report in lines for people."""
    shares = ", ".join(f"{share:.1%} {dtype}" for dtype, share in report["macs_share"].items() if share)
    return [
        f"multiply-accumulates: {shares}",
        f"{CRITERION.title} {report[QUALITY_KEY]:.3f} {CRITERION.unit} on {counted(report['pictures'], 'picture')}, "
        f"{decibels_lost(report['loss_db'])} against float32; colours shift by {report['mean_shift']:.3f} of 255, "
        f"in one picture by up to {report['worst_shift']:.3f}",
        f"worst: {decibels_lost(report['worst_loss_db'])} in {report['worst_picture']}; of a picture's pixels up to "
        f"{report['largest_off_share']:.1%} are off by more than {OFF_STEPS} of 255, a patch of {WINDOW}x{WINDOW} by "
        f"up to {report['largest_structure']:.1f}",
    ]


def _check_share(report: Mapping[str, Any], options: PrecisionOptions, plan: Plan) -> None:
    """Refuse a plan that was asked for in an 8-bit type and has none of it."""
    one = _FORMAT.get(options.precision)
    if one not in QUANTISED or report["macs_share"].get(one.name):
        return
    reasons = "; ".join(f"{node}: {why}" for node, why in list(plan.reasons.items())[:3])
    raise CheckFailed(
        f"no layer of the {one.label} plan could be {one.label} ({reasons or 'no layer is made for it'})",
        f"{one.label} in some of its layers; an engine is not called {one.precision} without",
        "srdeploy build DIR --precision fp16, or auto, which takes what suits each layer",
    )


def _check_quality(judged: Judged, options: PrecisionOptions, plan: Plan, say: Callable[[str], None]) -> None:
    """Refuse a plan that breaks the picture or a budget; without any budget, say what will be seen."""
    if judged.sick:
        raise CheckFailed(
            f"the {plan.precision} graph gives {judged.sick} NaN or infinite values",
            "finite values",
            "leave out --allow-fp16-spectral, or give pictures that show the whole range with --images",
        )
    one = _FORMAT.get(options.precision)
    mean = options.mean_budget
    if not options.bounded and one is not None and one.floating and one.tolerance is not None:
        mean = one.tolerance.decibels
    picture = judged.worst
    for budget, lost, where in (
        (mean, judged.loss, f"on {counted(judged.pictures, 'picture')}"),
        (options.budget, picture.loss, f"in {picture.name} ({picture.kind})"),
    ):
        if budget is not None and lost > budget:
            search = f"srdeploy build DIR --precision auto --psnr-budget {budget:g} finds the layers to keep wider; "
            float16_loses = "float16 alone loses that: a larger budget, or --precision fp32"
            raise CheckFailed(
                f"the {plan.precision} graph loses {lost:.4g} dB {where}",
                f"at most {budget:g} dB",
                float16_loses if options.precision == "auto" else search + "srdeploy qat DIR fine-tunes",
            )
    for warning in warnings_of(judged, options.bounded):
        say(warning)


def warnings_of(judged: Judged, bounded: bool = False) -> List[str]:
    """What a plan does that will be seen; of one whose loss is bounded that is not what it loses."""
    loud = [one for one in judged.each if one.loss > LOUD_LOSS and not bounded]
    shifted = [one for one in judged.each if one.shift > COLOUR_SHIFT.steps]
    seen = [one for one in judged.each if one.structure > STRUCTURE.steps]
    todo = "--psnr-budget with --precision auto holds every picture, srdeploy qat DIR fine-tunes"
    found = []
    if loud:
        named = ", ".join(f"{one.name} {one.loss:.2f}" for one in sorted(loud, key=lambda one: -one.loss)[:4])
        found.append(
            f"WARNING: {len(loud)} of {counted(judged.pictures, 'picture')} lose more than {LOUD_LOSS:g} dB "
            f"({named}): {todo}"
        )
    if shifted:
        worst = max(shifted, key=lambda one: one.shift)
        found.append(
            f"WARNING: colours shift by more than {COLOUR_SHIFT.steps:g} of 255 in "
            f"{counted(len(shifted), 'picture')}, by {worst.shift:.2f} in {worst.name}: {todo}"
        )
    if seen:
        worst = max(seen, key=lambda one: one.structure)
        found.append(
            f"WARNING: a patch of {counted(len(seen), 'picture')} is further from the original than float32 by more "
            f"than {STRUCTURE.steps:g} of 255, by {worst.structure:.0f} in {worst.name}: {todo}"
        )
    return found
