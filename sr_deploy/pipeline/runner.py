"""Which runtime runs a deployment, and why: the choice that run, verify, bench and gate share."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Set, Tuple

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment.default import read_default
from sr_deploy.core.deployment.manifest import Deployment, GraphFile
from sr_deploy.core.errors import BadDeployment, BadInput, UsageError
from sr_deploy.core.number_formats import AUTO, ENGINE_PRECISIONS
from sr_deploy.engine.index import EngineIndex
from sr_deploy.engine.manifest import EngineManifest
from sr_deploy.engine.runtimes import GRAPH_RUNTIME, RUNTIMES, names, rank
from sr_deploy.run.base import Runner


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
    """

    index: EngineIndex
    backend: Optional[str] = None
    engine: Optional[Path] = None
    precision: Optional[str] = None
    threads: Optional[int] = None
    because: str = "asked for"

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
    return Resolved(index, backend, engine, precision, threads, because)


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
        threads: see ``Resolved``.
    """

    why: str
    file: Path
    sha256: str
    graph: Optional[GraphFile] = None
    manifest: Optional[EngineManifest] = None
    threads: Optional[int] = None


@dataclass(frozen=True)
class Chosen:
    """A runner and how it came to be chosen.

    Attributes:
        runner: ready for ``prepare``.
        why: one sentence for the user.
    """

    runner: Runner
    why: str


def check_precision(name: Optional[str]) -> None:
    """Raise UsageError for a precision that no engine has."""
    if name is not None and name not in ENGINE_PRECISIONS:
        raise UsageError(f"there is no engine of precision {name!r}", "one of " + ", ".join(ENGINE_PRECISIONS))


def check_backend(name: Optional[str]) -> None:
    """Raise UsageError for a backend that does not exist."""
    if name is not None and name not in RUNTIMES:
        raise UsageError(f"there is no backend {name!r}", "one of " + ", ".join(names()))


def decide(resolved: Resolved, size: Size) -> Decision:
    """What runs at one input size.

    An engine that is named is used or refused. Without one, an engine of the resolved precision that fits this machine
    and the size is taken, TensorRT before ONNX Runtime. Of "fp32", which the graph is too, ONNX Runtime runs the graph
    where there is no engine; an engine of another precision gives another picture and never takes its place.

    Args:
        resolved: what was asked for.
        size: (height, width).

    Raises:
        ForeignEngine: the named engine was built for something else.
        BadDeployment: a TensorRT backend was asked for and no engine fits; the message says how to build one.
        BadImage: the network does not take this size.
    """
    deployment, backend = resolved.deployment, resolved.backend
    deployment.manifest.sizes.check(size)
    if resolved.engine is not None:
        return _named(resolved, resolved.engine)
    precision = resolved.runs_in
    path, refused = _best(resolved, size, precision)
    if path is not None:
        return _engine(resolved, path)
    if backend not in (None, GRAPH_RUNTIME) or precision != "fp32":
        raise _no_engine(resolved, size)
    graph = deployment.graph_for(size, GRAPH_RUNTIME)
    why = f"runs {graph.file} in {precision}, {resolved.because}"
    if not backend and resolved.index.paths:
        others = [name for name in resolved.index.precisions if name != precision]
        why += f"; no {precision} engine for {format_size(size)} fits this machine" + "".join(_lines(refused))
        why += f"\n  there are engines of {', '.join(others)}: --precision" if others else ""
    return Decision(why, deployment.path_of(graph), graph.sha256, graph, threads=resolved.threads)


def open_runner(decision: Decision, deployment: Deployment) -> Chosen:
    """Load what was decided.

    Raises:
        EnvironmentFault: the runtime is not on this machine.
        BadDeployment: see run/onnxruntime.py and run/tensorrt.py.
    """
    manifest = decision.manifest
    if manifest is not None:
        return Chosen(RUNTIMES[manifest.backend].call("open", decision.file, manifest, decision.threads), decision.why)
    from sr_deploy.run.onnxruntime import runner_from_graph

    takes = deployment.manifest
    runner = runner_from_graph(decision.file, takes.contract, takes.scale, threads=decision.threads)
    return Chosen(runner, f"onnxruntime on {runner.device} {decision.why}")


def runner_for(resolved: Resolved, size: Size) -> Chosen:
    """Decide what runs at one input size, and load it; raises what ``decide`` and ``open_runner`` raise."""
    return open_runner(decide(resolved, size), resolved.deployment)


def _no_engine(resolved: Resolved, size: Size) -> BadDeployment:
    """The error for an engine that was asked for and is not there, naming what is there instead."""
    folder, backend, precision = resolved.deployment.folder, resolved.backend, resolved.runs_in
    others = [name for name in ENGINE_PRECISIONS if name != precision and _runs(resolved, size, name)]
    _, refused = _best(resolved, size, precision, prove_all=True)
    asked = {AUTO: "auto --psnr-budget 0.1"}.get(precision, precision)
    build = f"srdeploy build {folder}"
    if backend is not None:
        build += f" --backend {backend} --size {format_size(size)}"
    return BadDeployment(
        f"{folder} has no {precision} {backend + ' ' if backend else ''}engine for {format_size(size)} that fits this "
        f"machine, and {precision} is {resolved.because}"
        + (f"; what runs is {', '.join(others)}" if others else "")
        + "".join(_lines(refused)),
        "an engine built for this machine and this size" + (f", or --precision {others[0]}" if others else ""),
        build if precision == "fp32" else f"{build} --precision {asked}",
    )


def _runs(resolved: Resolved, size: Size, precision: str) -> bool:
    """Whether anything of that precision runs at ``size`` on this machine: an engine, or the graph itself."""
    graph_runs = precision == "fp32" and resolved.backend in (None, GRAPH_RUNTIME)
    return graph_runs or _best(resolved, size, precision)[0] is not None


def _lines(refused: List[str]) -> List[str]:
    """Refused engines, each on a line of its own below the sentence before."""
    return [f"\n  not used: {text}" for text in refused]


@contextlib.contextmanager
def runners(resolved: Resolved, say: Callable[[str], None]) -> Iterator[Callable[[Size], Runner]]:
    """A function that gives the runner for a size; one runner is open at a time, the last one until the block ends.

    Args:
        resolved: what shall run.
        say: told what runs, each once.
    """
    opened: List[Tuple[Size, Chosen]] = []
    told: Set[str] = set()

    def runner_at(size: Size) -> Runner:
        if not opened or opened[0][0] != size:
            chosen = runner_for(resolved, size)
            before = opened.pop()[1] if opened else None
            opened.append((size, chosen))
            if before is not None:
                before.runner.close()
            if chosen.why not in told:
                told.add(chosen.why)
                say(chosen.why)
        return opened[0][1].runner

    try:
        yield runner_at
    finally:
        for _, chosen in opened:
            chosen.runner.close()


def fitting_engine(resolved: Resolved, size: Size) -> Optional[Path]:
    """The engine in the deployment that this machine should run at ``size``, of what is asked for; None without one.

    TensorRT comes before ONNX Runtime, and an engine of exactly this size before a dynamic one.
    """
    return _best(resolved, size, resolved.runs_in)[0]


def _best(resolved: Resolved, size: Size, precision: str, prove_all: bool = False) -> Tuple[Optional[Path], List[str]]:
    """The engine to run, and of those that do not fit, which and why.

    By their manifests first: only the file that is to be used is read, and the next one where it is not what it says.
    With ``prove_all`` every one that was asked for is read: of a damaged one that says more than its size.
    Engines of another precision or backend were not asked for, so nothing is said of them.
    """
    index = resolved.index
    fitting: List[Tuple[int, bool, Path]] = []
    refused: Dict[Path, str] = {}
    best: Optional[Path] = None
    for path in index.paths:
        try:
            manifest = index.stated(path)
            if manifest.precision != precision or resolved.backend not in (None, manifest.backend):
                continue
            if prove_all:
                index.proved(path)
            index.check_fits(manifest)
        except BadInput as error:
            refused[path] = _refusal(path, error)
            continue
        if not manifest.takes(size):
            refused[path] = f"{path.name} takes {manifest.allowed_sizes()}"
            continue
        exact = manifest.profile is not None and manifest.profile[0] == manifest.profile[2]
        fitting.append((rank(manifest.backend), not exact, path))
    for _, _, path in sorted(fitting):
        try:
            index.proved(path)
        except BadInput as error:
            refused[path] = _refusal(path, error)
            continue
        best = path
        break
    return best, [refused[path] for path in index.paths if path in refused]


def _refusal(path: Path, error: BadInput) -> str:
    """Why an engine is not used, on one line."""
    lines = [line.strip() for line in error.found.replace(f"{path.parent}{os.sep}", "").splitlines()]
    # Of an engine that is not what it was, the difference from what was wanted says more.
    told = "; ".join(lines[1:] or lines)
    return told if told.startswith(path.name) else f"{path.name}: {told}"


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
