"""What an engine is: a JSON file beside it (``x.engine`` + ``x.json``), never bytes inside it.

Where its layers are known, they are in a second one (``x.layers.json``, listing.py). Whether it runs here: fits.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple, Union

from pydantic import Field
from typing_extensions import Annotated

from sr_deploy.core.artifact import atomic_file, sha256_of, write_json
from sr_deploy.core.confine import FileName
from sr_deploy.core.contract import KNOWN_FORMS, IOContract, Size, format_size
from sr_deploy.core.deployment.external_data import check_self_contained
from sr_deploy.core.errors import BadDeployment, BadInput, UsageError
from sr_deploy.core.names import check_name
from sr_deploy.core.number_formats import ENGINE_PRECISIONS, EnginePrecision
from sr_deploy.core.schema import Count, Scale, Seconds, Sha256, ShortText, SizePair, described, read_described
from sr_deploy.engine.listing import Listing, listing_path, listing_text
from sr_deploy.engine.runtimes import RUNTIMES, RuntimeName

SCHEMA = 1
_REBUILD = "build it again with srdeploy build --force"

#: Smallest, best and largest input, each (height, width) in pixels; three equal ones are a fixed input.
Profile = Tuple[Size, Size, Size]


@described
@dataclass(frozen=True)
class EngineManifest:
    """All that is known of one engine.

    Attributes:
        backend: a name of engine/runtimes.py.
        file: the engine's file name.
        sha256: of the engine's bytes.
        graph_file, graph_sha256: the ONNX graph of the deployment that it was built from.
        profile: the inputs it takes; None means any size that the network takes.
        precision: "fp32" (nothing is computed in less, TensorFloat-32 included), "bf16", "fp16", "fp8", "int8", or
            "auto": of several formats.
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

    backend: RuntimeName
    file: FileName
    sha256: Sha256
    graph_file: FileName
    graph_sha256: Sha256
    profile: Optional[Tuple[SizePair, SizePair, SizePair]]
    precision: EnginePrecision
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
            raise ValueError(f"contract: {KNOWN_FORMS}")

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

    def command_for(self, size: Size) -> str:
        """The commands that make an engine of this kind for an input of ``size`` (height, width)."""
        kind = f"srdeploy build DEPLOYMENT --backend {self.backend}"
        if self.precision != "fp32":
            kind += " --precision " + self.precision
        low, high = (self.profile[0], self.profile[2]) if self.profile else (size, size)
        smallest = format_size((min(low[0], size[0]), min(low[1], size[1])))
        largest = format_size((max(high[0], size[0]), max(high[1], size[1])))
        shown = format_size(size)
        return (
            f"{kind} --size {shown}; or one for many sizes, where the deployment holds a graph for any: "
            f"{kind} --min-size {smallest} --opt-size {shown} --max-size {largest}"
        )

    def to_dict(self) -> Dict[str, Any]:
        """The manifest as plain values for JSON."""
        return dataclasses.asdict(self)


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
    return sizes[0], sizes[1], sizes[2]


def check_precision(precision: str) -> EnginePrecision:
    """The precision as an engine's manifest has it.

    Raises:
        UsageError: there is no such precision.
    """
    return check_name("precision", precision, ENGINE_PRECISIONS)


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
    return "_".join(parts) + RUNTIMES[backend].suffix


def manifest_path(engine: Path) -> Path:
    """Where the manifest of an engine lies: the same name, ending in ``.json``."""
    return Path(engine).with_suffix(".json")


def refused_name(name: str) -> str:
    """The file name of an engine that was refused after its build: nothing takes it for an engine.

    Example:
        >>> refused_name("tensorrt_144x144_sm72_int8.engine")
        'tensorrt_144x144_sm72_int8.engine.refused'
    """
    return f"{name}.refused"


def discard_refused(path: Path) -> None:
    """Remove what was refused in earlier builds of the engine ``path``, which now is there."""
    refused = path.with_name(refused_name(path.name))
    for one in (refused, manifest_path(refused), listing_path(refused)):
        with contextlib.suppress(FileNotFoundError):
            one.unlink()


@described
@dataclass(frozen=True)
class WrittenManifest(EngineManifest):
    """A manifest as its file has it.

    Attributes:
        replaces: the manifest of the engine that is being replaced, for as long as that may still be the one there.
    """

    replaces: Optional[EngineManifest] = None


