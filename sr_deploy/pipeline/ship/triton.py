"""Deployment to models for NVIDIA Triton Inference Server: the ONNX graphs, and the TensorRT engines if there are any.

Written after Triton's model_config.proto and its documentation of model repositories and model configuration, and
checked against that protobuf; no server was at hand. One model a graph (``NAME_onnx``), one model for the engines of
one profile and precision (``NAME_tensorrt_…``), whose plans for several GPUs Triton tells apart by compute capability.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from sr_deploy.bundle.recipe import Recipe
from sr_deploy.core.artifact import atomic_folder
from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment.manifest import Deployment, GraphFile, open_deployment
from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.engine.index import EngineIndex
from sr_deploy.engine.manifest import EngineManifest, Profile, check_profile
from sr_deploy.engine.runtimes import GRAPH_RUNTIME, RUNTIMES
from sr_deploy.pipeline.ship.triton_config import TENSORRT, Model, config_text


@dataclass(frozen=True)
class TritonOptions:
    """What ``srdeploy pack --triton`` is asked for.

    Attributes:
        deployment: the folder.
        repository: Triton's model repository; other models in it stay as they are.
        name: what the models' names begin with; None takes the deployment folder's name.
        recipe: its sizes and profile bound what the server's own TensorRT builds from a graph for any size, and name
            the inputs that CUDA graphs are captured for.
        cache: folder on the server for the engines that it builds; None: it builds at every start.
        force: replace models of the same names.
    """

    deployment: Path
    repository: Path
    name: Optional[str] = None
    recipe: Recipe = Recipe()
    cache: Optional[str] = None
    force: bool = False


@dataclass(frozen=True)
class Written:
    """The models that were made, by their folders, and what was left out and why."""

    repository: Path
    models: Tuple[Path, ...]
    notes: Tuple[str, ...]

    def to_dict(self) -> Dict[str, Any]:
        """Plain values for JSON."""
        models = [str(path) for path in self.models]
        return {"schema": 1, "repository": str(self.repository), "models": models, "notes": list(self.notes)}


def write_triton(options: TritonOptions, say: Callable[[str], None] = lambda _: None) -> Written:
    """Write the models; each appears whole or not at all, and none before all are complete.

    Raises:
        UsageError: a name that Triton does not take, a model that exists (without ``force``), sizes that contradict
            each other.
        BadDeployment, BadImage, DiskFull, EnvironmentFault.
    """
    models, notes = _models(options)
    for note in notes:
        say(f"note: {note}")
    folders = tuple(options.repository / model.name for model in models)
    with contextlib.ExitStack() as stack:
        for model, folder in zip(models, folders):
            temporary = stack.enter_context(atomic_folder(folder, options.force))
            (temporary / "config.pbtxt").write_text(config_text(model), encoding="utf-8")
            (temporary / "1").mkdir()
            for name, source in model.files.items():
                shutil.copyfile(str(source), str(temporary / "1" / name))
    return Written(options.repository, folders, notes)


def plan_triton(options: TritonOptions) -> List[str]:
    """What ``write_triton`` would do, one line each; nothing is written."""
    models, notes = _models(options)
    lines = []
    for model in models:
        folder = options.repository / model.name
        lines.append(f"model:   {folder}: {', '.join(model.files)}" + (" (exists already)" if folder.exists() else ""))
    return lines + [f"note:    {note}" for note in notes]


def _models(options: TritonOptions) -> Tuple[List[Model], Tuple[str, ...]]:
    deployment = open_deployment(options.deployment)
    name = Path(options.deployment).resolve().name if options.name is None else options.name
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise UsageError(f"{name!r} is no name for a model", "letters, digits, _ . and -", "--name NAME")
    for size in options.recipe.sizes + (options.recipe.profile or ()):
        deployment.manifest.sizes.check(size)
    if options.recipe.profile is not None:
        check_profile(options.recipe.profile)
        if options.recipe.sizes:
            raise UsageError("--size and --min-size exclude each other", "fixed sizes, or one range")
    engines, notes = _tensorrt_models(deployment, name, options.recipe.sizes)
    return [*_onnx_models(deployment, name, options), *engines], notes


def _onnx_models(deployment: Deployment, name: str, options: TritonOptions) -> List[Model]:
    """One model a graph; of two graphs of one size the later, which was tuned, if it was for this runtime."""
    serving = (graph for graph in deployment.manifest.graphs if graph.serves(GRAPH_RUNTIME))
    graphs: Dict[Optional[Size], GraphFile] = {graph.size: graph for graph in serving}
    models = []
    for size, graph in graphs.items():
        models.append(
            Model(
                name=f"{name}_onnx" + (f"_{format_size(size)}" if size else ""),
                backend=RUNTIMES[GRAPH_RUNTIME].triton,
                size=size,
                scale=deployment.manifest.scale,
                contract=deployment.manifest.contract,
                files={"model.onnx": deployment.path_of(graph)},
                profile=_range(options.recipe) if size is None else (size,) * 3,
                cache=options.cache,
                origin=f"{graph.file} of {deployment.manifest.architecture}, sha256 {graph.sha256}",
            )
        )
    return models


def _range(recipe: Recipe) -> Optional[Profile]:
    """Smallest, best and largest input that is asked for; None when nothing is."""
    if recipe.profile is not None or not recipe.sizes:
        return recipe.profile
    rows, columns = zip(*recipe.sizes)
    best = max(recipe.sizes, key=lambda size: size[0] * size[1])
    return (min(rows), min(columns)), best, (max(rows), max(columns))


def _tensorrt_models(deployment: Deployment, name: str, sizes: Tuple[Size, ...]) -> Tuple[List[Model], Tuple[str, ...]]:
    """One model for the engines of one profile, precision and TensorRT, whatever GPU they were built for."""
    groups: Dict[Tuple[Profile, str, str], List[Tuple[Path, EngineManifest]]] = {}
    notes: List[str] = []
    graphs = {graph.sha256 for graph in deployment.manifest.graphs}
    index = EngineIndex(deployment)
    for path in index.paths:
        try:
            engine = index.proved(path)
        except BadInput as error:
            notes.append(f"{path.name} is left out: {error.found}")
            continue
        row = RUNTIMES[engine.backend]
        if not row.triton:
            notes.append(f"{path.name} is left out: Triton's TensorRT backend does not load {row.title} engines")
        elif row.triton == TENSORRT and engine.graph_sha256 not in graphs:
            notes.append(f"{path.name} is left out: it was built from another graph")
        elif row.triton == TENSORRT and engine.profile is not None:
            key = (engine.profile, engine.precision, engine.runtime_version)
            groups.setdefault(key, []).append((path, engine))
    versions = {version for _, _, version in groups}
    models = []
    for (profile, precision, version), members in groups.items():
        words = [name, TENSORRT, "-".join(dict.fromkeys(map(format_size, profile)))]
        words += [precision] if precision != "fp32" else []
        words += [version] if len(versions) > 1 else []
        captured = [size for size in sizes if members[0][1].takes(size)] or [profile[1]]
        models.append(
            Model(
                name="_".join(words),
                backend=TENSORRT,
                size=profile[0] if profile[0] == profile[2] else None,
                scale=deployment.manifest.scale,
                contract=deployment.manifest.contract,
                files={path.with_suffix(".plan").name: path for path, _ in members},
                profile=profile,
                capabilities={
                    capability: path.with_suffix(".plan").name
                    for path, engine in members
                    for capability in engine.compute_capabilities
                },
                captured=tuple(captured),
                origin=f"{precision} engines of TensorRT {version}, which the server must have too",
            )
        )
    return models, tuple(notes)
