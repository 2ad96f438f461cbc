"""The ``Cuda`` of PyCUDA; see run/cuda.py."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Dict, Iterator, Tuple

import numpy as np

from sr_deploy.core.errors import UsageError
from sr_deploy.run.cuda_faults import cuda_fault


class PyCuda:
    """In the GPU's primary context, which is the one TensorRT uses."""

    name = "pycuda"

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._memory: Dict[int, Any] = {}
        with self._faults("cuInit"):
            driver.init()
            self._context = driver.Device(0).retain_primary_context()
            self._context.push()
            try:
                self._stream = driver.Stream()
            except BaseException:
                driver.Context.pop()
                raise

    def stream(self) -> int:
        """See ``Cuda``."""
        return int(self._stream.handle)

    def allocate(self, size: int) -> int:
        """See ``Cuda``."""
        with self._faults("cuMemAlloc"):
            memory = self._driver.mem_alloc(size)
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        """See ``Cuda``."""
        with self._faults("cuMemFree"):
            self._memory.pop(address).free()

    def pinned(self, shape: Tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        """See ``Cuda``."""
        with self._faults("cuMemHostAlloc"):
            array: np.ndarray = self._driver.pagelocked_empty(shape, np.dtype(dtype))
        return array

    def free_pinned(self, array: np.ndarray) -> None:
        """See ``Cuda``. The memory is the array's base."""
        with self._faults("cuMemFreeHost"):
            array.base.free()  # type: ignore[union-attr]

    def to_device(self, address: int, array: np.ndarray) -> None:
        """See ``Cuda``."""
        with self._faults("cuMemcpyHtoDAsync"):
            self._driver.memcpy_htod_async(address, array, self._stream)

    def to_host(self, array: np.ndarray, address: int) -> None:
        """See ``Cuda``."""
        with self._faults("cuMemcpyDtoHAsync"):
            self._driver.memcpy_dtoh_async(array, address, self._stream)

    def synchronize(self) -> None:
        """See ``Cuda``."""
        with self._faults("cuStreamSynchronize"):
            self._stream.synchronize()

    def event(self, blocking: bool) -> Any:
        """See ``Cuda``."""
        flags = self._driver.event_flags
        with self._faults("cuEventCreate"):
            return self._driver.Event(flags.BLOCKING_SYNC if blocking else flags.DEFAULT)

    def record(self, event: Any) -> None:
        """See ``Cuda``."""
        with self._faults("cuEventRecord"):
            event.record(self._stream)

    def wait_for(self, event: Any) -> None:
        """See ``Cuda``."""
        with self._faults("cuEventSynchronize"):
            event.synchronize()

    def seconds_between(self, start: Any, end: Any) -> float:
        """See ``Cuda``."""
        with self._faults("cuEventElapsedTime"):
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
        """See ``Cuda``. The stream's object must go while its context is current."""
        del self._stream
        with self._faults("cuCtxPopCurrent"):
            self._context.pop()
        del self._context

    @contextlib.contextmanager
    def _faults(self, function: str) -> Iterator[None]:
        """Raise what an error of PyCUDA means; each of its kinds derives from its Error."""
        try:
            yield
        except self._driver.Error as error:
            raise cuda_fault(function, str(error)) from error
