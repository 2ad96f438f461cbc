"""The user's own network: ``--model pkg.module:factory``. The only place that runs code which is not the project's."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import Callable, Iterator, Optional, Tuple

import torch

from sr_deploy.core.contract import Size, SizeRules
from sr_deploy.core.errors import UsageError
from sr_deploy.models.base import LoadedModel, Tensors
from sr_deploy.models.loading import load_strictly
from sr_deploy.models.probing import NoSize, scale_and_sizes


def model_from_factory(
    path: str, tensors: Optional[Tensors], scale: Optional[int], value_range: Optional[float]
) -> LoadedModel:
    """Import a user's function, call it, and load a checkpoint into the network that it gives.

    Args:
        path: ``"pkg.module:factory"``; the module may lie in the current folder. ``factory()`` gives an ``nn.Module``
            that takes (N, 3, H, W) RGB and gives (N, 3, scale·H, scale·W), both in ``0…value_range``.
        tensors: its weights; None: those that the factory has put in.
        scale: what the user says it is; None: found by running the network.
        value_range: the value of white, 1.0 or 255.0.

    Raises:
        UsageError: no value range, no such module or function, a function that fails or gives no ``nn.Module``, a
            network that fails or is no super-resolution, another scale than the one given.
        BadCheckpoint: the tensors do not fit the network.
    """
    if value_range not in (1.0, 255.0):
        found = "no value range was given" if value_range is None else f"--value-range {value_range} is not supported"
        raise UsageError(
            f"{found} for the network of --model {path}",
            "the value that white has in its input and output: 1 or 255",
            "add --value-range 1 or --value-range 255",
        )
    with _current_folder_importable():
        module = _call(_factory(path), path)
        module = module.float().cpu().eval().requires_grad_(False)
        if tensors is not None:
            module = load_strictly(module, tensors, path)
        found_scale, sizes = _scale_and_sizes(module, path)
    if scale is not None and scale != found_scale:
        raise UsageError(
            f"--scale {scale} was given, but the network of --model {path} enlarges {found_scale} times",
            f"--scale {found_scale}, or none",
            "leave --scale out, or make the factory build the network of the other scale",
        )
    return LoadedModel(
        module=module,
        architecture=path,
        form="training",
        scale=found_scale,
        value_range=float(value_range),
        sizes=sizes,
        hyperparameters={"factory": path},
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        notes=("the network is the user's own; its scale and the sizes it takes were found by running it",),
    )


@contextlib.contextmanager
def _current_folder_importable() -> Iterator[None]:
    """Put the current folder first on the import path, as ``python -m`` does."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _factory(path: str) -> Callable[[], object]:
    """Import what ``path`` names."""
    name, colon, attribute = path.partition(":")
    if not (colon and name and attribute):
        raise UsageError(
            f"--model {path} does not name a function", "pkg.module:factory", "for example --model mynet.model:build"
        )
    try:
        module = importlib.import_module(name)
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


def _call(factory: Callable[[], object], path: str) -> torch.nn.Module:
    try:
        made = factory()
    except (Exception, SystemExit) as error:
        raise _failed("calling the factory without arguments", path, error) from error
    if not isinstance(made, torch.nn.Module):
        raise UsageError(
            f"--model {path}: the factory gave a {type(made).__name__}",
            "a torch.nn.Module",
            "return the network itself, not its class or its weights",
        )
    return made


def _failed(doing: str, path: str, error: BaseException) -> UsageError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return UsageError(
        f"--model {path}: {doing} failed: {type(error).__name__}: {lines[0] if lines else 'no message'}",
        "code that runs",
        'try it first: python -c "import {0}; print({0}.{1}())"'.format(*path.split(":", 1)),
    )


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
            "wrap the network so that it takes and gives RGB pictures",
        ) from error.__cause__
