"""RFDN (Liu et al. 2020, arXiv 2009.11551): residual feature distillation, the winner of AIM 2020.

Facts from njulj/RFDN and Amazingren/NTIRE2024_ESR (team 30). Their files take and give 0…255, those
trained elsewhere 0…1.
"""

from __future__ import annotations

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


class DistillationBlock(nn.Module):
    """RFDB: at each of three steps a part is distilled and the rest refined; the parts are joined and weighted.

    Args:
        width: channels in and out.
        distilled: channels of each part.
        reduced: channels inside the attention.
    """

    def __init__(self, width: int, distilled: int, reduced: int) -> None:
        super().__init__()
        self.c1_d = nn.Conv2d(width, distilled, 1)
        self.c1_r = nn.Conv2d(width, width, 3, padding=1)
        self.c2_d = nn.Conv2d(width, distilled, 1)
        self.c2_r = nn.Conv2d(width, width, 3, padding=1)
        self.c3_d = nn.Conv2d(width, distilled, 1)
        self.c3_r = nn.Conv2d(width, width, 3, padding=1)
        self.c4 = nn.Conv2d(width, distilled, 3, padding=1)
        self.c5 = nn.Conv2d(4 * distilled, width, 1)
        self.esa = SpatialAttention(width, reduced)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same."""
        parts = []
        for distil, refine in ((self.c1_d, self.c1_r), (self.c2_d, self.c2_r), (self.c3_d, self.c3_r)):
            parts.append(F.leaky_relu(distil(x), LEAK))
            x = F.leaky_relu(refine(x) + x, LEAK)
        parts.append(F.leaky_relu(self.c4(x), LEAK))
        return self.esa(self.c5(torch.cat(parts, dim=1)))


class RFDNNetwork(nn.Module):
    """The whole network; its blocks are named B1, B2 and so on."""

    def __init__(self, width: int, distilled: int, reduced: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.fea_conv = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = blocks
        for number in range(1, blocks + 1):
            self.add_module(f"B{number}", DistillationBlock(width, distilled, reduced))
        self.c = nn.Sequential(nn.Conv2d(blocks * width, width, 1), nn.LeakyReLU(LEAK))
        self.LR_conv = nn.Conv2d(width, width, 3, padding=1)
        self.upsampler = nn.Sequential(nn.Conv2d(width, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 3, scale·H, scale·W); H and W at least ``MINIMUM``."""
        shallow = deep = self.fea_conv(x)
        features = []
        for number in range(1, self.blocks + 1):
            deep = self.get_submodule(f"B{number}")(deep)
            features.append(deep)
        return self.upsampler(self.LR_conv(self.c(torch.cat(features, dim=1))) + shallow)


def _detect(tensors: Tensors) -> bool:
    return holds_all(tensors, RFDN.signature)


def _load(tensors: Tensors, asked: Asked) -> LoadedModel:
    name = "RFDN"
    scale = shuffle_scale(tensors, "upsampler.0.weight", name)
    check_asked(asked, name, scale, uses=("value_range",))
    width = width_of(tensors, "fea_conv.weight", name)
    distilled = width_of(tensors, "B1.c1_d.weight", name)
    reduced = width_of(tensors, "B1.esa.conv1.weight", name)
    blocks = count_of(tensors, "B", first=1)
    module = load_strictly(RFDNNetwork(width, distilled, reduced, blocks, scale), tensors, name)
    hyperparameters = {"width": width, "distilled": distilled, "attention": reduced, "blocks": blocks}
    return loaded_in_likelier_range(module, name, scale, asked, Reading(255.0), hyperparameters, MINIMUM)


RFDN = Architecture(
    name="RFDN",
    detect=_detect,
    load=_load,
    signature=("fea_conv.weight", "B1.c1_d.weight", "B1.c1_r.weight", "B1.esa.conv_max.weight", "LR_conv.weight"),
    about="residual feature distillation, any number of blocks",
)