def _settled(written: WrittenManifest, have: str) -> EngineManifest:
    """The manifest of the engine whose hash is ``have``; where none is, the one that was to be."""
    if written.replaces is not None and written.replaces.sha256 == have:
        return written.replaces
    return EngineManifest(**{field.name: getattr(written, field.name) for field in dataclasses.fields(EngineManifest)})


def save_engine(
    path: Path, data: Union[bytes, memoryview], manifest: EngineManifest, listing: Optional[Listing] = None
) -> None:
    """Write an engine, its manifest and the listing of its layers; a pair opens at every moment, if one did before.

    Several files cannot be replaced in one step. So the manifest goes first, with the one that it replaces inside it,
    then the listing, which names its engine's hash, then the engine, and then the manifest alone. ``open_engine`` takes
    the manifest whose hash is the engine's.

    Args:
        path: the engine's file.
        data: its bytes.
        manifest: all that is known of it.
        listing: its layers; None leaves no listing there, also not that of an engine before it.

    Raises:
        DiskFull, EnvironmentFault: they cannot be written; what was there before still opens.
    """
    raw = manifest.to_dict()
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)
        replaced = _opened_as(path)
        write_json(manifest_path(path), raw if replaced is None else {**raw, "replaces": replaced})
        if listing is not None:
            with atomic_file(listing_path(path)) as temporary_listing:
                temporary_listing.write_text(listing_text(listing, manifest.sha256), encoding="utf-8")
    if replaced is not None:
        write_json(manifest_path(path), raw)
    if listing is None:
        with contextlib.suppress(FileNotFoundError):
            listing_path(path).unlink()


def _opened_as(path: Path) -> Optional[Dict[str, Any]]:
    """The manifest of an engine that opens, as plain values; None where none does."""
    try:
        return open_engine(path, refused_too=True).to_dict()
    except BadInput:
        return None


def open_engine(path: Path, refused_too: bool = False) -> EngineManifest:
    """Read the manifest of an engine and check that the engine's bytes are the ones that were written.

    Args:
        path: the engine's file.
        refused_too: read the manifest of an engine that was refused after its build too: to look at, not to run.

    Raises:
        BadDeployment: see ``read_manifest`` and ``proved_manifest``; or the engine was refused.
    """
    manifest = proved_manifest(path, read_manifest(path))
    if not refused_too:
        check_not_refused(path, manifest)
    return manifest


def read_manifest(path: Path) -> WrittenManifest:
    """What the file beside an engine says of it; the engine itself is not read.

    Raises:
        BadDeployment: the engine or its manifest is missing, or the manifest is of another schema or not as described.
    """
    path = Path(path)
    sidecar = manifest_path(path)
    if not path.is_file():
        raise BadDeployment(f"there is no engine {path}", "a file made by srdeploy build", "srdeploy build")
    if not sidecar.is_file():
        raise BadDeployment(f"the engine {path} has no manifest", f"{sidecar.name} beside it", _REBUILD)
    return read_described(WrittenManifest, sidecar, "engine manifest", _REBUILD, BadDeployment)


def proved_manifest(path: Path, written: WrittenManifest) -> EngineManifest:
    """The manifest of an engine whose bytes are the ones that were written: the whole file is read, and hashed.

    Raises:
        BadDeployment: the engine is truncated or altered, or one of ONNX Runtime that keeps weights in other files.
    """
    have = sha256_of(path)
    manifest = _settled(written, have)
    if have != manifest.sha256:
        raise BadDeployment(
            f"{path} is not the file that was built: its sha256 is {have[:12]}…",
            f"{manifest.sha256[:12]}…, as {manifest_path(path).name} says",
            _REBUILD + "; an engine is never edited in place",
        )
    if RUNTIMES[manifest.backend].engine_is_graph:
        check_self_contained(path)
    return manifest


def check_not_refused(path: Path, manifest: EngineManifest) -> None:
    """Raise BadDeployment for an engine that was refused after its build: it must not run."""
    if "refused" in manifest.settings:
        raise BadDeployment(
            f"{path} was refused after its build: {manifest.settings['refused']}",
            "an engine that runs as planned",
            f"srdeploy inspect {path} shows its layers; build it with another plan or precision",
        )
