"""A network is built from the shapes that a file gives; it may not become much larger than what the file holds."""

from __future__ import annotations

import math
from typing import Any, Dict, Optional, Sequence, Tuple

import torch
from torch.overrides import TorchFunctionMode

from sr_deploy.core.errors import BadCheckpoint
from sr_deploy.models.base import Tensors

#: A network may have this many times the elements of its checkpoint, and ``MORE_ELEMENTS`` more: fixed filters,
#: window indices and weights that the file leaves out are few.
GROWTH = 4
MORE_ELEMENTS = 1 << 24
#: What makes tensors out of nothing but a size.
_BY_SIZE = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full)
#: What takes several tensors without spreading them over each other.
_NO_SPREAD = (torch.conv2d, torch.prelu)


class LimitedGrowth(TorchFunctionMode):
    """Within this block tensors may be made until they have ``GROWTH`` times the elements of the checkpoint.

    One weight of shape (100000, 3, 3, 3) says that the network's other convolutions have 100000² · 9 weights.

    Args:
        tensors: the checkpoint.
    """

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        self.limit = GROWTH * sum(tensor.numel() for tensor in tensors.values()) + MORE_ELEMENTS
        self.made = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Tuple[Any, ...] = (), kwargs: Optional[Dict[str, Any]] = None
    ) -> Any:
        """Count what the call will make, then let it."""
        kwargs = kwargs or {}
        self.made += _elements_made(func, args, kwargs)
        if self.made > self.limit:
            raise BadCheckpoint(
                f"the network that these shapes describe has more than {self.limit:,} values, "
                "far more than the checkpoint",
                "shapes that belong to each other",
                "check that the file is whole and from a source that you trust",
            )
        return func(*args, **kwargs)


def _elements_made(func: Any, args: Sequence[Any], kwargs: Dict[str, Any]) -> int:
    """Elements of a tensor made by its size, or by spreading several tensors over each other; 0 for the rest."""
    if func in _BY_SIZE:
        size = kwargs.get("size", args[0] if args and not isinstance(args[0], int) else args)
        return math.prod(int(length) for length in size)
    if func is torch.arange:
        return int(max((number for number in args if isinstance(number, (int, float))), default=0))
    if func is torch.eye:
        return int(args[0]) ** 2
    shapes = [value.shape for value in args if isinstance(value, torch.Tensor)]
    if len(shapes) < 2 or func in _NO_SPREAD:
        return 0
    try:
        spread = math.prod(torch.broadcast_shapes(*shapes))
    except RuntimeError:
        return 0
    return spread if spread > max(map(math.prod, shapes)) else 0
