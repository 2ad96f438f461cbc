"""EDSR (Lim 2017, arXiv 1707.02921): residual blocks without normalisation, pixel-shuffle upsampling.

Facts from the authors' repository sanghyun-son/EDSR-PyTorch and from BasicSR, which names the same weights otherwise:

- ``head / body / tail`` (EDSR-PyTorch): 0…255, the mean is subtracted and added by two stored 1x1 convolutions.
- ``conv_first / body.N.conv1 / conv_after_body / upsample / conv_last`` (BasicSR): 0…1, the mean and a factor of 255
  are part of the forward pass and not stored.

Published counts at ×2 and an output of 1280x720: 1.37 M / 316.3 G for the baseline and 49.6 K / 11.7 G for EDSRmini.
Convolutions alone give 316.25 G and 11.65 G; 316.26 G and 11.66 G with the two mean shifts of EDSR-PyTorch counted as
1x1 convolutions, which is where the published last digit comes from. The mean shifts are fixed, and no parameters.
"""

from __future__ import annotations

import math
from typing import Callable

import torch
from torch import nn

from sr_deploy.core.contract import SizeRules
from sr_deploy.core.errors import BadCheckpoint, UsageError
from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors, Training
from sr_deploy.models.loading import load_strictly
from sr_deploy.models.shapes import check_asked, width_of
from sr_deploy.models.start import FAINT, pass_colours, silence_colours, spread_colours

#: Mean of the DIV2K pictures in 0…1, RGB, as every published EDSR uses it.
RGB_MEAN = (0.4488, 0.4371, 0.4040)
#: The factor between 0…1 and what BasicSR's networks compute with.
INNER_RANGE = 255.0
#: (name, blocks, width, res_scale) of the published networks. No file stores res_scale.
PUBLISHED_RES_SCALES = (("EDSR-baseline", 16, 64, 1.0), ("EDSR", 32, 256, 0.1), ("EDSRmini", 8, 16, 2.0))
#: Keys that tell the two families; one to one.
HEAD_BODY_TAIL_KEYS = (
    "head.0.weight",
    "body.0.body.0.weight",
    "body.0.body.2.weight",
    "tail.0.0.weight",
    "tail.1.weight",
)
BASICSR_KEYS = (
    "conv_first.weight",
    "body.0.conv1.weight",
    "body.0.conv2.weight",
    "upsample.0.weight",
    "conv_last.weight",
)


class HeadBodyTailBlock(nn.Module):
    """``x + res_scale · conv(relu(conv(x)))`` under EDSR-PyTorch's names, (N, C, H, W) to (N, C, H, W)."""

    def __init__(self, width: int, res_scale: float) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv3x3(width, width), nn.ReLU(), _conv3x3(width, width))
        self.res_scale = res_scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the block."""
        return x + self.body(x) * self.res_scale


class HeadBodyTailEDSR(nn.Module):
    """EDSR under EDSR-PyTorch's names: (N, 3, H, W) to (N, 3, scale·H, scale·W), in the range of the stored mean.

    Args:
        width: channels of the body.
        blocks: residual blocks.
        scale: 2, 3, 4 or 8.
        res_scale: factor of each block's residual.
    """

    def __init__(self, width: int, blocks: int, scale: int, res_scale: float) -> None:
        super().__init__()
        self.sub_mean = nn.Conv2d(3, 3, 1)
        self.head = nn.Sequential(_conv3x3(3, width))
        self.body = nn.Sequential(*(HeadBodyTailBlock(width, res_scale) for _ in range(blocks)), _conv3x3(width, width))
        self.tail = nn.Sequential(pixel_shuffle_stages(width, scale), _conv3x3(width, 3))
        self.add_mean = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Upscale a batch."""
        shallow = self.head(self.sub_mean(x))
        return self.add_mean(self.tail(self.body(shallow) + shallow))


