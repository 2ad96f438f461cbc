"""NVIDIA's cuda-python on a device of host memory (standin_driver.py).

Parameters, numbers of results, values of enumerations and the equality of handles are those of the wheels
(tests/engine/bindings/cuda_signatures_*.txt); so is what each generation does without a driver, which was seen by
calling the wheels: 11 raises RuntimeError, 12 and 13 return cudaErrorInsufficientDriver.
"""

from __future__ import annotations

import enum
import re
import types
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

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
