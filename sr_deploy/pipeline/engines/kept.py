"""Engines that an interrupted build had finished: what is there and is what is asked for need not be built again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Optional

from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.core.errors import BadInput
from sr_deploy.engine.fits import host_facts
from sr_deploy.engine.manifest import EngineManifest, open_engine
from sr_deploy.pipeline.engines.tuned import tuned_passes

if TYPE_CHECKING:
    from sr_deploy.pipeline.engines.request import BuildOptions, BuildPlan


def finished_engine(
    deployment: Deployment, path: Path, plan: BuildPlan, options: BuildOptions
) -> Optional[EngineManifest]:
    """The manifest of the engine at ``path``, if it is whole and the one that ``plan`` asks for; None otherwise.

    Of the graph, by its hash; of the precision plan, likewise; after the passes that were tuned for it; by the runtime
    that is here. Options that its name does not tell, such as a limit of memory, are not compared: with one of them no
    engine counts.
    """
    special = (options.workspace_bytes, options.memory_budget, options.dla_core)
    if options.force or options.implicit or any(value is not None for value in special) or not path.exists():
        return None
    try:
        have = open_engine(path)
    except BadInput:
        return None
    identity = plan.planned.identity if plan.planned else {}
    wanted = {
        "graph": plan.graph.sha256,
        "contract": deployment.manifest.contract,
        "profile": plan.profile or have.profile,
        "precision": plan.precision,
        "version": host_facts(plan.backend).runtime_version,
        "plan": identity.get("plan_sha256"),
        "tuned": tuned_passes(deployment, plan),
    }
    found = {
        "graph": have.graph_sha256,
        "contract": have.contract,
        "profile": have.profile,
        "precision": have.precision,
        "version": have.runtime_version,
        "plan": have.settings.get("plan_sha256"),
        "tuned": have.settings.get("tuned"),
    }
    return have if found == wanted else None
