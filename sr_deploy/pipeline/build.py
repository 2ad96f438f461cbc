"""Graph to engines, each with its manifest beside it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Tuple

from sr_deploy.core.artifact import check_free
from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment import Deployment, GraphFile, open_deployment
from sr_deploy.core.errors import MissingPackage, UsageError
from sr_deploy.core.machine import this_machine
from sr_deploy.engine.flavour import flavours
from sr_deploy.engine.manifest import EngineManifest, Profile, check_profile, engine_name, open_engine
from sr_deploy.pipeline.kept import finished_engine
from sr_deploy.pipeline.planned import (
    CACHE_NAME,
    LEGACY_NAME,
    Planned,
    PrecisionOptions,
    check_options,
    engine_precision,
    folder_name,
    graph_of,
    ready_plan,
)
from sr_deploy.pipeline.runner import check_backend
from sr_deploy.pipeline.timings import check_timings, timings_file

if TYPE_CHECKING:
    from sr_deploy.engine.built import BuiltEngine


@dataclass(frozen=True)
class BuildOptions:
    """What ``srdeploy build`` is asked for.

    Attributes:
        deployment: the folder.
        backend: onnxruntime, tensorrt or tensorrt-rtx; None takes the best this machine has.
        sizes: one engine of a fixed input for each (height, width).
        profile: (minimum, optimum, maximum) input of one dynamic engine; excludes ``sizes``.
        compute_capabilities: the GPUs that each engine shall run on, as "8.6"; empty takes this machine's GPU.
        workspace_bytes: limit of the builder's scratch memory; None leaves it to TensorRT.
        force: replace engines that exist.
        memory_budget: bytes of activations that each engine of a fixed size shall stay within; None: no limit.
        dla_core: a Jetson's DLA core that the engine shall run on; None: the GPU.
        precision: how the plan is made or which is taken, see pipeline/planned.py; None builds float32.
        timing_cache: TensorRT's file of layer timings, see pipeline/timings.py; None: one for each GPU and version,
            beside the engines.
        implicit: let TensorRT 8 take its INT8 scales from the calibration cache instead of Q/DQ.
        keep: take engines that are there and are what is asked for. Without it that is done only where others of those
            asked for are missing, as after an interruption.
    """

    deployment: Path
    backend: Optional[str] = None
    sizes: Tuple[Size, ...] = ()
    profile: Optional[Tuple[Optional[Size], Optional[Size], Optional[Size]]] = None
    compute_capabilities: Tuple[str, ...] = ()
    workspace_bytes: Optional[int] = None
    force: bool = False
    memory_budget: Optional[int] = None
    dla_core: Optional[int] = None
    precision: Optional[PrecisionOptions] = None
    implicit: bool = False
    keep: bool = False
    timing_cache: Optional[Path] = None


@dataclass(frozen=True)
class BuildPlan:
    """One engine to build: from which graph, for which inputs (None: any size, ONNX Runtime only).

    ``planned`` holds the types of a lower precision; the graph is then the float32 one that it was made for.
    """

    backend: str
    graph: GraphFile
    profile: Optional[Profile]
    planned: Optional[Planned] = None

    @property
    def precision(self) -> str:
        """What the engine is called: "fp32", "fp16", "int8" or "mixed"."""
        return self.planned.precision if self.planned else "fp32"


def build_engines(options: BuildOptions, say: Callable[[str], None] = lambda _: None) -> Tuple[EngineManifest, ...]:
    """Build every engine that is asked for; each appears whole, with its manifest, or not at all.

    Raises:
        UsageError: sizes that contradict each other; an engine exists, and neither ``force`` nor an interruption
            explains it.
        BadDeployment, EnvironmentFault, CheckFailed: see engine/tensorrt.py and engine/onnxruntime.py.
    """
    deployment = open_deployment(options.deployment)
    backend, why = choose_backend(options)
    check_dla(backend, options)
    check_timings(backend, options.timing_cache)
    say(f"{backend}: {why}")
    if options.precision is None:
        plans = _plans(deployment, backend, options)
    else:
        check_request(backend, options)
        precision = engine_precision(options.precision.precision)
        if ready_plan(deployment, options.precision) is None:
            for plan in _plans(deployment, backend, options):
                _check_free(_target(deployment, plan, options, precision), options)
        plans = _planned(deployment, backend, options, planned_for(deployment, options.precision, say))
    finished = _finished(deployment, plans, options)
    for number, plan in enumerate(plans):
        if number not in finished:
            _check_free(_target(deployment, plan, options, plan.precision), options)
    for engine in finished.values():
        say(f"{engine.file} was built before (--force builds it again)")
    return tuple(finished.get(n) or _build(deployment, plan, options, say) for n, plan in enumerate(plans))


def _finished(
    deployment: Deployment, plans: Tuple[BuildPlan, ...], options: BuildOptions
) -> Dict[int, EngineManifest]:
    """Number of a plan → its engine, of those that an interrupted build had finished.

    Where nothing is missing there was no interruption: that is somebody else's engine, unless ``options.keep``.
    """
    targets = [_target(deployment, plan, options, plan.precision) for plan in plans]
    if not options.keep and all(target.exists() for target in targets):
        return {}
    found = ((n, finished_engine(deployment, target, plans[n], options)) for n, target in enumerate(targets))
    return {number: engine for number, engine in found if engine is not None}


def planned_for(deployment: Deployment, options: PrecisionOptions, say: Callable[[str], None]) -> Planned:
    """The plan that is asked for: the one in the deployment, or a new one, which needs onnx and pictures.

    Raises:
        see pipeline/precision.plan_for.
    """
    found = ready_plan(deployment, options)
    if found is not None:
        say(f"plan: {found.folder}, made before (--remake-plan makes it again)")
        return found
    try:
        from sr_deploy.pipeline.precision import plan_for
    except ImportError as error:
        raise MissingPackage(
            f"a plan for {options.precision} must be made first, and {error.name} is not installed",
            f"{deployment.folder / 'precision' / folder_name(options)}, made on a PC",
            "srdeploy build DIR --precision … there, then srdeploy pack; or pip install 'srdeploy[export]'",
        ) from error
    return plan_for(deployment, options, say)


def plan_build(options: BuildOptions) -> List[str]:
    """What ``build_engines`` would do, one line each; nothing is built."""
    deployment = open_deployment(options.deployment)
    backend, why = choose_backend(options)
    check_dla(backend, options)
    check_timings(backend, options.timing_cache)
    lines = [f"{backend}: {why}"]
    plans, precision = _plans(deployment, backend, options), "fp32"
    if options.precision is not None:
        check_request(backend, options)
        found = ready_plan(deployment, options.precision)
        name = folder_name(options.precision)
        lines.append(f"plan: {deployment.folder / 'precision' / name}" + ("" if found else ", to be made"))
        precision = found.precision if found else engine_precision(options.precision.precision)
    for plan in plans:
        lines.append(f"{plan.graph.file} → engines/{_target(deployment, plan, options, precision).name}")
    return lines


def choose_backend(options: BuildOptions) -> Tuple[str, str]:
    """The backend and why it is the one.

    Raises:
        UsageError: a backend that does not exist, or compute capabilities for a backend that has none.
    """
    check_backend(options.backend)
    if options.backend is not None:
        if options.backend == "onnxruntime" and options.compute_capabilities:
            raise UsageError("--compute-capability has no meaning for onnxruntime", "it only with a TensorRT backend")
        return options.backend, "asked for"
    here = {flavour.name: flavour.version for flavour in flavours()}
    if options.compute_capabilities:
        if "tensorrt-rtx" in here:
            return "tensorrt-rtx", f"{here['tensorrt-rtx']} builds for given compute capabilities"
        raise UsageError(
            "--compute-capability needs tensorrt-rtx, which does not import here",
            "TensorRT-RTX",
            "pip install 'srdeploy[tensorrt-rtx]'",
        )
    gpus = this_machine().gpus
    for name in ("tensorrt", "tensorrt-rtx"):
        if gpus and name in here:
            return name, f"{here[name]} is installed and there is a GPU, {gpus[0].name}"
    if not gpus:
        return "onnxruntime", "this machine has no NVIDIA GPU; for another's GPU give --compute-capability"
    return "onnxruntime", "no TensorRT is installed; srdeploy doctor says how to get it"


def _plans(deployment: Deployment, backend: str, options: BuildOptions) -> Tuple[BuildPlan, ...]:
    """Which engines to build, from which graphs."""
    if options.profile is not None:
        return (_dynamic_plan(deployment, backend, options),)
    if options.sizes:
        return tuple(BuildPlan(backend, deployment.graph_for(size, backend), (size,) * 3) for size in options.sizes)
    fixed = [graph for graph in deployment.manifest.graphs if graph.size is not None and graph.serves(backend)]
    if fixed:
        return tuple(BuildPlan(backend, graph, (graph.size,) * 3) for graph in fixed)
    if backend == "onnxruntime":
        return (BuildPlan(backend, deployment.manifest.graphs[0], None),)
    raise UsageError(
        f"{deployment.folder} holds a graph for any size, and {backend} needs to know which",
        "a size to build for",
        f"srdeploy build {deployment.folder} --size 144,360,720 (or --min-size, --opt-size and --max-size)",
    )


def check_request(backend: str, options: BuildOptions) -> None:
    """Raises UsageError for what does not go together with a lower precision, before a plan is made."""
    assert options.precision is not None
    check_options(options.precision)
    if options.memory_budget is not None and options.precision.precision != "fp16":
        raise UsageError("--memory-budget streams float32 and fp16 graphs only", "--precision fp16, or no budget")
    if options.implicit and backend != "tensorrt":
        raise UsageError("--implicit is for TensorRT 8", "--backend tensorrt on a machine that has it")


def check_dla(backend: str, options: BuildOptions) -> None:
    """Raises UsageError for what does not go together with a DLA, before anything long is begun."""
    if options.dla_core is None:
        return
    if backend != "tensorrt" or options.memory_budget is not None:
        raise UsageError("--dla is for TensorRT on a Jetson", "--backend tensorrt, and no --memory-budget")
    if options.precision is None:
        raise UsageError("a DLA does not compute in FP32", "--precision fp16 or int8 with --dla")
    if options.profile is not None:
        raise UsageError("a DLA takes one size", "--size with --dla")


def _planned(deployment: Deployment, backend: str, options: BuildOptions, planned: Planned) -> Tuple[BuildPlan, ...]:
    """Engines of a plan's graph: of the sizes asked for, or of the sizes of the deployment's fixed graphs."""
    graph = graph_of(deployment, planned)
    plans = _plans(deployment, backend, options)
    return tuple(BuildPlan(backend, graph, plan.profile, planned) for plan in plans)


def _capabilities(backend: str, options: BuildOptions) -> Tuple[str, ...]:
    """The compute capabilities that the engine will carry: those asked for, else this machine's GPU."""
    from sr_deploy.engine.tensorrt import targets_of

    return () if backend == "onnxruntime" else targets_of(backend, options.compute_capabilities)[0]


