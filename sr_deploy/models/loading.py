"""Put a checkpoint's tensors into a network, strictly, and say exactly what does not fit."""

from __future__ import annotations

from typing import Iterable, List, Tuple

import torch

from sr_deploy.core.errors import BadCheckpoint
from sr_deploy.models.base import Tensors


class SurplusTensors(BadCheckpoint):
    """A checkpoint has all tensors of the network, of the right shapes, and others.

    Attributes:
        names: of the others.
    """

    names: Tuple[str, ...] = ()


def load_strictly(module: torch.nn.Module, tensors: Tensors, architecture: str) -> torch.nn.Module:
    """Copy ``tensors`` into ``module`` and put it into eval mode; every key must match.

    Args:
        module: the network, built from the checkpoint's keys and shapes.
        tensors: the checkpoint, without keys that this architecture knows to be dead.
        architecture: named in errors.

    Returns:
        ``module``, in eval mode, with gradients off.

    Raises:
        BadCheckpoint: missing keys, wrong shapes; NaN or infinite weights. Each is named.
        SurplusTensors: unexpected keys, and nothing else.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in tensors]
    unexpected = [key for key in tensors if key not in own]
    shapes = [
        f"{key} is {tuple(tensors[key].shape)}, the network has {tuple(own[key].shape)}"
        for key in own
        if key in tensors and tensors[key].shape != own[key].shape
    ]
    if unexpected and not (missing or shapes):
        surplus = SurplusTensors(
            f"this checkpoint does not fit {architecture}: unexpected {_some(unexpected)}",
            f"all {len(own)} tensors of {architecture}, and no others",
            "if its authors load it with strict=False, add --ignore-surplus; srdeploy inspect FILE lists its keys",
        )
        surplus.names = tuple(unexpected)
        raise surplus
    if missing or unexpected or shapes:
        problems = []
        if missing:
            problems.append(f"missing {_some(missing)}")
        if unexpected:
            problems.append(f"unexpected {_some(unexpected)}")
        if shapes:
            problems.append(f"wrong shape: {_some(shapes)}")
        raise BadCheckpoint(
            f"this checkpoint does not fit {architecture}: " + "; ".join(problems),
            f"all {len(own)} tensors of {architecture}, and no others",
            "check that the file is whole and not of a variant; srdeploy inspect FILE lists its keys",
        )
    sick = [key for key in own if tensors[key].is_floating_point() and not torch.isfinite(tensors[key]).all()]
    if sick:
        raise BadCheckpoint(
            f"NaN or infinite weights in {_some(sick)}",
            "finite weights",
            "training diverged or the file is damaged; use an earlier checkpoint",
        )
    module.load_state_dict({key: tensors[key].to(own[key].dtype) for key in own})
    return module.eval().requires_grad_(False)


def _some(names: Iterable[str], limit: int = 5) -> str:
    """A few names and how many more there are."""
    listed: List[str] = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
