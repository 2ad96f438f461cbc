"""Rewriting a graph file in place, with what each pass did to it counted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Dict, Sequence, cast

import onnx

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment.records import CountsRecord, FoldedRecord, KeptRecord, PassRecord, RewriteRecord
from sr_deploy.fold.result import FoldedBlock, KeptBlock
from sr_deploy.graph.census import census_of
from sr_deploy.graph.rewrite import rewrite
from sr_deploy.graph.rewrite.base import Pass, RewriteOptions
from sr_deploy.graph.rewrite.editor import PIN_MARK
from sr_deploy.graph.specialise import load_graph


def rewrite_file(path: Path, passes: Sequence[Pass], options: RewriteOptions, size: Size) -> RewriteRecord:
    """Run ``passes`` on the graph in ``path`` and write the result there.

    Args:
        path: an ONNX file.
        passes: from ``passes_named``.
        options: what they may know.
        size: the input (height, width) to count at.

    Returns:
        JSON-able: the size counted at, the counts before and after all passes, and for each pass that changed something
        how many places, its notes and the nodes after it. Counts are nodes, macs, moved_bytes (see Census) and
        peak_activation_bytes. Of a pass that folds also what it folded and where branches stay.
    """
    model, steps = rewrite(load_graph(path), passes, options)
    before, passed = census_counts(path, size), {}
    for one, result in steps:
        if result.changed or result.notes or result.kept:
            nodes = len(result.model.graph.node)
            passed[one.name] = PassRecord(places=result.changed, notes=list(result.notes), nodes=nodes)
        if result.folded or result.kept:
            passed[one.name]["folded"] = [_folded(block) for block in result.folded]
            passed[one.name]["kept"] = [_kept(block) for block in result.kept]
    onnx.save(model, str(path))
    return RewriteRecord(counted_at=format_size(size), before=before, passes=passed, after=census_counts(path, size))


def pinned_nodes(path: Path) -> Dict[str, str]:
    """Name → reason of every node that carries the mark of float32 in its doc_string."""
    found = {}
    for node in load_graph(path).graph.node:
        if node.doc_string.startswith(PIN_MARK):
            found[node.name] = node.doc_string[len(PIN_MARK) :].strip(" ()")
    return found


def _folded(block: FoldedBlock) -> FoldedRecord:
    # asdict gives a dict of anything; the record names the same fields.
    return cast(FoldedRecord, dataclasses.asdict(block))


def _kept(block: KeptBlock) -> KeptRecord:
    return cast(KeptRecord, dataclasses.asdict(block))


def census_counts(path: Path, size: Size) -> CountsRecord:
    """The counts of the graph in ``path`` at an input of ``size``."""
    census = census_of(path, size)
    return {
        "nodes": sum(census.operators.values()),
        "macs": census.macs,
        "moved_bytes": census.moved_bytes,
        "peak_activation_bytes": census.peak_activation_bytes,
    }
