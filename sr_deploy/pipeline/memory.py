"""Is there memory to run a graph on the CPU? Asked before the system would kill the process without a word."""

from __future__ import annotations

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment.manifest import GraphFile
from sr_deploy.core.errors import EnvironmentFault
from sr_deploy.core.host.machine import available_memory_bytes

#: A run is not begun when its activations alone, by the census, pass this part of the free memory.
MEMORY_SHARE = 0.8


def check_memory(graph: GraphFile, size: Size) -> None:
    """Refuse a run that would drive the machine out of memory.

    Args:
        graph: what will run.
        size: its input (height, width).

    Raises:
        EnvironmentFault: naming what is needed at least and what is free.
    """
    need = graph.peak_bytes_at(size)
    free = available_memory_bytes()
    if free is not None and need > MEMORY_SHARE * free:
        raise EnvironmentFault(
            f"{format_size(size)} needs at least {need / 1e9:.1f} GB for activations, {free / 1e9:.1f} GB are free",
            "memory for the network at this size",
            "take a smaller size; a graph for any size is proved at small ones, and TensorRT needs less memory to run",
        )
