"""The graphs of a deployment that tuning begins with and keeps: one for each size, backend and GPU."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Optional

from sr_deploy.core.artifact import atomic_file, sha256_of
from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment.manifest import Deployment, GpuMeant, GraphFile, save_manifest
from sr_deploy.core.deployment.records import RewriteRecord
from sr_deploy.engine.runtimes import GRAPH_RUNTIME


def source_of(deployment: Deployment, size: Size) -> GraphFile:
    """The graph that tuning starts from: as it was exported, not one that was tuned before."""
    tuned = {file for file, record in deployment.manifest.rewrite.items() if "tuned" in record}
    exported = tuple(graph for graph in deployment.manifest.graphs if graph.file not in tuned)
    manifest = dataclasses.replace(deployment.manifest, graphs=exported)
    return Deployment(deployment.folder, manifest).graph_for(size)


def keep_graph(
    deployment: Deployment,
    source: GraphFile,
    graph: Path,
    size: Size,
    record: RewriteRecord,
    difference: float,
    gpu: Optional[GpuMeant] = None,
) -> str:
    """Put the graph into the deployment, in place of one tuned for this size and GPU before; its file name.

    One file cannot be replaced together with the manifest that holds its hash: another graph gets another name, and
    the one before goes when no manifest names it any more.
    """
    from sr_deploy.graph.rewrite.report import pinned_nodes

    manifest = deployment.manifest
    backend = record["tuned"]["backend"]
    name = "" if gpu is None else gpu.name
    words = ("" if backend == GRAPH_RUNTIME else backend, re.sub("[^A-Za-z0-9.-]+", "-", name))
    file = "_".join(["model", format_size(size), *filter(None, words)]) + ".onnx"
    before = [
        one
        for one in manifest.graphs
        if (one.size, one.tuned_for, one.gpu) == (size, backend, name) and "tuned" in manifest.rewrite.get(one.file, {})
    ]
    taken = {one.file for one in manifest.graphs if one.sha256 != sha256_of(graph) or one not in before}
    names = [file, *(file.replace(".onnx", f"_{word}.onnx") for word in ("tuned", "tuned2"))]
    file = next(name for name in names if name not in taken)
    with atomic_file(deployment.folder / file) as temporary:
        temporary.write_bytes(graph.read_bytes())
    capability = "" if gpu is None else gpu.compute_capability
    entry = _counted(source, deployment.folder / file, size)
    entry = dataclasses.replace(entry, tuned_for=backend, gpu=name, compute_capability=capability)
    gone = {one.file for one in before} - {file}
    others = tuple(one for one in manifest.graphs if one not in before)
    manifest = dataclasses.replace(
        manifest,
        rewrite={name: kept for name, kept in manifest.rewrite.items() if name not in gone},
        proofs={name: kept for name, kept in manifest.proofs.items() if name.split(" at ")[0] not in gone},
    )
    save_manifest(
        deployment.folder,
        dataclasses.replace(
            manifest,
            graphs=(*others, entry),
            rewrite={**manifest.rewrite, file: record},
            proofs={**manifest.proofs, f"{file} at {format_size(size)}": difference},
            pinned_fp32={**manifest.pinned_fp32, **pinned_nodes(graph)},
        ),
    )
    for name in gone:
        (deployment.folder / name).unlink()
    return file


def _counted(source: GraphFile, graph: Path, size: Size) -> GraphFile:
    """What the manifest says of a graph that was made of ``source`` for one size."""
    from sr_deploy.graph.census import census_of

    census = census_of(graph, size)
    return dataclasses.replace(
        source,
        file=graph.name,
        size=size,
        sha256=sha256_of(graph),
        parameters=census.parameters,
        macs=census.macs,
        peak_activation_bytes=census.peak_activation_bytes,
        macs_size=size,
    )
