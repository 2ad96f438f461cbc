"""IMDN (Hui et al. 2019, arXiv 1909.11856): information multi-distillation, the winner of AIM 2019.

Facts from Zheng222/IMDN: IMDN, and IMDN-RTC, which has neither attention nor the joining of all blocks. The authors'
files take and give 0…1, those of other challenges 0…255. IMDN-AS takes a picture that was enlarged before: refused.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Tuple

import torch
import torch.nn.functional as F
from torch import nn

from sr_deploy.core.errors import BadCheckpoint
from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors
from sr_deploy.models.readings import loaded_in_likelier_range
from sr_deploy.models.renaming import load_renamed, names_in_file
from sr_deploy.models.resemblance import Reading
from sr_deploy.models.shapes import check_asked, count_of, holds_all, shuffle_scale, width_of

#: Slope for negative inputs.
LEAK = 0.05


@dataclass(frozen=True)
class Shape:
    """What tells one IMDN from another.

    Attributes:
        width: channels of the body.
        distilled: channels that each step of a block sets aside.
        reduced: channels inside the attention; 0: no attention.
        blocks: how many.
        joined: whether the outputs of all blocks are joined by a 1x1 convolution.
        scale: upscaling.
    """

    width: int
    distilled: int
    reduced: int
    blocks: int
    joined: bool
    scale: int


class ContrastAttention(nn.Module):
    """CCA: mean plus standard deviation of each channel over the picture weight the channels."""

    def __init__(self, width: int, reduced: int) -> None:
        super().__init__()
        self.conv_du = nn.Sequential(
            nn.Conv2d(width, reduced, 1), nn.ReLU(), nn.Conv2d(reduced, width, 1), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same."""
        mean = x.mean(dim=(2, 3), keepdim=True)
        deviation = (x - mean).square().mean(dim=(2, 3), keepdim=True).sqrt()
        return x * self.conv_du(deviation + mean)


class DistillationBlock(nn.Module):
    """IMDM: each of three convolutions sets a part of its channels aside and passes on the rest."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, rest = shape.width, shape.width - shape.distilled
        self.distilled = shape.distilled
        self.c1 = nn.Conv2d(width, width, 3, padding=1)
        self.c2 = nn.Conv2d(rest, width, 3, padding=1)
        self.c3 = nn.Conv2d(rest, width, 3, padding=1)
        self.c4 = nn.Conv2d(rest, shape.distilled, 3, padding=1)
        self.c5 = nn.Conv2d(4 * shape.distilled, width, 1)
        self.cca = ContrastAttention(4 * shape.distilled, shape.reduced) if shape.reduced else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same."""
        parts, rest = [], x
        for convolution in (self.c1, self.c2, self.c3):
            feature = F.leaky_relu(convolution(rest), LEAK)
            parts.append(feature[:, : self.distilled])
            rest = feature[:, self.distilled :]
        parts.append(self.c4(rest))
        return self.c5(self.cca(torch.cat(parts, dim=1))) + x


class IMDNNetwork(nn.Module):
    """The whole network; its blocks are named IMDB1, IMDB2 and so on."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.blocks = shape.blocks
        self.fea_conv = nn.Conv2d(3, width, 3, padding=1)
        for number in range(1, shape.blocks + 1):
            self.add_module(f"IMDB{number}", DistillationBlock(shape))
        joining = nn.Sequential(nn.Conv2d(shape.blocks * width, width, 1), nn.LeakyReLU(LEAK))
        self.c = joining if shape.joined else None
        self.LR_conv = nn.Conv2d(width, width, 3, padding=1) if shape.joined else nn.Conv2d(width, width, 1)
        colours = 3 * shape.scale**2
        self.upsampler = nn.Sequential(nn.Conv2d(width, colours, 3, padding=1), nn.PixelShuffle(shape.scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 3, scale·H, scale·W)."""
        shallow = deep = self.fea_conv(x)
        features = []
        for number in range(1, self.blocks + 1):
            deep = self.get_submodule(f"IMDB{number}")(deep)
            features.append(deep)
        joined = deep if self.c is None else self.c(torch.cat(features, dim=1))
        return self.upsampler(self.LR_conv(joined) + shallow)


def _rtc_names(blocks: int) -> Tuple[Tuple[str, str], ...]:
    """Where IMDN-RTC keeps what; see ``renaming.py``."""
    inner = tuple((rf"IMDB{number + 1}\.", f"model.1.sub.{number}.") for number in range(blocks))
    outer = ((r"fea_conv\.", "model.0."), (r"LR_conv\.", f"model.1.sub.{blocks}."), (r"upsampler\.0\.", "model.2."))
    return (*inner, *outer)


def _detect(tensors: Tensors) -> bool:
    return holds_all(tensors, IMDN.signature)


def _load(tensors: Tensors, asked: Asked) -> LoadedModel:
    name = "IMDN"
    if "fea_conv.0.weight" in tensors:
        raise BadCheckpoint(
            "this checkpoint is IMDN-AS, which makes the picture four times smaller first: it enlarges nothing",
            "an IMDN or IMDN-RTC, which take the small picture",
            "take a checkpoint of a fixed scale; or hand in the network itself with --model pkg.module:factory",
        )
    rtc = "model.0.weight" in tensors
    first, block, last = ("model.0", "model.1.sub.0", "model.2") if rtc else ("fea_conv", "IMDB1", "upsampler.0")
    scale = shuffle_scale(tensors, f"{last}.weight", name)
    check_asked(asked, name, scale, uses=("value_range",))
    attention = f"{block}.cca.conv_du.0.weight"
    shape = Shape(
        width=width_of(tensors, f"{first}.weight", name),
        distilled=width_of(tensors, f"{block}.c4.weight", name),
        reduced=width_of(tensors, attention, name) if attention in tensors else 0,
        # Behind the last block of IMDN-RTC comes one convolution, which has a number too.
        blocks=count_of(tensors, "model.1.sub.") - 1 if rtc else count_of(tensors, "IMDB", first=1),
        joined=not rtc,
        scale=scale,
    )
    names = _rtc_names(shape.blocks) if rtc else ()
    module = load_renamed(IMDNNetwork(shape), tensors, names, name)
    hyperparameters = {
        "variant": "RTC" if rtc else "IMDN",
        "width": shape.width,
        "distilled": shape.distilled,
        "attention": shape.reduced,
        "blocks": shape.blocks,
    }
    loaded = loaded_in_likelier_range(module, name, scale, asked, Reading(1.0), hyperparameters)
    return dataclasses.replace(loaded, file_names=names_in_file(module, names))


IMDN = Architecture(
    name="IMDN",
    detect=_detect,
    load=_load,
    signature=(
        "fea_conv.weight|fea_conv.0.weight|model.0.weight",
        "IMDB1.c1.weight|model.1.sub.0.c1.weight",
        "IMDB1.c4.weight|model.1.sub.0.c4.weight",
        "IMDB1.c5.weight|model.1.sub.0.c5.weight",
    ),
    about="information multi-distillation; IMDN and IMDN-RTC",
)
