"""Which equal graph is the fastest on this machine: sets of rewriting passes, timed in turn, the best one kept."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.contract import Size
from sr_deploy.core.deployment.manifest import Deployment, GpuMeant, GraphFile, open_deployment
from sr_deploy.core.deployment.records import RewriteRecord
from sr_deploy.core.errors import UsageError
from sr_deploy.core.host.gpu_rates import name_of
from sr_deploy.core.host.machine import this_machine
from sr_deploy.core.media.sample import sample_for
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.core.tolerance import GRAPH_FP32
from sr_deploy.engine.runtimes import GRAPH_RUNTIME, RUNTIMES
from sr_deploy.pipeline.measure.tuned_graph import keep_graph, source_of
from sr_deploy.run.base import Runner
from sr_deploy.run.parity import check_parity, compare

#: The variants, as for ``--rewrite``: "none" is the deployment's own graph, which wins unless another one is faster by
#: more than the noise.
VARIANTS: Tuple[str, ...] = ("none", "default", "default,prelu", "cpu", "cpu,parity")
#: On a GPU a dense convolution may be faster than a depthwise and a 1×1 one; on a CPU it is two to three times slower.
GPU_VARIANTS: Tuple[str, ...] = (*VARIANTS, "default,dense")
#: What else is worth timing, or estimating, with a builder that has passes of its own: what moves least, what is
#: estimated fastest with products counted, and both without the passes that only some networks have a use for.
BUILDER_VARIANTS: Tuple[str, ...] = (
    "maxmin",
    "affine,regroup,maxmin",
    "affine,regroup,columns,deconvolve,pairs,maxmin",
    "affine,fewest,maxmin",
    "affine,fewest,columns,deconvolve,pairs,maxmin",
)


@dataclass(frozen=True)
class TuneOptions:
    """What ``srdeploy tune`` is asked for.

    Attributes:
        deployment: the folder.
        size: the input (height, width) to tune for.
        backend: a name of engine/runtimes.py, or None for the best this machine has.
        rounds: how often every variant runs, all in turn, after one run that is not counted.
        threads: ONNX Runtime's threads on the CPU; None for its default.
        variants: sets of passes, as for ``--rewrite``; passes that the deployment's graph has had find nothing to do.
            None takes those that suit the backend.
        device: a GPU of core/host/gpu_rates.py that is not here: every variant is built by TensorRT-RTX, and the one
            whose listing is estimated fastest there is kept. None: what is timed on this machine.
    """

    deployment: Path
    size: Size
    backend: Optional[str] = None
    rounds: int = 11
    threads: Optional[int] = None
    variants: Optional[Tuple[str, ...]] = None
    device: Optional[str] = None


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    Attributes:
        backend: what it was timed with.
        best: the variant that was kept.
        seconds: variant → every timed run.
        file: the graph it became in the deployment.
        difference: of that graph from the deployment's own, in 8-bit steps.
        notes: variants that made the same graph as another, or could not be built.
        estimated_ms: variant → milliseconds on ``device``, an estimate; empty without one.
        device: that it was tuned for; "": this machine.
        activation_bytes: variant → what its engine needs for activations, by the builder's word; empty without device.
    """

    backend: str
    best: str
    seconds: Dict[str, Tuple[float, ...]]
    file: str
    difference: float
    notes: Tuple[str, ...]
    estimated_ms: Dict[str, float] = dataclasses.field(default_factory=dict)
    device: str = ""
    activation_bytes: Dict[str, int] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> Dict[str, Any]:
        """JSON-able, with the median of each variant in milliseconds."""
        medians = {name: statistics.median(values) * 1e3 for name, values in self.seconds.items()}
        return {**dataclasses.asdict(self), "median_ms": medians}


def choose(seconds: Mapping[str, Sequence[float]]) -> str:
    """The fastest variant; the first one, unless another one is faster by more than the noise.

    The runs were taken in turn, so the runs of one round met the same machine: a variant counts as faster when it beat
    the first one in at least nine of ten rounds and its median is at least 2 % lower.

    Args:
        seconds: variant → times, one a round, all of one length.
    """
    first = next(iter(seconds))
    reference = seconds[first]
    best, best_median = first, statistics.median(reference) * 0.98
    for name, values in seconds.items():
        wins = sum(value < other for value, other in zip(values, reference))
        if wins >= 0.9 * len(reference) and statistics.median(values) < best_median:
            best, best_median = name, statistics.median(values)
    return best


