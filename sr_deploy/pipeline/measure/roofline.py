"""The roofline of a deployment: ``srdeploy inspect DIR --roofline BOARD``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional

from sr_deploy.core.contract import Size, format_size, parse_size
from sr_deploy.core.deployment.manifest import Deployment, GraphFile, open_deployment
from sr_deploy.core.errors import BadDeployment

#: The inputs of the Light F2SRGAN study.
SIZES = ("144", "360", "480", "720", "1080")


def roofline_of(path: Path, board_name: str, size: Optional[Size] = None) -> Dict[str, Any]:
    """Bounds for a deployment on a board, for ``size`` or the sizes its graph takes among ``SIZES``.

    Returns:
        JSON-able: size → see ``roofline_facts``; every entry says that it is an estimate.

    Raises:
        UsageError: no such board.
        BadDeployment: not a deployment, or it has no graph of that size.
    """
    from sr_deploy.graph.census import census_of
    from sr_deploy.graph.roofline import board_named, roofline_facts

    board = board_named(board_name)
    deployment = open_deployment(path)
    asked = (size,) if size else tuple(parse_size(text) for text in SIZES)
    facts: Dict[str, Any] = {}
    for one in asked:
        try:
            graph = deployment.graph_for(one)
        except BadDeployment:
            if size:
                raise
            continue
        census = census_of(deployment.path_of(graph), one)
        least = int(census.macs * _least_share(deployment, graph))
        facts[format_size(one)] = roofline_facts(census, board, deployment.manifest.scale, least)
    if not facts:
        fixed = next(graph.size for graph in deployment.manifest.graphs if graph.size)
        return roofline_of(path, board_name, fixed)
    return facts


def _least_share(deployment: Deployment, graph: GraphFile) -> float:
    """The fewest multiply-accumulates of any stage of the rewriting, as a share of the graph's own."""
    report = deployment.manifest.rewrite.get(graph.file, {})
    counts = [report.get("before", {}).get("macs"), *(one.get("macs") for one in report.get("passes", {}).values())]
    known = [count for count in counts if count]
    return min(known) / known[-1] if known else 1.0