class BasicSRBlock(nn.Module):
    """``x + res_scale · conv2(relu(conv1(x)))`` under BasicSR's names, (N, C, H, W) to (N, C, H, W)."""

    def __init__(self, width: int, res_scale: float) -> None:
        super().__init__()
        self.conv1 = _conv3x3(width, width)
        self.relu = nn.ReLU()
        self.conv2 = _conv3x3(width, width)
        self.res_scale = res_scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the block."""
        return x + self.conv2(self.relu(self.conv1(x))) * self.res_scale


class BasicSREDSR(nn.Module):
    """EDSR under BasicSR's names: (N, 3, H, W) to (N, 3, scale·H, scale·W), both in 0…1.

    Args:
        width: channels of the body.
        blocks: residual blocks.
        scale: 2, 3, 4 or 8.
        res_scale: factor of each block's residual.
    """

    mean: torch.Tensor

    def __init__(self, width: int, blocks: int, scale: int, res_scale: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        self.conv_first = _conv3x3(3, width)
        self.body = nn.Sequential(*(BasicSRBlock(width, res_scale) for _ in range(blocks)))
        self.conv_after_body = _conv3x3(width, width)
        self.upsample = pixel_shuffle_stages(width, scale)
        self.conv_last = _conv3x3(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Upscale a batch."""
        shallow = self.conv_first((x - self.mean) * INNER_RANGE)
        deep = self.conv_after_body(self.body(shallow)) + shallow
        return self.conv_last(self.upsample(deep)) / INNER_RANGE + self.mean


def _conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def pixel_shuffle_stages(width: int, scale: int) -> nn.Sequential:
    """Upsampling of EDSR and SwinIR: 3x3 convolution and pixel shuffle, once for ×3, once for every factor of two.

    Args:
        width: channels in and out.
        scale: a power of two, or 3.

    Returns:
        (N, width, H, W) to (N, width, scale·H, scale·W); convolutions have the keys 0, 2, 4.
    """
    factors = (3,) if scale == 3 else (2,) * (scale.bit_length() - 1)
    stages = [(_conv3x3(width, factor * factor * width), nn.PixelShuffle(factor)) for factor in factors]
    return nn.Sequential(*(layer for stage in stages for layer in stage))


