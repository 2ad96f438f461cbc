"""The names of this machine's devices, looked up once."""

from __future__ import annotations

import functools

from sr_deploy.core.host.machine import this_machine


@functools.lru_cache(maxsize=None)
def processor_name() -> str:
    """The CPU's model name."""
    return this_machine().cpu


@functools.lru_cache(maxsize=None)
def gpu_name() -> str:
    """The first GPU's name, or "GPU" when the driver does not tell."""
    gpus = this_machine().gpus
    return gpus[0].name if gpus else "GPU"
