"""Which runtime runs a deployment, and why: the choice that run, verify, bench and gate share."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Set, Tuple

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment.default import read_default
from sr_deploy.core.deployment.manifest import Deployment, GraphFile
from sr_deploy.core.errors import BadDeployment, BadImage, BadInput, UsageError
from sr_deploy.core.names import check_name
from sr_deploy.core.number_formats import ENGINE_PRECISIONS
from sr_deploy.engine.index import EngineIndex
from sr_deploy.engine.manifest import EngineManifest
from sr_deploy.engine.runtimes import GRAPH_RUNTIME, RUNTIMES, names, rank
from sr_deploy.pipeline.fitting import best_engine, no_engine, refusal_lines
from sr_deploy.pipeline.tiling import Tiling, Worker, cut_of
from sr_deploy.run.base import Runner
from sr_deploy.run.tiles import Cut


@dataclass(frozen=True)
class Resolved:
    """A deployment and what of it shall run, complete; made by ``resolve``, once a command.

    Attributes:
        index: the deployment's engines.
        backend: a name of engine/runtimes.py, or None for the best this machine has.
        engine: an engine file to run, whatever else there is.
        precision: of the engine, one of ENGINE_PRECISIONS; the graph is of "fp32" too. None only with an engine that is
            named: whatever it is of. An engine that is named must be of it, if it is given.
        threads: ONNX Runtime's threads on the CPU; None for its default.
        because: why it is that precision, for the user.
        tiling: what tiles may use, where a picture does not fit; None: it is refused, nothing is cut.
    """

    index: EngineIndex
    backend: Optional[str] = None
    engine: Optional[Path] = None
    precision: Optional[str] = None
    threads: Optional[int] = None
    because: str = "asked for"
    tiling: Optional[Tiling] = None

    @property
    def deployment(self) -> Deployment:
        """The opened folder."""
        return self.index.deployment

    @property
    def runs_in(self) -> str:
        """The precision of what runs: the named engine's, else the one asked for; "fp32" of the graph itself."""
        return self.index.proved(self.engine).precision if self.engine is not None else self.precision or "fp32"


def resolve(
    index: EngineIndex,
    backend: Optional[str] = None,
    engine: Optional[Path] = None,
    precision: Optional[str] = None,
    threads: Optional[int] = None,
    tiling: Optional[Tiling] = None,
) -> Resolved:
    """What a user asked for, with names that exist, and a precision where none was asked for; see ``Resolved``.

    Nobody gets another precision than was built without being told: without ``precision`` it is the deployment's
    default, which ``build`` records; without a default it is the one that there are engines of.

    Raises:
        UsageError: there is no such backend or precision; or there are engines of several and no default.
        BadDeployment: the record of the default is damaged.
    """
    check_backend(backend)
    check_precision(precision)
    because = "asked for"
    if engine is None and precision is None:
        precision, because = _default_precision(index)
    return Resolved(index, backend, engine, precision, threads, because, tiling)


def _default_precision(index: EngineIndex) -> Tuple[str, str]:
    """(the precision to run in when nobody says, why)."""
    folder = index.deployment.folder
    chosen = read_default(folder)
    if chosen is not None:
        return chosen.precision, "the deployment's default"
    built = index.precisions
    if len(built) > 1:
        raise UsageError(
            f"{folder} has engines of {', '.join(built)}, and none of them was chosen",
            f"--precision with one of {', '.join(built)}",
            f"srdeploy build {folder} --precision … records the choice",
        )
    return (built[0], "the only one that was built") if built else ("fp32", "nothing was built")


@dataclass(frozen=True)
class Decision:
    """What runs at one size, decided once: nothing is loaded yet.

    Attributes:
        why: for the user: the engine, or what runs the graph and why.
        file: the engine, or the graph that ONNX Runtime runs itself.
        sha256: of that file, compared with its manifest.
        graph: the graph that runs itself, or None.
        manifest: of the engine, or None.
        threads, tiling: see ``Resolved``.
        cut: how pictures of that size are cut into tiles; None: they run whole.
    """

    why: str
    file: Path
    sha256: str
    graph: Optional[GraphFile] = None
    manifest: Optional[EngineManifest] = None
    threads: Optional[int] = None
    tiling: Optional[Tiling] = None
    cut: Optional[Cut] = None

    def worker(self, deployment: Deployment) -> Worker:
        """What runs, as far as it matters for tiles."""
        if self.manifest is None:
            assert self.graph is not None, "an engine or a graph"
            size = self.graph.size
            return Worker(self.graph.file, None if size is None else (size, size, size), self.graph)
        named = {graph.file: graph for graph in deployment.manifest.graphs}
        on_host = named.get(self.manifest.graph_file) if RUNTIMES[self.manifest.backend].engine_is_graph else None
        return Worker(self.manifest.file, self.manifest.profile, on_host)


