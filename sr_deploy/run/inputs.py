"""What every runner asks of an input, so that all refuse a wrong one in the same words."""

from __future__ import annotations

from typing import Dict, Optional

import numpy as np

from sr_deploy.core.contract import IOContract, Size, format_size
from sr_deploy.core.errors import BadInput

#: What a runner without a contract of its own takes: three planes of float32.
PLANES = IOContract(value_range=1.0)


def checked_input(lr: np.ndarray, size: Optional[Size], contract: IOContract = PLANES) -> np.ndarray:
    """The input as a C-contiguous array, copied only when it is not one.

    Args:
        lr: what a caller hands to ``upload``.
        size: the (height, width) that was prepared; None before the first ``prepare``.
        contract: what the graph takes.

    Returns:
        float32 (1, 3, height, width), or uint8 (1, height, width, 3).

    Raises:
        BadInput: nothing was prepared, or dtype or shape is another.
    """
    if size is None:
        raise BadInput("no input size was prepared", "runner.prepare((height, width)) before upload")
    if not isinstance(lr, np.ndarray) or lr.dtype != contract.dtype:
        have = lr.dtype if isinstance(lr, np.ndarray) else type(lr).__name__
        raise BadInput(f"the input is {have}", f"a {contract.dtype} array in the contract's value range")
    if lr.shape != contract.shape(size):
        raise BadInput(
            f"the input has shape {lr.shape}",
            f"{contract.shape(size)}, as {format_size(size)} was prepared",
            "prepare the size of the picture",
        )
    return np.ascontiguousarray(lr)


def io_facts(contract: IOContract) -> Dict[str, str]:
    """What a runner's description says of 8-bit tensors; nothing for float32, which a record without it means."""
    return {} if contract.dtype == "float32" else {"io": f"{contract.dtype} {contract.layout}"}


def nothing_uploaded() -> BadInput:
    """The error of ``compute`` or ``download`` out of order."""
    return BadInput("the runner has no input or no result yet", "prepare, upload, compute, download, in this order")
