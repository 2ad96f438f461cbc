"""What every runner asks of an input, so that all refuse a wrong one in the same words."""

from __future__ import annotations

from typing import Optional

import numpy as np

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.errors import BadInput


def checked_input(lr: np.ndarray, size: Optional[Size]) -> np.ndarray:
    """The input as a C-contiguous array, copied only when it is not one.

    Args:
        lr: what a caller hands to ``upload``.
        size: the (height, width) that was prepared; None before the first ``prepare``.

    Returns:
        float32 (1, 3, height, width).

    Raises:
        BadInput: nothing was prepared, or dtype or shape is another.
    """
    if size is None:
        raise BadInput("no input size was prepared", "runner.prepare((height, width)) before upload")
    if not isinstance(lr, np.ndarray) or lr.dtype != np.float32:
        have = lr.dtype if isinstance(lr, np.ndarray) else type(lr).__name__
        raise BadInput(f"the input is {have}", "a float32 array in the contract's value range")
    if lr.shape != (1, 3) + tuple(size):
        raise BadInput(
            f"the input has shape {lr.shape}",
            f"{(1, 3) + tuple(size)}, as {format_size(size)} was prepared",
            "prepare the size of the picture",
        )
    return np.ascontiguousarray(lr)


def nothing_uploaded() -> BadInput:
    """The error of ``compute`` or ``download`` out of order."""
    return BadInput("the runner has no input or no result yet", "prepare, upload, compute, download, in this order")
