"""SPANV2 (NTIRE 2026, efficient SR, team 22, the fastest): SPAN with ReLU and an attention from a 1x1 convolution.

Facts from Amazingren/NTIRE2026_ESR. Takes and gives RGB in 0…1. Its attention is published twice, as a CUDA operator
and in plain operations for counting; this is the latter, which every runtime has. Only the folded form is published.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors
from sr_deploy.models.loading import load_strictly
from sr_deploy.models.shapes import check_asked, count_of, holds_all, require_rgb, shuffle_scale, width_of


class NamedConv(nn.Module):
    """A 3x3 convolution under the name ``conv``."""

    def __init__(self, c_in: int, c_out: int, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, c_in, H, W) to (N, c_out, H, W)."""
        return self.conv(x)


class GuidedBlock(nn.Module):
    """SPABV2: three convolutions; a 1x1 convolution of their output weights (input + output).

    The first block goes from RGB to the body's width and has neither sum nor weighting, but an activation at its end.
    """

    def __init__(self, c_in: int, width: int, bias: bool, guided: bool) -> None:
        super().__init__()
        self.c1 = NamedConv(c_in, width, bias)
        self.c2 = NamedConv(width, width, bias)
        self.c3 = NamedConv(width, width, bias)
        self.guidance_map_conv = nn.Conv2d(width, width, 1) if guided else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, c_in, H, W) to (N, C, H, W)."""
        feature = self.c3(F.relu(self.c2(F.relu(self.c1(x)))))
        if self.guidance_map_conv is None:
            return F.relu(feature)
        return (x + feature) * self.guidance_map_conv(feature)


class SPANV2Network(nn.Module):
    """The whole network; its blocks are named block_1, block_2 and so on."""

    def __init__(self, width: int, blocks: int, scale: int, bias: bool) -> None:
        super().__init__()
        colours = 3 * scale**2
        self.blocks = blocks
        for number in range(1, blocks + 1):
            self.add_module(f"block_{number}", GuidedBlock(width if number > 1 else 3, width, bias, number > 1))
        self.conv_near = nn.Conv2d(3, colours, 3, padding=1, groups=3, bias=False)
        joined = colours + width
        self.depthwise_conv = nn.Conv2d(joined, joined, 3, padding=1, groups=joined, bias=bias)
        self.pointwise_conv = nn.Conv2d(joined, colours, 1, bias=bias)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 3, scale·H, scale·W)."""
        deep = x
        for number in range(1, self.blocks + 1):
            deep = self.get_submodule(f"block_{number}")(deep)
        joined = torch.cat([self.conv_near(x), deep], dim=1)
        return F.pixel_shuffle(self.pointwise_conv(self.depthwise_conv(joined)), self.scale)


def _detect(tensors: Tensors) -> bool:
    return holds_all(tensors, SPANV2.signature)


def _load(tensors: Tensors, asked: Asked) -> LoadedModel:
    name = "SPANV2"
    require_rgb(tensors, "block_1.c1.conv.weight", name)
    scale = shuffle_scale(tensors, "conv_near.weight", name)
    check_asked(asked, name, scale)
    width = width_of(tensors, "block_1.c1.conv.weight", name)
    blocks = count_of(tensors, "block_", first=1)
    bias = "block_1.c1.conv.bias" in tensors
    return LoadedModel(
        module=load_strictly(SPANV2Network(width, blocks, scale, bias), tensors, name),
        architecture=name,
        form="folded",
        scale=scale,
        value_range=1.0,
        hyperparameters={"width": width, "blocks": blocks, "bias": bias},
        parameters=sum(tensor.numel() for tensor in tensors.values()),
    )


SPANV2 = Architecture(
    name="SPANV2",
    detect=_detect,
    load=_load,
    signature=(
        "conv_near.weight",
        "block_1.c1.conv.weight",
        "block_2.guidance_map_conv.weight",
        "pointwise_conv.weight",
    ),
    about="SPANV2 of NTIRE 2026, its attention in plain operations instead of a CUDA operator",
)
