"""What an engine is and where it may run: a JSON file beside it (``x.engine`` + ``x.json``), never bytes inside it.

A TensorRT plan fits one TensorRT version and one GPU generation only (TensorRT support matrix, "serialized engines are
not portable"). The manifest lets a foreign one be refused with the difference named, before anything is loaded.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from pydantic import Field
from typing_extensions import Annotated, Literal

from sr_deploy.core.artifact import atomic_file, sha256_of
from sr_deploy.core.confine import FileName
from sr_deploy.core.contract import IOContract, Size, format_size
from sr_deploy.core.errors import BadDeployment, ForeignEngine, UsageError
from sr_deploy.core.external_data import check_self_contained
from sr_deploy.core.schema import Count, Scale, Seconds, Sha256, ShortText, SizePair, described, read_described

SCHEMA = 1
BACKENDS = ("onnxruntime", "tensorrt", "tensorrt-rtx")

#: Smallest, best and largest input, each (height, width) in pixels; three equal ones are a fixed input.
Profile = Tuple[Size, Size, Size]


@described
@dataclass(frozen=True)
class EngineManifest:
    """All that is known of one engine.

    Attributes:
        backend: one of BACKENDS.
        file: the engine's file name.
        sha256: of the engine's bytes.
        graph_file, graph_sha256: the ONNX graph of the deployment that it was built from.
        profile: the inputs it takes; None means any size that the network takes.
        precision: "fp32" (nothing is computed in less, TensorFloat-32 included), "fp16", "int8" or "mixed".
        compute_capabilities: GPUs it runs on, such as ("8.6", "12.0"); empty for ONNX Runtime.
        device: name of the GPU it was built on; None when it was built without one.
        runtime_version: of TensorRT, TensorRT-RTX or ONNX Runtime.
        activation_bytes: device memory for activations at the largest input, as the builder reports it; None where
            it reports none.
        weights_bytes: device memory for weights, likewise.
        build_seconds: wall time of the build.
        tools: versions that made it.
        settings: choices that change its speed or its numbers, by name.
        warnings: what the builder warned of.
        contract: the tensors at both ends.
        scale: output size over input size.
        schema: version of this layout.
    """

    backend: Literal["onnxruntime", "tensorrt", "tensorrt-rtx"]
    file: FileName
    sha256: Sha256
    graph_file: FileName
    graph_sha256: Sha256
    profile: Optional[Tuple[SizePair, SizePair, SizePair]]
    precision: Literal["fp32", "fp16", "int8", "mixed"]
    compute_capabilities: Tuple[Annotated[str, Field(pattern=r"^[0-9]{1,3}\.[0-9]{1,2}$")], ...]
    device: Optional[ShortText]
    runtime_version: ShortText
    activation_bytes: Optional[Count]
    weights_bytes: Optional[Count]
    build_seconds: Seconds
    tools: Dict[str, str]
    settings: Dict[str, str]
    warnings: Tuple[str, ...]
    contract: IOContract
    scale: Scale
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Refuse a profile out of order and a contract that no picture fits.

        Raises:
            ValueError: naming the key.
        """
        if self.profile is not None and not _in_order(self.profile):
            raise ValueError("profile: minimum, best and maximum size are not in order")
        if not self.contract.is_known:
            raise ValueError("contract: NCHW goes with float32, NHWC with uint8 and value_range 255")

    def takes(self, size: Size) -> bool:
        """Whether an input of ``size`` (height, width) lies within the profile."""
        if self.profile is None:
            return True
        low, _, high = self.profile
        return all(low[axis] <= size[axis] <= high[axis] for axis in (0, 1))

    def allowed_sizes(self) -> str:
        """The inputs it takes, in words for a message."""
        if self.profile is None:
            return "any size that the network takes"
        low, _, high = self.profile
        return format_size(low) if low == high else f"{format_size(low)} up to {format_size(high)}"

    def to_dict(self) -> Dict[str, Any]:
        """The manifest as plain values for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class HostFacts:
    """What decides whether an engine may run here.

    Attributes:
        backend: the runtime that was looked for, one of BACKENDS.
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
    from sr_deploy.core.machine import this_machine
    from sr_deploy.engine.flavour import flavour_version
    from sr_deploy.engine.onnxruntime import onnxruntime_version

    version = onnxruntime_version() if backend == "onnxruntime" else flavour_version(backend)
    gpus = this_machine().gpus
    if not gpus:
        return HostFacts(backend, version, None, None)
    return HostFacts(backend, version, gpus[0].compute_capability, gpus[0].name)


def check_profile(profile: Sequence[Size]) -> Profile:
    """The three sizes as tuples.

    Raises:
        UsageError: they are not three, not positive, or do not satisfy minimum ≤ best ≤ maximum.
    """
    sizes = tuple((int(size[0]), int(size[1])) for size in profile)
    if len(sizes) != 3 or not _in_order(sizes):
        raise UsageError(
            "the profile " + ", ".join(format_size(size) for size in sizes) + " is not in order",
            "minimum, best and maximum size, each height and width at least as large as the one before",
        )
    return sizes  # type: ignore[return-value]


