"""ESRGAN (Wang et al. 2018, arXiv 1809.00219; Real-ESRGAN, BSRGAN): RRDBNet, residual dense blocks in residual blocks.

Facts from xinntao/ESRGAN, XPixelGroup/BasicSR (Real-ESRGAN) and the three families of keys in which the same network is
saved; the one convolution more per dense block of ESRGAN+ (Rakotonirina 2020) as spandrel runs it. Takes and gives RGB
in 0…1. Real-ESRGAN x2 and x1 first move pixels to channels, 2x2 or 4x4 at a time, and enlarge four times behind that.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Tuple

import torch
import torch.nn.functional as F
from torch import nn

from sr_deploy.core.contract import SizeRules
from sr_deploy.core.errors import BadCheckpoint
from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors
from sr_deploy.models.renaming import load_renamed, names_in_file
from sr_deploy.models.shapes import check_asked, count_of, holds_all, require_rgb, width_of

#: Slope for negative inputs, and the share of a block's output that is added to its input.
LEAK = 0.2
RESIDUAL = 0.2

Names = Tuple[Tuple[str, str], ...]


@dataclass(frozen=True)
class Shape:
    """What tells one RRDBNet from another.

    Attributes:
        width: channels of the body.
        growth: channels that each dense convolution adds.
        blocks: how many.
        doublings: enlargements by two behind the body.
        unshuffle: side of the square of pixels that is moved to channels first; 1: none.
        plus: the one convolution more of ESRGAN+.
    """

    width: int
    growth: int
    blocks: int
    doublings: int
    unshuffle: int
    plus: bool


class DenseBlock(nn.Module):
    """Five convolutions; each takes the input and the outputs of all before it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, growth = shape.width, shape.growth
        self.conv1 = nn.Conv2d(width, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(width + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(width + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(width + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(width + 4 * growth, width, 3, padding=1)
        self.conv1x1 = nn.Conv2d(width, growth, 1, bias=False) if shape.plus else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same."""
        first = F.leaky_relu(self.conv1(x), LEAK)
        second = F.leaky_relu(self.conv2(torch.cat([x, first], dim=1)), LEAK)
        if self.conv1x1 is not None:
            second = second + self.conv1x1(x)
        third = F.leaky_relu(self.conv3(torch.cat([x, first, second], dim=1)), LEAK)
        fourth = F.leaky_relu(self.conv4(torch.cat([x, first, second, third], dim=1)), LEAK)
        if self.conv1x1 is not None:
            fourth = fourth + second
        return self.conv5(torch.cat([x, first, second, third, fourth], dim=1)) * RESIDUAL + x


class ResidualBlock(nn.Module):
    """RRDB: three dense blocks in a row."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = DenseBlock(shape), DenseBlock(shape), DenseBlock(shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same."""
        return self.rdb3(self.rdb2(self.rdb1(x))) * RESIDUAL + x


class RRDBNetwork(nn.Module):
    """The whole network, under the names of BasicSR."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.unshuffle, self.doublings = shape.unshuffle, shape.doublings
        self.conv_first = nn.Conv2d(3 * shape.unshuffle**2, width, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(shape) for _ in range(shape.blocks)))
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        for number in range(1, shape.doublings + 1):
            self.add_module(f"conv_up{number}", nn.Conv2d(width, width, 3, padding=1))
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 3, scale·H, scale·W); H and W at least ``unshuffle``."""
        if self.unshuffle == 1:
            return self._enlarged(x)
        height, width, side = x.shape[2], x.shape[3], self.unshuffle
        # As the authors' tools do for other sizes than multiples. Without %, see SwinIR's forward pass.
        down, right = ((length + side - 1) // side * side - length for length in (height, width))
        whole = self._enlarged(F.pixel_unshuffle(F.pad(x, (0, right, 0, down), mode="reflect"), side))
        scale = 2**self.doublings // side
        return whole[:, :, : height * scale, : width * scale]

    def _enlarged(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W), channels as ``conv_first`` takes them, to (N, 3, 2^doublings·H, 2^doublings·W)."""
        shallow = self.conv_first(x)
        feature = shallow + self.conv_body(self.body(shallow))
        for number in range(1, self.doublings + 1):
            larger = F.interpolate(feature, scale_factor=2.0, mode="nearest")
            feature = F.leaky_relu(self.get_submodule(f"conv_up{number}")(larger), LEAK)
        return self.conv_last(F.leaky_relu(self.conv_hr(feature), LEAK))


@dataclass(frozen=True)
class KeyFamily:
    """How one file names things.

    Attributes:
        first, dense, last: the first convolution, the first dense block's first one, and the last convolution.
        names: where the file keeps what, see ``renaming.py``.
        blocks: how many the file has.
        doublings: enlargements by two that it has.
    """

    first: str
    dense: str
    last: str
    names: Names
    blocks: int
    doublings: int


def _family(tensors: Tensors) -> KeyFamily:
    """BasicSR's keys, those of ESRGAN and BSRGAN, or the numbers of the first release."""
    if "model.0.weight" in tensors:
        return _numbered(tensors)
    if "trunk_conv.weight" in tensors:
        old: Names = (
            (r"body\.(\d+)\.rdb(\d)\.", r"RRDB_trunk.\1.RDB\2."),
            (r"conv_body\.", "trunk_conv."),
            (r"conv_up(\d)\.", r"upconv\1."),
            (r"conv_hr\.", "HRconv."),
        )
        blocks, doublings = count_of(tensors, "RRDB_trunk."), count_of(tensors, "upconv", first=1)
        return KeyFamily("conv_first", "RRDB_trunk.0.RDB1.conv1", "conv_last", old, blocks, doublings)
    blocks, doublings = count_of(tensors, "body."), count_of(tensors, "conv_up", first=1)
    return KeyFamily("conv_first", "body.0.rdb1.conv1", "conv_last", (), blocks, doublings)


def _numbered(tensors: Tensors) -> KeyFamily:
    """A row of layers: first convolution, body; for each enlargement three; convolution, activation, convolution.

    Behind the body's blocks comes its own convolution, which has a number too.
    """
    blocks = count_of(tensors, "model.1.sub.") - 1
    doublings = 0
    while f"model.{3 * (doublings + 1)}.weight" in tensors:
        doublings += 1
    last = f"model.{3 * doublings + 4}"
    names: Names = (
        (r"conv_first\.", "model.0."),
        (r"body\.(\d+)\.rdb(\d)\.conv(\d)\.", r"model.1.sub.\1.RDB\2.conv\3.0."),
        (r"body\.(\d+)\.rdb(\d)\.", r"model.1.sub.\1.RDB\2."),
        (r"conv_body\.", f"model.1.sub.{blocks}."),
        *((rf"conv_up{number}\.", f"model.{3 * number}.") for number in range(1, doublings + 1)),
        (r"conv_hr\.", f"model.{3 * doublings + 2}."),
        (r"conv_last\.", f"{last}."),
    )
    return KeyFamily("model.0", "model.1.sub.0.RDB1.conv1.0", last, names, blocks, doublings)


def _detect(tensors: Tensors) -> bool:
    return holds_all(tensors, ESRGAN.signature)


def _load(tensors: Tensors, asked: Asked) -> LoadedModel:
    name = "ESRGAN"
    family = _family(tensors)
    channels = require_rgb(tensors, f"{family.first}.weight", name, more=(12, 48))
    unshuffle = math.isqrt(channels // 3)
    colours = width_of(tensors, f"{family.last}.weight", name)
    enlarged = 2**family.doublings
    if colours != 3 or enlarged % unshuffle:
        raise BadCheckpoint(
            f"this {name} gives {colours} channels and enlarges {enlarged}/{unshuffle} times",
            "3 channels (RGB), enlarged by a whole number",
            "take another checkpoint; srdeploy inspect FILE lists its shapes",
        )
    scale = enlarged // unshuffle
    check_asked(asked, name, scale)
    shape = Shape(
        width=width_of(tensors, f"{family.first}.weight", name),
        growth=width_of(tensors, f"{family.dense}.weight", name),
        blocks=family.blocks,
        doublings=family.doublings,
        unshuffle=unshuffle,
        plus=any(key.endswith(".conv1x1.weight") for key in tensors),
    )
    module = load_renamed(RRDBNetwork(shape), tensors, family.names, name)
    return LoadedModel(
        module=module,
        architecture=name,
        form="folded",
        scale=scale,
        value_range=1.0,
        sizes=SizeRules(minimum=unshuffle),
        hyperparameters=dataclasses.asdict(shape),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        file_names=names_in_file(module, family.names),
    )


ESRGAN = Architecture(
    name="ESRGAN",
    detect=_detect,
    load=_load,
    signature=(
        "conv_first.weight|model.0.weight",
        "body.0.rdb1.conv1.weight|RRDB_trunk.0.RDB1.conv1.weight|model.1.sub.0.RDB1.conv1.0.weight",
        "body.0.rdb3.conv5.weight|RRDB_trunk.0.RDB3.conv5.weight|model.1.sub.0.RDB3.conv5.0.weight",
    ),
    about="RRDBNet: ESRGAN, Real-ESRGAN, BSRGAN, ESRGAN+; old and new keys, also behind a pixel unshuffle",
)