@dataclass(frozen=True)
class Chosen:
    """A runner and how it came to be chosen.

    Attributes:
        runner: ready for ``prepare``.
        why: one sentence for the user.
        decision: what was opened.
    """

    runner: Runner
    why: str
    decision: Decision


def check_precision(name: Optional[str]) -> None:
    """Raise UsageError for a precision that no engine has."""
    if name is not None:
        check_name("engine of precision", name, ENGINE_PRECISIONS)


def check_backend(name: Optional[str]) -> None:
    """Raise UsageError for a backend that does not exist."""
    if name is not None:
        check_name("backend", name, names())


def decide(resolved: Resolved, size: Size) -> Decision:
    """What runs at one input size.

    An engine that is named is used or refused. Without one, an engine of the resolved precision that fits this machine
    and the size is taken, TensorRT before ONNX Runtime; else one of a runtime that is preferred to the graph's, in
    tiles, where these give the same. Of "fp32", which the graph is too, ONNX Runtime runs the graph where there is no
    engine; an engine of another precision gives another picture and never takes its place.

    Args:
        resolved: what was asked for.
        size: (height, width).

    Raises:
        ForeignEngine: the named engine was built for something else.
        BadDeployment: a TensorRT backend was asked for and no engine fits; the message says how to build one.
        BadImage: the network does not take this size, and nothing may be cut.
        EnvironmentFault: there is not even the memory for tiles.
    """
    deployment, backend = resolved.deployment, resolved.backend
    if resolved.tiling is None:
        deployment.manifest.sizes.check(size)
    if resolved.engine is not None:
        return _cut(resolved, _named(resolved, resolved.engine), size)
    precision = resolved.runs_in
    path, refused = best_engine(resolved, size, precision)
    if path is not None:
        return _cut(resolved, _engine(resolved, path), size)
    needs_engine = backend not in (None, GRAPH_RUNTIME) or precision != "fp32"
    tiled = _best_in_tiles(resolved, size, needs_engine)
    if tiled is not None:
        return tiled
    if needs_engine:
        raise no_engine(resolved, size)
    graph = _graph_for(resolved, size)
    why = f"runs {graph.file} in {precision}, {resolved.because}"
    if not backend and resolved.index.paths:
        others = [name for name in resolved.index.precisions if name != precision]
        why += f"; no {precision} engine for {format_size(size)} fits this machine" + "".join(refusal_lines(refused))
        why += f"\n  there are engines of {', '.join(others)}: --precision" if others else ""
    decision = Decision(why, deployment.path_of(graph), graph.sha256, graph, threads=resolved.threads)
    return _cut(resolved, decision, size)


def _graph_for(resolved: Resolved, size: Size) -> GraphFile:
    """The graph of this size, or for tiles one of another."""
    deployment = resolved.deployment
    if resolved.tiling is None:
        return deployment.graph_for(size, GRAPH_RUNTIME)
    serving = [graph for graph in deployment.manifest.graphs if graph.serves(GRAPH_RUNTIME)]
    fixed = [graph.size for graph in serving if graph.size is not None]
    if deployment.dynamic_graph is None and tuple(size) not in map(tuple, fixed):
        return deployment.graph_for(max(fixed, key=min), GRAPH_RUNTIME)
    try:
        return deployment.graph_for(size, GRAPH_RUNTIME)
    except BadImage:
        return deployment.dynamic_graph or serving[0]


def _cut(resolved: Resolved, decision: Decision, size: Size) -> Decision:
    """The decision with its tiles, where the picture must be cut. What cannot be cut is refused when it is run."""
    if resolved.tiling is None:
        return decision
    deployment = resolved.deployment
    worker = decision.worker(deployment)
    try:
        cut = cut_of(resolved.tiling, deployment.manifest, worker, size)
    except BadDeployment:
        if worker.takes(size):
            deployment.manifest.sizes.check(size)
        return decision
    return dataclasses.replace(decision, cut=cut, tiling=resolved.tiling)


