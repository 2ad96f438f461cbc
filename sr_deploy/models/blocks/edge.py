"""The branches of edge-oriented convolution blocks: a 1x1 convolution in front of a 3x3 one or of a fixed edge filter.

Facts from xindongzhang/ECBSR (ECB), whose blocks icandle/EFDN took up (EDBB).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

#: What ``mask`` holds, by the name of the branch it is in.
EDGE_FILTERS = {
    "conv1x1_sbx": ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0)),
    "conv1x1_sby": ((1.0, 2.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -2.0, -1.0)),
    "conv1x1_lpl": ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0)),
}


def begin_branches(network: nn.Module) -> None:
    """Give the branches inside of a network the weights that their training begins with.

    Those of convolutions as PyTorch draws them, the edge filters themselves, and their scales and biases by a normal
    distribution of 1e-3, as in xindongzhang/ECBSR.
    """
    for path, module in network.named_modules():
        if isinstance(module, (PointwiseThen3x3, PointwiseThenEdge)):
            kernels = (module.k0, module.k1) if isinstance(module, PointwiseThen3x3) else (module.k0,)
            for kernel in kernels:
                nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))
        if isinstance(module, PointwiseThenEdge):
            nn.init.normal_(module.scale, std=1e-3)
            nn.init.normal_(module.bias, std=1e-3)
            with torch.no_grad():
                module.mask.copy_(torch.tensor(EDGE_FILTERS[path.rpartition(".")[2]]).expand_as(module.mask))


def _padded_with(x: torch.Tensor, border: torch.Tensor) -> torch.Tensor:
    """``x`` (N, C, H, W) with a border of one pixel around it that holds ``border`` (C,)."""
    outside = 1 - F.pad(torch.ones_like(x[:, :1]), (1, 1, 1, 1))
    return F.pad(x, (1, 1, 1, 1)) + border.view(1, -1, 1, 1) * outside


class PointwiseThen3x3(nn.Module):
    """A 1x1 convolution, a border of its bias, a 3x3 convolution: (N, c_in, H, W) to (N, c_out, H, W)."""

    def __init__(self, c_in: int, middle: int, c_out: int) -> None:
        super().__init__()
        self.k0 = nn.Parameter(torch.zeros(middle, c_in, 1, 1))
        self.b0 = nn.Parameter(torch.zeros(middle))
        self.k1 = nn.Parameter(torch.zeros(c_out, middle, 3, 3))
        self.b1 = nn.Parameter(torch.zeros(c_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the two convolutions."""
        return F.conv2d(_padded_with(F.conv2d(x, self.k0, self.b0), self.b0), self.k1, self.b1)


class PointwiseThenEdge(nn.Module):
    """A 1x1 convolution, a border of its bias, a fixed depthwise edge filter scaled and biased per channel.

    ``mask`` is Sobel x, Sobel y or the Laplacian; it is never trained but stored, and what is stored is used.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.k0 = nn.Parameter(torch.zeros(c_out, c_in, 1, 1))
        self.b0 = nn.Parameter(torch.zeros(c_out))
        self.scale = nn.Parameter(torch.zeros(c_out, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(c_out))
        self.mask = nn.Parameter(torch.zeros(c_out, 1, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the convolution and the filter."""
        padded = _padded_with(F.conv2d(x, self.k0, self.b0), self.b0)
        return F.conv2d(padded, self.scale * self.mask, self.bias, groups=self.bias.shape[0])
