"""Which GPUs TensorRT-RTX builds for and runs on. One list: the module's own where it imports, else of 1.7.1."""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any, Dict, Tuple

#: ``tensorrt_rtx.ComputeCapability`` of 1.7.1.116. Not among them: Orin (8.7), Hopper (9.0), Thor (11.0; 10.1 before
#: CUDA 13) and the data-centre Blackwells (10.0, 10.3).
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")

_MODULES = ("tensorrt_rtx", "tensorrt_rtx_bindings")


def capabilities_of(module: Any) -> Dict[str, Any]:
    """Compute capability, such as "8.6", → the value of a module's ``ComputeCapability`` that stands for it."""
    named = ((re.match(r"SM(\d+)(\d)$", name), value) for name, value in module.ComputeCapability.__members__.items())
    return {f"{found.group(1)}.{found.group(2)}": value for found, value in named if found}


@functools.lru_cache(maxsize=None)
def rtx_capabilities() -> Tuple[str, ...]:
    """What the TensorRT-RTX that is installed supports; without one, what 1.7.1 does. Raises nothing."""
    for name in _MODULES:
        try:
            return tuple(capabilities_of(importlib.import_module(name)))
        except Exception:
            # No module, a missing library or driver, a half-removed installation: the constant then stands.
            continue
    return RTX_CAPABILITIES
