"""A compressed graph as a deployment: exported as a given ONNX file is, which stays in it as what it was made from."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, List, Optional

from sr_deploy.core.artifact import atomic_folder, write_json
from sr_deploy.core.deployment.manifest import Deployment, Manifest, open_deployment, save_manifest
from sr_deploy.core.deployment.records import CompressRecord, SourceRecord
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.pipeline.load import LoadOptions
from sr_deploy.report.compression import said

if TYPE_CHECKING:
    import onnx

    from sr_deploy.precision.fit.graph_learner import Point

#: The plain graph, in the deployment's folder: what its own graph is proved against.
NETWORK_NAME = "network.onnx"
TRAINING_NAME, PLOT_NAME = "training.json", "training.png"


def write_compressed(
    source: Deployment,
    network: onnx.ModelProto,
    record: CompressRecord,
    out: Path,
    points: List[Point],
    say: Callable[[str], None] = lambda _: None,
) -> Deployment:
    """Export a compressed network and write its deployment, whole or not at all; an older one is replaced.

    Args:
        source: what was compressed.
        network: its plain graph.
        record: how.
        out: the folder.
        points: how distillation went; empty without.
        say: told each step.

    Raises:
        CheckFailed: the export's proof fails.
    """
    import onnx

    manifest = source.manifest
    with temporary_folder() as work, atomic_folder(out, force=True) as folder:
        graph = work / NETWORK_NAME
        say(f"exporting the narrower {manifest.architecture}")
        onnx.save(network, str(graph))
        load = LoadOptions(scale=manifest.scale, value_range=manifest.contract.value_range, colours="rgb")
        made = export_deployment(ExportOptions(graph, work / "exported", target=manifest.target, load=load), say)
        for file in made.folder.iterdir():
            shutil.move(str(file), str(folder / file.name))
        shutil.copyfile(str(graph), str(folder / NETWORK_NAME))
        save_manifest(folder, _manifest(manifest, made.manifest, record))
        if points:
            _write_training(folder, points, manifest.architecture)
    return open_deployment(out)


def _manifest(before: Manifest, made: Manifest, record: CompressRecord) -> Manifest:
    source: SourceRecord = {**made.source, "path": NETWORK_NAME}
    return dataclasses.replace(
        made,
        architecture=before.architecture,
        form="folded",
        source=source,
        hyperparameters=before.hyperparameters,
        fold=before.fold,
        notes=(*before.notes, said(record)),
        compression=(*before.compression, record),
    )


def _write_training(folder: Path, points: List[Point], architecture: str) -> None:
    from sr_deploy.report.plots_training import training_plot

    rows: List[Dict[str, Optional[float]]] = [dataclasses.asdict(point) for point in points]
    for row in rows:
        row["loss"] = None if row["loss"] != row["loss"] else row["loss"]
    write_json(folder / TRAINING_NAME, {"points": rows})
    training_plot(
        [(point.step, point.loss, point.psnr) for point in points], folder / PLOT_NAME,
        f"Distilling a narrower {architecture}",
    )  # fmt: skip
