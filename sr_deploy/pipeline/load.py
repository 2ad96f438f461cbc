"""From a checkpoint to a network: shared by export, verify and inspect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Tuple, cast

from sr_deploy.core.deployment.records import LoadRecord, SourceRecord
from sr_deploy.core.errors import BadCheckpoint, UsageError

if TYPE_CHECKING:
    from sr_deploy.checkpoint.read import Checkpoint
    from sr_deploy.models.base import LoadedModel


@dataclass(frozen=True)
class LoadOptions:
    """How to turn a checkpoint into a network; all that no file stores.

    Attributes:
        arch: the architecture's name; None detects it from keys and shapes.
        factory: "pkg.module:factory" or "path/to/file.py:factory", the user's own network; None for the known ones.
        scale: output size over input size, where it is not in the file.
        value_range: the value of white, 1.0 or 255.0; for ``factory``, and architectures with files of both kinds.
        lora_alpha: a number, or a multiple of each layer's rank such as "2r".
        res_scale: EDSR's residual scaling.
        key: which entry of the checkpoint holds the weights; None takes the usual one.
    """

    arch: Optional[str] = None
    factory: Optional[str] = None
    scale: Optional[int] = None
    value_range: Optional[float] = None
    lora_alpha: Optional[str] = None
    res_scale: Optional[float] = None
    key: Optional[str] = None


def load_model(path: Path, options: LoadOptions) -> Tuple[Checkpoint, LoadedModel]:
    """Read a checkpoint and build its network, as trained.

    Returns:
        (Checkpoint, LoadedModel).

    Raises:
        BadCheckpoint, UnknownArchitecture, UsageError: see checkpoint/read.py and models/registry.py.
    """
    from sr_deploy.checkpoint.read import checkpoint_from_file
    from sr_deploy.models.base import Asked
    from sr_deploy.models.registry import model_from_tensors

    checkpoint = checkpoint_from_file(path, under=options.key)
    if options.factory is None:
        asked = Asked(options.scale, options.lora_alpha, options.res_scale, options.value_range)
        return checkpoint, model_from_tensors(checkpoint.tensors, asked, options.arch)
    for name in ("arch", "lora_alpha", "res_scale"):
        if getattr(options, name) is not None:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag} has no meaning beside --model", "a known architecture, or your own network")
    return checkpoint, _from_factory(checkpoint, options)


def _from_factory(checkpoint, options: LoadOptions):
    """The user's own network. Its keys may really begin with what was stripped as a wrapper's prefix."""
    from sr_deploy.models.custom import model_from_factory

    def load(tensors):
        return model_from_factory(options.factory, tensors, options.scale, options.value_range)

    try:
        return load(checkpoint.tensors)
    except BadCheckpoint:
        if not checkpoint.stripped_prefix:
            raise
        try:
            return load({checkpoint.stripped_prefix + key: value for key, value in checkpoint.tensors.items()})
        except BadCheckpoint:
            pass
        raise


def source_record(checkpoint: Checkpoint, options: LoadOptions) -> SourceRecord:
    """What a manifest keeps of the checkpoint, so that ``verify`` can load the very same network again."""
    import dataclasses

    # asdict gives a dict of anything; LoadRecord names the same fields.
    return {
        "file": checkpoint.path.name,
        "path": str(checkpoint.path.resolve()),
        "sha256": checkpoint.sha256,
        "container": checkpoint.container,
        "found_under": checkpoint.found_under,
        "stripped_prefix": checkpoint.stripped_prefix,
        "load_options": cast(LoadRecord, dataclasses.asdict(options)),
    }
