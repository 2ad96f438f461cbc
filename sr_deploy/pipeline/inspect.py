"""What a file or folder is."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment.manifest import Deployment, GraphFile, open_deployment
from sr_deploy.core.errors import BadInput, SrDeployError, UsageError
from sr_deploy.pipeline.load import is_graph, is_saved_checkpoint

if TYPE_CHECKING:
    from sr_deploy.engine.manifest import EngineManifest


def inspect_path(path: Path, size: Optional[Size] = None) -> Dict[str, Any]:
    """Facts about a checkpoint, an ONNX graph, an engine or a deployment.

    Args:
        path: the file or folder.
        size: count multiply-accumulates for this input (height, width); None takes a usual one.

    Returns:
        A JSON-able dict; ``kind`` is "checkpoint", "onnx", "engine", "bundle" or "deployment".

    Raises:
        BadInput: there is nothing, or it is none of these.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(
            f"{path} does not exist", "a checkpoint, an ONNX graph, an engine or a deployment folder", "check the path"
        )
    if path.is_dir() and not is_saved_checkpoint(path):
        return _deployment_facts(path, size)
    if path.suffix in (".engine", ".onnx", ".refused") and path.with_suffix(".json").is_file():
        from sr_deploy.engine.manifest import open_engine

        return {"kind": "engine", "path": str(path), **engine_facts(path, open_engine(path, refused_too=True))}
    if path.suffix == ".srd":
        return _bundle_facts(path)
    if is_graph(path):
        return _given_facts(path, size)
    if path.suffix in (".engine", ".plan", ".trt"):
        raise BadInput(
            f"{path} has no manifest beside it, so nothing is known of it",
            f"{path.with_suffix('.json').name} beside the engine",
            "build it with srdeploy build, or look at it with trtexec --loadEngine",
        )
    return _checkpoint_facts(path)


def _deployment_facts(path: Path, size: Optional[Size]) -> Dict[str, Any]:
    from sr_deploy.engine.index import EngineIndex
    from sr_deploy.pipeline.precision.plan_facts import plan_facts
    from sr_deploy.report.numbers import streaming_text

    deployment = open_deployment(path)
    facts: Dict[str, Any] = {"kind": "deployment", "path": str(path), **dataclasses.asdict(deployment.manifest)}
    index = EngineIndex(deployment)
    facts["engines"] = [str(engine.relative_to(path)) for engine in index.paths]
    facts["streaming"] = {}
    for engine in index.paths:
        with contextlib.suppress(BadInput):  # an engine whose manifest cannot be read is named all the same
            facts["streaming"][engine.name] = streaming_text(index.proved(engine).to_dict())
    facts["plans"] = {one["name"]: {k: v for k, v in one.items() if k != "name"} for one in plan_facts(deployment)}
    facts["streaming"] = {name: text for name, text in facts["streaming"].items() if text}
    facts["tuned"] = {one.file: _tuned_text(deployment, one) for one in deployment.manifest.graphs if one.tuned_for}
    if size is not None:
        graph = deployment.graph_for(size)
        facts["census"] = _graph_facts(deployment.path_of(graph), size)
    return facts


def _tuned_text(deployment: Deployment, graph: GraphFile) -> str:
    """What a tuned graph is for, and its passes."""
    passes = deployment.manifest.rewrite.get(graph.file, {}).get("tuned", {}).get("variant", "unknown passes")
    gpu = f" on {graph.gpu} ({graph.compute_capability})" if graph.gpu else ""
    return f"{format_size(graph.size) if graph.size else 'any size'} with {graph.tuned_for}{gpu}: {passes}"


def _bundle_facts(path: Path) -> Dict[str, Any]:
    from sr_deploy.bundle.open import check_bundle
    from sr_deploy.core.artifact import sha256_of

    index = check_bundle(path)
    files = {member.name: member.size for member in index.members}
    packed = {"packed_by": f"srdeploy {index.srdeploy}", "target": index.target}
    return {"kind": "bundle", "path": str(path), "sha256": sha256_of(path), **packed, "files": files}


def engine_facts(path: Path, manifest: EngineManifest) -> Dict[str, Any]:
    """The manifest of the engine at ``path``, and where the builder told of its layers ``listing`` (its summary) and
    ``layers``, see engine/listing.py.

    Raises:
        BadDeployment: its listing is damaged.
    """
    from sr_deploy.engine.listing import layer_facts, open_listing, summary

    listing = open_listing(path, manifest.sha256)
    if listing is None:
        return manifest.to_dict()
    told = {"listing": summary(listing), "layers": layer_facts(listing), "unread": list(listing.unread)}
    return {**manifest.to_dict(), **told}


