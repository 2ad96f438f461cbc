"""What a TensorRT build gives, and how it is written beside the deployment's other engines."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Tuple

from sr_deploy import __version__
from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import SrDeployError
from sr_deploy.core.number_formats import EnginePrecision
from sr_deploy.engine.flavour import FlavourName
from sr_deploy.engine.listing import Listing
from sr_deploy.engine.manifest import (
    EngineManifest,
    Profile,
    discard_refused,
    engine_name,
    refused_name,
    save_engine,
)


@dataclass(frozen=True)
class BuiltEngine:
    """A plan and what the builder said of it; the fields are those of ``EngineManifest``.

    Besides, ``listing`` holds its layers (None where they are not told), and ``refusal`` why it must not be used (None:
    it may be): ``write_engine`` keeps such an engine under another name and raises the refusal.
    """

    flavour: FlavourName
    plan: bytes
    profile: Profile
    precision: EnginePrecision
    compute_capabilities: Tuple[str, ...]
    device: Optional[str]
    version: str
    activation_bytes: Optional[int]
    weights_bytes: Optional[int]
    seconds: float
    settings: Dict[str, str]
    warnings: Tuple[str, ...]
    listing: Optional[Listing] = None
    refusal: Optional[SrDeployError] = None


def write_engine(built: BuiltEngine, folder: Path, graph: Path, contract: IOContract, scale: int) -> EngineManifest:
    """Write a plan, its manifest and its listing into ``folder`` under ``engine_name``; all or none appear.

    Args:
        built: from ``engine_from_graph``.
        folder: the deployment's engines.
        graph: the deployment's graph that the plan stands for.
        contract: the tensors at both ends.
        scale: output size over input size.

    Returns:
        Its manifest; the engine is ``folder / manifest.file``.

    Raises:
        DiskFull, EnvironmentFault: it cannot be written.
        CheckFailed, BadInput: the engine was refused after its build. It is kept as ``refused_name``, which nothing
            takes for an engine; one that was there before is unchanged.
    """
    name = engine_name(built.flavour, built.profile, built.compute_capabilities, built.precision)
    if built.refusal is not None:
        name = refused_name(name)
        why = " ".join(built.refusal.found.split())
        built = dataclasses.replace(built, settings={**built.settings, "refused": why})
    manifest = EngineManifest(
        backend=built.flavour,
        file=name,
        sha256=hashlib.sha256(built.plan).hexdigest(),
        graph_file=Path(graph).name,
        graph_sha256=sha256_of(graph),
        profile=built.profile,
        precision=built.precision,
        compute_capabilities=built.compute_capabilities,
        device=built.device,
        runtime_version=built.version,
        activation_bytes=built.activation_bytes,
        weights_bytes=built.weights_bytes,
        build_seconds=round(built.seconds, 3),
        tools={"srdeploy": __version__, "python": platform.python_version(), built.flavour: built.version},
        settings=built.settings,
        warnings=built.warnings,
        contract=contract,
        scale=scale,
    )
    save_engine(Path(folder) / name, built.plan, manifest, built.listing)
    if built.refusal is not None:
        found = f"{built.refusal.found}\nkept for a look at it, not for use: {Path(folder) / name}"
        raise type(built.refusal)(found, built.refusal.wanted, built.refusal.todo) from built.refusal
    discard_refused(Path(folder) / name)
    return manifest
