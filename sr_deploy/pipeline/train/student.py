"""The network that learns: a checkpoint, a known architecture from its sizes, or the user's own."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.errors import BadCheckpoint, CheckFailed, SrDeployError, UsageError
from sr_deploy.core.host.machine import available_memory_bytes
from sr_deploy.core.media.room import MEMORY_SHARE
from sr_deploy.core.names import proposal
from sr_deploy.pipeline.load import LoadOptions, check_together, is_graph, load_model, load_words

if TYPE_CHECKING:
    import torch

    from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors, Training


#: Copies of the weights while they are trained: themselves, as they are stored, their gradients, two moments of the
#: optimiser, their moving average, the best so far, and the state that is written.
TRAINED_COPIES = 8
#: Bytes of weights where the system does not tell what is free.
UNLIMITED = 1 << 40


@dataclass(frozen=True)
class Student:
    """Who learns.

    Attributes:
        loaded: the network.
        about: what it is, for people.
        source: of the record: file and hash, or architecture and sizes.
        again: loads tensors as ``export`` will load the file that they are written to.
        export_words: options that ``export`` needs beside the file.
    """

    loaded: LoadedModel
    about: str
    source: Dict[str, Any]
    again: Callable[[Tensors], LoadedModel]
    export_words: List[str]

    def tensors(self) -> Dict[str, torch.Tensor]:
        """The network's state under the names that its files have."""
        names = self.loaded.file_names
        state = self.loaded.module.state_dict()
        return {names.get(key, key): value.detach().cpu().contiguous().clone() for key, value in state.items()}

    def proved(self) -> Dict[str, torch.Tensor]:
        """``tensors``, after loading them again gave the same picture.

        Raises:
            CheckFailed: they cannot be loaded, or give another picture.
        """
        import torch

        from sr_deploy.core.media.sample import sample_input

        tensors = self.tensors()
        edge = self.loaded.sizes.fit(24)
        picture = torch.from_numpy(sample_input((edge, edge), self.loaded.value_range))
        todo = "train it as your own network: --model FILE.py:FACTORY"
        try:
            other = self.again(tensors)
        except SrDeployError as error:
            raise CheckFailed(
                f"{self.about} cannot be loaded again as it was trained: {error.found}", "", todo
            ) from error
        device = next(self.loaded.module.parameters()).device
        with torch.no_grad():
            given = self.loaded.module.cpu().eval()(picture)
            equal = torch.equal(given, other.module(picture))
        self.loaded.module.to(device)
        if not equal:
            raise CheckFailed(f"{self.about} gives another picture when it is loaded again", "the same picture", todo)
        return tensors


def student_of(
    path: Optional[Path], load: LoadOptions, sizes: Sequence[str], scale: Optional[int], seed: int
) -> Student:
    """The network that learns.

    Args:
        path: its checkpoint; None: it begins with random weights.
        load: how to load it; without a checkpoint, which it is.
        sizes: of ``--arch-arg``, each "name=value,…".
        scale: the teacher's; taken where the student's is not said.
        seed: of random weights.

    Raises:
        BadInput, UsageError: see load_model; no network at all; sizes that it has not.
    """
    check_together(load)
    if path is not None:
        if sizes:
            raise UsageError("--arch-arg has no meaning beside a checkpoint, which has its sizes", "one of both")
        return _from_file(path, load)
    if load.factory is not None:
        if sizes:
            raise UsageError("--arch-arg has no meaning beside --model", "--model-arg, which the factory takes")
        return _from_factory(load, seed)
    if load.arch is None:
        raise UsageError(
            "no student is given",
            "a checkpoint, --arch NAME with sizes, or --model FILE.py:FACTORY",
            "srdeploy distill student.pth …, or --arch SPAN --arch-arg width=26",
        )
    return _fresh(load, sizes, scale, seed)


def training_of(loaded: LoadedModel) -> Training:
    """What a training must know of a network's architecture."""
    from sr_deploy.models.base import Training
    from sr_deploy.models.registry import ARCHITECTURES

    return next((row.training for row in ARCHITECTURES if row.name == loaded.architecture), Training())


def _from_file(path: Path, load: LoadOptions) -> Student:
    if path.is_dir() or is_graph(path):
        raise UsageError(
            f"{path} is no checkpoint: what is trained must be a PyTorch network",
            "a checkpoint, --arch NAME, or --model FILE.py:FACTORY",
            "a deployment's graph is made smaller and fine-tuned by srdeploy compress and srdeploy qat",
        )
    _, loaded = load_model(path, load)
    words = load_words({"factory": load.factory, "model_arg": load.model_arg, "res_scale": load.res_scale,
                        "lora_alpha": load.lora_alpha, "value_range": load.value_range, "arch": load.arch,
                        "scale": load.scale})  # fmt: skip
    source = {"file": path.name, "sha256": sha256_of(path), "architecture": loaded.architecture}
    return Student(loaded, f"{path.name}: {_named(loaded)}", source, _loader(load), words)


