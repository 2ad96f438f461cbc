"""Whether an engine runs on this machine: what it was built for beside what is here.

A TensorRT plan fits one TensorRT version and one GPU generation only (TensorRT support matrix, "serialized engines are
not portable"). A foreign one is refused with the difference named, before anything is loaded.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple

from sr_deploy.core.contract import IOContract, format_size
from sr_deploy.core.errors import ForeignEngine
from sr_deploy.core.host.machine import this_machine
from sr_deploy.engine.manifest import EngineManifest
from sr_deploy.engine.runtimes import GRAPH_RUNTIME, RUNTIMES


@dataclass(frozen=True)
class HostFacts:
    """What decides whether an engine may run here.

    Attributes:
        backend: the runtime that was looked for, a name of engine/runtimes.py.
        runtime_version: its version; None when it is not installed.
        compute_capability: of the first GPU, such as "8.6"; None without a GPU.
        device: that GPU's name; None without a GPU.
    """

    backend: str
    runtime_version: Optional[str]
    compute_capability: Optional[str]
    device: Optional[str]


def host_facts(backend: str) -> HostFacts:
    """Look at this machine for one backend. Imports that backend's runtime; raises nothing for what is absent."""
    version = RUNTIMES[backend].version_here()
    gpus = this_machine().gpus
    if not gpus:
        return HostFacts(backend, version, None, None)
    return HostFacts(backend, version, gpus[0].compute_capability, gpus[0].name)


def check_engine(
    manifest: EngineManifest,
    here: HostFacts,
    graphs: Sequence[str],
    folder: str = "DEPLOYMENT",
    ends: Optional[Tuple[IOContract, int]] = None,
) -> None:
    """Refuse an engine that was built for something else.

    Args:
        manifest: from ``open_engine``, which has checked the engine's bytes.
        here: from ``host_facts(manifest.backend)``.
        graphs: sha256 of the deployment's graphs; one of them must be the engine's. Empty: do not compare.
        folder: the deployment, for the command in the message.
        ends: the deployment's contract and scale, which must be the engine's: other values would give another picture.
            None: do not compare.

    Raises:
        ForeignEngine: naming every difference with both values, and the command that rebuilds.
    """
    differences: List[str] = []
    if manifest.backend != here.backend:
        differences.append(f"backend: built for {manifest.backend}, opened with {here.backend}")
    if here.runtime_version is None:
        differences.append(f"runtime: built with {manifest.backend} {manifest.runtime_version}, not installed here")
    elif manifest.runtime_version != here.runtime_version:
        differences.append(
            f"runtime version: built with {manifest.backend} {manifest.runtime_version}, here is {here.runtime_version}"
        )
    capabilities = manifest.compute_capabilities
    if capabilities and here.compute_capability not in capabilities:
        have = "no GPU"
        if here.device is not None:
            have = f"{here.compute_capability or 'an unknown one'} ({here.device})"
        differences.append(f"GPU compute capability: built for {', '.join(capabilities)}, here is {have}")
    if graphs and manifest.graph_sha256 not in graphs:
        have = ", ".join(f"{sha256[:12]}…" for sha256 in graphs)
        differences.append(f"graph: built from {manifest.graph_file} {manifest.graph_sha256[:12]}…, here is {have}")
    if ends is not None:
        differences += _different_ends(manifest, *ends)
    if differences:
        raise ForeignEngine(
            f"{manifest.file} was built for something else\n  " + "\n  ".join(differences),
            "an engine of this backend and version, for this GPU, from this graph",
            _rebuild(manifest, here, folder),
        )


def _different_ends(manifest: EngineManifest, contract: IOContract, scale: int) -> List[str]:
    """What an engine's contract and scale say otherwise than the deployment's, one line each."""
    pairs: List[Tuple[str, Any, Any]] = [("scale", manifest.scale, scale)]
    for field in dataclasses.fields(IOContract):
        pairs.append((f"contract.{field.name}", getattr(manifest.contract, field.name), getattr(contract, field.name)))
    return [f"{name}: the engine's is {has!r}, the deployment's {ours!r}" for name, has, ours in pairs if has != ours]


def _rebuild(manifest: EngineManifest, here: HostFacts, folder: str) -> str:
    """The command that makes an engine like this one for this machine."""
    needs_gpu = bool(manifest.compute_capabilities) and here.device is None
    sizes = ""
    if manifest.profile is not None:
        low, best, high = (format_size(size) for size in manifest.profile)
        sizes = f" --size {low}" if low == high else f" --min-size {low} --opt-size {best} --max-size {high}"
    backend = GRAPH_RUNTIME if needs_gpu else here.backend
    command = f"srdeploy build {folder} --backend {backend}{sizes} --force"
    if needs_gpu:
        return f"use it on a machine with such a GPU; without a GPU: {command}"
    return command
