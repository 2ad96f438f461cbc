"""Which runtime runs a deployment, and why: the choice that run, verify and bench share."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Tuple

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.core.errors import BadDeployment, BadInput, UsageError
from sr_deploy.core.number_formats import ENGINE_PRECISIONS
from sr_deploy.run.base import Runner

BACKENDS = ("onnxruntime", "tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class Chosen:
    """A runner and how it came to be chosen.

    Attributes:
        runner: ready for ``prepare``.
        why: one sentence for the user.
        graph_sha256: of the graph it runs or was built from.
        engine: the engine file, or None when it runs the graph itself.
        precision: one of ENGINE_PRECISIONS.
    """

    runner: Runner
    why: str
    graph_sha256: str
    engine: Optional[Path]
    precision: str = "fp32"


def check_precision(name: Optional[str]) -> None:
    """Raise UsageError for a precision that no engine has."""
    if name is not None and name not in ENGINE_PRECISIONS:
        raise UsageError(f"there is no engine of precision {name!r}", "one of " + ", ".join(ENGINE_PRECISIONS))


def check_backend(name: Optional[str]) -> None:
    """Raise UsageError for a backend that does not exist."""
    if name is not None and name not in BACKENDS:
        raise UsageError(f"there is no backend {name!r}", "one of " + ", ".join(BACKENDS))


def runner_for(
    deployment: Deployment,
    size: Size,
    backend: Optional[str] = None,
    engine: Optional[Path] = None,
    threads: Optional[int] = None,
    precision: Optional[str] = None,
) -> Chosen:
    """Open a runner for one input size.

    An engine that is named is used or refused. Without one, an engine of this deployment that fits this machine and
    the size is preferred, TensorRT before ONNX Runtime; else ONNX Runtime runs the graph. An engine of a lower
    precision gives another picture, so it is only taken when it is asked for.

    Args:
        deployment: the opened folder.
        size: (height, width).
        backend: one of BACKENDS, or None for the best this machine has.
        engine: an engine file to run, whatever else there is.
        threads: ONNX Runtime's threads on the CPU; None for its default.
        precision: of the engine, one of ENGINE_PRECISIONS; None is "fp32", which the graph is too. An engine that is
            named must be of it, if it is given.

    Raises:
        ForeignEngine: the named engine was built for something else.
        BadDeployment: a TensorRT backend was asked for and no engine fits; the message says how to build one.
        BadImage: the network does not take this size.
        EnvironmentFault: the runtime is not on this machine.
    """
    check_backend(backend)
    check_precision(precision)
    deployment.manifest.sizes.check(size)
    engine = engine or fitting_engine(deployment, size, backend, precision)
    if engine is not None:
        return _from_engine(deployment, engine, backend, precision, threads)
    if backend not in (None, "onnxruntime") or precision not in (None, "fp32"):
        raise _no_engine(deployment, size, backend, precision or "fp32")
    from sr_deploy.run.onnxruntime import runner_from_graph

    manifest = deployment.manifest
    graph = deployment.graph_for(size, "onnxruntime")
    runner = runner_from_graph(deployment.path_of(graph), manifest.contract, manifest.scale, threads=threads)
    why = "asked for"
    if not backend:
        _, refused = _sorted_out(deployment, size, None, "fp32")
        why = f"the deployment has no engine for {format_size(size)} on this machine" + "".join(_lines(refused))
    return Chosen(runner, f"onnxruntime on {runner.device} runs {graph.file}: {why}", graph.sha256, None)


def precision_of(engine: Optional[Path], precision: Optional[str]) -> str:
    """What runs where this engine or this precision is asked for; "fp32" where neither is."""
    from sr_deploy.engine.manifest import open_engine

    return open_engine(engine).precision if engine is not None else precision or "fp32"


def _no_engine(deployment: Deployment, size: Size, backend: Optional[str], precision: str) -> BadDeployment:
    """The error for an engine that was asked for and is not there, naming what is there instead."""
    others = [one for one in ENGINE_PRECISIONS if one != precision and fitting_engine(deployment, size, backend, one)]
    asked = {"mixed": "auto --psnr-budget 0.1"}.get(precision, precision)
    _, refused = _sorted_out(deployment, size, backend, precision)
    build = f"srdeploy build {deployment.folder}"
    if backend is not None:
        build += f" --backend {backend} --size {format_size(size)}"
    return BadDeployment(
        f"{deployment.folder} has no {precision} {backend + ' ' if backend else ''}engine for {format_size(size)} that "
        "fits this machine" + (f"; it has one of {', '.join(others)}" if others else "") + "".join(_lines(refused)),
        "an engine built for this machine and this size" + (f", or --precision {others[0]}" if others else ""),
        build if precision == "fp32" else f"{build} --precision {asked}",
    )


def _lines(refused: List[str]) -> List[str]:
    """Refused engines, each on a line of its own below the sentence before."""
    return [f"\n  not used: {text}" for text in refused]


@contextlib.contextmanager
def runners(
    deployment: Deployment,
    backend: Optional[str],
    engine: Optional[Path],
    say: Callable[[str], None],
    precision: Optional[str] = None,
) -> Iterator[Callable[[Size], Runner]]:
    """A function that gives the runner for a size; one runner is open at a time, the last one until the block ends.

    Args:
        deployment, backend, engine, precision: see ``runner_for``.
        say: told what runs, whenever that changes.
    """
    opened: List[Tuple[Size, Chosen]] = []

    def runner_at(size: Size) -> Runner:
        if not opened or opened[0][0] != size:
            chosen = runner_for(deployment, size, backend, engine, precision=precision)
            before = opened.pop()[1] if opened else None
            opened.append((size, chosen))
            if before is not None:
                before.runner.close()
            if before is None or before.why != chosen.why:
                say(chosen.why)
        return opened[0][1].runner

    try:
        yield runner_at
    finally:
        for _, chosen in opened:
            chosen.runner.close()


def fitting_engine(
    deployment: Deployment, size: Size, backend: Optional[str], precision: Optional[str] = None
) -> Optional[Path]:
    """The engine of a precision in the deployment that this machine should run at ``size``; None without one.

    TensorRT comes before ONNX Runtime, and an engine of exactly this size before a dynamic one. ``precision`` None is
    "fp32".
    """
    fitting, _ = _sorted_out(deployment, size, backend, precision or "fp32")
    return min(fitting)[2] if fitting else None


def _sorted_out(
    deployment: Deployment, size: Size, backend: Optional[str], precision: str
) -> Tuple[List[Tuple[bool, bool, Path]], List[str]]:
    """The engines that fit, each with its rank (the least is the best); and of those that do not, which and why.

    Engines of another precision or backend were not asked for, so nothing is said of them.
    """
    from sr_deploy.engine.fits import check_engine, host_facts
    from sr_deploy.engine.manifest import open_engine

    fitting: List[Tuple[bool, bool, Path]] = []
    refused: List[str] = []
    for path in engine_files(deployment):
        try:
            manifest = open_engine(path)
            if manifest.precision != precision or backend not in (None, manifest.backend):
                continue
            check_engine(manifest, host_facts(manifest.backend), _graph_hashes(deployment), ends=deployment.ends)
        except BadInput as error:
            lines = [line.strip() for line in error.found.replace(f"{path.parent}{os.sep}", "").splitlines()]
            # Of an engine that is not what it was, the difference from what was wanted says more.
            told = "; ".join(lines[1:] or lines)
            refused.append(told if told.startswith(path.name) else f"{path.name}: {told}")
            continue
        if not manifest.takes(size):
            refused.append(f"{path.name} takes {manifest.allowed_sizes()}")
            continue
        exact = manifest.profile is not None and manifest.profile[0] == manifest.profile[2]
        fitting.append((manifest.backend == "onnxruntime", not exact, path))
    return fitting, refused


def _from_engine(
    deployment: Deployment, path: Path, backend: Optional[str], precision: Optional[str], threads: Optional[int]
) -> Chosen:
    """Open a named engine, or refuse it with the difference."""
    from sr_deploy.engine.fits import check_engine, host_facts
    from sr_deploy.engine.manifest import open_engine

    manifest = open_engine(path)
    if backend is not None and manifest.backend != backend:
        raise UsageError(f"{path} is an engine of {manifest.backend}, not of {backend}", "one of the two, not both")
    if precision is not None and manifest.precision != precision:
        raise UsageError(f"{path} is an engine of {manifest.precision}, not of {precision}", "one of the two, not both")
    check_engine(
        manifest, host_facts(manifest.backend), _graph_hashes(deployment), str(deployment.folder), deployment.ends
    )
    if manifest.backend == "onnxruntime":
        from sr_deploy.run.onnxruntime import runner_from_graph

        runner: Runner = runner_from_graph(path, manifest.contract, manifest.scale, threads=threads)
    else:
        from sr_deploy.run.tensorrt import runner_from_engine

        runner = runner_from_engine(path)
    return Chosen(runner, f"{manifest.backend} engine {path.name}", manifest.graph_sha256, path, manifest.precision)


def _graph_hashes(deployment: Deployment) -> Tuple[str, ...]:
    return tuple(graph.sha256 for graph in deployment.manifest.graphs)


def engine_files(deployment: Deployment) -> Tuple[Path, ...]:
    """The engines in a deployment: files beside which a manifest of the same stem lies."""
    if not deployment.engines_folder.is_dir():
        return ()
    return tuple(
        sorted(
            path
            for path in deployment.engines_folder.iterdir()
            if path.suffix in (".engine", ".onnx") and path.with_suffix(".json").is_file()
        )
    )