def _from_factory(load: LoadOptions, seed: int) -> Student:
    import torch

    from sr_deploy.models.custom import AskedOfFactory, model_from_factory

    assert load.factory is not None
    torch.manual_seed(seed)
    asked = AskedOfFactory(load.scale, load.value_range, tuple(load.model_arg))
    loaded = model_from_factory(load.factory, None, asked)
    words = load_words({"factory": load.factory, "model_arg": load.model_arg, "value_range": load.value_range})
    source = {"factory": load.factory, "arguments": list(load.model_arg)}
    return Student(loaded, f"{load.factory}: {_named(loaded)}", source, _loader(load), words)


def _fresh(load: LoadOptions, sizes: Sequence[str], scale: Optional[int], seed: int) -> Student:
    import torch

    from sr_deploy.models.registry import architecture_named
    from sr_deploy.models.renaming import names_in_file

    assert load.arch is not None
    architecture = architecture_named(load.arch)
    wanted = load.scale or scale
    if wanted is None:
        raise UsageError("the scale of the new network is not said", "--scale 2, or a teacher, whose scale it takes")
    torch.manual_seed(seed)
    arguments = _sizes(architecture, sizes)
    fresh = architecture.training.fresh
    assert fresh is not None, "_sizes has refused it"
    try:
        _check_room(lambda: fresh(wanted, **arguments))
        module = fresh(wanted, **arguments)
        names = names_in_file(module, architecture.training.file_names)
        loaded = architecture.load({names[key]: value for key, value in module.state_dict().items()}, _asked(load))
    except (BadCheckpoint, ValueError, TypeError, RuntimeError, ArithmeticError, LookupError) as error:
        found = error.found if isinstance(error, BadCheckpoint) else str(error)
        raise UsageError(
            f"--arch-arg {','.join(sizes)}: {architecture.name} x{wanted} cannot be built so: {found}",
            _choices(architecture),
        ) from error
    words = load_words({"res_scale": load.res_scale})
    source = {"architecture": architecture.name, "sizes": arguments, "scale": wanted}
    return Student(loaded, f"new: {_named(loaded)}", source, _loader(load), words)


def _check_room(make: Callable[[], torch.nn.Module]) -> None:
    """Raise TooLarge of a network that there is no memory to train, before it is made."""
    from sr_deploy.models.size import bytes_of

    free = available_memory_bytes()
    bytes_of(make, UNLIMITED if free is None else int(MEMORY_SHARE * free) // TRAINED_COPIES)


def _asked(load: LoadOptions) -> Asked:
    from sr_deploy.models.base import Asked

    return Asked(load.scale, load.lora_alpha, load.res_scale, load.value_range)


def _loader(load: LoadOptions) -> Callable[[Tensors], LoadedModel]:
    def again(tensors: Tensors) -> LoadedModel:
        if load.factory is not None:
            from sr_deploy.models.custom import AskedOfFactory, model_from_factory

            asked = AskedOfFactory(load.scale, load.value_range, tuple(load.model_arg))
            return model_from_factory(load.factory, tensors, asked)
        from sr_deploy.models.registry import model_from_tensors

        return model_from_tensors(tensors, _asked(load), load.arch)

    return again


def _sizes(architecture: Architecture, texts: Sequence[str]) -> Dict[str, Any]:
    """``width=24,depths=[4,4,4]`` as arguments of the architecture's ``fresh``."""
    if architecture.training.fresh is None:
        from sr_deploy.models.registry import ARCHITECTURES

        offered = ", ".join(row.name for row in ARCHITECTURES if row.training.fresh is not None)
        raise UsageError(
            f"--arch {architecture.name}: no new network of it can be made", f"one of {offered}; or a checkpoint of it"
        )
    known = set(inspect.signature(architecture.training.fresh).parameters) - {"scale"}
    found: Dict[str, Any] = {}
    for text in texts:
        try:
            call = ast.parse(f"f({text})", mode="eval").body
            if not isinstance(call, ast.Call) or call.args:
                raise ValueError(text)
            given = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
        except (SyntaxError, ValueError):
            raise UsageError(f"--arch-arg {text} is no size", "NAME=VALUE, such as width=24,blocks=4") from None
        if set(given) - known:
            raise UsageError(
                f"--arch-arg {text}: {architecture.name} has no {', '.join(sorted(set(given) - known))}",
                _choices(architecture),
                proposal(min(set(given) - known), known),
            )
        found.update(given)
    return found


def _choices(architecture: Architecture) -> str:
    fresh = architecture.training.fresh
    assert fresh is not None
    parameters = inspect.signature(fresh).parameters.values()
    return "sizes of " + ", ".join(f"{one.name}={one.default}" for one in parameters if one.name != "scale")


def _named(loaded: LoadedModel) -> str:
    return f"{loaded.architecture} x{loaded.scale}, {loaded.form} form, {loaded.parameters:,} parameters"
