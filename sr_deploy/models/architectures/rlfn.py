"""RLFN (Kong et al. 2022, arXiv 2205.07514): residual blocks of three 3x3 convolutions and a small spatial attention.

Facts from bytedance/RLFN: RLFN, RLFN-S and the pruned form of NTIRE 2022 differ in blocks and widths only. The authors'
files take and give 0…255, those trained elsewhere 0…1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors
from sr_deploy.models.blocks.esa import MINIMUM, SpatialAttention
from sr_deploy.models.loading import load_strictly
from sr_deploy.models.readings import loaded_in_likelier_range
from sr_deploy.models.resemblance import Reading
from sr_deploy.models.shapes import check_asked, count_of, holds_all, shuffle_scale, width_of

#: Slope for negative inputs.
LEAK = 0.05


@dataclass(frozen=True)
class BlockShape:
    """Channels inside one block: after its first and second convolution, and in its attention."""

    first: int
    second: int
    reduced: int


class LocalFeatureBlock(nn.Module):
    """RLFB: three convolutions, the input added, a 1x1 convolution, attention."""

    def __init__(self, width: int, shape: BlockShape) -> None:
        super().__init__()
        self.c1_r = nn.Conv2d(width, shape.first, 3, padding=1)
        self.c2_r = nn.Conv2d(shape.first, shape.second, 3, padding=1)
        self.c3_r = nn.Conv2d(shape.second, width, 3, padding=1)
        self.c5 = nn.Conv2d(width, width, 1)
        self.esa = SpatialAttention(width, shape.reduced, convolutions=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same."""
        deep = x
        for convolution in (self.c1_r, self.c2_r, self.c3_r):
            deep = F.leaky_relu(convolution(deep), LEAK)
        return self.esa(self.c5(deep + x))


class RLFNNetwork(nn.Module):
    """The whole network; its blocks are named block_1, block_2 and so on."""

    def __init__(self, width: int, shapes: Sequence[BlockShape], scale: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = len(shapes)
        for number, shape in enumerate(shapes, 1):
            self.add_module(f"block_{number}", LocalFeatureBlock(width, shape))
        self.conv_2 = nn.Conv2d(width, width, 3, padding=1)
        self.upsampler = nn.Sequential(nn.Conv2d(width, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 3, scale·H, scale·W); H and W at least ``MINIMUM``."""
        shallow = deep = self.conv_1(x)
        for number in range(1, self.blocks + 1):
            deep = self.get_submodule(f"block_{number}")(deep)
        return self.upsampler(self.conv_2(deep) + shallow)


def _detect(tensors: Tensors) -> bool:
    return holds_all(tensors, RLFN.signature)


def _load(tensors: Tensors, asked: Asked) -> LoadedModel:
    name = "RLFN"
    scale = shuffle_scale(tensors, "upsampler.0.weight", name)
    check_asked(asked, name, scale, uses=("value_range",))
    width = width_of(tensors, "conv_1.weight", name)
    shapes = [
        BlockShape(
            first=width_of(tensors, f"block_{number}.c1_r.weight", name),
            second=width_of(tensors, f"block_{number}.c2_r.weight", name),
            reduced=width_of(tensors, f"block_{number}.esa.conv1.weight", name),
        )
        for number in range(1, 1 + count_of(tensors, "block_", first=1))
    ]
    module = load_strictly(RLFNNetwork(width, shapes, scale), tensors, name)
    hyperparameters = {
        "width": width,
        "blocks": len(shapes),
        "inner": sorted({shape.first for shape in shapes} | {shape.second for shape in shapes}),
        "attention": sorted({shape.reduced for shape in shapes}),
    }
    minimum = MINIMUM if shapes else 1
    return loaded_in_likelier_range(module, name, scale, asked, Reading(255.0), hyperparameters, minimum)


RLFN = Architecture(
    name="RLFN",
    detect=_detect,
    load=_load,
    signature=(
        "conv_1.weight",
        "block_1.c3_r.weight",
        "block_1.c5.weight",
        "block_1.esa.conv4.weight",
        "conv_2.weight",
    ),
    about="residual local features, any number of blocks, pruned widths from shapes",
)
