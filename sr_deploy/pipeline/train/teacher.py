"""The network that teaches: a checkpoint, a deployment, or an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.contract import SizeRules
from sr_deploy.core.deployment.manifest import MANIFEST_NAME, open_deployment
from sr_deploy.core.errors import BadDeployment, UsageError
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.pipeline.load import LoadOptions, is_graph, load_model

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Teacher:
    """Who teaches.

    Attributes:
        module: takes and gives (N, 3, H, W) in 0…white.
        scale: output size over input size.
        white: the value of white.
        sizes: inputs that it takes.
        features: a regular expression of its modules to compare; "" where none are known, as of graphs.
        about: what it is, for people.
        sha256: of its file or graph.
    """

    module: torch.nn.Module
    scale: int
    white: float
    sizes: SizeRules
    features: str
    about: str
    sha256: str


def teacher_of(path: Path, say: Callable[[str], None]) -> Teacher:
    """Load a teacher. One whose file does not tell all (EDSR, low-rank branches) is exported first, and given so.

    Raises:
        BadInput, UsageError: see load_model and export_deployment; a deployment that takes bytes.
    """
    from sr_deploy.pipeline.train.student import training_of

    if not path.exists():
        raise UsageError(f"the teacher {path} does not exist", "a checkpoint, a deployment or an ONNX file")
    if (path / MANIFEST_NAME).is_file():
        return _of_deployment(path, f"{path.name}")
    if is_graph(path):
        from sr_deploy.pipeline.export import ExportOptions, export_deployment

        with temporary_folder() as folder:
            export_deployment(ExportOptions(path, folder / "teacher"), say)
            return _of_deployment(folder / "teacher", path.name)
    try:
        checkpoint, loaded = load_model(path, LoadOptions())
    except UsageError as error:
        raise UsageError(
            f"the teacher {path}: {error.found}",
            error.wanted,
            f"srdeploy export {path} with that option, and give the deployment as --teacher",
        ) from error
    about = f"{path.name}: {loaded.architecture} x{loaded.scale}, {loaded.parameters:,} parameters"
    features = training_of(loaded).features
    return Teacher(
        loaded.module, loaded.scale, loaded.value_range, loaded.sizes, features, about, checkpoint.sha256
    )  # fmt: skip


def _of_deployment(folder: Path, name: str) -> Teacher:
    from sr_deploy.graph.specialise import load_graph
    from sr_deploy.precision.interpreter import GraphModule

    deployment = open_deployment(folder)
    manifest = deployment.manifest
    if manifest.contract.dtype != "float32":
        raise BadDeployment(
            f"the teacher {name} takes {manifest.contract.dtype} pictures",
            "a deployment that takes floats",
            "export the network without --io uint8",
        )
    graph = deployment.path_of(deployment.graph_for())
    about = f"{name}: {manifest.architecture} x{manifest.scale}, a graph"
    module = GraphModule(load_graph(graph))
    return Teacher(module, manifest.scale, manifest.contract.value_range, manifest.sizes, "", about, sha256_of(graph))
