"""Load a file that keeps a network's tensors under other names, and report what does not fit under the file's names."""

from __future__ import annotations

import re
from typing import Dict, Sequence, Tuple

import torch

from sr_deploy.core.errors import BadCheckpoint
from sr_deploy.models.base import Tensors
from sr_deploy.models.loading import load_strictly

#: What a key of the network begins with (a regular expression), and what stands there in the file (a template for it).
Names = Sequence[Tuple[str, str]]


def load_renamed(module: torch.nn.Module, tensors: Tensors, names: Names, architecture: str) -> torch.nn.Module:
    """``load_strictly`` for a file with names of its own.

    Args:
        module: the network.
        tensors: the checkpoint, under the file's names.
        names: the first pair that fits the beginning of a key tells its name in the file; none: the same name.
        architecture: named in errors.

    Raises:
        BadCheckpoint: as ``load_strictly``, with the file's names.
    """
    in_file = names_in_file(module, names)
    there = set(in_file.values())
    own_names = {own: tensors[name] for own, name in in_file.items() if name in tensors}
    surplus = {key: value for key, value in tensors.items() if key not in there}
    try:
        return load_strictly(module, {**surplus, **own_names}, architecture)
    except BadCheckpoint as error:
        pattern = re.compile("|".join(re.escape(own) for own in sorted(in_file, key=len, reverse=True)))
        found = pattern.sub(lambda match: in_file[match.group()], error.found)
        raise BadCheckpoint(found, error.wanted, error.todo) from None


def names_in_file(module: torch.nn.Module, names: Names) -> Dict[str, str]:
    """Each key of the network's state → its name in the file."""
    return {own: _in_file(own, names) for own in module.state_dict()}


def _in_file(own: str, names: Names) -> str:
    for pattern, template in names:
        match = re.match(pattern, own)
        if match:
            return match.expand(template) + own[match.end() :]
    return own
