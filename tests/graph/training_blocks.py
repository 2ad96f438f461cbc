"""Blocks of several branches as published networks train them, activation inside, with random weights and statistics.

Own code after the papers and their repositories; only what a graph shows of them matters here. What each becomes when
its authors deploy it is ONE 3×3 convolution and the activation.

RepVGG arXiv:2101.03697 · ECB: ECBSR, ACM MM 2021 · EDBB: EFDN, arXiv:2204.08759 · RRRB: FMEN, arXiv:2204.08397 ·
RepBlock: RepRLFN, Amazingren/NTIRE2025_ESR team 25 · Conv3XC: SPAN, arXiv:2311.12770 · DBB arXiv:2103.13425 · RepSR,
ACM MM 2022 · ACNet arXiv:1908.03930 · dilated branches: UniRepLKNet, arXiv:2311.15599 · depthwise: MobileOne,
arXiv:2206.04040.
"""

from __future__ import annotations

from typing import Callable, Dict

import torch
import torch.nn.functional as F
from torch import nn

CHANNELS = 4


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """``module`` in eval mode with weights, BatchNorm statistics and slopes that hide nothing."""
    random = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.running_mean, part.bias):
                tensor.data = torch.randn(tensor.shape, generator=random) * 0.3
            for tensor in (part.running_var, part.weight):
                tensor.data = torch.rand(tensor.shape, generator=random) + 0.5
        elif isinstance(part, nn.Conv2d) and part.bias is not None:
            part.bias.data = torch.randn(part.bias.shape, generator=random) * 0.3
    return module.eval()


def padded_by(x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """One ring around ``x`` (N, C, H, W) filled with ``value`` (C,), written as the published codes write it."""
    x = F.pad(x, (1, 1, 1, 1), "constant", 0)
    ring = value.view(1, -1, 1, 1)
    x[:, :, 0:1, :] = ring
    x[:, :, -1:, :] = ring
    x[:, :, :, 0:1] = ring
    x[:, :, :, -1:] = ring
    return x


def conv_bn(inside: int, out: int, size: int, padding: int = 0, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, out, size, 1, padding, groups=groups, bias=False), nn.BatchNorm2d(out))


class RepVGG(nn.Module):
    def __init__(self, c: int = CHANNELS, groups: int = 1) -> None:
        super().__init__()
        self.dense, self.point, self.identity = (
            conv_bn(c, c, 3, 1, groups),
            conv_bn(c, c, 1, 0, groups),
            nn.BatchNorm2d(c),
        )
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.dense(x) + self.point(x) + self.identity(x))


class Fixed(nn.Module):
    """1×1, padding by its bias, then a scaled fixed filter for each channel: Sobel or Laplace."""

    KERNELS = {
        "sobel x": [[1.0, 0, -1], [2, 0, -2], [1, 0, -1]],
        "sobel y": [[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]],
        "laplace": [[0.0, 1, 0], [1, -4, 1], [0, 1, 0]],
    }

    def __init__(self, kind: str, c: int = CHANNELS) -> None:
        super().__init__()
        self.first = nn.Conv2d(c, c, 1)
        self.scale, self.bias = nn.Parameter(torch.randn(c, 1, 1, 1) * 0.3), nn.Parameter(torch.randn(c) * 0.3)
        self.register_buffer("mask", torch.tensor(self.KERNELS[kind]).expand(c, 1, 3, 3).clone())

    def forward(self, x):
        y = padded_by(self.first(x), self.first.bias)
        return F.conv2d(y, self.scale * self.mask, self.bias, groups=len(self.bias))


class Chain(nn.Module):
    """1×1 to a multiple of the channels, padding by its bias, 3×3."""

    def __init__(self, c: int = CHANNELS, multiple: int = 2) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(c, multiple * c, 1), nn.Conv2d(multiple * c, c, 3)

    def forward(self, x):
        return self.second(padded_by(self.first(x), self.first.bias))


