"""The CUDA bindings for Python on a device of host memory (standin_driver.py).

cuda-python: parameters, numbers of results, the base of the enumerations and the equality of handles are those of the
wheels (tests/engine/bindings/cuda_signatures_*.txt); so is what each generation does without a driver, which was seen
by calling the wheels: 11 raises RuntimeError, 12 and 13 return cudaErrorInsufficientDriver.

PyCUDA: from the source of 2024.1.2, src/wrapper/wrap_cudadrv.cpp (py::def, py::class_, numpy_empty, py_memcpy_…) and
src/cpp/cuda.hpp (context::pop, device_allocation::free, error::make_message, PYCUDA_PARSE_STREAM_PY).
"""

from __future__ import annotations

import enum
import re
import types
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np

import sr_deploy.core.cuda_device as core
from tests.run.standin_driver import Driver, Event, Refused

SIGNATURES = Path(__file__).parent.parent / "engine" / "bindings"
#: cuda-python's generation → the module that it is imported as.
MODULES = {"11": "cuda.cudart", "12": "cuda.bindings.runtime", "13": "cuda.bindings.runtime"}


def signatures(generation: str) -> Tuple[Dict[str, Tuple[List[str], int]], Dict[str, str]]:
    """(function → (parameters, number of results, the error included), class → what the list says of it)."""
    functions, classes = {}, {}
    for line in (SIGNATURES / f"cuda_signatures_{generation}.txt").read_text(encoding="utf-8").splitlines():
        found = re.fullmatch(r"(\w+)\((.*)\) -> (.+)", line)
        if found:
            functions[found.group(1)] = ([p for p in found.group(2).split(", ") if p], len(found.group(3).split()))
        elif not line.startswith("#"):
            name, _, words = line.partition(": ")
            classes[name] = words
    return functions, classes


def cuda_python(driver: Driver, generation: str) -> types.ModuleType:
    """The module of one generation: "11", "12" or "13"."""
    functions, classes = signatures(generation)
    runtime = types.ModuleType(MODULES[generation])
    for name, words in classes.items():
        members = [word.split("=") for word in words.split() if "=" in word]
        if members:
            setattr(runtime, name, enum.IntEnum(name, {member: int(value) for member, value in members}))
    runtime.cudaEventDefault, runtime.cudaEventBlockingSync = 0, 1
    handles = {name: handle_class(name, words) for name, words in classes.items() if "int" in words.split()}
    for name, handle in handles.items():
        setattr(runtime, name, handle)
    bodies = bodies_of(driver, runtime, handles)
    for name, (parameters, results) in functions.items():
        setattr(runtime, name, _function(driver, runtime, name, parameters, results, bodies[name]))
    return runtime


def handle_class(name: str, words: str) -> type:
    """A handle as the wheels have it: a number inside, and equal to another of the same number or not."""

    class Handle:
        def __init__(self, value: int) -> None:
            self.value_of_handle = value

        def __int__(self) -> int:
            return self.value_of_handle

        __index__ = __int__

    if "equal" in words.split():
        Handle.__eq__ = lambda self, other: int(self) == int(other)  # type: ignore[method-assign,assignment]
        Handle.__hash__ = lambda self: hash(int(self))  # type: ignore[method-assign,assignment]
    Handle.__name__ = name
    return Handle


def _function(
    driver: Driver, runtime: Any, name: str, parameters: List[str], results: int, body: Callable[..., Any]
) -> Callable[..., Any]:
    """A function that takes as many arguments as the wheel's, of its kinds, and returns as many results."""
    eleven = runtime.__name__ == MODULES["11"]

    def call(*arguments: Any) -> Tuple[Any, ...]:
        if len(arguments) != len(parameters):
            raise TypeError(f"{name}() takes exactly {len(parameters)} positional arguments ({len(arguments)} given)")
        for parameter, value in zip(parameters, arguments):
            kind = parameter.partition(": ")[2]
            if kind and not isinstance(value, getattr(runtime, kind)) and eleven:
                raise AttributeError(f"'{type(value).__name__}' object has no attribute 'value'")
            if not kind and not isinstance(value, bytes):
                int(value)
        if not driver.present:
            if eleven:
                raise RuntimeError("Failed to dlopen libcuda.so.1")
            return (runtime.cudaError_t.cudaErrorInsufficientDriver, *[None] * (results - 1))
        try:
            given = body(*arguments)
        except Refused as refused:
            return (runtime.cudaError_t[str(refused)], *[None] * (results - 1))
        told = (runtime.cudaError_t.cudaSuccess, *(() if results == 1 else (given,)), *[None] * (results - 2))
        assert len(told) == results
        return told

    call.__name__ = name
    return call


