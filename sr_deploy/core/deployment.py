"""The deployment: a folder with ``model.onnx``, ``manifest.json``, and engines and results beside them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from sr_deploy.core.artifact import read_json, sha256_of, write_json
from sr_deploy.core.contract import IOContract, Size, SizeRules, format_size
from sr_deploy.core.errors import BadDeployment, BadInput
from sr_deploy.core.temporary import put_back

MANIFEST_NAME = "manifest.json"
SCHEMA = 1


@dataclass(frozen=True)
class GraphFile:
    """One ONNX file of a deployment.

    Attributes:
        file: name inside the folder.
        size: the fixed input (height, width); None when height and width are dynamic.
        sha256: of the file.
        opset: ONNX operator set version.
        parameters: number of weights in the graph.
        macs: multiply-accumulates for one input of ``macs_size``.
        peak_activation_bytes: the most that is alive at once when the nodes run in order, for that input.
        macs_size: the input (height, width) that both were counted at.
        tuned_for: the backend that ``srdeploy tune`` chose this form with; "": as it was exported, for all of them.
    """

    file: str
    size: Optional[Size]
    sha256: str
    opset: int
    parameters: int
    macs: int
    peak_activation_bytes: int
    macs_size: Size
    tuned_for: str = ""

    def serves(self, backend: Optional[str]) -> bool:
        """Whether ``backend`` should be given this graph: one that was tuned serves the backend it was tuned with."""
        return backend is None or self.tuned_for in ("", backend)

    def peak_bytes_at(self, size: Size) -> int:
        """``peak_activation_bytes`` scaled to another input: activations grow with the number of pixels."""
        pixels = size[0] * size[1] / (self.macs_size[0] * self.macs_size[1])
        return int(self.peak_activation_bytes * pixels)


@dataclass(frozen=True)
class Manifest:
    """All that is known of a deployment; ``manifest.json`` is its JSON form.

    Attributes:
        schema: version of this layout.
        architecture: for example "EFDN".
        form: "training" (branches, LoRA, stale folds) or "folded": what the checkpoint held.
        scale: output size over input size.
        contract: what the graph takes and gives.
        sizes: which input sizes it takes.
        graphs: the ONNX files; the first is ``model.onnx``.
        source: checkpoint name, sha256, and how its tensors were found.
        parameters: weights of the network as trained (dead ones not counted).
        hyperparameters: found from keys and shapes, or given by the user.
        fold: what was folded, and the largest relative difference proved.
        proofs: largest differences measured, in 8-bit steps, by size.
        pinned_fp32: names of graph nodes that must stay FP32, with the reason.
        notes: what a user should know (dead weights, switched-off observers, …).
        tools: versions that made it.
        target: the name of graph/target.py that the graphs were written for.
        rewrite: graph file → what each pass of graph/rewrite did to it, in nodes, MACs and bytes.
    """

    architecture: str
    form: str
    scale: int
    contract: IOContract
    sizes: SizeRules
    graphs: Tuple[GraphFile, ...]
    source: Dict[str, Any]
    parameters: int
    hyperparameters: Dict[str, Any]
    fold: Dict[str, Any]
    proofs: Dict[str, float]
    pinned_fp32: Dict[str, str]
    notes: Tuple[str, ...]
    tools: Dict[str, str]
    target: str = "any"
    rewrite: Dict[str, Any] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA


@dataclass(frozen=True)
class Deployment:
    """An opened deployment folder."""

    folder: Path
    manifest: Manifest

    def graph_for(self, size: Optional[Size] = None, backend: Optional[str] = None) -> GraphFile:
        """The graph that takes an input of ``size`` (height, width); without a size, ``model.onnx``.

        One of exactly this size comes before a dynamic one, and of two such the later, which was tuned. A graph that
        was tuned with another backend than ``backend`` is left aside: what is fast on a CPU may be slow on a GPU.

        Raises:
            BadDeployment: all graphs are of other fixed sizes; the message names them.
            BadImage: the network does not take this size.
        """
        if size is None:
            return self.manifest.graphs[0]
        self.manifest.sizes.check(size)
        serving = [graph for graph in self.manifest.graphs if graph.serves(backend)]
        exact = [graph for graph in serving if graph.size is not None and tuple(graph.size) == tuple(size)]
        dynamic = [graph for graph in serving if graph.size is None]
        if exact or dynamic:
            return exact[-1] if exact else dynamic[0]
        have = ", ".join(format_size(g.size) for g in serving if g.size)
        raise BadDeployment(
            f"{self.folder} has no graph for {format_size(size)}",
            f"one of the exported sizes: {have}",
            f"export it again with --dynamic or --size {format_size(size)}",
        )

    @property
    def dynamic_graph(self) -> Optional[GraphFile]:
        """The graph that takes any size, if there is one."""
        return next((graph for graph in self.manifest.graphs if graph.size is None), None)

    def path_of(self, graph: GraphFile) -> Path:
        """The path of one of its ONNX files."""
        return self.folder / graph.file

    @property
    def engines_folder(self) -> Path:
        """Where engines and their manifests live."""
        return self.folder / "engines"

    @property
    def results_folder(self) -> Path:
        """Where measurements and plots live."""
        return self.folder / "results"


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into ``folder``, atomically."""
    write_json(Path(folder) / MANIFEST_NAME, dataclasses.asdict(manifest))


def open_deployment(folder: Path) -> Deployment:
    """Open a deployment and check that its files are the ones its manifest describes.

    Raises:
        BadDeployment: no manifest, another schema, a missing or altered graph.
    """
    folder = Path(folder)
    put_back(folder)
    if not (folder / MANIFEST_NAME).is_file():
        raise BadDeployment(
            f"{folder} is not a deployment: it has no {MANIFEST_NAME}",
            "a folder made by srdeploy export",
            f"srdeploy export CHECKPOINT -o {folder}",
        )
    try:
        raw = read_json(folder / MANIFEST_NAME, "deployment manifest")
        if raw.get("schema") != SCHEMA:
            raise BadDeployment(
                f"{folder / MANIFEST_NAME} has schema {raw.get('schema')!r}", f"schema {SCHEMA}", "export it again"
            )
        raw["contract"] = IOContract(**raw["contract"])
        raw["sizes"] = SizeRules(**raw["sizes"])
        raw["graphs"] = tuple(GraphFile(**_with_tuples(graph)) for graph in raw["graphs"])
        raw["notes"] = tuple(raw["notes"])
        manifest = Manifest(**raw)
    except (TypeError, KeyError, AttributeError) as error:
        raise BadDeployment(f"{folder / MANIFEST_NAME} does not have the fields of a manifest: {error}") from error
    except BadDeployment:
        raise
    except BadInput as error:
        raise BadDeployment(error.found, error.wanted, error.todo) from error
    deployment = Deployment(folder, manifest)
    for graph in manifest.graphs:
        path = deployment.path_of(graph)
        if not path.is_file():
            raise BadDeployment(f"{path} is missing", "the graph that the manifest names", "export it again")
        if sha256_of(path) != graph.sha256:
            raise BadDeployment(
                f"{path} is not the file that was exported: its sha256 differs from the manifest's",
                graph.sha256[:12] + "…",
                "export it again; a graph is never edited in place",
            )
    return deployment


def _with_tuples(graph: Dict[str, Any]) -> Dict[str, Any]:
    """JSON knows only lists; sizes are tuples here so that they compare and hash."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in graph.items()}
