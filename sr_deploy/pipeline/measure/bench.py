"""The latency sweep of a deployment: one point a size, saved as it exists, with a plot at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, ContextManager, Iterator, Optional, Set, Tuple

from sr_deploy.bench.load import loads_wanted
from sr_deploy.bench.monitor import no_watch, watch_machine
from sr_deploy.bench.options import BenchOptions
from sr_deploy.bench.presets import preset_named
from sr_deploy.bench.result import Point, Result, save_result
from sr_deploy.bench.sweep import Job, sweep
from sr_deploy.core.artifact import check_can_write
from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.errors import SrDeployError, UsageError
from sr_deploy.core.host.device import environment
from sr_deploy.engine.index import EngineIndex
from sr_deploy.pipeline.memory import check_memory
from sr_deploy.pipeline.runner import Resolved, decide, open_runner, resolve
from sr_deploy.pipeline.tiling import tiling_of
from sr_deploy.report.numbers import launches_text
from sr_deploy.run.base import Runner


@dataclass(frozen=True)
class BenchRequest:
    """What ``srdeploy bench`` is asked for.

    Attributes:
        deployment: the folder.
        sizes: inputs (height, width), in the order to measure.
        backend: see pipeline/runner.py.
        scope: see SCOPES of bench/options.py.
        seconds, iterations: each size is measured at least this long and this often.
        threads: ONNX Runtime's threads on the CPU; None for its default.
        json_file: another place for the result, beside the deployment's own.
        resume: go on with the sweep in the deployment's result file, keeping its points; False begins anew.
        ci_percent: wanted half-width of the median's 95 % interval, in percent of the median; None asks for none.
        max_seconds: a size is measured no longer than this; None: four times ``seconds`` for the sake of the interval,
            and a minute, if it takes as long to reach ``iterations``.
        runs: time each size exactly so often, whatever ``seconds``, ``iterations`` and ``ci_percent`` say.
        timer, cuda_graph, wait, streams: see BenchOptions.
        precision: of the engine, see pipeline/runner.py; None is "fp32".
        result_file: where the sweep is saved and resumed; None: in the deployment's results folder.
        preset: name of a protocol of bench/presets.py that the rest follows; its scale is checked.
        pace, burst: pictures a second, and so many at once; see ``loads_wanted`` of bench/load.py.
        axis: of the plot, see ``latency_plot``.
        watch: record clocks, power and temperatures, and mark a throttled point invalid.
        memory: bytes that may be used; a size that takes more, or that no engine takes, is measured in tiles, and its
            record says so. None: half of what is free.
        allow_inexact: of a network that is not local too.
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
    ci_percent: Optional[float] = 1.0
    max_seconds: Optional[float] = None
    runs: Optional[int] = None
    timer: str = "auto"
    cuda_graph: bool = False
    wait: str = "auto"
    streams: int = 1
    precision: Optional[str] = None
    result_file: Optional[Path] = None
    preset: Optional[str] = None
    pace: Optional[float] = None
    burst: Optional[int] = None
    axis: str = "size"
    watch: bool = True
    memory: Optional[int] = None
    allow_inexact: bool = False


def options_of(request: BenchRequest, value_range: float = 1.0) -> BenchOptions:
    """The stop rules of a request; raises UsageError for what cannot be measured."""
    seconds, iterations, precision = request.seconds, request.iterations, request.ci_percent
    longest = request.max_seconds or max(60.0, 4 * seconds)
    most = max(20000, iterations)
    if request.runs is not None:
        seconds, iterations, precision, most = 0.0, request.runs, None, request.runs
        longest = request.max_seconds or 3600.0
    return BenchOptions(
        scope=request.scope,
        value_range=value_range,
        min_seconds=seconds,
        max_seconds=longest,
        min_iterations=iterations,
        max_iterations=most,
        warmup_seconds=min(1.0, request.seconds),
        precision=None if precision is None else precision / 100,
        precision_seconds=request.max_seconds or 4 * seconds,
        timer=request.timer,
        cuda_graph=request.cuda_graph,
        wait=request.wait,
        streams=request.streams,
        preset=request.preset,
        # A network that cannot keep up falls behind ever more: that is seen soon.
        loads=loads_wanted(request.pace, request.burst, seconds, request.max_seconds or max(4 * seconds, 10.0)),
    )


