"""The user's own network: ``--model pkg.module:factory`` or ``--model path/to/file.py:factory``.

The only place that runs code which is not the project's.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

import torch

from sr_deploy.core.contract import Size, SizeRules
from sr_deploy.core.errors import SrDeployError, UsageError
from sr_deploy.models.base import LoadedModel, Tensors
from sr_deploy.models.loading import load_strictly
from sr_deploy.models.probing import NoSize, scale_and_sizes
from sr_deploy.models.readings import run_of
from sr_deploy.models.resemblance import PICTURE_SIZE, RANGES, evidence_of, range_told

_RANGE_TOO = "its value range too, where a picture may not tell: --value-range 1 or 255"
#: Words of errors of users' code → what helps.
_HINTS: Tuple[Tuple[Tuple[str, ...], str], ...] = (
    (
        ("Half", "HalfTensor", "float16", "BFloat16"),
        "its own code computes in half precision: take .half(), autocast and dtype=torch.float16 out of it; srdeploy "
        "build --precision fp16 makes float16 of the network, proved",
    ),
    (
        ("CUDA", "cuda", "NVIDIA"),
        "its own code asks for a GPU: take .cuda() and device='cuda' out of it; srdeploy loads networks on the CPU",
    ),
)


@dataclass(frozen=True)
class AskedOfFactory:
    """What the user says of a network of their own.

    Attributes:
        scale: output size over input size; None: found by running the network.
        value_range: the value of white, 1.0 or 255.0; None: found where a smooth picture tells.
        arguments: of the factory, each ``"name=value"``; a value is a Python literal, or else text.
    """

    scale: Optional[int] = None
    value_range: Optional[float] = None
    arguments: Tuple[str, ...] = ()


def model_from_factory(path: str, tensors: Optional[Tensors], asked: AskedOfFactory) -> LoadedModel:
    """Import a user's function, call it, and load a checkpoint into the network that it gives.

    Args:
        path: ``"pkg.module:factory"``; the module may lie in the current folder. Or ``"path/to/file.py:factory"``; what
            lies beside the file can be imported by it. The factory gives an ``nn.Module`` that takes (N, 3, H, W) RGB
            and gives (N, 3, scale·H, scale·W), both in ``0…value_range``.
        tensors: its weights; None: those that the factory has put in.
        asked: what the user says of it.

    Raises:
        UsageError: no value range that a picture tells, no such module, file or function, a function that fails or
            gives no ``nn.Module``, a network that fails or is no super-resolution, another scale than the one given.
        BadCheckpoint: the tensors do not fit the network.
    """
    arguments = _arguments(asked.arguments)
    try:
        with _importable(os.getcwd()), _importable(_folder_of(path)):
            module = _call(_factory(path), path, arguments)
            module = module.float().cpu().eval().requires_grad_(False)
            if tensors is not None:
                module = load_strictly(module, tensors, path)
            scale, sizes = _scale_and_sizes(module, path)
    except SrDeployError as error:
        if asked.value_range is None:  # one answer, not one after the other
            error.todo = f"{error.todo}; {_RANGE_TOO}" if error.todo else _RANGE_TOO
        raise
    if asked.scale is not None and asked.scale != scale:
        raise UsageError(
            f"--scale {asked.scale} was given, but the network of --model {path} enlarges {scale} times",
            f"--scale {scale}, or none",
            "leave --scale out, or make the factory build the network of the other scale",
        )
    run, size = run_of(module), (sizes.fit(PICTURE_SIZE[0]), sizes.fit(PICTURE_SIZE[1]))
    evidence = evidence_of(dict.fromkeys(RANGES, run), size, scale)
    white, how = range_told(evidence, asked.value_range, f"the network of --model {path}")
    return LoadedModel(
        module=module,
        architecture=path,
        form="training",
        scale=scale,
        value_range=white,
        sizes=sizes,
        hyperparameters={"factory": path, **arguments},
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        notes=("the network is the user's own; its scale and the sizes it takes were found by running it", how),
    )


def _arguments(texts: Tuple[str, ...]) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--model-arg {text} is no argument", "name=value", "for example --model-arg scale=4")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def _folder_of(path: str) -> str:
    """The folder of ``path/to/file.py:factory``; for a module the current folder."""
    name = path.rpartition(":")[0]
    return str(Path(name).resolve().parent) if name.endswith(".py") else os.getcwd()


@contextlib.contextmanager
def _importable(folder: str) -> Iterator[None]:
    """Put a folder first on the import path: the current one as ``python -m`` does, a file's own as ``python`` does."""
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _factory(path: str) -> Callable[[], object]:
    """Import what ``path`` names."""
    name, colon, attribute = path.rpartition(":")
    if not (colon and name and attribute):
        raise UsageError(
            f"--model {path} does not name a function",
            "pkg.module:factory or path/to/file.py:factory",
            "for example --model mynet.model:build",
        )
    try:
        module = _module_of_file(name) if name.endswith(".py") else importlib.import_module(name)
    except UsageError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(
                f"--model {path}: there is no module {error.name}",
                f"a module in the current folder ({os.getcwd()}) or an installed one",
                "run the command in the folder that holds it, or install the package",
            ) from error
        raise _failed(f"importing {name}", path, error) from error
    except (Exception, SystemExit) as error:  # a script that parses its own arguments ends in SystemExit
        raise _failed(f"importing {name}", path, error) from error
    factory = getattr(module, attribute, None)
    if factory is None:
        public = [own for own, value in vars(module).items() if callable(value) and not own.startswith("_")]
        raise UsageError(
            f"--model {path}: {module.__file__ or name} has no {attribute}",
            f"one of {', '.join(sorted(public)[:8])}" if public else "a function of that name",
            "name a function that takes nothing and gives the network",
        )
    if not callable(factory):
        raise UsageError(
            f"--model {path}: {attribute} is a {type(factory).__name__} and cannot be called",
            "a function that takes nothing and gives the network",
            f"wrap it: def factory(): return {attribute}",
        )
    return factory