class ECB(nn.Module):
    """Also EDBB, which has one more 1×1 (``point``)."""

    def __init__(self, c: int = CHANNELS, point: bool = False) -> None:
        super().__init__()
        self.dense, self.chain = nn.Conv2d(c, c, 3, 1, 1), Chain(c)
        self.fixed = nn.ModuleList(Fixed(kind, c) for kind in Fixed.KERNELS)
        self.point = nn.Conv2d(c, c, 1) if point else None
        self.act = nn.PReLU(c)

    def forward(self, x):
        y = self.dense(x) + self.chain(x)
        for branch in self.fixed:
            y = y + branch(x)
        if self.point is not None:
            y = y + self.point(x)
        return self.act(y + x)


class RRRB(nn.Module):
    """1×1, padding by its bias, 3×3 with a skip, 1×1 with a skip."""

    def __init__(self, c: int = CHANNELS) -> None:
        super().__init__()
        self.expand, self.middle, self.reduce = (
            nn.Conv2d(c, 2 * c, 1),
            nn.Conv2d(2 * c, 2 * c, 3),
            nn.Conv2d(2 * c, c, 1),
        )
        self.act = nn.LeakyReLU(0.1)

    def forward(self, x):
        wide = self.expand(x)
        return self.act(self.reduce(self.middle(padded_by(wide, self.expand.bias)) + wide) + x)


class RepBlock(nn.Module):
    """RepRLFN: 3×3, then the sum of 3×1, 1×3 and 1×1, then identity, before the activation."""

    def __init__(self, c: int = CHANNELS) -> None:
        super().__init__()
        self.dense, self.point = nn.Conv2d(c, c, 3, 1, 1), nn.Conv2d(c, c, 1)
        self.rows, self.columns = nn.Conv2d(c, c, (3, 1), 1, (1, 0)), nn.Conv2d(c, c, (1, 3), 1, (0, 1))
        self.act = nn.LeakyReLU(0.05)

    def forward(self, x):
        return self.act(self.dense(x) + (self.rows(x) + self.columns(x) + self.point(x)) + x)


class Conv3XC(nn.Module):
    """The picture is padded first, so that no layer after a bias pads: 1×1, 3×3, 1×1 beside a 1×1."""

    def __init__(self, c: int = CHANNELS) -> None:
        super().__init__()
        self.skip = nn.Conv2d(c, c, 1)
        self.chain = nn.Sequential(nn.Conv2d(c, 2 * c, 1), nn.Conv2d(2 * c, 2 * c, 3), nn.Conv2d(2 * c, c, 1))
        self.act = nn.LeakyReLU(0.05)

    def forward(self, x):
        return self.act(self.chain(F.pad(x, (1, 1, 1, 1), "constant", 0)) + self.skip(x))


class DBB(nn.Module):
    """3×3, 1×1, 1×1 → 3×3, 1×1 → average; a BatchNorm behind each, borders filled with what that gives for zero."""

    def __init__(self, c: int = CHANNELS) -> None:
        super().__init__()
        self.dense, self.point = conv_bn(c, c, 3, 1), conv_bn(c, c, 1)
        self.first, self.second = conv_bn(c, c, 1), conv_bn(c, c, 3)
        self.before, self.after = conv_bn(c, c, 1), nn.BatchNorm2d(c)
        self.act = nn.SiLU()

    @staticmethod
    def of_zero(norm: nn.BatchNorm2d) -> torch.Tensor:
        return norm.bias - norm.running_mean * norm.weight / torch.sqrt(norm.running_var + norm.eps)

    def forward(self, x):
        chain = self.second(padded_by(self.first(x), self.of_zero(self.first[1])))
        mean = self.after(F.avg_pool2d(padded_by(self.before(x), self.of_zero(self.before[1])), 3, 1))
        return self.act(self.dense(x) + self.point(x) + chain + mean)


class RepSR(nn.Module):
    """Two branches 3×3 → BatchNorm → 1×1 and a skip."""

    def __init__(self, c: int = CHANNELS) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 2 * c, 3, 1, 1), nn.BatchNorm2d(2 * c), nn.Conv2d(2 * c, c, 1)) for _ in range(2)
        )
        self.act = nn.PReLU(c)

    def forward(self, x):
        return self.act(sum((branch(x) for branch in self.branches), x))


