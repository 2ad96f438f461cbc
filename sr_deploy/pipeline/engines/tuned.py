"""What ``srdeploy tune`` found for an engine that is to be built: which form of the graph, or which passes make it.

A float32 engine is built of the graph that was kept; a float16 one of its plan's graph, after the same passes, where
the form was estimated in float16. A plan's 8-bit layers are its graph's own convolutions, and its scales are of their
tensors alone: no other form is taken for them, nor for bfloat16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Optional

from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.engine.runtimes import RUNTIMES

if TYPE_CHECKING:
    from sr_deploy.pipeline.engines.request import BuildPlan


def passes_of(deployment: Deployment, plan: BuildPlan) -> str:
    """What the graph of an engine is rewritten with: what was tuned for it, else its backend's own passes; "": none."""
    if plan.graph.tuned_for == plan.backend or not _keeps_types(plan):
        return ""
    variant = tuned_passes(deployment, plan)
    if variant is None:
        return RUNTIMES[plan.backend].rewrite
    return "" if variant == "none" else variant


def tuned_passes(deployment: Deployment, plan: BuildPlan) -> Optional[str]:
    """The passes that were tuned for an engine whose graph is another one; None: none were."""
    if plan.tuned in (None, plan.graph) or not _keeps_types(plan):
        return None
    tuned = _record(deployment, plan)
    return tuned["variant"] if "for" in tuned else None


def tuned_text(deployment: Deployment, plan: BuildPlan) -> str:
    """Which tuned form an engine is of, and which were left aside for it, in words; "" where it is of none."""
    taken = plan.tuned
    if taken is None or (taken != plan.graph and tuned_passes(deployment, plan) is None):
        return ""
    text = f"tuned for {taken.gpu or taken.tuned_for}: {_record(deployment, plan).get('variant', taken.file)}"
    own = (taken.tuned_for, taken.size, taken.compute_capability)
    graphs = [one for one in deployment.manifest.graphs if one.gpu and one.gpu != taken.gpu]
    others = [one.gpu for one in graphs if (one.tuned_for, one.size, one.compute_capability) == own]
    if not taken.gpu or not others:
        return text
    return f"{text} (of those for {taken.compute_capability} that one was tuned last; not {', '.join(others)})"


def _keeps_types(plan: BuildPlan) -> bool:
    """Whether an engine is all float32, or float16 but for what its plan keeps in float32."""
    return plan.planned is None or (not plan.planned.plan.quantised and plan.planned.plan.rest == "float16")


def _record(deployment: Deployment, plan: BuildPlan) -> Dict[str, str]:
    """What the manifest tells of the form; empty where there is none."""
    return {} if plan.tuned is None else deployment.manifest.rewrite.get(plan.tuned.file, {}).get("tuned", {})
