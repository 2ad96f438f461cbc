"""DISP (NTIRE 2026, efficient SR, team 18): plain residual blocks of four 3x3 convolutions with SiLU.

Facts from Amazingren/NTIRE2026_ESR. Takes and gives RGB in 0…1. Only the folded form is published; its convolutions
bear the name that SPAN's Conv3XC have, so a file with the branches of those is read as the training form.
"""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from torch import nn

from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors
from sr_deploy.models.blocks.conv3xc import Conv3XC, loaded_in_form, stored_form
from sr_deploy.models.shapes import check_asked, count_of, holds_all, shuffle_scale, width_of


class ResidualBlock(nn.Module):
    """REECB: three convolutions, more between the second and the third, SiLU behind each; the input is added."""

    def __init__(self, width: int, between: int, gain: Optional[int]) -> None:
        super().__init__()
        self._extern_conv_block = nn.ModuleList(Conv3XC(width, width, gain) for _ in range(between))
        self.c1_r = Conv3XC(width, width, gain)
        self.c2_r = Conv3XC(width, width, gain)
        self.c3_r = Conv3XC(width, width, gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same."""
        deep = x
        for convolution in (self.c1_r, self.c2_r, *self._extern_conv_block, self.c3_r):
            deep = F.silu(convolution(deep))
        return deep + x


class DISPNetwork(nn.Module):
    """The whole network.

    Args:
        width: channels of the body.
        blocks: residual blocks.
        between: convolutions in a block besides its three.
        scale: upscaling.
        gain: of the training form's chains; None: the folded form.
    """

    def __init__(self, width: int, blocks: int, between: int, scale: int, gain: Optional[int]) -> None:
        super().__init__()
        self.conv_1 = Conv3XC(3, width, gain)
        self.blocks = nn.Sequential(*(ResidualBlock(width, between, gain) for _ in range(blocks)))
        self.conv_2 = nn.Conv2d(width, width, 1)
        self.upsampler = nn.Sequential(nn.Conv2d(width, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 3, scale·H, scale·W)."""
        shallow = self.conv_1(x)
        return self.upsampler(self.conv_2(self.blocks(shallow)) + shallow)


def _detect(tensors: Tensors) -> bool:
    return holds_all(tensors, DISP.signature)


def _load(tensors: Tensors, asked: Asked) -> LoadedModel:
    name = "DISP"
    scale = shuffle_scale(tensors, "upsampler.0.weight", name)
    check_asked(asked, name, scale)
    width = width_of(tensors, "conv_2.weight", name)
    blocks = count_of(tensors, "blocks.")
    between = count_of(tensors, "blocks.0._extern_conv_block.")
    form = stored_form(tensors, "conv_1", name)
    hyperparameters = {"width": width, "blocks": blocks, "convolutions": 3 + between}
    return loaded_in_form(DISPNetwork(width, blocks, between, scale, form.gain), form, name, scale, hyperparameters)


DISP = Architecture(
    name="DISP",
    detect=_detect,
    load=_load,
    signature=(
        "conv_1.eval_conv.weight|conv_1.sk.weight",
        "blocks.0.c1_r.eval_conv.weight|blocks.0.c1_r.sk.weight",
        "blocks.0.c3_r.eval_conv.weight|blocks.0.c3_r.sk.weight",
        "conv_2.weight",
        "upsampler.0.weight",
    ),
    about="DISP of NTIRE 2026; folded",
)
