"""Which equal graph should be the fastest on a GPU: ``srdeploy tune --for DEVICE``.

Every variant is built by TensorRT-RTX in float16, which needs no GPU, and estimated from its listing
(engine/estimate.py). Where that GPU is in this machine the engines are timed too, in turn; then the times decide, and
how far the estimates were off is said. What is kept serves TensorRT-RTX and that GPU, and a float16 build for both and
this size runs the same passes. Variants that the GPU's memory does not hold are left aside; where it holds none, the
graph in strips is shown, which ``build --memory-budget`` makes.
"""

from __future__ import annotations

import contextlib
import statistics
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from sr_deploy.core.contract import Size
from sr_deploy.core.deployment.manifest import Deployment, GpuMeant, GraphFile, open_deployment
from sr_deploy.core.deployment.records import RewriteRecord
from sr_deploy.core.errors import CheckFailed, EnvironmentFault, UsageError
from sr_deploy.core.host.gpu_rates import GpuRates, gpu_named, name_of
from sr_deploy.core.host.machine import Gpu, this_machine
from sr_deploy.core.media.sample import sample_for
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.core.tolerance import GRAPH_FP32
from sr_deploy.engine.built import BuiltEngine
from sr_deploy.engine.estimate import estimated_ms
from sr_deploy.pipeline.measure.listed import LISTING_RUNTIME, built_in_half, has_listings, streamed_in_half
from sr_deploy.pipeline.measure.tune import (
    BUILDER_VARIANTS,
    Tuned,
    TuneOptions,
    choose,
    interleaved,
    plain_runner,
    variant_graphs,
)
from sr_deploy.pipeline.measure.tuned_graph import keep_graph, source_of
from sr_deploy.run.base import Runner
from sr_deploy.run.onnxruntime import runner_from_graph
from sr_deploy.run.parity import check_parity, compare

#: Another variant than the first must be estimated faster by more than this share.
MARGIN = 0.02
#: The row of the graph in strips, where nothing else fits.
STRIPS = "strips"
#: Why no variant takes more than one size (tests/benchmarks/fixed_or_dynamic.py).
FIXED = "each variant is fixed to the size, which is never slower than a graph for any (engines/README.md)"


def tune_for_device(options: TuneOptions, say: Callable[[str], None]) -> Tuned:
    """Estimate the variants for one size and keep the fastest as a graph of that size, for TensorRT-RTX.

    Raises:
        UsageError: a device whose rates are not known, or another backend.
        EnvironmentFault: TensorRT-RTX is not installed.
        CheckFailed: no variant could be built, or the chosen graph differs by more than GRAPH_FP32.
    """
    gpu = gpu_named(options.device or "", "--for")
    if options.backend not in (None, LISTING_RUNTIME):
        raise UsageError(f"--for estimates what {LISTING_RUNTIME} builds", f"--backend {LISTING_RUNTIME}, or none")
    if not has_listings():
        raise EnvironmentFault(
            "TensorRT-RTX is not installed, and estimates follow from its listing",
            "TensorRT-RTX, without a GPU",
            "pip install 'srdeploy[tensorrt-rtx]'",
        )
    deployment = open_deployment(options.deployment)
    source = source_of(deployment, options.size)
    contract = deployment.manifest.contract
    seconds: Dict[str, Tuple[float, ...]] = {}
    with temporary_folder() as folder:
        asked = TuneOptions(options.deployment, options.size, variants=options.variants or ("none", *BUILDER_VARIANTS))
        graphs, notes, reports = variant_graphs(deployment.path_of(source), asked, folder, contract.value_range)
        engines, refused = _engines(deployment, source, options, graphs, gpu)
        notes = (*notes, *refused, *unbuildable(gpu), FIXED)
        if not engines:
            raise CheckFailed("no variant could be built and estimated", "one of " + ", ".join(graphs), refused[-1])
        estimates = {name: estimate_of(built, gpu) for name, built in engines.items()}
        for name, estimate in estimates.items():
            say(f"{name}: {estimate:.2f} ms on {gpu.title}, an estimate")
        held = {name: estimate for name, estimate in estimates.items() if is_held(engines[name], gpu)}
        best = fastest(held or estimates)
        if held and is_here(gpu, this_machine().gpus):
            with contextlib.ExitStack() as opened:
                runners = {
                    name: opened.enter_context(contextlib.closing(_runner_of(engines[name], graphs[name], deployment)))
                    for name in held
                }
                best, seconds = measured_choice(runners, options, sample_for(contract, options.size))
            notes = (*notes, disagreement(held, seconds))
        if not held:
            streamed, note = in_strips(deployment, options.size, gpu, say)
            notes = (*notes, note)
            if streamed is not None:
                engines[STRIPS], estimates[STRIPS] = streamed, estimate_of(streamed, gpu)
        difference = _proved(deployment, source, graphs[best], options.size, best)
        facts = {"variant": best, "backend": LISTING_RUNTIME, "from": source.file, "for": gpu.name}
        record: RewriteRecord = {**reports[best], "tuned": facts}
        meant = GpuMeant(gpu.compute_capability, gpu.name)
        file = keep_graph(deployment, source, graphs[best], options.size, record, difference, meant)
    memory = {name: int(built.activation_bytes or 0) for name, built in engines.items()}
    return Tuned(LISTING_RUNTIME, best, seconds, file, difference, notes, estimates, gpu.name, memory)