def tune_deployment(options: TuneOptions, say: Callable[[str], None] = lambda _: None) -> Tuned:
    """Time the variants for one size and keep the fastest as a graph of that size in the deployment.

    Raises:
        UsageError: fewer than one round, or an unknown backend or pass.
        BadDeployment: the deployment has no graph for the size.
        CheckFailed: the chosen graph differs from the deployment's own by more than GRAPH_FP32.
    """
    from sr_deploy.pipeline.engines.request import BuildOptions, choose_backend

    if options.rounds < 1:
        raise UsageError(f"{options.rounds} rounds measure nothing", "1 or more")
    deployment = open_deployment(options.deployment)
    source = source_of(deployment, options.size)
    backend, why = choose_backend(BuildOptions(options.deployment, options.backend))
    say(f"{backend}: {why}")
    if options.variants is None:
        options = dataclasses.replace(options, variants=variants_for(backend))
    contract = deployment.manifest.contract
    with temporary_folder() as folder:
        graphs, notes, reports = variant_graphs(deployment.path_of(source), options, folder, contract.value_range)
        runners: Dict[str, Runner] = {}
        try:
            for name, path in graphs.items():
                say(f"preparing {name}")
                runners[name] = _runner(deployment, backend, path, options)
            seconds = interleaved(runners, options, sample_for(contract, options.size))
            best = choose(seconds)
            with plain_runner(deployment, source) as reference:
                differences = compare(runners[best], reference, (options.size,), contract)
        finally:
            for runner in runners.values():
                runner.close()
        difference = check_parity(differences, GRAPH_FP32, f"the graph rewritten with {best}")
        record: RewriteRecord = {**reports[best], "tuned": {"variant": best, "backend": backend, "from": source.file}}
        gpu = _gpu_here(backend)
        file = keep_graph(deployment, source, graphs[best], options.size, record, difference, gpu)
    return Tuned(backend, best, seconds, file, difference, notes)


def _gpu_here(backend: str) -> Optional[GpuMeant]:
    """The GPU that was timed, where a backend builds for one."""
    gpus = this_machine().gpus if RUNTIMES[backend].for_one_gpu else ()
    return GpuMeant(gpus[0].compute_capability or "", name_of(gpus[0])) if gpus else None


def variants_for(backend: str) -> Tuple[str, ...]:
    """What is worth timing with a backend."""
    variants = GPU_VARIANTS if RUNTIMES[backend].for_one_gpu else VARIANTS
    return (*variants, *BUILDER_VARIANTS) if RUNTIMES[backend].rewrite else variants


def variant_graphs(
    graph: Path, options: TuneOptions, folder: Path, value_range: float
) -> Tuple[Dict[str, Path], Tuple[str, ...], Dict[str, RewriteRecord]]:
    """Variant → graph of the fixed size; those equal to an earlier one are left out, with a note. And their reports."""
    import onnx

    from sr_deploy.graph.rewrite import RewriteOptions, passes_named
    from sr_deploy.graph.rewrite.report import rewrite_file
    from sr_deploy.graph.specialise import static_graph

    static = static_graph(graph, options.size)
    graphs: Dict[str, Path] = {}
    reports: Dict[str, RewriteRecord] = {}
    notes: List[str] = []
    seen: Dict[str, str] = {}
    for number, name in enumerate(options.variants or VARIANTS):
        path = folder / f"{number}.onnx"
        onnx.save(static, str(path))
        rewrite_options = RewriteOptions(size=options.size, value_range=value_range)
        report = rewrite_file(path, passes_named(name), rewrite_options, options.size)
        twin = seen.setdefault(sha256_of(path), name)
        if twin != name:
            notes.append(f"{name} gives the same graph as {twin}")
            continue
        graphs[name], reports[name] = path, report
    return graphs, tuple(notes), reports


def _runner(deployment: Deployment, backend: str, graph: Path, options: TuneOptions) -> Runner:
    """A runner of one variant; for TensorRT its engine is built beside the graph."""
    contract, scale = deployment.manifest.contract, deployment.manifest.scale
    if backend == GRAPH_RUNTIME:
        from sr_deploy.run.onnxruntime import runner_from_graph

        return runner_from_graph(graph, contract, scale, threads=options.threads)
    from sr_deploy.engine.built import write_engine
    from sr_deploy.engine.options import EngineOptions
    from sr_deploy.engine.tensorrt import engine_from_graph
    from sr_deploy.pipeline.engines.timings import timings_file
    from sr_deploy.run.tensorrt import runner_from_engine

    folder = graph.with_suffix("")
    folder.mkdir()
    asked = EngineOptions(timing_cache=timings_file(deployment, backend))
    built = engine_from_graph(backend, graph, (options.size,) * 3, options=asked)
    engine = write_engine(built, folder, graph, contract, scale)
    return runner_from_engine(folder / engine.file, engine)


def plain_runner(deployment: Deployment, source: GraphFile) -> ContextManager[Runner]:
    """The deployment's own graph in ONNX Runtime on the CPU, as a context."""
    from sr_deploy.run.onnxruntime import runner_from_graph

    manifest = deployment.manifest
    path = deployment.path_of(source)
    return contextlib.closing(
        runner_from_graph(path, manifest.contract, manifest.scale, provider="CPUExecutionProvider")
    )


def interleaved(runners: Mapping[str, Runner], options: TuneOptions, lr: np.ndarray) -> Dict[str, Tuple[float, ...]]:
    """Seconds of every variant, one a round; in every round each runs once, so that a slow moment falls on all."""
    for runner in runners.values():
        runner.prepare(options.size)
        runner.upload(lr)
        runner.compute()
        runner.synchronize()
    seconds: Dict[str, List[float]] = {name: [] for name in runners}
    for _ in range(options.rounds):
        for name, runner in runners.items():
            start = time.perf_counter()
            runner.compute()
            runner.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {name: tuple(values) for name, values in seconds.items()}