def _dynamic_plan(deployment: Deployment, backend: str, options: BuildOptions) -> BuildPlan:
    """The plan of one engine for a range of sizes."""
    if options.sizes or backend == "onnxruntime":
        raise UsageError(
            "--min-size, --opt-size and --max-size describe one dynamic TensorRT engine",
            "them without --size, and a TensorRT backend (ONNX Runtime's engine takes any size anyway)",
        )
    if options.profile is None or None in options.profile:
        raise UsageError("a dynamic engine needs three sizes", "all of --min-size, --opt-size and --max-size")
    profile = check_profile([size for size in options.profile if size is not None])
    for size in profile:
        deployment.manifest.sizes.check(size)
    graph = deployment.dynamic_graph
    if graph is None:
        raise UsageError(
            f"{deployment.folder} holds graphs of fixed sizes only", "a graph for any size", "export it with --dynamic"
        )
    return BuildPlan(backend, graph, profile)


def _target(deployment: Deployment, plan: BuildPlan, options: BuildOptions, precision: str) -> Path:
    """Where the engine will lie."""
    name = engine_name(plan.backend, plan.profile, _capabilities(plan.backend, options), precision)
    return deployment.engines_folder / name


def _check_free(target: Path, options: BuildOptions) -> None:
    """Refuse to replace an engine; asked before a plan is made too, which would replace the engine's own."""
    check_free(target, options.force, "a new engine", "replace it with --force")