def listings_of(folder: Path, engines: Sequence[EngineManifest]) -> Dict[str, Dict[str, Any]]:
    """Engine file → the summary of its listing (engine/listing.py), for those whose layers the builder told.

    Args:
        folder: the deployment.
        engines: manifests of engines that lie in it.
    """
    from sr_deploy.engine.listing import open_listing, summary

    found = {one.file: open_listing(folder / "engines" / one.file, one.sha256) for one in engines}
    return {file: summary(listing) for file, listing in found.items() if listing is not None}


def _given_facts(path: Path, size: Optional[Size]) -> Dict[str, Any]:
    """Facts of an ONNX file, as the network that export would take it for, and what export would ask."""
    from sr_deploy.core.temporary import temporary_folder
    from sr_deploy.pipeline.export import census_size
    from sr_deploy.pipeline.load import LoadOptions, graph_network

    problem, asked = {}, ""
    try:
        network, body = graph_network(path, LoadOptions())
    except UsageError as error:  # all else can be told without the value range
        problem = {"value_range": None, "problem": error.found, "next": error.todo}
        network, body = graph_network(path, LoadOptions(value_range=1.0))
        asked = "; white is 1, as was asked"
    with temporary_folder() as folder:
        body.save(folder / path.name)
        counted = _graph_facts(folder / path.name, size or network.fixed or census_size(network.sizes))
    # Its own ends are told by hyperparameters; those counted on are named as a deployment's.
    own = {key: value for key, value in counted.items() if key not in ("inputs", "outputs")}
    return {
        **own,
        "path": str(path),
        "sha256": network.source["sha256"],
        "external": network.source["external"],
        **network.hyperparameters,
        "scale": network.scale,
        "value_range": network.value_range,
        "fixed_size": None if network.fixed is None else format_size(network.fixed),
        "sizes": dataclasses.asdict(network.sizes),
        "notes": [note.replace(asked, "") for note in network.notes],
        **problem,
    }


def _graph_facts(path: Path, size: Size) -> Dict[str, Any]:
    from sr_deploy.graph.census import census_of, graph_signature

    signature = graph_signature(path)
    counted = census_of(path, size)
    return {
        "kind": "onnx",
        "path": str(path),
        "opset": signature.opset,
        "inputs": signature.inputs,
        "outputs": signature.outputs,
        "operators": counted.operators,
        "weight_types": counted.dtypes,
        "parameters": counted.parameters,
        "macs": counted.macs,
        "macs_at": format_size(counted.size),
        "largest_activation_bytes": counted.largest_tensor_bytes,
    }


def _checkpoint_facts(path: Path) -> Dict[str, Any]:
    """Facts of a checkpoint; one that needs a value from the user, or is unknown, is described as far as possible."""
    from sr_deploy.checkpoint.read import checkpoint_from_file
    from sr_deploy.models.base import Asked
    from sr_deploy.models.registry import detect_architecture, model_from_tensors, nearest_architecture

    checkpoint = checkpoint_from_file(path)
    facts: Dict[str, Any] = {
        "kind": "checkpoint",
        "path": str(path),
        "sha256": checkpoint.sha256,
        "container": checkpoint.container,
        "found_under": checkpoint.found_under,
        "stripped_prefix": checkpoint.stripped_prefix,
        "tensors": len(checkpoint.tensors),
        "values": sum(t.numel() for t in checkpoint.tensors.values()),
        "notes": list(checkpoint.notes),
    }
    architecture = detect_architecture(checkpoint.tensors)
    facts["architecture"] = architecture.name if architecture else None
    if architecture is None:
        name, share = nearest_architecture(checkpoint.tensors)
        if share > 0:
            facts["nearest_architecture"] = f"{name} ({share:.0%} of its keys)"
    try:
        loaded = model_from_tensors(checkpoint.tensors, Asked(), None)
    except SrDeployError as error:
        facts["problem"] = error.found
        facts["wanted"] = error.wanted  # for an unknown one also why spandrel does not know it, or could not be asked
        facts["next"] = error.todo
        facts["keys"] = {key: list(t.shape) for key, t in list(checkpoint.tensors.items())[:12]}
        return facts
    facts.update(
        architecture=loaded.architecture,
        form=loaded.form,
        scale=loaded.scale,
        value_range=loaded.value_range,
        parameters=loaded.parameters,
        sizes=dataclasses.asdict(loaded.sizes),
        hyperparameters=loaded.hyperparameters,
    )
    facts["notes"] += list(loaded.notes)
    return facts
