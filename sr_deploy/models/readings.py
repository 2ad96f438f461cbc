"""A file of a known architecture that may hold one of several networks: the one that enlarges a picture is taken."""

from __future__ import annotations

from typing import Iterable, Mapping, Tuple

import numpy as np
import torch
from torch import nn

from sr_deploy.core.contract import SizeRules
from sr_deploy.core.errors import UsageError
from sr_deploy.models.base import Asked, LoadedModel
from sr_deploy.models.resemblance import PICTURE_SIZE, RANGES, Evidence, Reading, Run, evidence_of

#: Larger networks are not tried, for a file may describe what no published one has: weights of all readings together,
#: channels of one tensor, and scale.
MOST_WEIGHTS, WIDEST, LARGEST_SCALE = 1 << 24, 4096, 8


def likeliest(modules: Mapping[Reading, nn.Module], scale: int, asked: Asked) -> Tuple[Reading, Tuple[str, ...]]:
    """The reading that enlarges a picture, and what to tell the user.

    Args:
        modules: each takes and gives RGB in its reading's range. The published reading first: where several enlarge the
            picture alike, or none, the first of them is taken.
        scale: output size over input size.
        asked: a value range that the user gives is taken, and a note says if the picture tells another.

    Returns:
        (reading, notes).

    Raises:
        UsageError: the value range that was asked for is none of the readings'.
    """
    wanted = [reading for reading in modules if asked.value_range in (None, reading.value_range)]
    if not wanted:
        raise UsageError(
            f"--value-range {asked.value_range:g} is not supported",
            "the value that white has in the network's input and output: 1 or 255",
            "leave it out to have it found",
        )
    if scale > LARGEST_SCALE or _too_large(modules.values()):
        return wanted[0], (f"{wanted[0]}: not in the file, and too large to be tried on a picture",)
    evidence = evidence_of({reading: run_of(module) for reading, module in modules.items()}, PICTURE_SIZE, scale)
    of_wanted = Evidence({reading: evidence.errors[reading] for reading in wanted})
    chosen = (*of_wanted.likely, *wanted)[0]
    if evidence.only == chosen:
        return chosen, (f"{chosen}: not in the file, told by a picture: {evidence}",)
    todo = "check a few pictures with srdeploy verify"
    if evidence.only is not None:
        return chosen, (f"{evidence.doubt(chosen)}; {todo}",)
    return chosen, (f"{chosen}: not in the file, nor told by a picture: {evidence}; {todo}",)


def loaded_in_likelier_range(
    module: nn.Module,
    architecture: str,
    scale: int,
    asked: Asked,
    usual: Reading,
    hyperparameters: Mapping[str, object],
    minimum: int = 1,
) -> LoadedModel:
    """A network of one form, of which only the range is open.

    Args:
        module: with its weights.
        architecture, scale, hyperparameters: see ``LoadedModel``.
        asked: its value range settles it.
        usual: the range of the authors' own files.
        minimum: the least edge that it takes, pixels.

    Raises:
        UsageError: see ``likeliest``.
    """
    others = (reading for reading in RANGES if reading != usual)
    reading, notes = likeliest(dict.fromkeys((usual, *others), module), scale, asked)
    return LoadedModel(
        module=module,
        architecture=architecture,
        form="folded",
        scale=scale,
        value_range=reading.value_range,
        sizes=SizeRules(minimum=minimum),
        hyperparameters=dict(hyperparameters),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        notes=notes,
    )


def run_of(module: nn.Module) -> Run:
    """A network as a function of a picture."""

    def run(lr: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(lr)).numpy()

    return run


def _too_large(modules: Iterable[nn.Module]) -> bool:
    tensors = [tensor for module in set(modules) for tensor in module.parameters()]
    return sum(map(torch.numel, tensors)) > MOST_WEIGHTS or any(max(one.shape, default=0) > WIDEST for one in tensors)
