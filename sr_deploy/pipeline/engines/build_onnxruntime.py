"""An engine of ONNX Runtime, of one planned build."""

from __future__ import annotations

from typing import Callable

from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.engine.manifest import EngineManifest, open_engine
from sr_deploy.engine.onnxruntime import engine_from_graph
from sr_deploy.pipeline.engines.request import BuildOptions, BuildPlan


def build_engine(
    deployment: Deployment, plan: BuildPlan, _options: BuildOptions, _say: Callable[[str], None]
) -> EngineManifest:
    """Build it and write it into the deployment; see ``Runtime.build``."""
    manifest, graph = deployment.manifest, deployment.path_of(plan.graph)
    engine = engine_from_graph(
        plan.planned.simulated if plan.planned else graph,
        deployment.engines_folder,
        manifest.contract,
        manifest.scale,
        plan.profile[0] if plan.profile else None,
        precision=plan.precision,
        stands_for=graph,
        plan=plan.planned.identity if plan.planned else None,
    )
    return open_engine(engine)
