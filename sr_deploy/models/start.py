"""How a network begins that is trained from nothing: it repeats each pixel, and its other weights are random.

Three channels carry the colours past the body to the upsampling. What a training of minutes has to learn is then the
detail only; with random weights everywhere it spends its first thousand steps on learning to pass a picture on.
"""

from __future__ import annotations

from typing import Optional, Tuple

import torch
from torch import nn

#: Of the weights that make colours out of features: small enough not to be seen at the start.
FAINT = 1e-3


def pass_colours(conv: nn.Conv2d) -> None:
    """The first three outputs of a convolution become its first three inputs."""
    silence_colours(conv)
    with torch.no_grad():
        for colour in range(3):
            conv.weight[colour, colour, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1.0


def silence_colours(conv: nn.Conv2d) -> None:
    """The first three outputs of a convolution become 0, so that what they are added to stays."""
    with torch.no_grad():
        for parameter in _parameters(conv):
            parameter[:3] = 0.0


def spread_colours(conv: nn.Conv2d) -> None:
    """In front of a pixel shuffle that keeps the channels: each of the first three is repeated over its pixels."""
    times = conv.out_channels // conv.in_channels
    with torch.no_grad():
        for parameter in _parameters(conv):
            parameter[: 3 * times] = 0.0
        for colour in range(3):
            conv.weight[colour * times : (colour + 1) * times, colour, 1, 1] = 1.0


def repeat_colours(conv: nn.Conv2d, factor: int, gain: float = 1.0, bias: Optional[torch.Tensor] = None) -> None:
    """In front of a pixel shuffle to colours: each of the first three inputs, times ``gain``, fills its colour.

    Args:
        conv: to 3·factor² channels.
        factor: of the pixel shuffle.
        gain: from the inputs to the colours.
        bias: of the three colours; None: 0.
    """
    with torch.no_grad():
        conv.weight.mul_(FAINT)
        conv.weight[:, :3] = 0.0
        for parameter in _parameters(conv)[1:]:
            parameter.copy_((torch.zeros(3) if bias is None else bias).repeat_interleave(factor**2))
        for colour in range(3):
            conv.weight[colour * factor**2 : (colour + 1) * factor**2, colour, 1, 1] = gain


def _parameters(conv: nn.Conv2d) -> Tuple[torch.Tensor, ...]:
    return (conv.weight,) if conv.bias is None else (conv.weight, conv.bias)
