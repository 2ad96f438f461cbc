"""SPANF (NTIRE 2025, efficient SR, team 24): SPAN without first convolution and mean.

A learned enlargement of the input joins the features at the end.

Facts from Amazingren/NTIRE2025_ESR. Takes and gives RGB in 0…1. The published file is folded; a file that holds the
branches of its Conv3XC, as SPAN's training saves them, is the training form.
"""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import nn

from sr_deploy.models.architectures.span import AttentionBlock
from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors
from sr_deploy.models.blocks.conv3xc import Conv3XC, loaded_in_form, stored_form
from sr_deploy.models.shapes import check_asked, count_of, holds_all, require_rgb, shuffle_scale, width_of


class FirstBlock(nn.Module):
    """Three convolutions from RGB to the body's width; no attention, for there is no input of that width to add."""

    def __init__(self, width: int, gain: Optional[int]) -> None:
        super().__init__()
        self.c1_r = Conv3XC(3, width, gain)
        self.c2_r = Conv3XC(width, width, gain)
        self.c3_r = Conv3XC(width, width, gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, C, H, W)."""
        return self.c3_r(F.silu(self.c2_r(F.silu(self.c1_r(x)))))


class SPANFNetwork(nn.Module):
    """The whole network; its blocks are named block_1, block_2 and so on.

    Args:
        width: channels of the body.
        blocks: the first one included.
        scale: upscaling.
        gain: of the training form's chains; None: the folded form.
    """

    def __init__(self, width: int, blocks: int, scale: int, gain: Optional[int]) -> None:
        super().__init__()
        self.blocks = blocks
        self.conv_near = nn.Conv2d(3, 3 * scale**2, 3, padding=1, groups=3, bias=False)
        self.block_1 = FirstBlock(width, gain)
        for number in range(2, blocks + 1):
            self.add_module(f"block_{number}", AttentionBlock(width, gain))
        self.conv_cat = nn.Conv2d(2 * width + 3 * scale**2, width, 1)
        self.conv_2 = Conv3XC(width, 3 * scale**2, gain)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 3, scale·H, scale·W)."""
        early = deep = self.block_1(x)
        for number in range(2, self.blocks + 1):
            deep, _ = self.get_submodule(f"block_{number}")(deep)
        joined = torch.cat([self.conv_near(x), deep, early], dim=1)
        return F.pixel_shuffle(self.conv_2(self.conv_cat(joined)), self.scale)


def _detect(tensors: Tensors) -> bool:
    return holds_all(tensors, SPANF.signature)


def _load(tensors: Tensors, asked: Asked) -> LoadedModel:
    name = "SPANF"
    require_rgb(tensors, f"block_1.c1_r.{'sk' if 'block_1.c1_r.sk.weight' in tensors else 'eval_conv'}.weight", name)
    scale = shuffle_scale(tensors, "conv_near.weight", name)
    check_asked(asked, name, scale)
    width = width_of(tensors, "conv_cat.weight", name)
    blocks = count_of(tensors, "block_", first=1)
    form = stored_form(tensors, "block_1.c1_r", name)
    hyperparameters = {"width": width, "blocks": blocks}
    return loaded_in_form(SPANFNetwork(width, blocks, scale, form.gain), form, name, scale, hyperparameters)


SPANF = Architecture(
    name="SPANF",
    detect=_detect,
    load=_load,
    signature=(
        "conv_near.weight",
        "block_1.c1_r.eval_conv.weight|block_1.c1_r.sk.weight",
        "conv_cat.weight",
        "conv_2.eval_conv.weight|conv_2.sk.weight",
    ),
    about="SPANF of NTIRE 2025; folded, or with its Conv3XC branches",
)
