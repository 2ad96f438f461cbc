"""EFDN (Wang 2022, arXiv 2204.08759): feature distillation cells with edge-enhanced diverse branch blocks (EDBB).

Facts from the authors' repository icandle/EFDN. Takes and gives RGB in 0…1 and clamps its output to that range.
"""

from __future__ import annotations

import re
from typing import Dict, Tuple

import torch
from torch import nn

from sr_deploy.core.contract import SizeRules
from sr_deploy.core.errors import BadCheckpoint
from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors, Training
from sr_deploy.models.blocks.edge import PointwiseThen3x3, PointwiseThenEdge, begin_branches
from sr_deploy.models.blocks.esa import MINIMUM, SpatialAttention
from sr_deploy.models.loading import load_strictly
from sr_deploy.models.renaming import names_in_file
from sr_deploy.models.shapes import check_asked, shuffle_scale, width_of
from sr_deploy.models.start import pass_colours, repeat_colours, silence_colours

#: The cells' number is part of the topology: cell 2's output enters every later fusion.
CELLS = 4

_EDBB_KEY = re.compile(r"^(cells\.\d+\.conv[23]\.)(?!act\.)")
#: Where files keep the branches that lie in ``rep_conv`` here, see ``renaming.py``.
_FILE_NAMES = ((r"(cells\.\d+\.conv[23]\.)rep_conv\.(?=rep_conv\.|conv1x1)", r"\1"),)
_EDBB_MODULE_KEY = re.compile(r"(cells\.\d+\.conv[23]\.)rep_conv\.(?=rep_conv\.|conv1x1)")
_EXPANDED = "cells.0.conv2.conv1x1_3x3.k0"
_BRANCHES = "cells.0.conv2.conv1x1.weight"