def scale_of_stages(tensors: Tensors, prefix: str, architecture: str) -> int:
    """The scale of ``pixel_shuffle_stages`` stored under ``prefix`` (with its final dot), from number and shapes.

    Raises:
        BadCheckpoint: no convolutions there, or stages that are neither all ×2 nor one ×3.
    """
    keys = sorted(
        (key for key in tensors if key.startswith(prefix) and key.endswith(".weight")),
        key=lambda key: (len(key), key),
    )
    factors = []
    for key in keys:
        outputs, inputs = width_of(tensors, key, architecture), width_of(tensors, key, architecture, axis=1)
        factors.append(math.isqrt(outputs // max(inputs, 1)))
        if inputs * factors[-1] ** 2 != outputs:
            factors[-1] = 0
    if not factors or (any(factor != 2 for factor in factors) and factors != [3]):
        shapes = ", ".join(f"{key} {tuple(tensors[key].shape)}" for key in keys) or f"no {prefix}*.weight"
        raise BadCheckpoint(
            f"the upsampling of this {architecture} is unknown: {shapes}",
            "convolutions to 4 times the channels (each ×2), or one to 9 times (×3)",
            "only x2, x3, x4 and x8 with pixel shuffle are supported",
        )
    return math.prod(factors)


def _count(tensors: Tensors, suffix: str) -> int:
    """How many keys ``body.N.suffix`` there are, N from 0 without a gap."""
    number = 0
    while f"body.{number}.{suffix}" in tensors:
        number += 1
    return number


def res_scale_for(asked: Asked, blocks: int, width: int) -> float:
    """The residual scaling that the user gave.

    Raises:
        UsageError: none given, or not a positive number. The message names the published values and the network that
            this file's depth and width fit.
    """
    if asked.res_scale is None:
        values = ", ".join(f"{value:g} for {name} ({b} blocks of {w})" for name, b, w, value in PUBLISHED_RES_SCALES)
        fitting = [(name, value) for name, b, w, value in PUBLISHED_RES_SCALES if (b, w) == (blocks, width)]
        which = f"it has the size of {fitting[0][0]}" if fitting else "it has the size of none of these"
        todo = f"--res-scale {fitting[0][1]:g} if it was trained as published" if fitting else "--res-scale VALUE"
        raise UsageError(
            "EDSR's residual scaling is not stored in the checkpoint; "
            f"this file has {blocks} blocks of {width} channels: {which}",
            f"the value it was trained with; published: {values}",
            f"{todo}; the training options name it res_scale",
        )
    if not math.isfinite(asked.res_scale) or asked.res_scale <= 0:
        raise UsageError(f"--res-scale {asked.res_scale} is not a scaling", "a positive number such as 1, 0.1 or 2")
    return float(asked.res_scale)


def _is_head_body_tail(tensors: Tensors) -> bool:
    return all(key in tensors for key in HEAD_BODY_TAIL_KEYS)


def _is_basicsr(tensors: Tensors) -> bool:
    return all(key in tensors for key in BASICSR_KEYS)


def _detect(tensors: Tensors) -> bool:
    return _is_head_body_tail(tensors) or _is_basicsr(tensors)


def _stored_range(tensors: Tensors) -> float:
    """Value of white of a head/body/tail file: its first 1x1 convolution subtracts a mean in that range.

    Raises:
        BadCheckpoint: it does something else, so that the range does not follow.
    """
    weight, bias = tensors.get("sub_mean.weight"), tensors.get("sub_mean.bias")
    if weight is None or bias is None or weight.shape != (3, 3, 1, 1) or bias.shape != (3,):
        return 255.0  # load_strictly names what is wrong
    largest = float(bias.abs().max())
    if torch.allclose(weight.double().view(3, 3), torch.eye(3).double(), atol=1e-3) and 0 < largest <= 255:
        # A mean colour is between black and white, and no mean of pictures in 0…255 is as dark as 1.
        return 1.0 if largest <= 1 else 255.0
    raise BadCheckpoint(
        f"sub_mean is {[round(v, 4) for v in weight.flatten().tolist()]}·x + {[round(v, 4) for v in bias.tolist()]}, "
        "from which the value range of this EDSR does not follow",
        f"the identity minus a mean, as published {RGB_MEAN} times 255 or times 1",
        "a network trained with a standard deviation needs --model pkg.module:factory",
    )


def _load(tensors: Tensors, asked: Asked) -> LoadedModel:
    network: Callable[[int, int, int, float], nn.Module]
    if _is_basicsr(tensors):
        width = width_of(tensors, "conv_first.weight", "EDSR")
        blocks, value_range = _count(tensors, "conv1.weight"), 1.0
        scale, network = scale_of_stages(tensors, "upsample.", "EDSR"), BasicSREDSR
        names = "BasicSR"
    else:
        width = width_of(tensors, "head.0.weight", "EDSR")
        blocks, value_range = _count(tensors, "body.0.weight"), _stored_range(tensors)
        scale, network = scale_of_stages(tensors, "tail.0.", "EDSR"), HeadBodyTailEDSR
        names = "EDSR-PyTorch"
    check_asked(asked, "EDSR", scale, uses=("res_scale",))
    res_scale = res_scale_for(asked, blocks, width)
    module = load_strictly(network(width, blocks, scale, res_scale), tensors, "EDSR")
    found = {"width": width, "blocks": blocks, "res_scale": res_scale, "names": names}
    return LoadedModel(
        module=module,
        architecture="EDSR",
        form="folded",
        scale=scale,
        value_range=value_range,
        sizes=SizeRules(),
        hyperparameters=found,
        parameters=_parameters(module),
    )


def _parameters(module: nn.Module) -> int:
    """All weights but those of the fixed mean shifts."""
    fixed = ("sub_mean.", "add_mean.")
    return sum(value.numel() for name, value in module.named_parameters() if not name.startswith(fixed))


def fresh_edsr(scale: int, width: int = 64, blocks: int = 16) -> BasicSREDSR:
    """The network as its training begins, see ``start.py``; under BasicSR's names.

    Args:
        scale: 2, 3, 4 or 8.
        width: channels of the body.
        blocks: residual blocks.
    """
    network = BasicSREDSR(width, blocks, scale, 1.0)
    pass_colours(network.conv_first)
    silence_colours(network.conv_after_body)
    bias = network.conv_last.bias
    assert bias is not None
    for stage in network.upsample:
        if isinstance(stage, nn.Conv2d):
            spread_colours(stage)
    with torch.no_grad():
        network.conv_last.weight.mul_(FAINT)
        network.conv_last.weight[torch.arange(3), torch.arange(3), 1, 1] = 1.0
        bias.zero_()
    return network


EDSR = Architecture(
    name="EDSR",
    detect=_detect,
    load=_load,
    signature=tuple(f"{ours}|{theirs}" for ours, theirs in zip(HEAD_BODY_TAIL_KEYS, BASICSR_KEYS)),
    about="EDSR, EDSR-baseline, EDSRmini; x2 x3 x4 x8; both key families; needs --res-scale",
    training=Training(fresh_edsr, features=r"body\.\d+", deep=("body.",), fixed=("sub_mean.", "add_mean.")),
)