def _module_of_file(name: str) -> ModuleType:
    """Run a file as a module. What it raises is passed on. Raises UsageError when there is none."""
    file = Path(name).resolve()
    # A name of its own: a file that is called as a package is, such as torch.py, must not be taken for it.
    module_name = f"model_file_{file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file) if file.is_file() else None
    if spec is None or spec.loader is None:
        raise UsageError(
            f"--model {name}: there is no such file",
            "the .py file that holds the network, from here or with its whole path",
            f"look for it from {os.getcwd()}",
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up by its name
    spec.loader.exec_module(module)
    return module


def _call(factory: Callable[..., object], path: str, arguments: Dict[str, Any]) -> torch.nn.Module:
    try:
        made = factory(**arguments)
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise _failed(f"calling the factory with {given}" if given else "calling the factory without arguments", path,
                      error, "an argument of the factory: --model-arg NAME=VALUE") from error  # fmt: skip
    if not isinstance(made, torch.nn.Module):
        raise UsageError(
            f"--model {path}: the factory gave a {type(made).__name__}",
            "a torch.nn.Module",
            "return the network itself, not its class or its weights",
        )
    return made


def _failed(doing: str, path: str, error: BaseException, more: str = "") -> UsageError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    name, _, attribute = path.rpartition(":")
    if name.endswith(".py"):
        trial = f"import runpy; print(runpy.run_path({name!r})[{attribute!r}]())"
    else:
        trial = f"import {name}; print({name}.{attribute}())"
    return UsageError(
        f"--model {path}: {doing} failed: {type(error).__name__}: {lines[0] if lines else 'no message'}",
        "code that runs",
        _hint(str(error)) or f'try it first: python -c "{trial}"' + (f"; {more}" if more else ""),
    )


def _hint(text: str) -> str:
    """What helps against an error of the user's code that is known by its words; "" for others."""
    return next((hint for marks, hint in _HINTS if any(mark in text for mark in marks)), "")


def _scale_and_sizes(module: torch.nn.Module, path: str) -> Tuple[int, SizeRules]:
    """(scale, sizes) of the user's network, by running it.

    Raises:
        UsageError: no size works; the message says what happened at the roundest.
    """

    def shape_of(size: Size) -> Tuple[int, ...]:
        with torch.no_grad():
            output = module(torch.zeros(1, 3, *size))
        if not isinstance(output, torch.Tensor):
            raise TypeError(f"its output is a {type(output).__name__}, not a tensor")
        return tuple(output.shape)

    try:
        return scale_and_sizes(shape_of)
    except NoSize as error:
        raise UsageError(
            f"--model {path}: {error}",
            "(N, 3, scale·H, scale·W) for an input of (N, 3, H, W), for H and W that are multiples of 64 or less",
            _hint(str(error)) or "wrap the network so that it takes and gives RGB pictures",
        ) from error.__cause__
