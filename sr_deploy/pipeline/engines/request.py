"""What a build is asked for, and which engines that means."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, Tuple

from sr_deploy.core.contract import Size
from sr_deploy.core.deployment.manifest import Deployment, GpuMeant, GraphFile, open_deployment
from sr_deploy.core.deployment.plan import open_plan
from sr_deploy.core.deployment.target import Target, check_formats
from sr_deploy.core.errors import UsageError
from sr_deploy.core.host.gpu_rates import name_of
from sr_deploy.core.host.install import pip_install
from sr_deploy.core.host.machine import this_machine
from sr_deploy.core.number_formats import FORMAT, FORMATS
from sr_deploy.engine.manifest import Profile, check_profile, engine_name
from sr_deploy.engine.runtimes import GRAPH_RUNTIME, RUNTIMES
from sr_deploy.pipeline.engines.plans import told_ready
from sr_deploy.pipeline.engines.timings import check_timings
from sr_deploy.pipeline.precision.deployed_plan import (
    Planned,
    PrecisionOptions,
    check_options,
    graph_of,
)
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
        precision: how the plan is made or which is taken, see pipeline/precision/deployed_plan.py; None builds float32.
        timing_cache: TensorRT's file of layer timings, see timings.py; None: one for each GPU and version, beside the
            engines.
        implicit: let TensorRT 8 take its INT8 scales from the calibration cache instead of Q/DQ.
        keep: take engines that are there and are what is asked for. Without it that is done only where others of those
            asked for are missing, as after an interruption.
        default: record the precision as the one that the deployment runs in when nobody says.
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
    default: bool = True


@dataclass(frozen=True)
class BuildPlan:
    """One engine to build: from which graph, for which inputs (None: any size, ONNX Runtime only).

    ``planned`` holds the types of a lower precision; the graph is then the float32 one that it was made for, and
    ``tuned`` names the form of it that was tuned for the engine's size and GPU, if there is one.
    """

    backend: str
    graph: GraphFile
    profile: Optional[Profile]
    planned: Optional[Planned] = None
    tuned: Optional[GraphFile] = None

    @property
    def precision(self) -> str:
        """What the engine is called, one of ENGINE_PRECISIONS."""
        return self.planned.precision if self.planned else "fp32"


@dataclass(frozen=True)
class ResolvedBuild:
    """A build, complete: nothing of it is asked for again.

    Attributes:
        options: what was asked for; its precision knows what it is for.
        deployment: opened, its graphs compared with their hashes.
        planned: the precision plan that is there and is what is asked for; None: float32, or it must be made.
        plans: the engines; without ``planned``, for a plan is joined to them when it is there.
        targets: where each engine will lie.
    """

    options: BuildOptions
    deployment: Deployment
    planned: Optional[Planned]
    plans: Tuple[BuildPlan, ...]
    targets: Tuple[Path, ...]

    @property
    def precision(self) -> str:
        """What the engines are called, one of ENGINE_PRECISIONS."""
        return "fp32" if self.options.precision is None else self.options.precision.precision


def resolve_build(options: BuildOptions, say: Callable[[str], None]) -> ResolvedBuild:
    """Open the deployment, choose the backend, find the plan, and name the engines: once a build.

    Args:
        options: what was asked for.
        say: told the backend and why, and the plan that is there.

    Raises:
        UsageError: options that contradict each other or the deployment.
        BadDeployment: no deployment, or the plan in it is damaged.
    """
    deployment = open_deployment(options.deployment)
    backend, why = choose_backend(options)
    check_dla(backend, options)
    check_timings(backend, options.timing_cache)
    say(f"{backend}: {why}")
    capabilities, gpu = _gpus(backend, options)
    planned = None
    if options.precision is not None:
        check_request(backend, options)
        target = Target(backend, RUNTIMES[backend].version_here() or "", capabilities)
        # ONNX Runtime has every type, as a simulation: what layers save in which is told by GPUs alone.
        own = dataclasses.replace(options.precision, target=target if RUNTIMES[backend].for_one_gpu else None)
        options = dataclasses.replace(options, precision=own)
        check_types(target, own, options.dla_core is not None)
        planned = told_ready(deployment, own, say)
        if planned is not None:
            check_formats(target, planned.plan.formats, f"the plan {planned.folder}")
    plans = plans_of(deployment, backend, options, gpu)
    for plan in plans if options.memory_budget is not None else ():
        check_budget(plan)
    build = ResolvedBuild(options, deployment, planned, plans, ())
    names = (engine_name(backend, plan.profile, capabilities, build.precision) for plan in plans)
    return dataclasses.replace(build, targets=tuple(deployment.engines_folder / name for name in names))


def choose_backend(options: BuildOptions) -> Tuple[str, str]:
    """The backend and why it is the one.

    Raises:
        UsageError: a backend that does not exist, or compute capabilities for a backend that has none.
    """
    check_backend(options.backend)
    if options.backend is not None:
        if options.compute_capabilities and not RUNTIMES[options.backend].for_one_gpu:
            raise UsageError(
                f"--compute-capability has no meaning for {options.backend}", "it only with a TensorRT backend"
            )
        return options.backend, "asked for"
    compiled = [row for row in RUNTIMES.values() if row.for_one_gpu]
    if options.compute_capabilities:
        for row in compiled:
            version = row.version_here() if row.builds_for_absent else None
            if version is not None:
                return row.name, f"{version} builds for given compute capabilities"
        raise UsageError(
            "--compute-capability needs tensorrt-rtx, which does not import here",
            "TensorRT-RTX",
            pip_install("tensorrt-rtx"),
        )
    gpus = this_machine().gpus
    for row in compiled if gpus else ():
        version = row.version_here()
        if version is not None:
            return row.name, f"{version} is installed and there is a GPU, {gpus[0].name}"
    if not gpus:
        return GRAPH_RUNTIME, "this machine has no NVIDIA GPU; for another's GPU give --compute-capability"
    return GRAPH_RUNTIME, "no TensorRT is installed; srdeploy doctor says how to get it"


def plans_of(
    deployment: Deployment, backend: str, options: BuildOptions, gpu: Optional[GpuMeant] = None
) -> Tuple[BuildPlan, ...]:
    """Which engines to build, from which graphs: where one was tuned for the size, backend and ``gpu``, from that."""
    if options.profile is not None:
        return (_dynamic_plan(deployment, backend, options),)
    graphs = deployment.manifest.graphs
    sizes = options.sizes or tuple(dict.fromkeys(one.size for one in graphs if one.size and one.serves(backend, gpu)))
    # Beside a graph for any size, those of one size were tuned: they do not take its place.
    free = deployment.dynamic_graph if RUNTIMES[backend].any_size and not options.sizes else None
    plans = () if free is None else (BuildPlan(backend, free, None),)
    if sizes or plans:
        # Strips are proved at small sizes, so they begin with a graph for any.
        taker = backend if options.memory_budget is None else None
        found = [(size, deployment.graph_for(size, taker, gpu)) for size in sizes]
        tuned = (BuildPlan(backend, one, (size,) * 3, tuned=one if one.tuned_for else None) for size, one in found)
        return (*plans, *tuned)
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
    if options.implicit and not RUNTIMES[backend].implicit_int8:
        raise UsageError("--implicit is for TensorRT 8", "--backend tensorrt on a machine that has it")


def check_types(target: Target, asked: PrecisionOptions, dla: bool) -> None:
    """Raises UsageError for a precision, or a plan that was given, with types that the target does not have."""
    if asked.plan is not None:
        formats, what = open_plan(asked.plan)[0].formats, f"the plan {asked.plan}"
    else:
        formats = tuple(one.name for one in FORMATS if one.precision == asked.precision)
        what = f"--precision {asked.precision}"
    check_formats(target, formats, what)
    # Those that a GPU may lack came after the last DLA.
    newer = [FORMAT[name].label for name in formats if FORMAT[name].capability]
    if dla and newer:
        raise UsageError(f"{what} has {', '.join(newer)}, and a DLA does not", "FP16 and INT8 with --dla")


def check_dla(backend: str, options: BuildOptions) -> None:
    """Raises UsageError for what does not go together with a DLA, before anything long is begun."""
    if options.dla_core is None:
        return
    if not RUNTIMES[backend].has_dla or options.memory_budget is not None:
        raise UsageError("--dla is for TensorRT on a Jetson", "--backend tensorrt, and no --memory-budget")
    if options.precision is None:
        raise UsageError("a DLA does not compute in FP32", "--precision fp16 or int8 with --dla")
    if options.profile is not None:
        raise UsageError("a DLA takes one size", "--size with --dla")


def plans_with(deployment: Deployment, plans: Tuple[BuildPlan, ...], planned: Planned) -> Tuple[BuildPlan, ...]:
    """The same engines, of a precision plan and its graph."""
    graph = graph_of(deployment, planned)
    return tuple(BuildPlan(plan.backend, graph, plan.profile, planned, plan.tuned) for plan in plans)


def _gpus(backend: str, options: BuildOptions) -> Tuple[Tuple[str, ...], Optional[GpuMeant]]:
    """The compute capabilities that the engine will carry, those asked for or this machine's GPU's; and which GPU.

    An engine for several capabilities is for no one GPU, so that none of the forms that were tuned for one is taken.
    """
    from sr_deploy.engine.tensorrt import targets_of

    if not RUNTIMES[backend].for_one_gpu:
        return (), None
    capabilities, here = targets_of(backend, options.compute_capabilities)
    if len(capabilities) != 1:
        return capabilities, None
    name = "" if here is None else name_of(this_machine().gpus[0])
    return capabilities, GpuMeant(capabilities[0], name)


def _dynamic_plan(deployment: Deployment, backend: str, options: BuildOptions) -> BuildPlan:
    """The plan of one engine for a range of sizes."""
    if options.sizes or RUNTIMES[backend].any_size:
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


def check_budget(plan: BuildPlan) -> None:
    """A budget holds for one size, and only TensorRT says what it will use."""
    if not RUNTIMES[plan.backend].tells_memory or plan.profile is None or plan.profile[0] != plan.profile[2]:
        raise UsageError(
            "--memory-budget needs a builder that tells its memory, and one size",
            "a TensorRT backend and --size",
            "srdeploy build … --backend tensorrt-rtx --compute-capability 8.6 --size 720 --memory-budget 600MB",
        )
