"""Graph to engines, each with its manifest beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Tuple

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment import Deployment, GraphFile, open_deployment
from sr_deploy.core.errors import UsageError
from sr_deploy.core.machine import this_machine
from sr_deploy.engine.flavour import flavours
from sr_deploy.engine.manifest import EngineManifest, Profile, check_profile, engine_name, open_engine
from sr_deploy.pipeline.runner import check_backend


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


@dataclass(frozen=True)
class BuildPlan:
    """One engine to build: from which graph, for which inputs (None: any size, ONNX Runtime only)."""

    backend: str
    graph: GraphFile
    profile: Optional[Profile]


def build_engines(options: BuildOptions, say: Callable[[str], None] = lambda _: None) -> Tuple[EngineManifest, ...]:
    """Build every engine that is asked for; each appears whole, with its manifest, or not at all.

    Raises:
        UsageError: sizes that contradict each other, an engine exists and ``force`` is False.
        BadDeployment, EnvironmentFault, CheckFailed: see engine/tensorrt.py and engine/onnxruntime.py.
    """
    deployment = open_deployment(options.deployment)
    backend, why = choose_backend(options)
    say(f"{backend}: {why}")
    plans = _plans(deployment, backend, options)
    return tuple(_build(deployment, plan, options, say) for plan in plans)


def plan_build(options: BuildOptions) -> List[str]:
    """What ``build_engines`` would do, one line each; nothing is built."""
    deployment = open_deployment(options.deployment)
    backend, why = choose_backend(options)
    lines = [f"{backend}: {why}"]
    for plan in _plans(deployment, backend, options):
        lines.append(
            f"{plan.graph.file} → engines/{engine_name(backend, plan.profile, _capabilities(backend, options))}"
        )
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
    graph = next((graph for graph in deployment.manifest.graphs if graph.size is None), None)
    if graph is None:
        raise UsageError(
            f"{deployment.folder} holds graphs of fixed sizes only", "a graph for any size", "export it with --dynamic"
        )
    return BuildPlan(backend, graph, profile)


def _build(
    deployment: Deployment, plan: BuildPlan, options: BuildOptions, say: Callable[[str], None]
) -> EngineManifest:
    """Build one engine."""
    manifest, folder = deployment.manifest, deployment.engines_folder
    graph = deployment.path_of(plan.graph)
    shown = "any size" if plan.profile is None else " … ".join(dict.fromkeys(map(format_size, plan.profile)))
    target = folder / engine_name(plan.backend, plan.profile, _capabilities(plan.backend, options))
    if target.exists() and not options.force:
        raise UsageError(f"{target} exists already", "a new engine", "replace it with --force")
    if options.memory_budget is not None:
        _check_budget(plan)
    if options.dla_core is not None and (plan.backend != "tensorrt" or options.memory_budget is not None):
        raise UsageError("--dla is for TensorRT on a Jetson", "--backend tensorrt, and no --memory-budget")
    say(f"building for {shown}")
    if plan.backend == "onnxruntime":
        from sr_deploy.engine.onnxruntime import engine_from_graph as onnxruntime_engine

        size = plan.profile[0] if plan.profile else None
        return open_engine(onnxruntime_engine(graph, folder, manifest.contract, manifest.scale, size))
    from sr_deploy.engine.preflight import check_room, manifests_in, need_of, with_less_on_failure, workspace_for
    from sr_deploy.engine.tensorrt import engine_from_graph, write_engine

    if options.memory_budget is not None and plan.profile is not None:
        from sr_deploy.pipeline.stream import engine_within_budget

        within = engine_within_budget(
            plan.backend, graph, plan.profile[0], options.memory_budget, manifest.contract, manifest.sizes,
            options.compute_capabilities, options.workspace_bytes, say,
        )  # fmt: skip
        return write_engine(within, folder, graph, manifest.contract, manifest.scale)
    machine = this_machine()
    workspace = options.workspace_bytes
    if plan.profile is not None and not options.compute_capabilities:
        size = plan.profile[2]
        need = need_of(
            size, manifest.scale, plan.graph.parameters, plan.graph.peak_bytes_at(size), manifests_in(folder),
            plan.graph.sha256,
        )  # fmt: skip
        check_room(need, size, machine)
        workspace = workspace_for(need, workspace, machine)
    built = with_less_on_failure(
        lambda limit: engine_from_graph(
            plan.backend,
            graph,
            plan.profile,
            options.compute_capabilities,
            workspace_bytes=limit,
            dla_core=options.dla_core,
        ),
        workspace,
        say,
    )
    return write_engine(built, folder, graph, manifest.contract, manifest.scale)


def _check_budget(plan: BuildPlan) -> None:
    """A budget holds for one size, and only TensorRT says what it will use."""
    if plan.backend == "onnxruntime" or plan.profile is None or plan.profile[0] != plan.profile[2]:
        raise UsageError(
            "--memory-budget needs a builder that tells its memory, and one size",
            "a TensorRT backend and --size",
            "srdeploy build … --backend tensorrt-rtx --compute-capability 8.6 --size 720 --memory-budget 600MB",
        )