def bodies_of(driver: Driver, runtime: Any, handles: Dict[str, type]) -> Dict[str, Callable[..., Any]]:
    """What each function does."""
    facts = driver.facts

    def attribute(kind: Any, device: int) -> int:
        major, minor = facts["capability"]
        kinds = runtime.cudaDeviceAttr
        return {
            kinds.cudaDevAttrComputeCapabilityMajor: major, kinds.cudaDevAttrComputeCapabilityMinor: minor,
            kinds.cudaDevAttrIntegrated: facts["integrated"],
        }[kind]  # fmt: skip

    def copy(to: int, source: int, count: int, kind: Any, stream: Any) -> None:
        ends = ((driver.device, int(to)), (driver.host, int(source)))
        if kind == runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost:
            ends = ((driver.host, int(to)), (driver.device, int(source)))
        driver.copy(*ends, count, int(stream))

    def host_alloc(size: int, flags: int) -> int:
        driver.forbidden_in_capture()
        return driver.host.take(size)

    def destroy(table: Dict[int, Any]) -> Callable[[Any], None]:
        return lambda handle: (driver.find(table, int(handle)), table.pop(int(handle)), None)[2]

    def new(kind: str, table: Dict[int, Any], what: Any) -> Any:
        return handles[kind](driver.handle(table, what))

    def instantiate(graph: Any, *rest: Any) -> Any:
        return new("cudaGraphExec_t", driver.executables, driver.find(driver.graphs, int(graph)))

    def bus(length: int, device: int) -> bytes:
        told = facts["bus"].encode() + b"\0"
        return told + b" " * (length - len(told))

    return {
        "cudaGetDeviceCount": lambda: 1,
        "cudaGetDeviceProperties": lambda device: types.SimpleNamespace(
            name=facts["name"].encode(), totalGlobalMem=driver.limit
        ),
        "cudaDeviceGetAttribute": attribute,
        "cudaDeviceGetPCIBusId": bus,
        "cudaStreamCreate": lambda: new("cudaStream_t", driver.streams, []),
        "cudaStreamDestroy": destroy(driver.streams),
        "cudaStreamSynchronize": lambda stream: driver.synchronize(int(stream)),
        "cudaMalloc": driver.allocate,
        "cudaFree": driver.device.give_back,
        "cudaHostAlloc": host_alloc,
        "cudaFreeHost": driver.host.give_back,
        "cudaMemcpyAsync": copy,
        "cudaEventCreateWithFlags": lambda flags: new("cudaEvent_t", driver.events, Event(bool(flags & 1))),
        "cudaEventRecord": lambda event, stream: driver.record(int(event), int(stream)),
        "cudaEventSynchronize": lambda event: driver.wait_for(int(event)),
        "cudaEventElapsedTime": lambda start, end: driver.elapsed_ms(int(start), int(end)),
        "cudaEventDestroy": destroy(driver.events),
        "cudaStreamBeginCapture": lambda stream, mode: driver.begin_capture(int(stream)),
        "cudaStreamEndCapture": lambda stream: handles["cudaGraph_t"](driver.end_capture(int(stream))),
        "cudaGraphInstantiate": instantiate,
        "cudaGraphInstantiateWithFlags": instantiate,
        "cudaGraphDestroy": destroy(driver.graphs),
        "cudaGraphLaunch": lambda graph, stream: driver.launch(int(graph), int(stream)),
        "cudaGraphExecDestroy": destroy(driver.executables),
    }


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


#: Name of a binding → the module that is imported, and its stand-in on a driver.
BINDINGS: Dict[str, Tuple[str, Callable[[Driver], types.ModuleType]]] = {
    "cuda-python 11.8": ("cuda.cudart", lambda driver: cuda_python(driver, "11")),
    "cuda-python 12": ("cuda.bindings.runtime", lambda driver: cuda_python(driver, "12")),
    "cuda-python 13": ("cuda.bindings.runtime", lambda driver: cuda_python(driver, "13")),
    "pycuda": ("pycuda.driver", pycuda),
}


def install(monkeypatch: Any, binding: str, driver: Driver) -> None:
    """Make this binding the one that imports; all others are absent, as on a machine that has this one alone."""
    wanted, make = BINDINGS[binding]
    module = make(driver)

    def only(name: str) -> Any:
        if name != wanted:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return module

    monkeypatch.setattr(core, "importlib", types.SimpleNamespace(import_module=only))
    core.cuda_device.cache_clear()
