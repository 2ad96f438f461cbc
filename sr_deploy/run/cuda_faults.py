"""What CUDA's errors mean to a user."""

from __future__ import annotations

from typing import List

from sr_deploy.core.errors import EnvironmentFault


def cuda_fault(function: str, error: str) -> EnvironmentFault:
    """The error of a failed call.

    Args:
        function: of CUDA.
        error: the runtime's name of it, or the driver's text that PyCUDA gives.
    """
    no_gpu: List[str] = [
        "NoDevice", "InsufficientDriver", "StubLibrary", "no CUDA-capable", "NO_DEVICE", "libcuda", '" not found',
    ]  # fmt: skip
    if any(word in error for word in no_gpu):
        return EnvironmentFault(
            f"CUDA finds no GPU that it can use ({error})", "an NVIDIA GPU and a driver for it", "see srdeploy doctor"
        )
    if "MemoryAllocation" in error or "out of memory" in error:
        return EnvironmentFault("not enough GPU memory", "more free GPU memory", "choose a smaller size")
    if "StreamCapture" in error:
        return EnvironmentFault(
            f"a run cannot be captured as a CUDA graph: {error}", "a run that can be", "leave --cuda-graph out"
        )
    return EnvironmentFault(f"CUDA failed in {function}: {error}", "a working GPU", "see srdeploy doctor and dmesg")
