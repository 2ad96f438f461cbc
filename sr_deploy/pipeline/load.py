"""From a file, a checkpoint or an ONNX graph, to a network: shared by export, verify and inspect."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Mapping, Optional, Tuple, cast

from sr_deploy.core.deployment.manifest import MANIFEST_NAME
from sr_deploy.core.deployment.records import LoadRecord, SourceRecord
from sr_deploy.core.errors import BadCheckpoint, UsageError
from sr_deploy.pipeline.network import GraphBody, ModuleBody, Network

if TYPE_CHECKING:
    from sr_deploy.checkpoint.read import Checkpoint
    from sr_deploy.models.base import LoadedModel


@dataclass(frozen=True)
class LoadOptions:
    """How to turn a file into a network; all that no file stores.

    Attributes:
        arch: the architecture's name; None detects it from keys and shapes.
        factory: "pkg.module:factory" or "path/to/file.py:factory", the user's own network; None for the known ones.
        scale: output size over input size, where it is not in the file.
        value_range: the value of white, 1.0 or 255.0; for ``factory``, and for files that leave it open: ONNX, and some
            architectures.
        lora_alpha: a number, or a multiple of each layer's rank such as "2r".
        res_scale: EDSR's residual scaling.
        key: which entry of the checkpoint holds the weights; None takes the usual one.
        colours: of an ONNX file: "rgb" or "bgr", the order of its channels; None: rgb.
        model_arg: arguments of ``factory``, each "name=value".
        ignore_surplus: tensors that the network has no use for are left out, and named in a note.
    """

    arch: Optional[str] = None
    factory: Optional[str] = None
    scale: Optional[int] = None
    value_range: Optional[float] = None
    lora_alpha: Optional[str] = None
    res_scale: Optional[float] = None
    key: Optional[str] = None
    colours: Optional[str] = None
    ignore_surplus: bool = False
    model_arg: Tuple[str, ...] = ()


#: What only a checkpoint can be asked, and what only an ONNX file.
_OF_CHECKPOINTS = ("arch", "factory", "lora_alpha", "res_scale", "key", "ignore_surplus", "model_arg")
_OF_GRAPHS = ("colours",)


def load_network(path: Path, options: LoadOptions) -> Network:
    """Read a checkpoint or an ONNX file as a network.

    Raises:
        BadInput, UsageError: see ``load_model`` and graph/given/network.py; an option that this file cannot have.
    """
    if is_graph(path):
        return graph_network(path, options)[0]
    _refuse(options, _OF_GRAPHS, "a checkpoint", "it for an ONNX file only")
    checkpoint, loaded = load_model(path, options)
    return Network(
        architecture=loaded.architecture,
        form=loaded.form,
        scale=loaded.scale,
        value_range=loaded.value_range,
        sizes=loaded.sizes,
        fixed=None,
        hyperparameters=loaded.hyperparameters,
        parameters=loaded.parameters,
        notes=(*checkpoint.notes, *loaded.notes),
        source=source_record(checkpoint, options),
        body=ModuleBody(loaded.module),
    )


def is_graph(path: Path) -> bool:
    """Whether a file is an ONNX graph, by its content; an empty or unreadable one, by its name."""
    from sr_deploy.checkpoint.recognise import HEAD_BYTES, is_onnx

    try:
        with open(path, "rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:  # the reader of checkpoints says what is wrong
        return False
    return is_onnx(head) or Path(path).suffix == ".onnx"


def is_saved_checkpoint(folder: Path) -> bool:
    """Whether a folder is one that a training framework saved, and no deployment."""
    from sr_deploy.checkpoint.folder import is_checkpoint_folder

    return not (Path(folder) / MANIFEST_NAME).is_file() and is_checkpoint_folder(Path(folder))


def graph_network(path: Path, options: LoadOptions) -> Tuple[Network, GraphBody]:
    """``load_network`` of an ONNX file, and its graph."""
    from sr_deploy.graph.given.network import AskedOfGraph, network_from_onnx

    _refuse(options, _OF_CHECKPOINTS, "an ONNX file", "it for a checkpoint only")
    given = network_from_onnx(path, AskedOfGraph(options.scale, options.value_range, options.colours))
    body = GraphBody(given)
    network = Network(
        architecture="ONNX",
        form="training",
        scale=given.scale,
        value_range=given.value_range,
        sizes=given.sizes,
        fixed=given.fixed,
        hyperparameters=given.facts,
        parameters=given.parameters,
        notes=given.notes,
        source={
            "file": path.name,
            "path": str(path.resolve()),
            "sha256": given.file.sha256,
            "container": "onnx",
            "load_options": cast(LoadRecord, dataclasses.asdict(options)),
            "external": given.file.external,
        },
        body=body,
    )
    return network, body


def _refuse(options: LoadOptions, names: Tuple[str, ...], what: str, wanted: str) -> None:
    for name in names:
        if getattr(options, name) not in (None, False, ()):
            raise UsageError(f"{flag_of(name)} has no meaning for {what}", wanted)


def options_of(record: LoadRecord) -> LoadOptions:
    """What a manifest says of how a network was loaded, to load it again."""
    fields: Any = {**record, "model_arg": tuple(record.get("model_arg", ()))}
    return LoadOptions(**fields)


def load_words(options: Mapping[str, Any]) -> List[str]:
    """The options of the command line that say the same as the fields of a LoadOptions, given by name."""
    words: List[str] = []
    for name, value in options.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        for one in values:
            if one not in (None, False):
                words += [flag_of(name)] if one is True else [flag_of(name), str(one)]
    return words


def flag_of(name: str) -> str:
    """The option of the command line for a field of LoadOptions."""
    return "--" + {"factory": "model"}.get(name, name).replace("_", "-")


def load_model(path: Path, options: LoadOptions) -> Tuple[Checkpoint, LoadedModel]:
    """Read a checkpoint and build its network, as trained.

    Returns:
        (Checkpoint, LoadedModel).

    Raises:
        BadCheckpoint, UnknownArchitecture, UsageError: see checkpoint/read.py and models/registry.py.
    """
    from sr_deploy.checkpoint.read import checkpoint_from_file
    from sr_deploy.models.loading import SurplusTensors

    check_together(options)
    checkpoint = checkpoint_from_file(path, under=options.key)
    try:
        return checkpoint, _built(checkpoint, options)
    except SurplusTensors as error:
        if not options.ignore_surplus:
            raise
        surplus = error.names
    tensors = {key: value for key, value in checkpoint.tensors.items() if key not in surplus}
    note = f"not used, as --ignore-surplus allows: {', '.join(surplus)}"
    checkpoint = dataclasses.replace(checkpoint, tensors=tensors, notes=(*checkpoint.notes, note))
    return checkpoint, _built(checkpoint, options)


def check_together(options: LoadOptions) -> None:
    """Refuse options that say something of the other kind of network.

    Raises:
        UsageError: naming the option.
    """
    if options.factory is None and options.model_arg:
        raise UsageError("--model-arg has no meaning without --model", "a factory that takes it: --model net.py:build")
    for name in ("arch", "lora_alpha", "res_scale") if options.factory is not None else ():
        if getattr(options, name) is not None:
            found = f"{flag_of(name)} has no meaning beside --model"
            raise UsageError(found, "a known architecture, or your own network")


def _built(checkpoint: Checkpoint, options: LoadOptions) -> LoadedModel:
    from sr_deploy.models.base import Asked
    from sr_deploy.models.registry import model_from_tensors

    if options.factory is not None:
        return _from_factory(checkpoint, options)
    asked = Asked(options.scale, options.lora_alpha, options.res_scale, options.value_range)
    return model_from_tensors(checkpoint.tensors, asked, options.arch)


def _from_factory(checkpoint, options: LoadOptions):
    """The user's own network. Its keys may really begin with what was stripped as a wrapper's prefix."""
    from sr_deploy.models.custom import AskedOfFactory, model_from_factory

    asked = AskedOfFactory(options.scale, options.value_range, tuple(options.model_arg))

    def load(tensors):
        return model_from_factory(options.factory, tensors, asked)

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
