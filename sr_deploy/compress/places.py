"""Some places of a layer's output: what the layer reads there, and what it gives."""

from __future__ import annotations

from typing import Any, Sequence, Tuple

import torch
from torch import Tensor

from sr_deploy.graph.operators import padded

#: (picture, row, column) of each place.
Places = Tuple[Tensor, Tensor, Tensor]


def some_places(shape: Sequence[int], most: int, seed: int) -> Places:
    """At most so many places of a tensor (N, C, H, W), all of them where there are no more."""
    count, height, width = shape[0], shape[2], shape[3]
    total = count * height * width
    chosen = torch.arange(total)
    if total > most:
        chosen = torch.randint(total, (most,), generator=torch.Generator().manual_seed(seed))
    return chosen // (height * width), chosen // width % height, chosen % width


def values_at(x: Tensor, places: Places) -> Tensor:
    """(N, C, H, W) at places, (C, P)."""
    return x.permute(1, 0, 2, 3)[:, places[0], places[1], places[2]]


def taps_at(attributes: Any, x: Tensor, kernel: Sequence[int], places: Places) -> Tensor:
    """What a convolution reads for places of its output, (C, taps, P); taps in the order of its weight."""
    x, padding = padded(attributes, x, 0.0)
    if any(padding):
        x = torch.nn.functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    channels = x.permute(1, 0, 2, 3)
    pictures, rows, columns = places[0], places[1] * strides[0], places[2] * strides[1]
    return torch.stack(
        [
            channels[:, pictures, rows + down * dilations[0], columns + right * dilations[1]]
            for down in range(kernel[0])
            for right in range(kernel[1])
        ],
        1,
    )
