"""Graph to engines, each with its manifest beside it."""

from __future__ import annotations

from typing import Callable, Dict, List, Tuple

from sr_deploy.core.artifact import check_free
from sr_deploy.core.contract import format_size
from sr_deploy.core.deployment.default import Default, save_default
from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.engine.manifest import EngineManifest
from sr_deploy.engine.runtimes import RUNTIMES
from sr_deploy.pipeline.engines.kept import finished_engine
from sr_deploy.pipeline.engines.plans import made_plan, plan_to_make
from sr_deploy.pipeline.engines.request import (
    BuildOptions,
    BuildPlan,
    ResolvedBuild,
    plans_with,
    resolve_build,
)
from sr_deploy.pipeline.engines.tuned import tuned_text
from sr_deploy.pipeline.precision.deployed_plan import folder_name


def build_engines(options: BuildOptions, say: Callable[[str], None] = lambda _: None) -> Tuple[EngineManifest, ...]:
    """Build every engine that is asked for; each appears whole, with its manifest, or not at all.

    Raises:
        UsageError: sizes that contradict each other; an engine exists, and neither ``force`` nor an interruption
            explains it.
        BadDeployment, EnvironmentFault, CheckFailed: see engine/tensorrt.py and engine/onnxruntime.py.
    """
    build = resolve_build(options, say)
    options, deployment, finished, plans = build.options, build.deployment, _finished(build), build.plans
    for number, target in enumerate(build.targets):
        if number not in finished:
            # Asked before a plan is made, which would replace the engine's own.
            check_free(target, options.force, "a new engine", "replace it with --force")
    if options.precision is not None:
        planned = build.planned or made_plan(deployment, options.precision, say)
        plans = plans_with(deployment, plans, planned)
    for engine in finished.values():
        say(f"{engine.file} was built before (--force builds it again)")
    engines = tuple(finished.get(n) or _build(deployment, plan, options, say) for n, plan in enumerate(plans))
    if options.default:
        plan = None if options.precision is None else folder_name(options.precision)
        save_default(deployment.folder, Default(build.precision, plan))
        say(f"{build.precision} is what run, verify and bench take from now on (--precision overrides)")
    return engines


def _finished(build: ResolvedBuild) -> Dict[int, EngineManifest]:
    """Number of a plan → its engine, of those that an interrupted build had finished.

    Where nothing is missing there was no interruption: that is somebody else's engine, unless ``options.keep``. Of a
    precision plan that is yet to be made there is no engine.
    """
    options = build.options
    if options.precision is not None and build.planned is None:
        return {}
    if not options.keep and all(target.exists() for target in build.targets):
        return {}
    plans = build.plans if build.planned is None else plans_with(build.deployment, build.plans, build.planned)
    found = ((n, finished_engine(build.deployment, build.targets[n], plan, options)) for n, plan in enumerate(plans))
    return {number: engine for number, engine in found if engine is not None}


def plan_build(options: BuildOptions) -> List[str]:
    """What ``build_engines`` would do, one line each, after its checks of the request; nothing is built."""
    lines: List[str] = []
    build = resolve_build(options, lines.append)
    finished = _finished(build)
    if build.options.precision is not None and build.planned is None:
        lines.append(plan_to_make(build.deployment, build.options.precision))
    for number, (plan, target) in enumerate(zip(build.plans, build.targets)):
        text = tuned_text(build.deployment, plan)
        there = "replaced" if options.force else "exists already: --force"
        note = " (built before)" if number in finished else f" ({there})" if target.exists() else ""
        lines.append(f"{plan.graph.file} → engines/{target.name}{note}" + (f", {text}" if text else ""))
    return lines


def _build(
    deployment: Deployment, plan: BuildPlan, options: BuildOptions, say: Callable[[str], None]
) -> EngineManifest:
    """Build one engine."""
    shown = "any size" if plan.profile is None else " … ".join(dict.fromkeys(map(format_size, plan.profile)))
    text = tuned_text(deployment, plan)
    say(f"building for {shown}" + (f", {text}" if text else ""))
    return RUNTIMES[plan.backend].call("build", deployment, plan, options, say)