def _build(
    deployment: Deployment, plan: BuildPlan, options: BuildOptions, say: Callable[[str], None]
) -> EngineManifest:
    """Build one engine."""
    manifest, folder = deployment.manifest, deployment.engines_folder
    graph = deployment.path_of(plan.graph)
    shown = "any size" if plan.profile is None else " … ".join(dict.fromkeys(map(format_size, plan.profile)))
    if options.memory_budget is not None:
        _check_budget(plan)
    say(f"building for {shown}")
    if plan.backend == "onnxruntime":
        from sr_deploy.engine.onnxruntime import engine_from_graph as onnxruntime_engine

        size = plan.profile[0] if plan.profile else None
        typed = plan.planned.typed if plan.planned else graph
        return open_engine(
            onnxruntime_engine(
                typed, folder, manifest.contract, manifest.scale, size, precision=plan.precision, stands_for=graph,
                plan=plan.planned.identity if plan.planned else None,
            )  # fmt: skip
        )
    from sr_deploy.engine.built import write_engine
    from sr_deploy.engine.preflight import check_room, manifests_in, need_of, with_less_on_failure, workspace_for

    timings = timings_file(deployment, plan.backend, options.timing_cache)
    if options.memory_budget is not None and plan.profile is not None:
        from sr_deploy.pipeline.stream import engine_within_budget

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
        from sr_deploy.pipeline.payoff import weighed

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


def _check_budget(plan: BuildPlan) -> None:
    """A budget holds for one size, and only TensorRT says what it will use."""
    if plan.backend == "onnxruntime" or plan.profile is None or plan.profile[0] != plan.profile[2]:
        raise UsageError(
            "--memory-budget needs a builder that tells its memory, and one size",
            "a TensorRT backend and --size",
            "srdeploy build … --backend tensorrt-rtx --compute-capability 8.6 --size 720 --memory-budget 600MB",
        )