def result_path(request: BenchRequest, resolved: Resolved) -> Path:
    """Where the sweep of a request is saved: one file for each backend, precision and scope."""
    name = f"bench_{request.backend or 'best'}_{resolved.runs_in}_{request.scope}.json"
    return request.result_file or resolved.deployment.results_folder / name


def bench_deployment(
    request: BenchRequest, say: Callable[[str], None] = lambda _: None
) -> Tuple[Result, Tuple[Path, ...]]:
    """Measure a deployment over input sizes.

    Returns:
        The result, and the files written: the JSON result and the plot.

    Raises:
        UsageError: no size, a wrong scope, or the result file holds another sweep.
        BadDeployment, EnvironmentFault: see ``decide``. A size that does not fit becomes a point that says why.
    """
    from sr_deploy.report.plots import check_axis, latency_plot

    check_axis(request.axis)
    if not request.sizes:
        raise UsageError("no size to measure", "--size 144,360,720 or --size 360x640")
    deployment = open_deployment(request.deployment)
    index = EngineIndex(deployment)
    tiling = tiling_of(request.memory, request.allow_inexact)
    resolved = resolve(index, request.backend, precision=request.precision, threads=request.threads, tiling=tiling)
    # The record, its file and its titles say what runs, also where it is the default.
    request = dataclasses.replace(request, precision=resolved.precision)
    _check_preset(request.preset, deployment)
    options = options_of(request, deployment.manifest.contract.value_range)
    name = deployment.folder.resolve().name
    target = result_path(request, resolved)
    for path in filter(None, (target, request.json_file)):
        check_can_write(path)
    told: Set[str] = set()

    def say_once(text: str) -> None:
        if text not in told:
            told.add(text)
            say(text)

    jobs = tuple(_job(resolved, size, say_once) for size in request.sizes)
    watch = watch_machine if request.watch else no_watch
    result = sweep(jobs, options, name, environment(), target, announce(say), request.resume, watch=watch)
    plot = target.with_suffix(".png")
    latency_plot([result], plot, request.axis)
    if request.json_file is not None:
        save_result(request.json_file, result)
    return result, (request.json_file or target, plot)


def _check_preset(name: Optional[str], deployment: Deployment) -> None:
    """Raise UsageError for a network that the protocol is not for: its figures would be compared with others'."""
    scale = deployment.manifest.scale
    if name is not None and preset_named(name).scale != scale:
        raise UsageError(
            f"the protocol {name} is for x{preset_named(name).scale}, and {deployment.folder} is x{scale}",
            "a network of that scale",
            "leave --preset out and give --size and --runs",
        )


def _job(resolved: Resolved, size: Size, say: Callable[[str], None]) -> Job:
    """One size; its runner is opened when its turn comes, so that one size's memory is free before the next.

    What runs is decided here, once: the record holds the hash of what is opened later. A size for which nothing can be
    decided is a point that says why, under the hash of the graph that it would have been.
    """
    try:
        decision = decide(resolved, size)
    except SrDeployError as error:
        return Job(size, _graph_hash(resolved.deployment, size), functools.partial(_failing, error))

    @contextlib.contextmanager
    def opened() -> Iterator[Runner]:
        chosen = open_runner(decision, resolved.deployment)
        try:
            if decision.graph is not None and decision.cut is None:
                check_memory(decision.graph, size)
            say(chosen.why)
            yield chosen.runner
        finally:
            chosen.runner.close()

    return Job(size, decision.sha256, opened)


def _failing(error: SrDeployError) -> ContextManager[Runner]:
    raise error


def _graph_hash(deployment: Deployment, size: Size) -> str:
    """sha256 of a graph for a size, or of ``model.onnx``."""
    fitting = [graph for graph in deployment.manifest.graphs if graph.size in (None, size)]
    return (fitting or deployment.manifest.graphs)[0].sha256


def announce(say: Callable[[str], None]) -> Callable[[Point, bool], None]:
    """What ``sweep`` calls after each point: one line for the user."""

    def tell(point: Point, kept: bool) -> None:
        if point.failure is not None:
            say(f"  {format_size(point.size)}: {point.failure}")
        else:
            kept_text = " (kept from the earlier sweep)" if kept else ""
            say(f"  {format_size(point.size)}: median {1e3 * (point.median_s or 0):.3f} ms{kept_text}")
        if point.invalid is not None:
            say(f"  {format_size(point.size)}: INVALID, {point.invalid}")
        if point.launch_bound:
            say(f"  {format_size(point.size)}: {launches_text(point)}")

    return tell
