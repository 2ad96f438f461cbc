"""GPU memory, pinned host memory, copies and a stream, through whichever CUDA binding is installed.

TensorRT's Python package allocates nothing for tensors, so a binding is needed beside it: cuda-python on a PC (its
module is ``cuda.bindings.runtime``, ``cuda.cudart`` before 12.6), PyCUDA on most Jetson boards. cuda-python is tried
first, as ``srdeploy doctor`` reports it.

Not run on a GPU: written against the bindings' documentation. What was checked: cuda-python 13's names and signatures
by importing it, and its answer on a machine without a GPU.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any, Callable, Dict, List, Protocol, Tuple

import numpy as np

from sr_deploy.core.errors import EnvironmentFault, MissingPackage, UsageError


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
        EnvironmentFault: there is no GPU, or its driver does not work.
    """
    for module in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            return CudaPython(importlib.import_module(module))
        except ImportError:
            continue
    try:
        driver = importlib.import_module("pycuda.driver")
    except ImportError as error:
        raise MissingPackage(
            "there is no CUDA binding for Python",
            "cuda-python, or pycuda on a Jetson",
            "pip install cuda-python (on a Jetson: pip install pycuda)",
        ) from error
    return PyCuda(driver)


class CudaPython:
    """The ``Cuda`` of NVIDIA's cuda-python, over the CUDA runtime API; every call gives (error, results…)."""

    name = "cuda-python"

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        if not self._call("cudaGetDeviceCount"):
            raise EnvironmentFault("CUDA sees no GPU", "an NVIDIA GPU")
        self._stream = self._call("cudaStreamCreate")
        self._pinned: Dict[int, int] = {}

    def stream(self) -> int:
        """See ``Cuda``."""
        return int(self._stream)

    def allocate(self, size: int) -> int:
        """See ``Cuda``."""
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        """See ``Cuda``."""
        self._call("cudaFree", address)

    def pinned(self, shape: Tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        """See ``Cuda``."""
        length = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = int(self._call("cudaHostAlloc", length, 0))
        array = np.frombuffer((ctypes.c_char * length).from_address(address), dtype=dtype).reshape(shape)
        self._pinned[array.ctypes.data] = address
        return array

    def free_pinned(self, array: np.ndarray) -> None:
        """See ``Cuda``."""
        self._call("cudaFreeHost", self._pinned.pop(array.ctypes.data))

    def to_device(self, address: int, array: np.ndarray) -> None:
        """See ``Cuda``."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self._stream)

    def to_host(self, array: np.ndarray, address: int) -> None:
        """See ``Cuda``."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self._stream)

    def synchronize(self) -> None:
        """See ``Cuda``."""
        self._call("cudaStreamSynchronize", self._stream)

    def event(self, blocking: bool) -> Any:
        """See ``Cuda``."""
        runtime = self._runtime
        flags = runtime.cudaEventBlockingSync if blocking else runtime.cudaEventDefault
        return self._call("cudaEventCreateWithFlags", flags)

    def record(self, event: Any) -> None:
        """See ``Cuda``."""
        self._call("cudaEventRecord", event, self._stream)

    def wait_for(self, event: Any) -> None:
        """See ``Cuda``."""
        self._call("cudaEventSynchronize", event)

    def seconds_between(self, start: Any, end: Any) -> float:
        """See ``Cuda``."""
        return float(self._call("cudaEventElapsedTime", start, end)) / 1e3

    def free_event(self, event: Any) -> None:
        """See ``Cuda``."""
        self._call("cudaEventDestroy", event)

    def capture(self, queue: Callable[[], None]) -> Any:
        """See ``Cuda``."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            queue()
        finally:
            # A capture that is not ended leaves the stream unusable.
            graph = self._call("cudaStreamEndCapture", self._stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Any) -> None:
        """See ``Cuda``."""
        self._call("cudaGraphLaunch", graph, self._stream)

    def free_graph(self, graph: Any) -> None:
        """See ``Cuda``."""
        self._call("cudaGraphExecDestroy", graph)

    def close(self) -> None:
        """See ``Cuda``."""
        self._call("cudaStreamDestroy", self._stream)

    def _call(self, function: str, *arguments: Any) -> Any:
        """Call a runtime function, give its result, or raise what its error means."""
        error, *results = getattr(self._runtime, function)(*arguments)
        if error != self._runtime.cudaError_t.cudaSuccess:
            raise _fault(function, error.name)
        return results[0] if results else None


class PyCuda:
    """The ``Cuda`` of PyCUDA, in the GPU's primary context, which is the one TensorRT uses."""

    name = "pycuda"

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        try:
            driver.init()
            self._context = driver.Device(0).retain_primary_context()
            self._context.push()
            self._stream = driver.Stream()
        except driver.Error as error:
            raise _fault("cuInit", str(error)) from error
        self._memory: Dict[int, Any] = {}

    def stream(self) -> int:
        """See ``Cuda``."""
        return int(self._stream.handle)

    def allocate(self, size: int) -> int:
        """See ``Cuda``."""
        try:
            memory = self._driver.mem_alloc(size)
        except self._driver.MemoryError as error:
            raise _fault("cuMemAlloc", "cudaErrorMemoryAllocation") from error
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        """See ``Cuda``."""
        self._memory.pop(address).free()

    def pinned(self, shape: Tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        """See ``Cuda``."""
        return self._driver.pagelocked_empty(shape, np.float32)

    def free_pinned(self, array: np.ndarray) -> None:
        """See ``Cuda``. PyCUDA frees it with the array."""

    def to_device(self, address: int, array: np.ndarray) -> None:
        """See ``Cuda``."""
        self._driver.memcpy_htod_async(address, array, self._stream)

    def to_host(self, array: np.ndarray, address: int) -> None:
        """See ``Cuda``."""
        self._driver.memcpy_dtoh_async(array, address, self._stream)

    def synchronize(self) -> None:
        """See ``Cuda``."""
        self._stream.synchronize()

    def event(self, blocking: bool) -> Any:
        """See ``Cuda``."""
        flags = self._driver.event_flags
        return self._driver.Event(flags.BLOCKING_SYNC if blocking else flags.DEFAULT)

    def record(self, event: Any) -> None:
        """See ``Cuda``."""
        event.record(self._stream)

    def wait_for(self, event: Any) -> None:
        """See ``Cuda``."""
        event.synchronize()

    def seconds_between(self, start: Any, end: Any) -> float:
        """See ``Cuda``."""
        return float(start.time_till(end)) / 1e3

    def free_event(self, event: Any) -> None:
        """See ``Cuda``. PyCUDA frees it with the object."""

    def capture(self, queue: Callable[[], None]) -> Any:
        """See ``Cuda``."""
        raise UsageError(
            "a CUDA graph cannot be captured through PyCUDA here",
            "the CUDA binding cuda-python",
            "pip install cuda-python, or leave --cuda-graph out",
        )

    def launch(self, graph: Any) -> None:
        """See ``Cuda``; there is no graph to launch."""

    def free_graph(self, graph: Any) -> None:
        """See ``Cuda``; there is no graph to free."""

    def close(self) -> None:
        """See ``Cuda``."""
        self._context.pop()


def _fault(function: str, error: str) -> EnvironmentFault:
    """What a CUDA error means to a user."""
    no_gpu: List[str] = ["NoDevice", "InsufficientDriver", "StubLibrary", "no CUDA-capable", "NO_DEVICE"]
    if any(word in error for word in no_gpu):
        return EnvironmentFault(
            f"CUDA finds no GPU that it can use ({error})", "an NVIDIA GPU and a driver for it", "see srdeploy doctor"
        )
    if "MemoryAllocation" in error:
        return EnvironmentFault("not enough GPU memory", "more free GPU memory", "choose a smaller size")
    return EnvironmentFault(f"CUDA failed in {function}: {error}", "a working GPU", "see srdeploy doctor and dmesg")