def _proved(deployment: Deployment, source: GraphFile, graph: Path, size: Size, variant: str) -> float:
    """How far a graph is from the deployment's own, in 8-bit steps.

    Raises:
        CheckFailed: farther than GRAPH_FP32.
    """
    manifest = deployment.manifest
    tuned = runner_from_graph(graph, manifest.contract, manifest.scale, provider="CPUExecutionProvider")
    with contextlib.closing(tuned), plain_runner(deployment, source) as reference:
        differences = compare(tuned, reference, (size,), manifest.contract)
    return check_parity(differences, GRAPH_FP32, f"the graph rewritten with {variant}")


def estimate_of(built: BuiltEngine, gpu: GpuRates) -> float:
    """Milliseconds of an engine that was built for its listing; raises CheckFailed where that lacks a size."""
    estimate = None if built.listing is None else estimated_ms(built.listing, gpu)
    if estimate is None:
        raise CheckFailed(
            f"{built.version} does not tell what every layer moves", "a listing of a fixed size", "report the network"
        )
    return estimate


def is_held(built: BuiltEngine, gpu: GpuRates) -> bool:
    """Whether a GPU's memory holds an engine's activations."""
    return (built.activation_bytes or 0) <= gpu.memory * 1e9


def in_strips(
    deployment: Deployment, size: Size, gpu: GpuRates, say: Callable[[str], None]
) -> Tuple[Optional[BuiltEngine], str]:
    """The engine in strips where a GPU's memory holds no variant whole, if there is one, and what to do."""
    found = f"the {gpu.memory:g} GB of a {gpu.title} hold the activations of no variant"
    if deployment.dynamic_graph is None:
        return None, f"{found}, and only a graph for any size runs in strips: export it with --dynamic"
    try:
        built = streamed_in_half(deployment, size, int(gpu.memory * 1e9), gpu.capability, say)
    except CheckFailed as error:
        return None, f"{found}, nor in strips: {error.found}"
    return built, f"{found}: build with --memory-budget {gpu.memory:g}GB, in {built.settings['strips']} strips"


def _engines(
    deployment: Deployment, source: GraphFile, options: TuneOptions, variants: Mapping[str, Path], gpu: GpuRates
) -> Tuple[Dict[str, BuiltEngine], Tuple[str, ...]]:
    """Variant → its engine, and what is to be said of those that could not be built."""
    engines: Dict[str, BuiltEngine] = {}
    notes: List[str] = []
    for name in variants:
        try:
            built = built_in_half(deployment, source, options.size, name, gpu.capability)
            estimate_of(built, gpu)
            engines[name] = built
        except CheckFailed as error:
            notes.append(f"{name} could not be built: {error.found}")
    return engines, tuple(notes)


def unbuildable(gpu: GpuRates) -> Tuple[str, ...]:
    """A note where the runtime that lists layers builds for another capability than the GPU's own."""
    own = gpu.compute_capability
    if own == gpu.capability:
        return ()
    return (
        f"{LISTING_RUNTIME} builds for no {gpu.title} ({own}), so what was kept only shows what would be fast there",
    )


def is_here(gpu: GpuRates, gpus: Sequence[Gpu]) -> bool:
    """Whether the GPU that is tuned for is in this machine, and engines for its capability run on it."""
    return any(name_of(one) == gpu.name and one.compute_capability == gpu.capability for one in gpus)


def measured_choice(
    runners: Mapping[str, Runner], options: TuneOptions, lr: np.ndarray
) -> Tuple[str, Dict[str, Tuple[float, ...]]]:
    """The fastest variant, timed in turn, and every time in seconds."""
    seconds = interleaved(runners, options, lr)
    return choose(seconds), seconds


def disagreement(estimates: Mapping[str, float], seconds: Mapping[str, Sequence[float]]) -> str:
    """How far measured times are from estimates, in words.

    Args:
        estimates: variant → milliseconds.
        seconds: variant → measured times, of the same variants.
    """
    factors = {name: statistics.median(values) * 1e3 / estimates[name] for name, values in seconds.items()}
    common = statistics.median(factors.values())
    apart = max(max(one / common, common / one) for one in factors.values()) - 1
    guessed, found = fastest(estimates), choose(seconds)
    chosen = f"both choose {found}" if guessed == found else f"the estimate chooses {guessed}, the measurement {found}"
    text = f"measured times are {min(factors.values()):.2f} to {max(factors.values()):.2f} times the estimates"
    return f"{text}, up to {apart:.0%} from a common factor; {chosen}"


def _runner_of(built: BuiltEngine, graph: Path, deployment: Deployment) -> Runner:
    """A runner of an engine that was built for its listing."""
    from sr_deploy.engine.built import write_engine
    from sr_deploy.run.tensorrt import runner_from_engine

    folder = graph.with_suffix("")
    folder.mkdir()
    manifest = deployment.manifest
    engine = write_engine(built, folder, graph, manifest.contract, manifest.scale)
    return runner_from_engine(folder / engine.file, engine)


def fastest(estimates: Mapping[str, float]) -> str:
    """The variant of the least estimate; the first one unless another one is faster by MARGIN."""
    first = next(iter(estimates))
    best = min(estimates, key=lambda name: estimates[name])
    return best if estimates[best] < (1 - MARGIN) * estimates[first] else first
