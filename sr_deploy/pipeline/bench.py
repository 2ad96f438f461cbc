"""The latency sweep of a deployment: one point a size, saved as it exists, with a plot at the end."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, Optional, Tuple

from sr_deploy.bench.measure import BenchOptions
from sr_deploy.bench.result import Point, Result, save_result
from sr_deploy.bench.sweep import Job, sweep
from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment import Deployment, open_deployment
from sr_deploy.core.device import environment
from sr_deploy.core.errors import EnvironmentFault, UsageError
from sr_deploy.core.machine import available_memory_bytes
from sr_deploy.pipeline.runner import check_backend, fitting_engine, runner_for
from sr_deploy.run.base import Runner

#: A CPU run is not begun when its activations alone, by the census, pass this part of the free memory.
MEMORY_SHARE = 0.8


@dataclass(frozen=True)
class BenchRequest:
    """What ``srdeploy bench`` is asked for.

    Attributes:
        deployment: the folder.
        sizes: inputs (height, width), in the order to measure.
        backend: see pipeline/runner.py.
        scope: "compute" or "end-to-end".
        seconds, iterations: each size is measured at least this long and this often.
        threads: ONNX Runtime's threads on the CPU; None for its default.
        json_file: another place for the result, beside the deployment's own.
        resume: go on with the sweep in the deployment's result file, keeping its points; False begins anew.
    """

    deployment: Path
    sizes: Tuple[Size, ...]
    backend: Optional[str] = None
    scope: str = "compute"
    seconds: float = 3.0
    iterations: int = 10
    threads: Optional[int] = None
    json_file: Optional[Path] = None
    resume: bool = False


def bench_deployment(
    request: BenchRequest, say: Callable[[str], None] = lambda _: None
) -> Tuple[Result, Tuple[Path, ...]]:
    """Measure a deployment over input sizes.

    Returns:
        The result, and the files written: the JSON result and the plot.

    Raises:
        UsageError: no size, a wrong scope, or the result file holds another sweep.
        BadDeployment, EnvironmentFault: see ``runner_for``. A size that does not fit becomes a point that says why.
    """
    from sr_deploy.report.plots import latency_plot

    check_backend(request.backend)
    if not request.sizes:
        raise UsageError("no size to measure", "--sizes 144,360,720 or --sizes 360x640")
    deployment = open_deployment(request.deployment)
    options = BenchOptions(
        scope=request.scope,
        value_range=deployment.manifest.contract.value_range,
        min_seconds=request.seconds,
        max_seconds=max(60.0, 4 * request.seconds),
        min_iterations=request.iterations,
        warmup_seconds=min(1.0, request.seconds),
    )
    name = deployment.folder.resolve().name
    target = deployment.results_folder / f"bench_{request.backend or 'best'}_{request.scope}.json"
    jobs = tuple(_job(deployment, size, request, say) for size in request.sizes)
    result = sweep(jobs, options, name, environment(), target, _announce(say), request.resume)
    plot = target.with_suffix(".png")
    latency_plot([result], plot)
    if request.json_file is not None:
        save_result(request.json_file, result)
    return result, (request.json_file or target, plot)


def _job(deployment: Deployment, size: Size, request: BenchRequest, say: Callable[[str], None]) -> Job:
    """One size; its runner is opened when its turn comes, so that one size's memory is free before the next."""
    # The record needs the hash of what runs before it runs; the engine itself is opened later.
    engine_or_graph = _what_runs(deployment, size, request)

    @contextlib.contextmanager
    def open_runner() -> Iterator[Runner]:
        deployment.manifest.sizes.check(size)
        chosen = runner_for(deployment, size, request.backend, threads=request.threads)
        try:
            if chosen.engine is None:
                _check_memory(deployment, size)
            say(f"{format_size(size)}: {chosen.why}")
            yield chosen.runner
        finally:
            chosen.runner.close()

    return Job(size, engine_or_graph, open_runner)


def _what_runs(deployment: Deployment, size: Size, request: BenchRequest) -> str:
    """sha256 of the engine that would be chosen for this size, or of the graph."""
    if request.backend != "onnxruntime":
        engine = fitting_engine(deployment, size, request.backend)
        if engine is not None:
            return sha256_of(engine)
    fitting = [graph for graph in deployment.manifest.graphs if graph.size in (None, size)]
    return (fitting or deployment.manifest.graphs)[0].sha256


def _check_memory(deployment: Deployment, size: Size) -> None:
    """Refuse a run that would drive the machine out of memory; the system would kill it without a word.

    Raises:
        EnvironmentFault: naming what is needed at least and what is free.
    """
    need = deployment.graph_for(size).peak_bytes_at(size)
    free = available_memory_bytes()
    if free is not None and need > MEMORY_SHARE * free:
        raise EnvironmentFault(
            f"{format_size(size)} needs at least {need / 1e9:.1f} GB for activations, {free / 1e9:.1f} GB are free",
            "memory for the network at this size",
            "measure smaller sizes, or a TensorRT engine, which needs less",
        )


def _announce(say: Callable[[str], None]) -> Callable[[Point, bool], None]:
    def announce(point: Point, kept: bool) -> None:
        if point.failure is not None:
            say(f"  {format_size(point.size)}: {point.failure}")
        else:
            kept_text = " (kept from the earlier sweep)" if kept else ""
            say(f"  {format_size(point.size)}: median {1e3 * (point.median_s or 0):.3f} ms{kept_text}")

    return announce
