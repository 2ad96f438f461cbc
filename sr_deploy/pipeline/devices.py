"""Where PyTorch trains: the device that ``--device`` names."""

from __future__ import annotations

from sr_deploy.core.errors import UsageError

#: What ``--device`` takes.
DEVICES = ("auto", "cpu", "cuda")


def torch_device(asked: str) -> str:
    """ "cpu" or "cuda": what was asked for, and for "auto" a GPU if there is one.

    Raises:
        UsageError: no such device, or no GPU here.
    """
    import torch

    if asked not in DEVICES:
        raise UsageError(f"there is no device {asked!r}", "auto, cpu or cuda")
    if asked == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda was asked for, and PyTorch sees no GPU here", "a GPU", "--device cpu")
    return asked if asked != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