class ACNet(nn.Module):
    def __init__(self, c: int = CHANNELS) -> None:
        super().__init__()
        self.dense, self.norm = nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c)
        self.rows, self.columns = nn.Conv2d(c, c, (3, 1), 1, (1, 0)), nn.Conv2d(c, c, (1, 3), 1, (0, 1))
        self.act = nn.ReLU()

    def forward(self, x):
        # The asymmetric ones are summed first: alone they would cost more as one 3×3.
        return self.act((self.rows(x) + self.columns(x)) + self.norm(self.dense(x)))


class Dilated(nn.Module):
    """A large kernel for each channel with dilated small ones beside it."""

    def __init__(self, c: int = CHANNELS) -> None:
        super().__init__()
        self.large, self.small = nn.Conv2d(c, c, 5, 1, 2, groups=c), nn.Conv2d(c, c, 3, 1, 2, 2, groups=c)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for _ in range(2))
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.norms[0](self.large(x)) + self.norms[1](self.small(x)) + x)


class DilatedAlone(nn.Module):
    """Two convolutions of one dilation: one with that dilation, not the dense one with its zeros."""

    def __init__(self, c: int = CHANNELS) -> None:
        super().__init__()
        self.one, self.two, self.act = nn.Conv2d(c, c, 3, 1, 2, 2), nn.Conv2d(c, c, 3, 1, 2, 2), nn.ReLU()

    def forward(self, x):
        return self.act(self.one(x) + self.two(x))


class Depthwise(nn.Module):
    """MobileOne: per-channel 3×3 and 1×1 beside a BatchNorm."""

    def __init__(self, c: int = CHANNELS) -> None:
        super().__init__()
        self.block = RepVGG(c, groups=c)

    def forward(self, x):
        return self.block(x)


class Grouped(nn.Module):
    """Branches of two groups, joined, and a 1×1 of two groups behind them."""

    def __init__(self, c: int = CHANNELS) -> None:
        super().__init__()
        self.block = RepVGG(c, groups=2)

    def forward(self, x):
        return self.block(x)


class Joined(nn.Module):
    """Branches concatenated for a 1×1."""

    def __init__(self, c: int = CHANNELS) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Conv2d(c, c, 3, 1, 1), nn.Conv2d(c, c, 1), nn.Conv2d(3 * c, c, 1)
        self.act = nn.Sigmoid()

    def forward(self, x):
        return self.act(self.last(torch.cat([self.one(x), x, self.two(x)], 1)))


class ForeignSummand(nn.Module):
    """Two branches of one source with another source between them in the sum."""

    def __init__(self, c: int = CHANNELS) -> None:
        super().__init__()
        self.one, self.two, self.act = nn.Conv2d(c, c, 3, 1, 1), nn.Conv2d(c, c, 1), nn.ReLU()

    def forward(self, x):
        y = self.act(x)
        return self.act(self.one(y) + x - self.two(y))


#: Name → how to make the block. Each becomes one convolution.
BLOCKS: Dict[str, Callable[..., nn.Module]] = {
    "RepVGG": RepVGG,
    "ECB": ECB,
    "EDBB": lambda c=CHANNELS: ECB(c, point=True),
    "RRRB": RRRB,
    "RepBlock": RepBlock,
    "Conv3XC": Conv3XC,
    "DBB": DBB,
    "RepSR": RepSR,
    "ACNet": ACNet,
    "dilated": Dilated,
    "dilated alone": DilatedAlone,
    "depthwise": Depthwise,
    "grouped": Grouped,
    "joined": Joined,
    "foreign summand": ForeignSummand,
}


class CostsMore(nn.Module):
    """1×1 and identity beside a 1×1 with a fixed filter for each channel: as one 3×3 they would multiply more."""

    def __init__(self, c: int = 2 * CHANNELS) -> None:
        super().__init__()
        self.point, self.fixed, self.act = nn.Conv2d(c, c, 1), Fixed("sobel x", c), nn.ReLU()

    def forward(self, x):
        return self.act(self.point(x) + self.fixed(x) + x)


def network() -> nn.Module:
    """A ×2 network of three such blocks, of which the last stays as it is; for ``--model``."""
    torch.manual_seed(3)
    c = 2 * CHANNELS
    head, tail = nn.Conv2d(3, c, 3, 1, 1), nn.Conv2d(c, 12, 3, 1, 1)
    return randomised(nn.Sequential(head, nn.ReLU(), RepVGG(c), DBB(c), CostsMore(c), tail, nn.PixelShuffle(2)))
