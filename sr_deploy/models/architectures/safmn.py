"""SAFMN as entered in NTIRE 2023 (efficient SR): one response normalisation in front, no biases inside the blocks.

Facts from sunny2109/SAFMN (NTIRE2023_ESR, team 15). The SAFMN of the paper, with a layer norm in each block, loads
through spandrel; this variant does not.

The published code pools to H // 4, H // 8 and H // 16 with adaptive max pooling, which for multiples of 16 is ordinary
max pooling; only such sizes are taken, because the two differ elsewhere and adaptive pooling has no dynamic ONNX form.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sr_deploy.core.contract import SizeRules
from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors
from sr_deploy.models.loading import load_strictly
from sr_deploy.models.shapes import check_asked, shuffle_scale, width_of

#: Pooling of the four channel groups; the first is not pooled.
POOLS = (1, 4, 8, 16)


class ResponseNorm(nn.Module):
    """Global response normalisation (ConvNeXt V2, arXiv 2301.00808, section 3), over the picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same."""
        energy = x.square().sum(dim=(2, 3), keepdim=True).sqrt()
        return x + self.beta + self.gamma * x * (energy / (energy.mean(dim=1, keepdim=True) + 1e-6))


class Modulation(nn.Module):
    """Spatially adaptive feature modulation: depthwise convolutions at four resolutions gate the features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        part = width // len(POOLS)
        self.mfr = nn.ModuleList(nn.Conv2d(part, part, 3, padding=1, groups=part, bias=False) for _ in POOLS)
        self.aggr = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same; H and W multiples of 16."""
        parts = []
        for pool, convolution, part in zip(POOLS, self.mfr, x.chunk(len(POOLS), dim=1)):
            small = convolution(F.max_pool2d(part, pool) if pool > 1 else part)
            parts.append(F.interpolate(small, size=x.shape[-2:], mode="nearest") if pool > 1 else small)
        return F.gelu(self.aggr(torch.cat(parts, dim=1))) * x


class ConvolutionalMixer(nn.Module):
    """3×3 to twice the width, GELU, 1×1 back."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.ccm = nn.Sequential(
            nn.Conv2d(width, hidden, 3, padding=1, bias=False), nn.GELU(), nn.Conv2d(hidden, width, 1, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same."""
        return self.ccm(x)


class MixingBlock(nn.Module):
    """Modulation and mixer, each with its residual."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.safm, self.ccm = Modulation(width), ConvolutionalMixer(width, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same."""
        x = x + self.safm(x)
        return x + self.ccm(x)


class SAFMNNetwork(nn.Module):
    """The whole network; adds the bilinearly enlarged input."""

    def __init__(self, width: int, hidden: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.norm = ResponseNorm(width)
        self.to_feat = nn.Conv2d(3, width, 3, padding=1)
        self.feats = nn.Sequential(*(MixingBlock(width, hidden) for _ in range(blocks)))
        self.to_img = nn.Sequential(nn.Conv2d(width, 3 * scale * scale, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 3, scale·H, scale·W), both in 0…1; H and W multiples of 16."""
        large = F.interpolate(x, scale_factor=float(self.scale), mode="bilinear", align_corners=False)
        return large + self.to_img(self.feats(self.norm(self.to_feat(x))))


def _detect(tensors: Tensors) -> bool:
    return "norm.gamma" in tensors and "feats.0.safm.aggr.weight" in tensors and "to_img.0.weight" in tensors


def _load(tensors: Tensors, asked: Asked) -> LoadedModel:
    scale = shuffle_scale(tensors, "to_img.0.weight", "SAFMN")
    check_asked(asked, "SAFMN", scale)
    width = width_of(tensors, "to_feat.weight", "SAFMN")
    hidden = width_of(tensors, "feats.0.ccm.ccm.0.weight", "SAFMN")
    blocks = len({key.split(".")[1] for key in tensors if key.startswith("feats.")})
    return LoadedModel(
        module=load_strictly(SAFMNNetwork(width, hidden, blocks, scale), tensors, "SAFMN"),
        architecture="SAFMN",
        form="folded",
        scale=scale,
        value_range=1.0,
        sizes=SizeRules(minimum=max(POOLS), multiple=max(POOLS)),
        hyperparameters={"width": width, "hidden": hidden, "blocks": blocks},
        parameters=sum(tensor.numel() for tensor in tensors.values()),
    )


SAFMN = Architecture(
    name="SAFMN",
    detect=_detect,
    load=_load,
    signature=("norm.gamma", "to_feat.weight", "feats.0.safm.mfr.0.weight", "feats.0.safm.aggr.weight"),
    about="SAFMN as entered in NTIRE 2023; sizes that are multiples of 16 (the paper's SAFMN: extra zoo)",
)