def _best_in_tiles(resolved: Resolved, size: Size, needed: bool) -> Optional[Decision]:
    """The engine to run a picture with in tiles: of the best runtime, the one with the largest tiles.

    None where there is none, where tiles would not give the same (unless an engine is ``needed``, which then measures
    how far they differ), and where its runtime is the graph's own, which takes every size.
    """
    if resolved.tiling is None:
        return None
    found: List[Tuple[int, int, Path]] = []
    for path in resolved.index.paths:
        try:
            manifest = resolved.index.stated(path)
            if manifest.precision != (resolved.runs_in) or resolved.backend not in (None, manifest.backend):
                continue
            if not needed and rank(manifest.backend) >= rank(GRAPH_RUNTIME):
                continue
            resolved.index.check_fits(manifest)
            decision = _cut(resolved, _engine(resolved, path), size)
        except BadInput:
            continue  # ``best_engine`` has told why
        if decision.cut is not None and (decision.cut.exact or needed or resolved.tiling.inexact):
            found.append((rank(manifest.backend), -decision.cut.tile[0] * decision.cut.tile[1], path))
    return _cut(resolved, _engine(resolved, min(found)[2]), size) if found else None


def open_runner(decision: Decision, deployment: Deployment) -> Chosen:
    """Load what was decided.

    Raises:
        EnvironmentFault: the runtime is not on this machine.
        BadDeployment: see run/onnxruntime.py and run/tensorrt.py.
    """
    manifest, takes, why = decision.manifest, deployment.manifest, decision.why
    runner: Runner
    if manifest is not None:
        runner = RUNTIMES[manifest.backend].call("open", decision.file, manifest, decision.threads)
    else:
        from sr_deploy.run.onnxruntime import runner_from_graph

        runner = runner_from_graph(decision.file, takes.contract, takes.scale, threads=decision.threads)
        why = f"onnxruntime on {runner.device} {why}"
    if decision.cut is not None:
        from sr_deploy.run.tiled import TiledRunner

        allowed = decision.tiling is not None and decision.tiling.inexact
        runner = TiledRunner(runner, decision.cut, takes.contract, takes.scale, allowed)
        why += f", in tiles of {format_size(decision.cut.tile)}"
    return Chosen(runner, why, decision)


def runner_for(resolved: Resolved, size: Size) -> Chosen:
    """Decide what runs at one input size, and load it; raises what ``decide`` and ``open_runner`` raise."""
    return open_runner(decide(resolved, size), resolved.deployment)


@contextlib.contextmanager
def runners(
    resolved: Resolved, say: Callable[[str], None], opens: Callable[[Size, Chosen], None] = lambda size, chosen: None
) -> Iterator[Callable[[Size], Runner]]:
    """A function that gives the runner for a size; one runner is open at a time, the last one until the block ends.

    Args:
        resolved: what shall run.
        say: told what runs, once for each file, and once more where it runs tiles.
        opens: told of the runner whenever one is asked for, and for which size.
    """
    opened: List[Tuple[Decision, Chosen]] = []
    told: Set[str] = set()

    def runner_at(size: Size) -> Runner:
        decision = decide(resolved, size)
        if not opened or not _is_same(opened[0][0], decision):
            for _, before in opened:
                before.runner.close()
            opened[:] = []
            opened.append((decision, open_runner(decision, resolved.deployment)))
            what = f"{decision.file} {decision.cut is None}"
            if what not in told:
                told.add(what)
                say(opened[0][1].why)
        opens(size, opened[0][1])
        return opened[0][1].runner

    try:
        yield runner_at
    finally:
        for _, chosen in opened:
            chosen.runner.close()


def _is_same(one: Decision, other: Decision) -> bool:
    """Whether the runner of one decision runs the other: the same file, cut alike."""
    return (one.file, one.sha256, one.cut, one.tiling) == (other.file, other.sha256, other.cut, other.tiling)


def _named(resolved: Resolved, path: Path) -> Decision:
    """Take a named engine, or refuse it with the difference."""
    manifest, backend, precision = resolved.index.proved(path), resolved.backend, resolved.precision
    if backend is not None and manifest.backend != backend:
        raise UsageError(f"{path} is an engine of {manifest.backend}, not of {backend}", "one of the two, not both")
    if precision is not None and manifest.precision != precision:
        raise UsageError(f"{path} is an engine of {manifest.precision}, not of {precision}", "one of the two, not both")
    resolved.index.check_fits(manifest)
    return _engine(resolved, path)


def _engine(resolved: Resolved, path: Path) -> Decision:
    manifest = resolved.index.proved(path)
    why = f"{manifest.backend} engine {path.name}: {manifest.precision}, {resolved.because}"
    return Decision(why, path, manifest.sha256, manifest=manifest, threads=resolved.threads)
