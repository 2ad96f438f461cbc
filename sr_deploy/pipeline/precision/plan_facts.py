"""The precision plans that a deployment holds, as facts for people: inspect and report show them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Dict, List

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.core.deployment.plan import PLAN_NAME, Plan, open_plan
from sr_deploy.core.deployment.plan_report import FLOAT32_QUALITY_KEY, QUALITY_KEY, read_plan_report
from sr_deploy.core.errors import BadInput

#: What is taken over from the report beside a plan, see pipeline/precision/make_plan.report_of.
MEASURED = (
    "macs_share", "loss_db", QUALITY_KEY, FLOAT32_QUALITY_KEY, "pictures", "mean_shift", "worst_shift", "worst_loss_db",
    "worst_picture", "largest_off_share", "largest_structure", "promised_worst_db", "promised_mean_db",
)  # fmt: skip


def plan_facts(deployment: Deployment) -> List[Dict[str, Any]]:
    """One dict for each plan under ``DIR/precision``, by name.

    ``name``, ``precision``, ``nodes`` (type → number), ``islands`` (reason → number of nodes), ``notes``,
    ``calibration``, and, of what was measured when it was made: ``macs_share`` (type → share), the others of MEASURED,
    ``not_fusing``, ``reformats``, ``casts``, ``gave_up`` (node → why). ``problem`` says why one cannot be built.
    """
    folder = deployment.precision_folder
    return [_facts(path.parent, deployment) for path in sorted(folder.glob(f"*/{PLAN_NAME}"))]


def _facts(folder: Path, deployment: Deployment) -> Dict[str, Any]:
    facts: Dict[str, Any] = {"name": folder.name}
    try:
        plan, weights = open_plan(folder)
        facts.update(
            precision=plan.precision,
            nodes=dict(Counter(plan.nodes.values())),
            islands=islands_of(plan),
            changed_weights=len(weights),
            calibration=plan.calibration,
            notes=list(plan.notes),
        )
        report = read_plan_report(folder)
    except BadInput as error:
        return {**facts, "problem": " ".join(error.found.replace(f"{folder.parent}/", "").split())}
    told = dict(report)
    facts.update({name: told[name] for name in (*MEASURED, "gave_up") if name in told})
    facts.update(report.get("lint") or {})
    if "legacy" in report:
        facts["not_for_tensorrt_8"] = report["legacy"]
    if plan.graph_sha256 not in {graph.sha256 for graph in deployment.manifest.graphs}:
        facts["problem"] = f"it was made for another graph, {plan.graph_sha256[:12]}…"
    elif report.get("plan_sha256") not in (None, sha256_of(folder / PLAN_NAME)):
        facts["problem"] = f"it was changed after its graphs were made: build with --plan {folder.name}/{PLAN_NAME}"
    return facts


def islands_of(plan: Plan) -> Dict[str, int]:
    """Reason → number of nodes that are wider for it, most first; the figures of single nodes are left out."""
    kinds = Counter(why.split(":")[0].split(" values up to ")[0] for why in plan.reasons.values())
    return dict(kinds.most_common())
