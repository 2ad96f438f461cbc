"""GPU memory, pinned host memory, copies and a stream, through whichever CUDA binding is installed.

TensorRT's Python package allocates nothing for tensors, so a binding is needed beside it: cuda-python on a PC (its
module is ``cuda.bindings.runtime``, ``cuda.cudart`` before 12.6), PyCUDA on most Jetson boards. cuda-python is tried
first, as ``srdeploy doctor`` reports it.

Not run on a GPU. What was checked: both classes on a driver of host memory that has the signatures of cuda-python
11.8, 12 and 13 and of PyCUDA as their wheels and sources give them, and the wheels' answers where there is no driver.
"""

from __future__ import annotations

from typing import Any, Callable, Protocol, Tuple

import numpy as np

from sr_deploy.core.host.cuda_device import import_binding
from sr_deploy.run.cuda_python import CudaPython
from sr_deploy.run.pycuda import PyCuda


class Cuda(Protocol):
    """One stream on the first GPU, and memory for it. Addresses are integers."""

    #: "cuda-python" or "pycuda".
    name: str

    def stream(self) -> int:
        """The stream's handle, as TensorRT takes it."""

    def allocate(self, size: int) -> int:
        """``size`` bytes of device memory. Raises EnvironmentFault when there are not as many."""

    def free(self, address: int) -> None:
        """Give device memory back."""

    def pinned(self, shape: Tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        """An array in page-locked host memory, which copies need to be asynchronous."""

    def free_pinned(self, array: np.ndarray) -> None:
        """Give page-locked memory back; the array must not be used any more."""

    def to_device(self, address: int, array: np.ndarray) -> None:
        """Queue a copy of a pinned array to device memory."""

    def to_host(self, array: np.ndarray, address: int) -> None:
        """Queue a copy of device memory to a pinned array."""

    def synchronize(self) -> None:
        """Wait for everything queued on the stream."""

    def event(self, blocking: bool) -> Any:
        """An event with a time; waiting for it puts the host to sleep when ``blocking``, else the host spins."""

    def record(self, event: Any) -> None:
        """Queue an event on the stream."""

    def wait_for(self, event: Any) -> None:
        """Wait until the device has passed an event, as the event was made to be waited for."""

    def seconds_between(self, start: Any, end: Any) -> float:
        """Device time between two events that the device has passed."""

    def free_event(self, event: Any) -> None:
        """Give an event back."""

    def capture(self, queue: Callable[[], None]) -> Any:
        """A graph of what ``queue`` puts on the stream; nothing of it runs meanwhile.

        Raises:
            UsageError: this binding cannot.
        """

    def launch(self, graph: Any) -> None:
        """Queue a captured graph."""

    def free_graph(self, graph: Any) -> None:
        """Give a captured graph back."""

    def close(self) -> None:
        """Destroy the stream. Memory must have been given back."""


def open_cuda() -> Cuda:
    """A stream on the first GPU.

    Raises:
        MissingPackage: there is no CUDA binding.
        EnvironmentFault: a binding does not import, there is no GPU, or its driver does not work.
    """
    name, binding = import_binding()
    return PyCuda(binding) if name == "pycuda.driver" else CudaPython(binding)
