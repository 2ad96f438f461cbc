"""ESA, the enhanced spatial attention of the distillation networks (Liu et al. 2020, arXiv 2009.11551, section 3.3).

Facts from njulj/RFDN, icandle/EFDN (three convolutions on the coarse picture) and bytedance/RLFN (one).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

#: The stride-2 convolution leaves (n - 3) // 2 + 1 pixels, and the 7x7 max-pool without padding needs seven of them.
MINIMUM = 15


class SpatialAttention(nn.Module):
    """A mask in 0…1 from a strongly reduced picture, multiplied onto the input.

    Args:
        width: channels in and out.
        reduced: channels inside.
        convolutions: on the coarse picture, 3 or 1.
    """

    def __init__(self, width: int, reduced: int, convolutions: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, reduced, 1)
        self.conv_f = nn.Conv2d(reduced, reduced, 1)
        self.conv_max = nn.Conv2d(reduced, reduced, 3, padding=1) if convolutions == 3 else None
        self.conv2 = nn.Conv2d(reduced, reduced, 3, stride=2)
        self.conv3 = nn.Conv2d(reduced, reduced, 3, padding=1)
        self.conv3_ = nn.Conv2d(reduced, reduced, 3, padding=1) if convolutions == 3 else None
        self.conv4 = nn.Conv2d(reduced, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C, H, W); H and W at least ``MINIMUM``."""
        narrow = self.conv1(x)
        coarse = F.max_pool2d(self.conv2(narrow), kernel_size=7, stride=3)
        if self.conv_max is not None and self.conv3_ is not None:
            coarse = self.conv3_(F.relu(self.conv3(F.relu(self.conv_max(coarse)))))
        else:
            coarse = self.conv3(coarse)
        coarse = F.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.conv4(coarse + self.conv_f(narrow)))