def _in_order(sizes: Sequence[Size]) -> bool:
    return all(0 < sizes[0][axis] <= sizes[1][axis] <= sizes[2][axis] for axis in (0, 1))


def engine_name(
    backend: str,
    profile: Optional[Profile],
    compute_capabilities: Sequence[str] = (),
    precision: str = "fp32",
) -> str:
    """The file name of an engine; one of another precision than fp32 says so.

    Example:
        >>> engine_name("tensorrt-rtx", ((720, 1280),) * 3, ("8.6",))
        'tensorrt-rtx_720x1280_sm86.engine'
        >>> engine_name("onnxruntime", ((144, 144),) * 3)
        'onnxruntime_144x144.onnx'
        >>> engine_name("tensorrt", ((16, 16), (360, 640), (1080, 1920)), ("8.7",))
        'tensorrt_16x16-360x640-1080x1920_sm87.engine'
        >>> engine_name("onnxruntime", None, precision="int8")
        'onnxruntime_dynamic_int8.onnx'
    """
    if profile is None:
        sizes = "dynamic"
    elif profile[0] == profile[2]:
        sizes = format_size(profile[0])
    else:
        sizes = "-".join(format_size(size) for size in profile)
    parts = [backend, sizes]
    if compute_capabilities:
        parts.append("-".join("sm" + capability.replace(".", "") for capability in compute_capabilities))
    if precision != "fp32":
        parts.append(precision)
    return "_".join(parts) + (".onnx" if backend == "onnxruntime" else ".engine")


def manifest_path(engine: Path) -> Path:
    """Where the manifest of an engine lies: the same name, ending in ``.json``."""
    return Path(engine).with_suffix(".json")


def save_engine(path: Path, data: Union[bytes, memoryview], manifest: EngineManifest) -> None:
    """Write an engine and its manifest. Both are complete on disk before either gets its name.

    Raises:
        DiskFull, EnvironmentFault: they cannot be written; what was there before is unchanged.
    """
    with atomic_file(manifest_path(path)) as temporary_manifest:
        text = json.dumps(manifest.to_dict(), indent=2, allow_nan=False) + "\n"
        temporary_manifest.write_text(text, encoding="utf-8")
        with atomic_file(path) as temporary_engine:
            temporary_engine.write_bytes(data)


def open_engine(path: Path) -> EngineManifest:
    """Read the manifest of an engine and check that the engine's bytes are the ones that were written.

    Raises:
        BadDeployment: the engine or its manifest is missing, truncated, altered, of another schema or not as described,
            or an engine of ONNX Runtime keeps weights in other files.
    """
    path = Path(path)
    sidecar = manifest_path(path)
    rebuild = "build it again with srdeploy build --force"
    if not path.is_file():
        raise BadDeployment(f"there is no engine {path}", "a file made by srdeploy build", "srdeploy build")
    if not sidecar.is_file():
        raise BadDeployment(f"the engine {path} has no manifest", f"{sidecar.name} beside it", rebuild)
    manifest = read_described(EngineManifest, sidecar, "engine manifest", rebuild, BadDeployment)
    have = sha256_of(path)
    if have != manifest.sha256:
        raise BadDeployment(
            f"{path} is not the file that was built: its sha256 is {have[:12]}…",
            f"{manifest.sha256[:12]}…, as {sidecar.name} says",
            rebuild + "; an engine is never edited in place",
        )
    if manifest.backend == "onnxruntime":
        check_self_contained(path)
    return manifest


def check_engine(manifest: EngineManifest, here: HostFacts, graphs: Sequence[str], folder: str = "DEPLOYMENT") -> None:
    """Refuse an engine that was built for something else.

    Args:
        manifest: from ``open_engine``, which has checked the engine's bytes.
        here: from ``host_facts(manifest.backend)``.
        graphs: sha256 of the deployment's graphs; one of them must be the engine's. Empty: do not compare.
        folder: the deployment, for the command in the message.

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
    if differences:
        raise ForeignEngine(
            f"{manifest.file} was built for something else\n  " + "\n  ".join(differences),
            "an engine of this backend and version, for this GPU, from this graph",
            _rebuild(manifest, here, folder),
        )


def _rebuild(manifest: EngineManifest, here: HostFacts, folder: str) -> str:
    """The command that makes an engine like this one for this machine."""
    needs_gpu = bool(manifest.compute_capabilities) and here.device is None
    sizes = ""
    if manifest.profile is not None:
        low, best, high = (format_size(size) for size in manifest.profile)
        sizes = f" --size {low}" if low == high else f" --min-size {low} --opt-size {best} --max-size {high}"
    backend = "onnxruntime" if needs_gpu else here.backend
    command = f"srdeploy build {folder} --backend {backend}{sizes} --force"
    if needs_gpu:
        return f"use it on a machine with such a GPU; without a GPU: {command}"
    return command
