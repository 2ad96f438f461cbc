"""ConvLoRA: a frozen network learns small changes of its convolutions, which are added to its weights at the end.

Hu et al., ICLR 2022, for convolutions as microsoft/LoRA has it and DSCLoRA uses it (arXiv 2504.11271): a weight of
(C_out, C_in, k, k) becomes W + (B·A viewed so) · α/r with A (r·k, C_in·k) as Kaiming draws it and B (C_out·k, r·k)
zero.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import List, Tuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sr_deploy.core.errors import UsageError

_TEXT = re.compile(r"r=(\d+)(?:,alpha=(\d+(?:\.\d+)?)(r?))?")


@dataclass(frozen=True)
class Lora:
    """What ``--lora`` asks for.

    Attributes:
        rank: of every change.
        alpha: its factor is alpha / rank.
    """

    rank: int
    alpha: float


def lora_of(text: str) -> Lora:
    """``r=2,alpha=2r`` or ``r=2,alpha=4``; without alpha it is twice the rank, as DSCLoRA has it.

    Raises:
        UsageError: another form, or a number that is not greater than 0.
    """
    match = _TEXT.fullmatch(text.replace(" ", ""))
    rank = int(match.group(1)) if match else 0
    factor = float(match.group(2) or 2.0) if match else 0.0
    if match is None or rank < 1 or factor <= 0:
        raise UsageError(
            f"--lora {text!r} is no rank and alpha",
            "a rank and alpha greater than 0, such as r=2,alpha=2r or r=2,alpha=4",
            "the published DSCLoRA is --lora r=2,alpha=2r",
        )
    relative = match.group(2) is None or bool(match.group(3))
    return Lora(rank, factor * rank if relative else factor)


class LowRankChange(nn.Module):
    """The change of one convolution's weight, for ``parametrize``: (C_out, C_in, k, k) to the same."""

    def __init__(self, weight: Tensor, lora: Lora) -> None:
        super().__init__()
        outputs, inputs, kernel, _ = weight.shape
        self.factor = lora.alpha / lora.rank
        self.lora_A = nn.Parameter(torch.empty(lora.rank * kernel, inputs * kernel))
        self.lora_B = nn.Parameter(torch.zeros(outputs * kernel, lora.rank * kernel))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with its change."""
        return weight + (self.lora_B @ self.lora_A).view(weight.shape) * self.factor


def add_changes(network: nn.Module, lora: Lora) -> Tuple[str, ...]:
    """Freeze a network and give its convolutions with square kernels changes to learn; gives their names.

    Raises:
        UsageError: it has no such convolution.
    """
    network.requires_grad_(False)
    names: List[str] = []
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and module.kernel_size[0] == module.kernel_size[1]:
            change = LowRankChange(module.weight, lora).to(module.weight.device)
            parametrize.register_parametrization(module, "weight", change)
            names.append(name)
    if not names:
        raise UsageError(
            "--lora: this network has no convolution with a square kernel", "one to change", "train it whole"
        )
    return tuple(names)


def merge_changes(network: nn.Module) -> None:
    """Add the changes to the weights: the network computes the same, with the keys that it had before."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
