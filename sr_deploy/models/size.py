"""How much memory a network's values would take, found without making them."""

from __future__ import annotations

from typing import Callable

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

#: Parameters and buffers of one network: the largest known here have some 1,000. Each costs Python's memory as well.
MOST_TENSORS = 5_000


class TooLarge(ValueError):
    """A network of more values than were allowed; the message says of how many."""


def bytes_of(make: Callable[[], nn.Module], most: int) -> int:
    """The bytes of all parameters and buffers of the network that ``make`` would make.

    It is made on PyTorch's "meta" device, whose tensors have shapes and no values.

    Args:
        make: makes the network.
        most: bytes.

    Raises:
        TooLarge: more than ``most``, or than MOST_TENSORS parameters and buffers; making stops there.
        Exception: whatever ``make`` raises.
    """
    tensors = total = 0

    def count(module: nn.Module, name: str, tensor: object) -> None:
        nonlocal tensors, total
        tensors += 1
        total += tensor.numel() * tensor.element_size() if isinstance(tensor, torch.Tensor) else 0
        if total > most:
            raise TooLarge(f"its weights take {total / 1e9:,.1f} GB or more, and {most / 1e9:,.1f} GB is the most here")
        if tensors > MOST_TENSORS:
            raise TooLarge(f"it has more than {MOST_TENSORS:,} tensors")

    hooks = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)]
    try:
        with torch.device("meta"):
            make()
    finally:
        for hook in hooks:
            hook.remove()
    return total
