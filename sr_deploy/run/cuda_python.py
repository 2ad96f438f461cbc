"""The ``Cuda`` of NVIDIA's cuda-python; see run/cuda.py."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any, Callable, Dict, Tuple

import numpy as np

from sr_deploy.core.errors import EnvironmentFault
from sr_deploy.run.cuda_faults import cuda_fault


class CudaPython:
    """Over the CUDA runtime API; every call gives (error, results…)."""

    name = "cuda-python"

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        if not self._call("cudaGetDeviceCount"):
            raise EnvironmentFault(
                "CUDA sees no GPU",
                "an NVIDIA GPU",
                "srdeploy doctor says what is missing; --backend onnxruntime needs no GPU",
            )
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
        memory = memoryview((ctypes.c_char * length).from_address(address))
        array = np.frombuffer(memory, dtype=np.dtype(dtype)).reshape(shape)
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
        except BaseException:
            # A capture that is not ended leaves the stream unusable. What ending it says follows from what went wrong,
            # and a graph of half a run is of no use.
            with contextlib.suppress(EnvironmentFault):
                self._call("cudaGraphDestroy", self._call("cudaStreamEndCapture", self._stream))
            raise
        graph = self._call("cudaStreamEndCapture", self._stream)
        try:
            # cudaGraphInstantiate has other parameters in CUDA 11 than from 12 on; this one is the same in all.
            return self._call("cudaGraphInstantiateWithFlags", graph, 0)
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
        try:
            error, *results = getattr(self._runtime, function)(*arguments)
        except RuntimeError as problem:
            # cuda-python 11 has no error code for an absent driver.
            raise cuda_fault(function, str(problem)) from problem
        if error != self._runtime.cudaError_t.cudaSuccess:
            raise cuda_fault(function, error.name)
        return results[0] if results else None
