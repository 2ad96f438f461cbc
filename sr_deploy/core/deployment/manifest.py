"""The deployment: a folder with ``model.onnx``, ``manifest.json``, and engines and results beside them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from pydantic import Field
from typing_extensions import Annotated, Literal

from sr_deploy.core.artifact import sha256_of, write_json
from sr_deploy.core.confine import FileName, confined
from sr_deploy.core.contract import KNOWN_FORMS, IOContract, Size, SizeRules, format_size
from sr_deploy.core.deployment.external_data import check_self_contained
from sr_deploy.core.deployment.records import CompressRecord, FoldRecord, RewriteRecord, SourceRecord
from sr_deploy.core.errors import BadDeployment
from sr_deploy.core.reach import Reach
from sr_deploy.core.schema import Amount, Count, Scale, Sha256, ShortText, SizePair, described, read_described
from sr_deploy.core.temporary import put_back

MANIFEST_NAME = "manifest.json"
#: Folder of the precision plans, each in a folder of its own; in bundles too.
PRECISION_FOLDER = "precision"
#: Folders in it that hold no plan: ranges of the tensors, and the state of an unfinished fine-tuning.
CALIBRATION_FOLDER, UNFINISHED_FOLDER = "calibration", "qat-unfinished"
SCHEMA = 1


@dataclass(frozen=True)
class GpuMeant:
    """The one GPU that something is made for.

    Attributes:
        compute_capability: such as "8.6".
        name: as ``GraphFile.gpu`` has it; "": any of that capability.
    """

    compute_capability: str
    name: str = ""


@described
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
        gpu: the GPU that it was chosen for, as ``--for`` names it, or the driver where it has no such name; "": any.
        compute_capability: of that GPU; "": any.
    """

    file: FileName
    size: Optional[SizePair]
    sha256: Sha256
    opset: Annotated[int, Field(ge=1, le=1000)]
    parameters: Count
    macs: Count
    peak_activation_bytes: Count
    macs_size: SizePair
    tuned_for: ShortText = ""
    gpu: ShortText = ""
    compute_capability: ShortText = ""

    def serves(self, backend: Optional[str], gpu: Optional[GpuMeant] = None) -> bool:
        """Whether ``backend`` should be given this graph for that GPU: a tuned one serves what it was tuned for.

        Without a backend only one that was not tuned does; without a GPU none that was tuned for one.
        """
        if not self.tuned_for:
            return True
        if self.tuned_for != backend or not self.gpu:
            return self.tuned_for == backend
        return gpu is not None and gpu.compute_capability == self.compute_capability and gpu.name in ("", self.gpu)

    def peak_bytes_at(self, size: Size) -> int:
        """``peak_activation_bytes`` scaled to another input: activations grow with the number of pixels."""
        pixels = size[0] * size[1] / (self.macs_size[0] * self.macs_size[1])
        return int(self.peak_activation_bytes * pixels)


@described
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
        reach: how far the network looks, so whether pictures can be made in tiles; null where it was not looked for.
        compression: what ``srdeploy compress`` did to the network, one entry a step, the first step first.
    """

    architecture: ShortText
    form: Literal["training", "folded"]
    scale: Scale
    contract: IOContract
    sizes: SizeRules
    graphs: Annotated[Tuple[GraphFile, ...], Field(min_length=1, max_length=1000)]
    source: SourceRecord
    parameters: Count
    hyperparameters: Dict[str, Any]
    fold: FoldRecord
    proofs: Dict[str, Amount]
    pinned_fp32: Dict[str, str]
    notes: Tuple[str, ...]
    tools: Dict[str, str]
    target: ShortText = "any"
    rewrite: Dict[str, RewriteRecord] = dataclasses.field(default_factory=dict)
    reach: Optional[Reach] = None
    compression: Tuple[CompressRecord, ...] = ()
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Refuse a contract that no picture fits, and one file as two graphs.

        Raises:
            ValueError: naming the key.
        """
        if not self.contract.is_known:
            raise ValueError(f"contract: {KNOWN_FORMS}")
        names = [graph.file for graph in self.graphs]
        if len(set(names)) < len(names) or MANIFEST_NAME in names:
            raise ValueError("graphs: each file once, and not the manifest")


@dataclass(frozen=True)
class Deployment:
    """An opened deployment folder."""

    folder: Path
    manifest: Manifest

    def graph_for(
        self, size: Optional[Size] = None, backend: Optional[str] = None, gpu: Optional[GpuMeant] = None
    ) -> GraphFile:
        """The graph that takes an input of ``size`` (height, width); without a size, ``model.onnx``.

        One of exactly this size comes before a dynamic one; of several such one that was tuned for ``gpu`` comes first,
        and of those the one tuned last. A graph that was tuned with another backend than ``backend``, or for another
        GPU, is left aside: what is fast there may be slow here. Without a backend: as it was exported.

        Raises:
            BadDeployment: all graphs are of other fixed sizes; the message names them.
            BadImage: the network does not take this size.
        """
        if size is None:
            return self.manifest.graphs[0]
        self.manifest.sizes.check(size)
        serving = [graph for graph in self.manifest.graphs if graph.serves(backend, gpu)]
        exact = [graph for graph in serving if graph.size is not None and tuple(graph.size) == tuple(size)]
        dynamic = [graph for graph in serving if graph.size is None]
        if exact or dynamic:
            return ([graph for graph in exact if graph.gpu] or exact)[-1] if exact else dynamic[0]
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
        return confined(self.folder, graph.file, str(self.folder / MANIFEST_NAME), BadDeployment)

    @property
    def source_path(self) -> Path:
        """The file that it was made from, where it was; a compressed network's lies in the deployment itself."""
        return self.folder / self.manifest.source["path"]

    @property
    def ends(self) -> Tuple[IOContract, int]:
        """The contract and the scale, which every engine of it shares."""
        return self.manifest.contract, self.manifest.scale

    @property
    def engines_folder(self) -> Path:
        """Where engines and their manifests live."""
        return self.folder / "engines"

    @property
    def precision_folder(self) -> Path:
        """Where precision plans live, and what they are made from."""
        return self.folder / PRECISION_FOLDER

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
        BadDeployment: no manifest, one that is not as described, or a graph that is missing, altered, or keeps weights
            in other files, which its hash says nothing of.
    """
    folder = Path(folder)
    put_back(folder)
    if not (folder / MANIFEST_NAME).is_file():
        wanted = "a folder made by srdeploy export"
        if folder.is_file():  # the likeliest: the network itself
            verb = "unpack" if folder.suffix == ".srd" else "export"
            todo = f"srdeploy {verb} {folder} -o {folder.stem}, and name the folder {folder.stem}"
            raise BadDeployment(f"{folder} is not a deployment but a file", wanted, todo)
        if folder.is_dir():
            found, todo = f"{folder} is not a deployment: it has no {MANIFEST_NAME}", "another -o, or name its folder"
        else:
            found, todo = f"{folder} does not exist", f"-o {folder}, or check the path"
        raise BadDeployment(found, wanted, f"srdeploy export CHECKPOINT {todo}")
    manifest = read_described(Manifest, folder / MANIFEST_NAME, "deployment manifest", "export it again", BadDeployment)
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
        check_self_contained(path)
    return deployment
