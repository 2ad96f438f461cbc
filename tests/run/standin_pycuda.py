"""PyCUDA on a device of host memory (standin_driver.py).

From the source of 2024.1.2: src/wrapper/wrap_cudadrv.cpp (py::def, py::class_, numpy_empty, py_memcpy_…) and
src/cpp/cuda.hpp (context::pop, device_allocation::free, error::make_message, PYCUDA_PARSE_STREAM_PY).
"""

from __future__ import annotations

import enum
import types
from typing import Any, Callable, Tuple

import numpy as np

from tests.run.standin_driver import Driver, Event, Refused


def pycuda(driver: Driver) -> types.ModuleType:
    """The module pycuda.driver."""
    module = types.ModuleType("pycuda.driver")

    class Error(Exception):
        pass

    class MemoryError(Error):  # noqa: A001 - PyCUDA's name
        pass

    class LogicError(Error):
        pass

    texts = {"cudaErrorMemoryAllocation": (MemoryError, "out of memory")}

    def guarded(routine: str, call: Callable[..., Any], *arguments: Any) -> Any:
        if not driver.present:
            raise Error(f"{routine} failed: no CUDA-capable device is detected")
        try:
            return call(*arguments)
        except Refused as refused:
            kind, text = texts.get(str(refused), (LogicError, "invalid argument"))
            raise kind(f"{routine} failed: {text}") from refused

    def current() -> None:
        if not driver.contexts:
            raise LogicError("invalid device context")

    class Context:
        def push(self) -> None:
            driver.contexts += 1

        @staticmethod
        def pop() -> None:
            if not driver.contexts:
                raise LogicError("context::pop failed: invalid device context - cannot pop non-current context")
            driver.contexts -= 1

    class Device:
        def __init__(self, ordinal: int) -> None:
            guarded("cuDeviceGet", lambda: None)

        def retain_primary_context(self) -> Any:
            return Context()

        def name(self) -> str:
            return driver.facts["name"]

        def pci_bus_id(self) -> str:
            return driver.facts["bus"]

        def compute_capability(self) -> Tuple[int, int]:
            return driver.facts["capability"]

        def total_memory(self) -> int:
            return driver.limit

        def get_attribute(self, kind: Any) -> int:
            return {module.device_attribute.INTEGRATED: driver.facts["integrated"]}[kind]

    class Stream:
        def __init__(self, flags: int = 0) -> None:
            current()
            self.handle = driver.handle(driver.streams, [])

        def __del__(self) -> None:
            current()
            driver.streams.pop(self.handle, None)

        def synchronize(self) -> None:
            guarded("cuStreamSynchronize", driver.synchronize, self.handle)

    def handle_of(stream: Any) -> int:
        if not isinstance(stream, Stream):
            raise TypeError("No registered converter was able to extract a C++ reference to type stream")
        return stream.handle

    class DeviceAllocation:
        def __init__(self, address: int) -> None:
            self._address, self._valid = address, True

        def __int__(self) -> int:
            return self._address

        __index__ = __int__

        def free(self) -> None:
            if not self._valid:
                raise LogicError("device_allocation::free failed: invalid resource handle")
            self._valid = False
            guarded("cuMemFree", driver.device.give_back, self._address)

        def __del__(self) -> None:
            if self._valid:
                self.free()

    class PagelockedHostAllocation:
        """The base of an array that pagelocked_empty gives; numpy sees its memory."""

        def __init__(self, shape: Any, dtype: np.dtype, address: int) -> None:
            self._address, self._valid = address, True
            self.__array_interface__ = {
                "shape": tuple(shape), "typestr": dtype.str, "data": (address, False), "version": 3,
            }  # fmt: skip

        def free(self) -> None:
            if not self._valid:
                raise LogicError("pagelocked_host_allocation::free failed: invalid resource handle")
            self._valid = False
            guarded("cuMemFreeHost", driver.host.give_back, self._address)

        def __del__(self) -> None:
            if self._valid:
                self.free()

    def pagelocked_empty(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
        current()
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        array = np.asarray(PagelockedHostAllocation(shape, kind, guarded("cuMemHostAlloc", driver.host.take, size)))
        assert isinstance(array.base, PagelockedHostAllocation)
        return array

    def mem_alloc(size: int) -> DeviceAllocation:
        current()
        return DeviceAllocation(guarded("cuMemAlloc", driver.allocate, size))

    def memcpy_htod_async(dest: int, src: np.ndarray, stream: Any = None) -> None:
        source = memoryview(src)
        assert source.contiguous
        ends = ((driver.device, int(dest)), (driver.host, src.ctypes.data))
        guarded("cuMemcpyHtoDAsync", driver.copy, *ends, source.nbytes, handle_of(stream))

    def memcpy_dtoh_async(dest: np.ndarray, src: int, stream: Any = None) -> None:
        target = memoryview(dest)
        assert target.contiguous and not target.readonly
        ends = ((driver.host, dest.ctypes.data), (driver.device, int(src)))
        guarded("cuMemcpyDtoHAsync", driver.copy, *ends, target.nbytes, handle_of(stream))

    class PyEvent:
        def __init__(self, flags: int = 0) -> None:
            current()
            self._handle = driver.handle(driver.events, Event(bool(int(flags) & 1)))

        def __del__(self) -> None:
            driver.events.pop(self._handle, None)

        def record(self, stream: Any = None) -> Any:
            guarded("cuEventRecord", driver.record, self._handle, handle_of(stream))
            return self

        def synchronize(self) -> Any:
            guarded("cuEventSynchronize", driver.wait_for, self._handle)
            return self

        def time_till(self, end: Any) -> float:
            return guarded("cuEventElapsedTime", driver.elapsed_ms, self._handle, end._handle)

    module.device_attribute = enum.IntEnum("device_attribute", {"INTEGRATED": 18})
    module.event_flags = enum.IntEnum("event_flags", {"DEFAULT": 0, "BLOCKING_SYNC": 1})
    module.init = lambda flags=0: guarded("cuInit", lambda: None)
    for name, value in {
        "Error": Error, "MemoryError": MemoryError, "LogicError": LogicError, "Context": Context, "Device": Device,
        "Stream": Stream, "Event": PyEvent, "DeviceAllocation": DeviceAllocation, "mem_alloc": mem_alloc,
        "pagelocked_empty": pagelocked_empty, "memcpy_htod_async": memcpy_htod_async,
        "memcpy_dtoh_async": memcpy_dtoh_async,
    }.items():  # fmt: skip
        setattr(module, name, value)
    return module
