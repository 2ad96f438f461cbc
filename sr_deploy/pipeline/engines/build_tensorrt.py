"""An engine of TensorRT or TensorRT-RTX, of one planned build."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, Optional

from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.core.errors import UsageError
from sr_deploy.core.host.machine import this_machine
from sr_deploy.core.number_formats import AUTO
from sr_deploy.engine.manifest import EngineManifest, Profile
from sr_deploy.engine.runtimes import RUNTIMES
from sr_deploy.pipeline.engines.plans import planned_for
from sr_deploy.pipeline.engines.request import BuildOptions, BuildPlan
from sr_deploy.pipeline.engines.timings import timings_file
from sr_deploy.pipeline.engines.tuned import passes_of, tuned_passes
from sr_deploy.pipeline.precision.deployed_plan import CACHE_NAME, IMPLICIT_NAME, LEGACY_NAME, Planned

if TYPE_CHECKING:
    from sr_deploy.engine.built import BuiltEngine


def build_engine(
    deployment: Deployment, plan: BuildPlan, options: BuildOptions, say: Callable[[str], None]
) -> EngineManifest:
    """Build it and write it into the deployment; see ``Runtime.build``."""
    manifest, folder = deployment.manifest, deployment.engines_folder
    graph = deployment.path_of(plan.graph)
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
        return write_engine(_identified(within, deployment, plan), folder, graph, manifest.contract, manifest.scale)
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
    built = with_less_on_failure(lambda limit: _engine(deployment, plan, options, limit, timings, say), workspace, say)
    if RUNTIMES[plan.backend].weighs_8_bits and plan.planned is not None and plan.planned.plan.quantised:
        from sr_deploy.pipeline.engines.payoff import weighed

        def rival(planned: Planned, profile: Profile) -> BuiltEngine:
            # AUTO: a float16 one may take the place of an engine of that name.
            other = dataclasses.replace(plan, profile=profile, planned=planned)
            return _engine(deployment, other, options, options.workspace_bytes, timings, say, AUTO)

        built, planned = weighed(deployment, plan.planned, built, options.precision, rival, planned_for, say)
        plan = dataclasses.replace(plan, planned=planned)
    for warning in built.warnings:
        say(f"warning: {warning.strip()}")
    return write_engine(_identified(built, deployment, plan), folder, graph, manifest.contract, manifest.scale)


def _engine(
    deployment: Deployment,
    plan: BuildPlan,
    options: BuildOptions,
    workspace: Optional[int],
    timings: Optional[Path],
    say: Callable[[str], None],
    precision: Optional[str] = None,
) -> BuiltEngine:
    """One TensorRT engine, not written yet, of the graph as it is or rewritten for the builder.

    ``precision`` is what it is called, None: as its plan is.
    """
    from sr_deploy.engine.options import EngineOptions
    from sr_deploy.engine.tensorrt import engine_from_graph

    source = _source(plan, deployment.path_of(plan.graph), options)

    def build(graph: Path, planned: Optional[Dict[str, str]] = None) -> BuiltEngine:
        return engine_from_graph(
            plan.backend,
            graph,
            plan.profile,
            options.compute_capabilities,
            EngineOptions(
                precision=precision or plan.precision,
                workspace_bytes=workspace,
                timing_cache=timings,
                layer_types=source.layer_types,
                calibration_cache=source.cache,
                rest=plan.planned.plan.rest if plan.planned else "float32",
                planned=planned or (plan.planned.plan.nodes if plan.planned else None),
                dla_core=options.dla_core,
            ),
        )

    plain = build(source.graph)
    passes = passes_of(deployment, plan)
    if not passes:
        return plain
    from sr_deploy.pipeline.engines.rewritten import Request, better_engine

    manifest = deployment.manifest
    request = Request(
        plan.backend,
        passes,
        deployment.path_of(plan.graph),
        fixed=plan.graph.size,
        size=plan.profile[0] if plan.profile is not None and plan.profile[0] == plan.profile[2] else None,
        plan_folder=plan.planned.folder if plan.planned else None,
        contract=manifest.contract,
        rules=manifest.sizes,
    )
    return better_engine(request, build, plain, say)


def _identified(built: BuiltEngine, deployment: Deployment, plan: BuildPlan) -> BuiltEngine:
    """The engine with the name and hash of its precision plan among its settings, and the passes tuned for it."""
    tuned = tuned_passes(deployment, plan)
    identity = {**(plan.planned.identity if plan.planned else {}), **({} if tuned is None else {"tuned": tuned})}
    return dataclasses.replace(built, settings={**built.settings, **identity})


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
    factored = plan.planned.folder / IMPLICIT_NAME
    return _Source(factored if plan.planned.plan.channel_factors else graph, types, plan.planned.cache)
