"""Graph to engines, each with its manifest beside it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Tuple

from sr_deploy.core.artifact import check_free
from sr_deploy.core.contract import format_size
from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.core.errors import MissingPackage, UsageError
from sr_deploy.core.host.machine import this_machine
from sr_deploy.engine.manifest import EngineManifest, Profile, open_engine
from sr_deploy.pipeline.engines.kept import finished_engine
from sr_deploy.pipeline.engines.request import (
    BuildOptions,
    BuildPlan,
    ResolvedBuild,
    check_budget,
    plans_with,
    resolve_build,
    told_ready,
)
from sr_deploy.pipeline.engines.timings import timings_file
from sr_deploy.pipeline.precision.deployed_plan import (
    CACHE_NAME,
    LEGACY_NAME,
    Planned,
    PrecisionOptions,
    folder_name,
)

if TYPE_CHECKING:
    from sr_deploy.engine.built import BuiltEngine


def build_engines(options: BuildOptions, say: Callable[[str], None] = lambda _: None) -> Tuple[EngineManifest, ...]:
    """Build every engine that is asked for; each appears whole, with its manifest, or not at all.

    Raises:
        UsageError: sizes that contradict each other; an engine exists, and neither ``force`` nor an interruption
            explains it.
        BadDeployment, EnvironmentFault, CheckFailed: see engine/tensorrt.py and engine/onnxruntime.py.
    """
    build = resolve_build(options, say)
    deployment, finished = build.deployment, _finished(build)
    for number, target in enumerate(build.targets):
        if number not in finished:
            # Asked before a plan is made, which would replace the engine's own.
            check_free(target, options.force, "a new engine", "replace it with --force")
    plans = build.plans
    if options.precision is not None:
        planned = build.planned or made_plan(deployment, options.precision, say)
        plans = plans_with(deployment, plans, planned)
    for engine in finished.values():
        say(f"{engine.file} was built before (--force builds it again)")
    return tuple(finished.get(n) or _build(deployment, plan, options, say) for n, plan in enumerate(plans))


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


def planned_for(deployment: Deployment, options: PrecisionOptions, say: Callable[[str], None]) -> Planned:
    """The plan that is asked for: the one in the deployment, or a new one, which needs onnx and pictures.

    Raises:
        see ``ready_plan`` and ``made_plan``.
    """
    return told_ready(deployment, options, say) or made_plan(deployment, options, say)


def made_plan(deployment: Deployment, options: PrecisionOptions, say: Callable[[str], None]) -> Planned:
    """A new plan, which needs onnx and pictures.

    Raises:
        MissingPackage: this machine builds plans but makes none.
        see pipeline/precision/make_plan.plan_for.
    """
    try:
        from sr_deploy.pipeline.precision.make_plan import plan_for
    except ImportError as error:
        raise MissingPackage(
            f"a plan for {options.precision} must be made first, and {error.name} is not installed",
            f"{deployment.folder / 'precision' / folder_name(options)}, made on a PC",
            "srdeploy build DIR --precision … there, then srdeploy pack; or pip install 'srdeploy[export]'",
        ) from error
    return plan_for(deployment, options, say)


def plan_build(options: BuildOptions) -> List[str]:
    """What ``build_engines`` would do, one line each; nothing is built."""
    lines: List[str] = []
    build = resolve_build(options, lines.append)
    if options.precision is not None:
        folder = build.deployment.folder / "precision" / folder_name(options.precision)
        lines[1:] = [f"plan: {folder}" + ("" if build.planned else ", to be made")]
    for plan, target in zip(build.plans, build.targets):
        lines.append(f"{plan.graph.file} → engines/{target.name}")
    return lines


def _build(
    deployment: Deployment, plan: BuildPlan, options: BuildOptions, say: Callable[[str], None]
) -> EngineManifest:
    """Build one engine."""
    manifest, folder = deployment.manifest, deployment.engines_folder
    graph = deployment.path_of(plan.graph)
    shown = "any size" if plan.profile is None else " … ".join(dict.fromkeys(map(format_size, plan.profile)))
    if options.memory_budget is not None:
        check_budget(plan)
    say(f"building for {shown}")
    if plan.backend == "onnxruntime":
        from sr_deploy.engine.onnxruntime import engine_from_graph as onnxruntime_engine

        size = plan.profile[0] if plan.profile else None
        typed = plan.planned.typed if plan.planned else graph
        return open_engine(
            onnxruntime_engine(
                typed,
                folder,
                manifest.contract,
                manifest.scale,
                size,
                precision=plan.precision,
                stands_for=graph,
                plan=plan.planned.identity if plan.planned else None,
            )  # fmt: skip
        )
    from sr_deploy.engine.built import write_engine
    from sr_deploy.engine.preflight import check_room, manifests_in, need_of, with_less_on_failure, workspace_for

    timings = timings_file(deployment, plan.backend, options.timing_cache)
    if options.memory_budget is not None and plan.profile is not None:
        from sr_deploy.pipeline.engines.strips import engine_within_budget

        within = engine_within_budget(
            plan.backend, graph, plan.profile[0], options.memory_budget, manifest.contract, manifest.sizes,
            options.compute_capabilities, options.workspace_bytes, say,
            plan.planned.folder if plan.planned else None, timings,
        )  # fmt: skip
        for warning in within.warnings:
            say(f"warning: {warning.strip()}")
        return write_engine(_with_plan(within, plan), folder, graph, manifest.contract, manifest.scale)
    machine = this_machine()
    workspace = options.workspace_bytes
    if plan.profile is not None and not options.compute_capabilities:
        size = plan.profile[2]
        need = need_of(
            size, manifest.scale, plan.graph.parameters, plan.graph.peak_bytes_at(size), manifests_in(folder),
            plan.graph.sha256, plan.precision,
        )  # fmt: skip
        check_room(need, size, machine)
        workspace = workspace_for(need, workspace, machine)
    built = with_less_on_failure(lambda limit: _engine(deployment, plan, options, limit, timings), workspace, say)
    if plan.backend == "tensorrt-rtx" and plan.planned is not None and plan.planned.plan.nodes_of("int8"):
        from sr_deploy.pipeline.engines.payoff import weighed

        def rival(planned: Planned, profile: Profile) -> BuiltEngine:
            # "mixed": a float16 one may take the place of an engine of that name.
            other = dataclasses.replace(plan, profile=profile, planned=planned)
            return _engine(deployment, other, options, options.workspace_bytes, timings, "mixed")

        built, planned = weighed(deployment, plan.planned, built, options.precision, rival, planned_for, say)
        plan = dataclasses.replace(plan, planned=planned)
    for warning in built.warnings:
        say(f"warning: {warning.strip()}")
    return write_engine(_with_plan(built, plan), folder, graph, manifest.contract, manifest.scale)


def _engine(
    deployment: Deployment,
    plan: BuildPlan,
    options: BuildOptions,
    workspace: Optional[int],
    timings: Optional[Path],
    precision: Optional[str] = None,
) -> BuiltEngine:
    """One TensorRT engine, not written yet; ``precision`` is what it is called, None: as its plan is."""
    from sr_deploy.engine.tensorrt import engine_from_graph

    source = _source(plan, deployment.path_of(plan.graph), options)
    return engine_from_graph(
        plan.backend,
        source.graph,
        plan.profile,
        options.compute_capabilities,
        precision=precision or plan.precision,
        workspace_bytes=workspace,
        timing_cache=timings,
        layer_types=source.layer_types,
        calibration_cache=source.cache,
        rest=plan.planned.plan.rest if plan.planned else "float32",
        planned=plan.planned.plan.nodes if plan.planned else None,
        dla_core=options.dla_core,
    )


def _with_plan(built: BuiltEngine, plan: BuildPlan) -> BuiltEngine:
    """The engine with the name and hash of its precision plan among its settings."""
    if plan.planned is None:
        return built
    return dataclasses.replace(built, settings={**built.settings, **plan.planned.identity})


@dataclass(frozen=True)
class _Source:
    """What TensorRT is given: an ONNX file, and for TensorRT 8 the types to obey and a calibration cache."""

    graph: Path
    layer_types: Optional[Dict[str, str]] = None
    cache: Optional[Path] = None


def _source(plan: BuildPlan, graph: Path, options: BuildOptions) -> _Source:
    """The form of a plan for the TensorRT at hand."""
    from sr_deploy.engine.tensorrt import is_strongly_typed

    implicit = options.implicit
    if plan.planned is None:
        return _Source(graph)
    if is_strongly_typed(plan.backend):
        if implicit:
            raise UsageError(f"--implicit is for TensorRT 8, and this {plan.backend} is newer", "no --implicit")
        return _Source(plan.planned.typed)
    if options.dla_core is not None and plan.planned.plan.nodes_of("int8") and not implicit:
        raise UsageError(
            "a DLA takes INT8 scales from a calibration cache, not from Q/DQ", "--implicit with --dla in INT8"
        )
    types = plan.planned.legacy(implicit)
    if not implicit:
        return _Source(plan.planned.folder / LEGACY_NAME, types)
    if not plan.planned.cache.is_file():
        raise UsageError(
            f"{plan.planned.folder} has no calibration cache", CACHE_NAME, "make the plan again with --images"
        )
    return _Source(graph, types, plan.planned.cache)
