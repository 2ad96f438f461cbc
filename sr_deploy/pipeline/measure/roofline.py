"""What a deployment should take on a GPU: ``srdeploy inspect DIR --roofline DEVICE``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional

from sr_deploy.core.contract import Size, format_size, parse_size
from sr_deploy.core.deployment.manifest import Deployment, GpuMeant, GraphFile, open_deployment
from sr_deploy.core.errors import BadDeployment, SrDeployError
from sr_deploy.core.host.gpu_rates import GpuRates, gpu_named
from sr_deploy.core.number_formats import FLOAT16
from sr_deploy.engine.estimate import ESTIMATE, estimated_ms, giga_macs
from sr_deploy.engine.runtimes import RUNTIMES
from sr_deploy.pipeline.measure.listed import LISTING_RUNTIME, built_in_half, has_listings

#: The inputs of the Light F2SRGAN study.
SIZES = ("144", "360", "480", "720", "1080")


def roofline_of(path: Path, device: str, size: Optional[Size] = None) -> Dict[str, Any]:
    """Estimates in float16 for a deployment on a GPU, for ``size`` or the sizes its graph takes among ``SIZES``.

    Returns:
        JSON-able: ``device``; ``kind``, which says that all of it is an estimate; ``note`` where something is missing;
        ``points``, one a size: ``size``; ``least_ms`` and ``limited_by`` of the least bytes and products; and from the
        listing of the engine that a build makes ``kernels``, ``megabytes``, ``giga_macs`` and ``estimate_ms``, None
        where TensorRT-RTX is not installed or refuses the graph.

    Raises:
        UsageError: no such device.
        BadDeployment: not a deployment, or it has no graph of that size.
    """
    gpu = gpu_named(device, "--roofline")
    deployment = open_deployment(path)
    points: List[Dict[str, Any]] = []
    note = "" if has_listings() else "TensorRT-RTX is not installed, so nothing is estimated from its listing"
    for one in (size,) if size else _sizes(deployment):
        graph = deployment.graph_for(one)
        point = _least(deployment, graph, gpu, one)
        try:
            points.append({**point, **_listed(deployment, graph, gpu, one)})
        except SrDeployError as error:
            note = " ".join(error.found.split())
            points.append(point)
    return {"device": gpu.title, "kind": ESTIMATE, "note": note, "points": points}


def _sizes(deployment: Deployment) -> List[Size]:
    """Those of ``SIZES`` that the deployment has a graph for; else the one its first graph is fixed to."""
    found = []
    for text in SIZES:
        try:
            deployment.graph_for(parse_size(text))
        except (BadDeployment, SrDeployError):
            continue
        found.append(parse_size(text))
    return found or [graph.size for graph in deployment.manifest.graphs if graph.size][:1]


def _least(deployment: Deployment, graph: GraphFile, gpu: GpuRates, size: Size) -> Dict[str, Any]:
    from sr_deploy.graph.census import census_of
    from sr_deploy.graph.roofline import least_bound

    census = census_of(deployment.path_of(graph), size)
    fewest = int(census.macs * _least_share(deployment, graph))
    least = least_bound(census, gpu, deployment.manifest.scale, FLOAT16.name, fewest)
    unknown = dict.fromkeys(("kernels", "megabytes", "giga_macs", "estimate_ms"))
    return {"size": format_size(size), "least_ms": least.milliseconds, "limited_by": least.limited_by, **unknown}


def _listed(deployment: Deployment, graph: GraphFile, gpu: GpuRates, size: Size) -> Dict[str, Any]:
    """What the listing of the engine that a build makes comes to; nothing where there is no builder."""
    if not has_listings():
        return {}
    tuned = deployment.graph_for(size, LISTING_RUNTIME, GpuMeant(gpu.compute_capability, gpu.name))
    record = deployment.manifest.rewrite.get(tuned.file, {}).get("tuned", {})
    passes = record["variant"] if "for" in record else RUNTIMES[LISTING_RUNTIME].rewrite
    built = built_in_half(deployment, graph, size, passes, gpu.capability)
    listing = built.listing
    assert listing is not None and listing.bytes_moved is not None
    return {
        "kernels": listing.kernels,
        "megabytes": listing.bytes_moved / 1e6,
        "giga_macs": giga_macs(listing),
        "estimate_ms": estimated_ms(listing, gpu),
    }


def _least_share(deployment: Deployment, graph: GraphFile) -> float:
    """The fewer multiply-accumulates of those before and after the rewriting, as a share of the graph's own."""
    report = deployment.manifest.rewrite.get(graph.file, {})
    counts = [report.get("before", {}).get("macs"), report.get("after", {}).get("macs")]
    known = [count for count in counts if count]
    return min(known) / known[-1] if known else 1.0
