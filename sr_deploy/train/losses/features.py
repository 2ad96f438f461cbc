"""Losses of features: what modules inside of student and teacher give, (N, C, H, W) each, pair by pair."""

from __future__ import annotations

import math
from typing import List, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Features = Sequence[Tensor]

#: Width of keys and queries of ``attended``.
ATTENTION_WIDTH = 128


def attention_transfer(student: Features, teacher: Features) -> Tensor:
    """Σ over pairs of mean (a(S) − a(T))², a the mean over channels of the squared feature, L2-normalised (AT).

    Zagoruyko & Komodakis, ICLR 2017 (szagoruyko/attention-transfer); Light F2SRGAN's eq. 17. Channels may differ.
    """
    return _sum([((_map(one) - _map(other)) ** 2).mean() for one, other in zip(student, teacher)])


def spatial_affinity(student: Features, teacher: Features, rows: Optional[Tensor] = None) -> Tensor:
    """Σ over pairs of mean |A(S) − A(T)|, A = FᵀF of the feature as (C, H·W), each pixel normalised over channels.

    FAKD (He et al., ICIP 2020), which DSCLoRA follows (arXiv 2504.11271). Channels may differ.

    Args:
        rows: of A that are compared, indices of pixels; None: all, (H·W)² values a feature and sample.
    """
    return _sum([(_affinity(one, rows) - _affinity(other, rows)).abs().mean() for one, other in zip(student, teacher)])


def _affinity(feature: Tensor, rows: Optional[Tensor]) -> Tensor:
    pixels = F.normalize(feature.flatten(2), dim=1)
    chosen = pixels if rows is None else pixels[:, :, rows]
    return chosen.transpose(1, 2) @ pixels


def _map(feature: Tensor) -> Tensor:
    """Where a feature is strong: (N, H·W), of length 1."""
    return F.normalize((feature**2).mean(dim=1).flatten(1), dim=1)


class Attention(nn.Module):
    """The learned part of ``attended``: which of the student's features a teacher's feature is to teach.

    Args:
        student, teacher: channels of each feature.
    """

    def __init__(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        super().__init__()
        width = ATTENTION_WIDTH
        self.keys = nn.ModuleList(nn.Linear(channels, width) for channels in student)
        self.queries = nn.ModuleList(nn.Linear(channels, width) for channels in teacher)
        self.bilinear = nn.Linear(width, width * len(teacher))
        self.of_student = nn.Parameter(torch.empty(len(student), width))
        self.of_teacher = nn.Parameter(torch.empty(len(teacher), width))
        for parameter in (self.of_student, self.of_teacher):
            nn.init.xavier_normal_(parameter)

    def forward(self, student: Features, teacher: Features) -> Tensor:
        """Shares (N, teacher's features, student's features) that sum to 1 over the last axis."""
        keys = torch.stack([_standardised(layer(_mean(one))).relu() for layer, one in zip(self.keys, student)], dim=1)
        queries = torch.stack([_standardised(layer(_mean(one))) for layer, one in zip(self.queries, teacher)], dim=1)
        flat = _standardised(self.bilinear(keys.flatten(0, 1)))
        twisted = flat.view(len(queries), len(student), len(teacher), ATTENTION_WIDTH)
        logits = torch.einsum("nstq,ntq->nts", twisted, queries) + self.of_teacher @ self.of_student.T
        return (logits / math.sqrt(ATTENTION_WIDTH)).softmax(dim=2)


def attended(student: Features, teacher: Features, attention: Attention) -> Tensor:
    """Σ over teacher's features t of mean over samples of Σ over s of α(t, s) · mean (a(S) − a(T))² (AFD).

    Ji et al., AAAI 2021 (clovaai/attention-feature-distillation); Light F2SRGAN's eq. 18 and code, qk 128, a as in
    ``attention_transfer``. Each layer's outputs are standardised over the batch, as batch normalisation in training is
    without its factors, so a batch needs two samples. All features are of one height and width.
    """
    shares = attention(student, teacher)
    maps = torch.stack([_map(one) for one in student], dim=1)
    distances = torch.stack([((maps - _map(one).unsqueeze(1)) ** 2).mean(dim=2) for one in teacher], dim=1)
    return (shares * distances).sum(dim=(1, 2)).mean()


def _mean(feature: Tensor) -> Tensor:
    return feature.mean(dim=(2, 3))


def _standardised(x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, training=True)


def _sum(losses: List[Tensor]) -> Tensor:
    return torch.stack(losses).sum()
