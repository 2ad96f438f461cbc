"""Compact (SRVGGNetCompact): plain 3x3 convolutions at low resolution, a pixel shuffle, the enlarged input added.

Facts from xinntao/Real-ESRGAN. Takes and gives RGB in 0…1.
"""

from __future__ import annotations

import re
from typing import Callable, Dict, List

import torch
import torch.nn.functional as F
from torch import nn

from sr_deploy.core.errors import BadCheckpoint
from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors
from sr_deploy.models.loading import load_strictly
from sr_deploy.models.readings import likeliest
from sr_deploy.models.resemblance import Reading
from sr_deploy.models.shapes import check_asked, require_rgb, shuffle_scale, width_of

#: How each activation is made for a number of channels; only the first has weights.
ACTIVATIONS: Dict[str, Callable[[int], nn.Module]] = {
    "prelu": nn.PReLU,
    "relu": lambda width: nn.ReLU(),
    "leakyrelu": lambda width: nn.LeakyReLU(0.1),
}

_KEY = re.compile(r"body\.\d+\.(weight|bias)")


class CompactNetwork(nn.Module):
    """The whole network.

    Args:
        width: channels of the body.
        convolutions: between the first and the last one.
        scale: upscaling.
        activation: "prelu", "relu" or "leakyrelu".
    """

    def __init__(self, width: int, convolutions: int, scale: int, activation: str) -> None:
        super().__init__()
        layers: List[nn.Module] = []
        for c_in in (3, *(width,) * convolutions):
            layers += [nn.Conv2d(c_in, width, 3, padding=1), ACTIVATIONS[activation](width)]
        self.body = nn.Sequential(*layers, nn.Conv2d(width, 3 * scale**2, 3, padding=1))
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 3, scale·H, scale·W)."""
        enlarged = F.interpolate(x, scale_factor=float(self.scale), mode="nearest")
        return F.pixel_shuffle(self.body(x), self.scale) + enlarged


def _detect(tensors: Tensors) -> bool:
    """Nothing but numbered convolutions and their activations."""
    first = tensors.get("body.0.weight")
    return first is not None and first.dim() == 4 and all(_KEY.fullmatch(key) for key in tensors)


def _load(tensors: Tensors, asked: Asked) -> LoadedModel:
    name = "Compact"
    numbers = {int(key.split(".")[1]) for key in tensors if _KEY.fullmatch(key) and tensors[key].dim() == 4}
    last = max(numbers, default=0)
    require_rgb(tensors, "body.0.weight", name)
    width = width_of(tensors, "body.0.weight", name)
    scale = shuffle_scale(tensors, f"body.{last}.weight", name)
    check_asked(asked, name, scale)
    if len(numbers) < 2 or numbers != set(range(0, 2 * len(numbers), 2)):
        raise BadCheckpoint(
            f"this checkpoint has {len(numbers)} convolutions, and the last one is body.{last}",
            "body.0, body.2 and so on: convolutions and activations take turns",
            "check that the file is whole and not of a variant; srdeploy inspect FILE lists its keys",
        )
    convolutions = len(numbers) - 2
    activations = ("prelu",) if "body.1.weight" in tensors else ("relu", "leakyrelu")
    modules = {
        Reading(1.0, act): load_strictly(CompactNetwork(width, convolutions, scale, act), tensors, name)
        for act in activations
    }
    reading, notes = likeliest(modules, scale, asked) if len(modules) > 1 else (next(iter(modules)), ())
    return LoadedModel(
        module=modules[reading],
        architecture=name,
        form="folded",
        scale=scale,
        value_range=1.0,
        hyperparameters={"width": width, "convolutions": convolutions, "activation": reading.what},
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        notes=notes,
    )


COMPACT = Architecture(
    name="Compact",
    detect=_detect,
    load=_load,
    signature=("body.0.weight", "body.1.weight", "body.2.weight", "body.3.weight"),
    about="SRVGGNetCompact of Real-ESRGAN; PReLU, ReLU or leaky ReLU",
)
