"""DSCF (NTIRE 2026, efficient SR, team 15): SPAN-tiny with two pairs of convolutions made one before the last training.

The first block's first convolution is joined with the one in front of it to a 5x5 from RGB, and the last 3x3 with its
part of the 1x1 behind it. At the border the 5x5 is not what the pair was, so this is a network of its own, not a fold.
What it starts from is SPAN (NTIRE 2025, team 23: DSCLoRA) and loads as that.

Facts from Amazingren/NTIRE2026_ESR. Takes RGB in 0…1, subtracts SPAN's mean, multiplies by 255, gives 0…1. The
published file is folded; one with the branches of its Conv3XC, as SPAN's training saves them, is the training form.
"""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import nn

from sr_deploy.models.architectures.span import RGB_MEAN, AttentionBlock, attention
from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors
from sr_deploy.models.blocks.conv3xc import Conv3XC, loaded_in_form, stored_form
from sr_deploy.models.shapes import check_asked, count_of, holds_all, shuffle_scale, width_of


class JoinedBlock(nn.Module):
    """A SPAN block whose first convolution lies outside of it."""

    def __init__(self, width: int, gain: Optional[int]) -> None:
        super().__init__()
        self.c2_r = Conv3XC(width, width, gain)
        self.c3_r = Conv3XC(width, width, gain)

    def forward(self, x: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """The block's input and its first convolution's output, both (N, C, H, W), to (N, C, H, W)."""
        return attention(self.c3_r(F.silu(self.c2_r(F.silu(first)))), x)


class DSCFNetwork(nn.Module):
    """The whole network; its blocks are named block_1, block_2 and so on.

    Args:
        width: channels of the body.
        blocks: the joined one included, at least 2.
        scale: upscaling.
        gain: of the training form's chains; None: the folded form.
    """

    mean: torch.Tensor

    def __init__(self, width: int, blocks: int, scale: int, gain: Optional[int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        self.blocks = blocks
        self.conv_1 = Conv3XC(3, width, gain)
        self.conv_fused = nn.Conv2d(3, width, 5, padding=2)
        self.block_1 = JoinedBlock(width, gain)
        for number in range(2, blocks + 1):
            self.add_module(f"block_{number}", AttentionBlock(width, gain))
        self.conv_cat_other = nn.Conv2d(3 * width, width, 1)
        self.conv2_fused = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.upsampler = nn.Sequential(nn.Conv2d(width, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 3, scale·H, scale·W), which may leave 0…1."""
        x = (x - self.mean) * 255.0
        shallow = self.conv_1(x)
        early = deep = self.block_1(shallow, self.conv_fused(x))
        late = shallow
        for number in range(2, self.blocks + 1):
            deep, late = self.get_submodule(f"block_{number}")(deep)
        joined = self.conv_cat_other(torch.cat([shallow, early, late], dim=1))
        return self.upsampler(joined + self.conv2_fused(deep))


def _detect(tensors: Tensors) -> bool:
    return holds_all(tensors, DSCF.signature)


def _load(tensors: Tensors, asked: Asked) -> LoadedModel:
    name = "DSCF"
    scale = shuffle_scale(tensors, "upsampler.0.weight", name)
    check_asked(asked, name, scale)
    width = width_of(tensors, "conv_fused.weight", name)
    blocks = count_of(tensors, "block_", first=1)
    form = stored_form(tensors, "conv_1", name)
    hyperparameters = {"width": width, "blocks": blocks}
    return loaded_in_form(DSCFNetwork(width, blocks, scale, form.gain), form, name, scale, hyperparameters)


DSCF = Architecture(
    name="DSCF",
    detect=_detect,
    load=_load,
    signature=(
        "conv_fused.weight",
        "conv_1.eval_conv.weight|conv_1.sk.weight",
        "conv_cat_other.weight",
        "conv2_fused.weight",
    ),
    about="DSCF of NTIRE 2026; folded, or with its Conv3XC branches (what it starts from loads as SPAN)",
)
