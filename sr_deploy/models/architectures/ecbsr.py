"""ECBSR (Zhang et al. 2021, doi 10.1145/3474085.3475291): a row of 3x3 convolutions, trained as blocks of branches.

Facts from xindongzhang/ECBSR, whose files are for one channel (Y, 0…255), and XPixelGroup/BasicSR, which has the RGB
form (0…1). The identity that a block may add, an activation without weights, and the range leave no trace in a file.
"""

from __future__ import annotations

import itertools
from typing import Callable, Dict, List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import nn

from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors, Training
from sr_deploy.models.blocks.edge import PointwiseThen3x3, PointwiseThenEdge
from sr_deploy.models.readings import likeliest
from sr_deploy.models.renaming import Names, load_renamed, names_in_file
from sr_deploy.models.resemblance import Reading
from sr_deploy.models.shapes import check_asked, count_of, holds_all, require_rgb, shuffle_scale, width_of

#: How each activation is made for a number of channels; only the first has weights. The authors' random leaky ReLU has
#: a mean slope of 0, which is what it runs with: it is ReLU.
ACTIVATIONS: Dict[str, Callable[[int], nn.Module]] = {
    "prelu": nn.PReLU,
    "relu": lambda width: nn.ReLU(),
    "softplus": lambda width: nn.Softplus(),
}


class EdgeBranches(nn.Module):
    """The affine part of an ECB as trained: the sum of its branches. One 3x3 convolution when folded.

    Args:
        c_in, c_out: channels.
        middle: channels between the 1x1 and the 3x3 of the expanding branch.
        identity: whether the input is added, too.
    """

    def __init__(self, c_in: int, c_out: int, middle: int, identity: bool) -> None:
        super().__init__()
        self.identity = identity
        self.conv3x3 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.conv1x1_3x3 = PointwiseThen3x3(c_in, middle, c_out)
        self.conv1x1_sbx = PointwiseThenEdge(c_in, c_out)
        self.conv1x1_sby = PointwiseThenEdge(c_in, c_out)
        self.conv1x1_lpl = PointwiseThenEdge(c_in, c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, c_in, H, W) to (N, c_out, H, W)."""
        edges = self.conv1x1_sbx(x) + self.conv1x1_sby(x) + self.conv1x1_lpl(x)
        total = self.conv3x3(x) + self.conv1x1_3x3(x) + edges
        return total + x if self.identity else total


class EdgeBlock(nn.Module):
    """An ECB. ``conv3x3`` holds all branches, so that a folded block has the published folded keys.

    Args:
        c_in, c_out: channels.
        activation: one of ``ACTIVATIONS``; None at the end of the network.
        middle: of the training form; None: the folded form.
        identity: whether the training form adds the input.
    """

    def __init__(self, c_in: int, c_out: int, activation: Optional[str], middle: Optional[int], identity: bool) -> None:
        super().__init__()
        if middle is None:
            self.conv3x3: nn.Module = nn.Conv2d(c_in, c_out, 3, padding=1)
        else:
            self.conv3x3 = EdgeBranches(c_in, c_out, middle, identity and c_in == c_out)
        self.act = nn.Identity() if activation is None else ACTIVATIONS[activation](c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, c_in, H, W) to (N, c_out, H, W)."""
        return self.act(self.conv3x3(x))


class ECBSRNetwork(nn.Module):
    """The whole network.

    Args:
        widths: channels in and out of its blocks: 3, the body's, …, 3·scale².
        scale: upscaling.
        activation: one of ``ACTIVATIONS``.
        middles: of each block's expanding branch; (): the folded form.
        identity: whether the training form's blocks add their input where the channels allow it.
    """

    def __init__(
        self, widths: Tuple[int, ...], scale: int, activation: str, middles: Tuple[int, ...], identity: bool
    ) -> None:
        super().__init__()
        blocks: List[nn.Module] = []
        for number, (c_in, c_out) in enumerate(zip(widths, widths[1:])):
            act = activation if number < len(widths) - 2 else None
            blocks.append(EdgeBlock(c_in, c_out, act, middles[number] if middles else None, identity))
        self.backbone = nn.Sequential(*blocks)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 3, scale·H, scale·W)."""
        enlarged = F.interpolate(x, scale_factor=float(self.scale), mode="nearest")
        return F.pixel_shuffle(self.backbone(x), self.scale) + enlarged


def _paths(tensors: Tensors) -> List[str]:
    """The blocks in their order, under the file's names: a row, or the head, body and tail of older files."""
    if "head.0.conv3x3.weight" in tensors:
        return ["head.0", *(f"body.{number}" for number in range(count_of(tensors, "body."))), "tail.0"]
    return [f"backbone.{number}" for number in range(count_of(tensors, "backbone."))]


def _names(paths: List[str], training: bool) -> Names:
    """Where the file keeps what, see ``renaming.py``."""
    inner = ((r"conv3x3\.", ""),) if training else ()
    return [
        (rf"backbone\.{number}\." + own, f"{path}.{stored}")
        for number, path in enumerate(paths)
        for own, stored in (*inner, ("", ""))
    ]


def _detect(tensors: Tensors) -> bool:
    return holds_all(tensors, ECBSR.signature)


def _load(tensors: Tensors, asked: Asked) -> LoadedModel:
    name = "ECBSR"
    paths = _paths(tensors) or ["backbone.0"]
    require_rgb(tensors, f"{paths[0]}.conv3x3.weight", name)
    scale = shuffle_scale(tensors, f"{paths[-1]}.conv3x3.weight", name)
    check_asked(asked, name, scale, uses=("value_range",))
    widths = (3, *(width_of(tensors, f"{path}.conv3x3.weight", name) for path in paths))
    training = f"{paths[0]}.conv1x1_3x3.k0" in tensors
    middles = tuple(width_of(tensors, f"{path}.conv1x1_3x3.k0", name) for path in paths) if training else ()
    activations = ("prelu",) if f"{paths[0]}.act.weight" in tensors else ("relu", "softplus")
    modules: Dict[Reading, nn.Module] = {}
    for activation, identity in itertools.product(activations, (False, True) if training else (False,)):
        network = ECBSRNetwork(widths, scale, activation, middles, identity)
        module = load_renamed(network, tensors, _names(paths, training), name)
        what = [activation, "with identity" if identity else "without identity"][: 2 if training else 1]
        modules.update({Reading(value_range, ", ".join(what)): module for value_range in (1.0, 255.0)})
    reading, notes = likeliest(modules, scale, asked)
    hyperparameters: Dict[str, object] = {"widths": list(widths[1:-1]), "blocks": len(paths), "switches": reading.what}
    return LoadedModel(
        module=modules[reading],
        architecture=name,
        form="training" if training else "folded",
        scale=scale,
        value_range=reading.value_range,
        hyperparameters=hyperparameters,
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        notes=notes,
        file_names=names_in_file(modules[reading], _names(paths, training)),
    )


ECBSR = Architecture(
    name="ECBSR",
    detect=_detect,
    load=_load,
    signature=("backbone.0.conv3x3.weight|head.0.conv3x3.weight", "backbone.1.conv3x3.weight|tail.0.conv3x3.weight"),
    about="edge-oriented convolution blocks, RGB; folded, or with its branches",
    training=Training(fixed=(".mask",)),
)
