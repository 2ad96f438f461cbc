"""Losses of pictures: (N, 3, H, W) given and wanted, of one shape; each gives one number, shape ().

Where the published weight of a loss belongs to a certain value of white, table.py holds that.
"""

from __future__ import annotations

from typing import List, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

#: ε of the Charbonnier loss, for pictures in 0…1 (CDISM, arXiv 2401.00523).
CHARBONNIER_EPSILON = 1e-3
#: Levels of the Laplacian pyramid: four differences and what is left.
LEVELS = 5
#: Grey of RGB, and the weights of the three filters of ``gradient_variance``.
GREY = (0.2989, 0.5870, 0.1140)
EDGE_WEIGHTS = (0.2, 0.2, 0.1)
#: Side of the patches that variances are taken over.
EDGE_PATCH = 8
#: Temperature of ``kl``.
TEMPERATURE = 4.0

_BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)
_EDGES = (
    ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0)),
    ((1.0, 2.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -2.0, -1.0)),
    ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0)),
)


def l1(given: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference: mean |g − w|."""
    return (given - wanted).abs().mean()


def taught_distance(given: Tensor, taught: Tensor, originals: Optional[Tensor], share: float) -> Tensor:
    """``l1`` from what a teacher gives and, where there are originals, from them.

    Args:
        given, taught, originals: the same shape and units.
        share: of the distance from the originals, 0…1.
    """
    loss = l1(given, taught)
    if originals is None:
        return loss
    return (1.0 - share) * loss + share * l1(given, originals)


def charbonnier(given: Tensor, wanted: Tensor) -> Tensor:
    """Mean √((g − w)² + ε²), ε = 1e-3 (Lai et al., CVPR 2017; CDISM's loss while it makes a network sparse)."""
    return ((given - wanted) ** 2 + CHARBONNIER_EPSILON**2).sqrt().mean()


def laplacian(given: Tensor, wanted: Tensor) -> Tensor:
    """Σ 2^i · mean |Lᵢ(g) − Lᵢ(w)| over the five levels of a Laplacian pyramid (CDISM, arXiv 2401.00523).

    A level is the picture minus its blurred half, enlarged: blur with [1 4 6 4 1]²/256 and reflected borders, average
    over 2×2, zeros inserted, blur times 4; the last level is the smallest picture. As the reference code of
    Pikapi22/SRModelCompression has it. H and W must be multiples of 16 and at least 32.
    """
    pairs = zip(_pyramid(given), _pyramid(wanted))
    return torch.stack([2.0**level * l1(one, other) for level, (one, other) in enumerate(pairs)]).sum()


def laplacian_high_frequencies(given: Tensor, wanted: Tensor) -> Tensor:
    """``laplacian`` of the pictures plus ``laplacian`` of pictures minus their blur (CDISM, arXiv 2401.00523)."""
    return laplacian(given, wanted) + laplacian(given - _blurred(given), wanted - _blurred(wanted))


def _pyramid(x: Tensor) -> List[Tensor]:
    levels = []
    for _ in range(LEVELS - 1):
        half = F.avg_pool2d(_blurred(x), 2)
        spread = x.new_zeros(x.shape)
        spread[:, :, ::2, ::2] = half
        levels.append(x - 4.0 * _blurred(spread))
        x = half
    return [*levels, x]


def _blurred(x: Tensor) -> Tensor:
    """Five binomial taps each way; (N, C, H, W), the border reflected without its own pixel."""
    taps = x.new_tensor(_BINOMIAL) / 16.0
    channels = x.shape[1]
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    x = F.conv2d(x, taps.view(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)
    return F.conv2d(x, taps.view(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)


def gradient_variance(given: Tensor, wanted: Tensor) -> Tensor:
    """Σ λ · mean (var(E(g)) − var(E(w)))² over Sobel x, Sobel y and the Laplacian of grey (EFDN, arXiv 2204.08759).

    Variances, unbiased, of patches of 8×8 side by side; λ = 0.2, 0.2, 0.1. The patches' side and the filters' order of
    signs are those of lusinlu/gradient-variance-loss (arXiv 2202.00997). What is left of H and W beside whole patches
    is not looked at.
    """
    difference = _variances(given) - _variances(wanted)
    return ((difference**2).mean(dim=(0, 2)) * given.new_tensor(EDGE_WEIGHTS)).sum()


def _variances(x: Tensor) -> Tensor:
    """(N, 3 filters, patches)."""
    grey = (x * x.new_tensor(GREY).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    edges = F.conv2d(grey, x.new_tensor(_EDGES).unsqueeze(1), padding=1)
    patches = F.unfold(edges, EDGE_PATCH, stride=EDGE_PATCH)
    return patches.view(x.shape[0], len(_EDGES), EDGE_PATCH**2, -1).var(dim=2)


def kl(given: Tensor, wanted: Tensor) -> Tensor:
    """T²/N · Σ p(w) (log p(w) − log p(g)), p the softmax over the colours of a pixel divided by T = 4.

    Hinton's distillation as Light F2SRGAN has it (preprints202305.1282, eqs. 19 and 20; the axis is its code's), whose
    pictures are in 0…255.
    """
    log_given = F.log_softmax(given / TEMPERATURE, dim=1)
    log_wanted = F.log_softmax(wanted / TEMPERATURE, dim=1)
    return (log_wanted.exp() * (log_wanted - log_given)).sum() * TEMPERATURE**2 / given.shape[0]


def total_variation(given: Tensor) -> Tensor:
    """Σ |differences of neighbours|, both ways, of all pictures (as Light F2SRGAN sums it, in 0…255)."""
    across = (given[:, :, :, 1:] - given[:, :, :, :-1]).abs().sum()
    return across + (given[:, :, 1:] - given[:, :, :-1]).abs().sum()