class EdgeBranches(nn.Module):
    """The affine part of an EDBB as trained: the sum of its branches and of its input. One 3x3 convolution when folded.

    Args:
        width: channels in and out.
        middle: channels between the 1x1 and the 3x3 of the expanding branch; 0: the file has no such branch.
    """

    def __init__(self, width: int, middle: int) -> None:
        super().__init__()
        self.rep_conv = nn.Conv2d(width, width, 3, padding=1)
        self.conv1x1 = nn.Conv2d(width, width, 1)
        self.conv1x1_3x3 = PointwiseThen3x3(width, middle, width) if middle else None
        self.conv1x1_sbx = PointwiseThenEdge(width, width)
        self.conv1x1_sby = PointwiseThenEdge(width, width)
        self.conv1x1_lpl = PointwiseThenEdge(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sum of the branches, (N, C, H, W) to (N, C, H, W)."""
        edges = self.conv1x1_sbx(x) + self.conv1x1_sby(x) + self.conv1x1_lpl(x)
        total = self.rep_conv(x) + self.conv1x1(x) + edges + x
        return total if self.conv1x1_3x3 is None else total + self.conv1x1_3x3(x)


class EdgeBlock(nn.Module):
    """An EDBB with its PReLU. ``rep_conv`` holds all branches, so that a folded block has the published folded keys."""

    def __init__(self, width: int, branches: bool, middle: int) -> None:
        super().__init__()
        self.rep_conv = EdgeBranches(width, middle) if branches else nn.Conv2d(width, width, 3, padding=1)
        self.act = nn.PReLU(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Branches, then PReLU."""
        return self.act(self.rep_conv(x))


class PointwiseBlock(nn.Module):
    """A 1x1 convolution and PReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(width, width, 1)
        self.act = nn.PReLU(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolution, then PReLU."""
        return self.act(self.conv1x1(x))


class Cell(nn.Module):
    """Three blocks in a row; their outputs and the input are reduced, joined, fused, weighted by attention."""

    def __init__(self, width: int, half: int, reduced: int, branches: bool, middle: int) -> None:
        super().__init__()
        self.conv1 = PointwiseBlock(width)
        self.conv2 = EdgeBlock(width, branches, middle)
        self.conv3 = EdgeBlock(width, branches, middle)
        self.fuse = nn.Conv2d(4 * half, width, 1)
        self.att = SpatialAttention(width, reduced)
        self.branch = nn.ModuleList(nn.Conv2d(width, half, 1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        first = self.conv1(x)
        second = self.conv2(first)
        third = self.conv3(second)
        features = (x, first, second, third)
        joined = torch.cat([reduce(feature) for reduce, feature in zip(self.branch, features)], dim=1)
        return self.att(self.fuse(joined)) + x


class EFDNNetwork(nn.Module):
    """The whole network: (N, 3, H, W) in 0…1 to (N, 3, scale·H, scale·W), clamped to 0…1.

    Args:
        width: channels of the body.
        scale: upscaling.
        half: channels of each of a cell's four reduced features.
        reduced: channels inside the attention.
        branches: True for the training form.
        middle: channels inside the training form's 1x1-3x3 branch; 0: no such branch.
    """

    def __init__(self, width: int, scale: int, half: int, reduced: int, branches: bool, middle: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.cells = nn.ModuleList(Cell(width, half, reduced, branches, middle) for _ in range(CELLS))
        self.local_fuse = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for _ in range(CELLS - 1))
        self.tail = nn.Sequential(nn.Conv2d(width, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Upscale."""
        shallow = self.head(x)
        first = self.cells[0](shallow)
        second = self.cells[1](first)
        third = self.cells[2](self.local_fuse[0](torch.cat([first, second], dim=1)))
        fourth = self.cells[3](self.local_fuse[1](torch.cat([second, third], dim=1)))
        deep = self.local_fuse[2](torch.cat([second, fourth], dim=1))
        return self.tail(deep + shallow).clamp(0, 1)


def _detect(tensors: Tensors) -> bool:
    """Keys that only EFDN has together."""
    return all(key in tensors for key in EFDN.signature)


def _load(tensors: Tensors, asked: Asked) -> LoadedModel:
    """Build EFDN from a folded or training checkpoint. Raises BadCheckpoint, UsageError."""
    name = "EFDN"
    width = width_of(tensors, "head.weight", name)
    scale = shuffle_scale(tensors, "tail.0.weight", name)
    half = width_of(tensors, "cells.0.branch.0.weight", name)
    reduced = width_of(tensors, "cells.0.att.conv1.weight", name)
    check_asked(asked, name, scale)
    branches = _BRANCHES in tensors
    middle = width_of(tensors, _EXPANDED, name) if branches and _EXPANDED in tensors else 0
    own = {_EDBB_KEY.sub(r"\1rep_conv.", key): value for key, value in tensors.items()} if branches else tensors
    try:
        module = load_strictly(EFDNNetwork(width, scale, half, reduced, branches, middle), own, name)
    except BadCheckpoint as error:
        raise BadCheckpoint(_EDBB_MODULE_KEY.sub(r"\1", error.found), error.wanted, error.todo) from None
    hyperparameters: Dict[str, object] = {"width": width, "cells": CELLS, "half": half, "attention": reduced}
    notes: Tuple[str, ...] = ()
    if branches:
        hyperparameters.update(identity=True, expanding_branch=middle)
        summed = "all stored branches, the 1x1-3x3 one included, and" if middle else "all stored branches and"
        notes = (
            f"EDBB in training form: {summed} the identity are summed. The file cannot say whether it was trained so, "
            "because in the published code the identity and the 1x1-3x3 branch are switches that leave no trace in it: "
            "check a few pictures with srdeploy verify",
        )
    return LoadedModel(
        module=module,
        architecture=name,
        form="training" if branches else "folded",
        scale=scale,
        value_range=1.0,
        sizes=SizeRules(minimum=MINIMUM),
        hyperparameters=hyperparameters,
        parameters=sum(value.numel() for value in tensors.values()),
        notes=notes,
        file_names=names_in_file(module, _FILE_NAMES),
    )


def fresh_efdn(
    scale: int, width: int = 48, half: int = 24, attention: int = 12, branches: bool = True, expanded: int = 96
) -> EFDNNetwork:
    """The network as its training begins, see ``start.py``.

    Args:
        scale: upscaling.
        width, half, attention: channels of the body, of a cell's reduced features, inside the attention.
        branches: the training form.
        expanded: channels inside the training form's 1x1-3x3 branch; 0: no such branch.
    """
    network = EFDNNetwork(width, scale, half, attention, branches, expanded if branches else 0)
    begin_branches(network)
    pass_colours(network.head)
    silence_colours(_convolution(network.local_fuse[2]))
    repeat_colours(_convolution(network.tail[0]), scale)
    return network


def _convolution(module: nn.Module) -> nn.Conv2d:
    assert isinstance(module, nn.Conv2d)
    return module


EFDN = Architecture(
    name="EFDN",
    detect=_detect,
    load=_load,
    signature=("head.weight", "cells.0.conv2.rep_conv.weight", "cells.0.att.conv_max.weight", "local_fuse.0.weight"),
    about="edge-enhanced feature distillation; folded, or with its EDBB branches",
    training=Training(
        fresh_efdn, features=r"cells\.\d+", deep=("cells.", "local_fuse."), fixed=(".mask",), file_names=_FILE_NAMES
    ),
)
