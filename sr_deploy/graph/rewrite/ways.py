"""The ways to write a sum of convolutions on a GPU, and which is the cheapest.

What a kernel costs is taken from what listings of TensorRT-RTX show: it takes as long as it moves bytes or computes
products, whichever is longer; an addition is part of the convolution before it; Slice, Pad and Concat are copies, but
for a Concat of what plain convolutions write, which write into it. Costs are bytes for each pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import AbstractSet, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from sr_deploy.graph.rewrite.linear import Form, Key, is_identity

#: Multiply-accumulates that a GPU's tensor cores do while it moves one byte: 57 on a Xavier NX, 71 on an RTX 3060, 103
#: on an H200, 164 on an RTX 4090 (core/host/gpu_rates.py). Few convolutions reach their peak, so it is a low one.
BALANCE = 70.0
#: What a launch costs, as bytes for each pixel of a 144² picture on a small GPU (1.5 µs at 360 GB/s).
LAUNCH = 26.0
#: Bytes of a value; in float32 all costs are twice as large.
BYTES = 2
#: Singular values below this share of the largest are rounding: weights are stored with 24 bits.
RANK_TOLERANCE = 2e-6


@dataclass(frozen=True)
class Way:
    """One way to write a form.

    Attributes:
        groups: the terms of each convolution; those of one group are joined first.
        cost: see ``Costs.kernel``.
        narrow: each term is two convolutions in a row, through as few channels as its rank, and the results of the
            first ones are joined for one second one.
    """

    groups: Tuple[Tuple[Key, ...], ...]
    cost: float
    narrow: bool = False


@dataclass(frozen=True)
class Costs:
    """How kernels are weighed.

    Attributes:
        balance: multiply-accumulates that take as long as moving one byte; infinite: products cost nothing, and bytes
            and launches alone count.
    """

    balance: float = BALANCE

    def kernel(self, channels: float, macs: float = 0.0) -> float:
        """What a kernel costs that reads and writes so many channels and computes so many products for each pixel."""
        return max(BYTES * channels, macs / self.balance) + LAUNCH


def best_way(form: Form, costs: Costs, in_place: AbstractSet[str]) -> Optional[Way]:
    """The cheapest way to write a form; None for one without a convolution.

    Args:
        form: what to write.
        costs: what a kernel costs.
        in_place: sources that can be written into a joined tensor by what makes them.
    """
    convolved = [key for key, weight in form.terms.items() if not is_identity(weight)]
    if not convolved:
        return None
    skips = BYTES * (len(form.terms) - len(convolved)) * form.bias.size
    ways = [Way(groups, _cost(form, costs, groups, in_place) + skips) for groups in _groupings(form, convolved)]
    narrow = _through_fewer(form, costs, convolved)
    if narrow is not None:
        ways.append(Way(narrow.groups, narrow.cost + skips, True))
    return min(ways, key=lambda way: way.cost)


def _groupings(form: Form, convolved: Sequence[Key]) -> Iterator[Tuple[Tuple[Key, ...], ...]]:
    """Each term by itself; the 1×1 ones joined; these joined to a reflected k×k one."""
    small = tuple(key for key in convolved if form.terms[key].shape[2] == 1)
    large = [key for key in convolved if key not in small]
    yield tuple((key,) for key in convolved)
    if len(small) > 1:
        yield (*((key,) for key in large), small)
    if small and len(large) == 1 and large[0][1]:
        yield ((large[0], *small),)


def _cost(form: Form, costs: Costs, groups: Sequence[Sequence[Key]], in_place: AbstractSet[str]) -> float:
    """Of convolutions that each add to what the one before made."""
    out, spent = form.bias.size, 0.0
    for number, group in enumerate(groups):
        channels: Dict[str, int] = {source: form.terms[source, mirror].shape[1] for source, mirror in group}
        read, size = sum(channels.values()), max(form.terms[key].shape[2] for key in group)
        if any(mirror for _, mirror in group):
            spent += costs.kernel(2 * read)
        elif len(group) > 1:
            copied = sum(count for source, count in channels.items() if source not in in_place)
            spent += costs.kernel(2 * copied) if copied else 0.0
        spent += costs.kernel(read + out + (out if number else 0), read * out * size**2)
    return spent


def _through_fewer(form: Form, costs: Costs, convolved: Sequence[Key]) -> Optional[Way]:
    """Several 1×1 terms, each through as few channels as its rank; None where that is no fewer."""
    if len(convolved) < 2 or any(form.terms[key].shape[2] > 1 for key in convolved):
        return None
    factors: List[Tuple[np.ndarray, np.ndarray]] = [factored(form.terms[key][:, :, 0, 0]) for key in convolved]
    if any(first.shape[0] >= min(first.shape[1], form.bias.size) for first, _ in factors):
        return None
    spent = sum(costs.kernel(sum(first.shape), first.size) for first, _ in factors)
    joined = sum(first.shape[0] for first, _ in factors)
    spent += costs.kernel(joined + form.bias.size, joined * form.bias.size)
    return Way((tuple(convolved),), spent, True)


def factored(matrix: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """``first`` (rank, C_in) and ``second`` (C_out, rank) with second @ first = matrix, by its singular values."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    rank = max(1, int((values > RANK_TOLERANCE * values[0]).sum()))
    root = np.sqrt(values[:rank])
    return root[:, None] * right[:rank], left[:, :rank] * root
