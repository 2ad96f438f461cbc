"""From a deployment's float32 graph to a precision plan, proved on pictures: what FP16 and INT8 builds start with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional

import numpy as np
import onnx

from sr_deploy.core.artifact import atomic_folder, read_json, write_json
from sr_deploy.core.deployment import Deployment, GraphFile
from sr_deploy.core.errors import BadDeployment, CheckFailed
from sr_deploy.core.plan import PLAN_NAME, Plan, open_plan, save_plan
from sr_deploy.pipeline.int8 import auto_plan, calibrated_plan
from sr_deploy.pipeline.workbench import PrecisionOptions, Workbench, check_options, scan, workbench
from sr_deploy.precision.apply import typed_graph
from sr_deploy.precision.evaluate import Judged
from sr_deploy.precision.make import half_plan, int8_share

#: dB that FP16 may lose; it loses less on every network tried, so more means that something is wrong.
HALF_BUDGET = 0.01


@dataclass(frozen=True)
class Planned:
    """A plan that was proved.

    Attributes:
        folder: holds plan.json, weights.npz, the lowered graphs and report.json.
        plan, weights: see core/plan.py.
        typed: the typed ONNX file.
        report: what was measured, JSON-able.
    """

    folder: Path
    plan: Plan
    weights: Dict[str, np.ndarray]
    typed: Path
    report: Dict[str, Any]


def plan_for(
    deployment: Deployment, graph: GraphFile, options: PrecisionOptions, say: Callable[[str], None] = lambda _: None
) -> Planned:
    """Make or take a plan for one graph, lower it, and prove it on pictures before it is used.

    It lands in ``DIR/precision/NAME``, whole or not at all. A plan that is there already for the same request is taken
    again.

    Raises:
        UsageError: options that contradict each other, or a precision that does not exist.
        BadInput: no pictures, or a plan that does not fit the graph.
        CheckFailed: NaN or infinite values, or more dB lost than the budget allows.
    """
    check_options(options)
    folder = deployment.folder / "precision" / folder_name(options, graph)
    if options.plan is None and not options.remake and (folder / PLAN_NAME).is_file():
        planned = _reopened(folder, graph, options)
        if planned is not None:
            say(f"plan: {folder / PLAN_NAME}, made before; --remake-plan makes it again")
            return planned
    bench = workbench(deployment, graph, options, say)
    if options.plan is not None:
        plan, weights = open_plan(options.plan)
        _check_graph(plan, graph, options.plan)
        notes: Dict[str, Any] = {"taken_from": str(options.plan)}
    elif options.precision == "fp16":
        plan, weights, notes = half_plan(bench.kinds, graph.sha256, scan(bench, say)), {}, {}
    elif options.precision == "int8":
        plan, weights, notes = calibrated_plan(deployment, bench, options, say)
    else:
        plan, weights, notes = auto_plan(deployment, bench, options, say)
    judged = bench.judged(plan, weights)
    report = {**_report(bench, plan, judged), **notes, "request": _request(options)}
    for line in describe(report):
        say(line)
    _check_quality(judged, options, plan)
    with atomic_folder(folder, force=True) as temporary:
        plan = save_plan(temporary, plan, weights)
        onnx.save(typed_graph(bench.model, plan, weights), str(temporary / "model.onnx"))
        write_json(temporary / "report.json", report)
    return Planned(folder, plan, weights, folder / "model.onnx", report)


def folder_name(options: PrecisionOptions, graph: GraphFile) -> str:
    """Where a plan lies under ``DIR/precision``: the precision, and the graph unless it is ``model.onnx``."""
    stem = Path(graph.file).stem
    name = options.plan.parent.name if options.plan and options.plan.is_file() else None
    name = options.plan.name if options.plan and options.plan.is_dir() else name
    name = name or options.precision
    return name if stem == "model" or name.endswith(stem) else f"{name}_{stem}"


def _check_graph(plan: Plan, graph: GraphFile, path: Path) -> None:
    if plan.graph_sha256 != graph.sha256:
        raise BadDeployment(
            f"{path} was made for another graph: {plan.graph_sha256[:12]}…",
            f"a plan for {graph.file}, {graph.sha256[:12]}…",
            "make it again: srdeploy build DIR --precision … without --plan",
        )


def _request(options: PrecisionOptions) -> Dict[str, Any]:
    """What a stored plan must have been asked for to be taken again."""
    asked = {key: value for key, value in dataclasses.asdict(options).items() if key not in ("remake", "plan")}
    return {key: str(value) if isinstance(value, Path) else value for key, value in asked.items()}


def _reopened(folder: Path, graph: GraphFile, options: PrecisionOptions) -> Optional[Planned]:
    """The plan that is there, if it was made for this graph and this request."""
    plan, weights = open_plan(folder)
    report = read_json(folder / "report.json", "precision report")
    if plan.graph_sha256 != graph.sha256 or report.get("request") != _request(options):
        return None
    return Planned(folder, plan, weights, folder / "model.onnx", report)


def _report(bench: Workbench, plan: Plan, judged: Judged) -> Dict[str, Any]:
    total = sum(bench.macs.values())
    shares = {
        dtype: round(sum(bench.macs.get(name, 0) for name in plan.nodes_of(dtype)) / max(total, 1), 4)
        for dtype in ("int8", "float16", "float32")
    }
    return {
        "macs_share": shares,
        "int8_share_outside_pinned": round(int8_share(plan, bench.macs, bench.kinds), 4),
        "psnr_y": round(judged.psnr, 4),
        "psnr_y_float32": round(judged.reference_psnr, 4),
        "loss_db": round(judged.loss, 4),
        "noise": round(judged.noise, 4),
        "largest_mean_shift": round(judged.mean_shift, 4),
        "pictures": judged.pictures,
    }


def describe(report: Mapping[str, Any]) -> List[str]:
    """A plan's report in lines for people."""
    shares = ", ".join(f"{share:.1%} {dtype}" for dtype, share in report["macs_share"].items() if share)
    return [
        f"multiply-accumulates: {shares}",
        f"PSNR-Y {report['psnr_y']:.3f} dB on {report['pictures']} pictures, {report['loss_db']:+.4f} dB lost against "
        f"float32; largest shift of a colour {report['largest_mean_shift']:.3f} of 255",
    ]


def _check_quality(judged: Judged, options: PrecisionOptions, plan: Plan) -> None:
    """Refuse a plan that breaks the picture or its budget."""
    if judged.sick:
        raise CheckFailed(
            f"the {plan.precision} graph gives {judged.sick} NaN or infinite values",
            "finite values",
            "leave out --allow-fp16-spectral, or give pictures that show the whole range with --images",
        )
    budget = options.budget if options.budget is not None or options.precision != "fp16" else HALF_BUDGET
    if budget is not None and judged.loss > budget:
        raise CheckFailed(
            f"the {plan.precision} graph loses {judged.loss:.4f} dB on {judged.pictures} pictures",
            f"at most {budget:g} dB",
            f"srdeploy build DIR --precision auto --psnr-budget {budget:g} finds the layers to keep wider; "
            "srdeploy qat DIR fine-tunes",
        )
