"""Which runtime runs a deployment, and why: the choice that run, verify and bench share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment import Deployment
from sr_deploy.core.errors import BadDeployment, UsageError
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
    """

    runner: Runner
    why: str
    graph_sha256: str
    engine: Optional[Path]


def check_backend(name: Optional[str]) -> None:
    """Raise UsageError for a backend that does not exist."""
    if name is not None and name not in BACKENDS:
        raise UsageError(f"there is no backend {name!r}", "one of " + ", ".join(BACKENDS))


def runner_for(
    deployment: Deployment,
    size: Optional[Size],
    backend: Optional[str] = None,
    engine: Optional[Path] = None,
    threads: Optional[int] = None,
) -> Chosen:
    """Open a runner for one input size.

    An engine that is named is used or refused. Without one, a TensorRT engine of this deployment that fits this
    machine and the size is preferred; else ONNX Runtime runs the graph.

    Args:
        deployment: the opened folder.
        size: (height, width); None when pictures of several sizes will come (then the graph must be dynamic).
        backend: one of BACKENDS, or None for the best this machine has.
        engine: an engine file to run, whatever else there is.
        threads: ONNX Runtime's threads on the CPU; None for its default.

    Raises:
        ForeignEngine: the named engine was built for something else.
        BadDeployment: a TensorRT backend was asked for and no engine fits; the message says how to build one.
        EnvironmentFault: the runtime is not on this machine.
    """
    check_backend(backend)
    if engine is not None:
        return _from_engine(deployment, engine, backend)
    if backend in (None, "tensorrt", "tensorrt-rtx"):
        fitting = fitting_engine(deployment, size, backend)
        if fitting is not None:
            return _from_engine(deployment, fitting, backend)
        if backend is not None:
            shape = f" --size {format_size(size)}" if size else ""
            raise BadDeployment(
                f"{deployment.folder} has no {backend} engine for {format_size(size) if size else 'any size'}"
                " that fits this machine",
                "an engine built on this machine",
                f"srdeploy build {deployment.folder} --backend {backend}{shape}",
            )
    from sr_deploy.run.onnxruntime import runner_from_graph

    manifest = deployment.manifest
    graph = deployment.graph_for(size)
    runner = runner_from_graph(deployment.path_of(graph), manifest.contract, manifest.scale, threads=threads)
    why = "asked for" if backend else "there is no TensorRT engine for this machine in the deployment"
    return Chosen(runner, f"onnxruntime on {runner.device}: {why}", graph.sha256, None)


def fitting_engine(deployment: Deployment, size: Optional[Size], backend: Optional[str]) -> Optional[Path]:
    """The first TensorRT engine in the deployment that this machine can run at ``size``."""
    from sr_deploy.core.errors import BadInput
    from sr_deploy.engine.manifest import check_engine, host_facts, open_engine

    for path in engine_files(deployment):
        try:
            manifest = open_engine(path)
        except BadInput:
            continue
        if manifest.backend == "onnxruntime" or (backend and manifest.backend != backend):
            continue
        if size is not None and not manifest.takes(size):
            continue
        try:
            check_engine(manifest, host_facts(manifest.backend), _graph_hashes(deployment))
        except BadInput:
            continue
        return path
    return None


def _from_engine(deployment: Deployment, path: Path, backend: Optional[str]) -> Chosen:
    """Open a named engine, or refuse it with the difference."""
    from sr_deploy.engine.manifest import check_engine, host_facts, open_engine

    manifest = open_engine(path)
    if backend is not None and manifest.backend != backend:
        raise UsageError(f"{path} is an engine of {manifest.backend}, not of {backend}", "one of the two, not both")
    check_engine(manifest, host_facts(manifest.backend), _graph_hashes(deployment))
    if manifest.backend == "onnxruntime":
        from sr_deploy.run.onnxruntime import runner_from_graph

        runner: Runner = runner_from_graph(path, manifest.contract, manifest.scale)
    else:
        from sr_deploy.run.tensorrt import runner_from_engine

        runner = runner_from_engine(path)
    return Chosen(runner, f"{manifest.backend} engine {path.name}", manifest.graph_sha256, path)


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
