"""What every command that trains is asked: on which device, and for how long."""

from __future__ import annotations

import math
from typing import Optional

from sr_deploy.core.errors import UsageError
from sr_deploy.core.names import check_name

#: What ``--device`` takes.
DEVICES = ("auto", "cpu", "cuda")


def torch_device(asked: str, mixed: bool = False) -> str:
    """ "cpu" or "cuda": what was asked for, and for "auto" a GPU if there is one.

    Args:
        asked: one of ``DEVICES``.
        mixed: mixed precision is asked for.

    Raises:
        UsageError: no such device, no GPU here, or mixed precision without one.
    """
    import torch

    check_name("device", asked, DEVICES)
    if asked == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda was asked for, and PyTorch sees no GPU here", "a GPU", "--device cpu")
    device = "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"
    if mixed and device == "cpu":
        raise UsageError("--mixed is for CUDA only: on a CPU it is slower and no smaller", "a GPU", "leave --mixed out")
    return device


def check_minutes(minutes: Optional[float]) -> None:
    """Refuse a training of no time, and one that would never end.

    Raises:
        UsageError: 0 or less, infinite, or no number; None is fine.
    """
    if minutes is not None and not 0 < minutes < math.inf:
        raise UsageError(f"--minutes {minutes:g} is no time to train for", "more than 0, such as 10")
