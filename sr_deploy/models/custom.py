"""The user's own network: ``--model pkg.module:factory`` or ``--model path/to/file.py:factory``.

The only place that runs code which is not the project's.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Callable, Iterator, Optional, Tuple

import torch

from sr_deploy.core.contract import SizeRules
from sr_deploy.core.errors import UsageError
from sr_deploy.models.base import LoadedModel, Tensors
from sr_deploy.models.loading import load_strictly

#: Multiples that the height and width of an input may have to be; the smallest that works is taken.
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
#: No probe is smaller than this, pixels.
SMALLEST_PROBE = 24


def model_from_factory(
    path: str, tensors: Optional[Tensors], scale: Optional[int], value_range: Optional[float]
) -> LoadedModel:
    """Import a user's function, call it, and load a checkpoint into the network that it gives.

    Args:
        path: ``"pkg.module:factory"``; the module may lie in the current folder. Or ``"path/to/file.py:factory"``; what
            lies beside the file can be imported by it. ``factory()`` gives an ``nn.Module`` that takes (N, 3, H, W) RGB
            and gives (N, 3, scale·H, scale·W), both in ``0…value_range``.
        tensors: its weights; None: those that the factory has put in.
        scale: what the user says it is; None: found by running the network.
        value_range: the value of white, 1.0 or 255.0.

    Raises:
        UsageError: no value range, no such module, file or function, a function that fails or gives no ``nn.Module``, a
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
    with _importable(os.getcwd()), _importable(_folder_of(path)):
        module = _call(_factory(path), path)
        module = module.float().cpu().eval().requires_grad_(False)
        if tensors is not None:
            module = load_strictly(module, tensors, path)
        found_scale, multiple = _scale_and_multiple(module, path)
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
        sizes=SizeRules(minimum=multiple, multiple=multiple),
        hyperparameters={"factory": path},
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        notes=("the network is the user's own; its scale and the sizes it takes were found by running it",),
    )


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
    name, _, attribute = path.rpartition(":")
    if name.endswith(".py"):
        trial = f"import runpy; print(runpy.run_path({name!r})[{attribute!r}]())"
    else:
        trial = f"import {name}; print({name}.{attribute}())"
    return UsageError(
        f"--model {path}: {doing} failed: {type(error).__name__}: {lines[0] if lines else 'no message'}",
        "code that runs",
        f'try it first: python -c "{trial}"',
    )


def _scale_and_multiple(module: torch.nn.Module, path: str) -> Tuple[int, int]:
    """Run the network on ever rounder sizes until one works.

    Returns:
        (scale, multiple of which heights and widths must be).

    Raises:
        UsageError: no size works; the message says what happened at the roundest.
    """
    problem, last_error = "", None
    for multiple in MULTIPLES:
        # Odd multiples, and not square: a network that needs rounder sizes or swaps the axes shows.
        count = -(-SMALLEST_PROBE // multiple) | 1
        height, width = multiple * count, multiple * (count + 2)
        try:
            with torch.no_grad():
                output = module(torch.zeros(1, 3, height, width))
        except Exception as error:
            problem, last_error = f"running it failed: {type(error).__name__}: {error}".splitlines()[0], error
            continue
        if not isinstance(output, torch.Tensor):
            problem, last_error = f"its output is a {type(output).__name__}, not a tensor", None
            continue
        scale = output.shape[-1] // width if output.dim() == 4 else 0
        if scale >= 1 and tuple(output.shape) == (1, 3, scale * height, scale * width):
            return scale, multiple
        problem, last_error = f"it gives {tuple(output.shape)} for an input of {(1, 3, height, width)}", None
    raise UsageError(
        f"--model {path}: {problem}",
        "(N, 3, scale·H, scale·W) for an input of (N, 3, H, W), for H and W that are multiples of 64 or less",
        "wrap the network so that it takes and gives RGB pictures",
    ) from last_error
