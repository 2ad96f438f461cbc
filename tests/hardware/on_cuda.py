"""First contact with CUDA: who the GPU is, memory, events and graphs through every binding at hand."""

from __future__ import annotations

import importlib
import statistics
import time
from typing import Any, Callable, Dict, Iterator, Tuple

import numpy as np

import sr_deploy.run.cuda
from sr_deploy.core.errors import EnvironmentFault, UsageError
from sr_deploy.core.host.device import doctor_findings
from sr_deploy.core.host.machine import command_output, this_machine
from sr_deploy.run.cuda import Cuda
from tests.hardware.rows import Rows, StillOpen

#: Module of a binding → the class of run/cuda.py that drives it.
BINDINGS = {"cuda.bindings.runtime": "CudaPython", "cuda.cudart": "CudaPython", "pycuda.driver": "PyCuda"}
COPIED = 64 << 20


def doctor(rows: Rows) -> None:
    """What ``srdeploy doctor --json`` says."""
    rows.look("doctor", doctor_says, lambda told: "; ".join(f"{what} {level}" for what, (level, _) in told.items()))


def doctor_says() -> Dict[str, Tuple[str, str]]:
    """Line → (level, what was found)."""
    return {finding.what: (finding.level, finding.found) for finding in doctor_findings()}


def identity(rows: Rows) -> None:
    """The GPU that CUDA calls 0, by its PCI id, and whether the product names the same one."""
    found = rows.look("CUDA's device 0 by PCI id", device_0, lambda told: f"{told['name']} at {told['pci']}")
    rows.look("the product names that GPU", lambda: same_gpu(found))
    rows.look("PyTorch sees a GPU", torch_sees)


def pci(text: str) -> str:
    """A PCI id in one spelling: CUDA writes 0000:65:00.0, nvidia-smi 00000000:65:00.0."""
    domain, _, rest = text.strip().lower().partition(":")
    return f"{int(domain, 16):x}:{rest}"


def device_0() -> Dict[str, str]:
    """PCI id of CUDA's device 0 from the first library that tells, and what nvidia-smi says of that id."""
    where = pci_of_device_0()
    listed = command_output(["nvidia-smi", "--query-gpu=pci.bus_id,name,driver_version", "--format=csv,noheader"])
    for line in listed.splitlines():
        at, name, driver = (part.strip() for part in line.split(","))
        if pci(at) == where:
            return {"pci": where, "name": name, "driver": driver}
    raise StillOpen(f"nvidia-smi lists no GPU at {where}")


def pci_of_device_0() -> str:
    """From cuda-python, else PyTorch."""
    for module in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            error, told = importlib.import_module(module).cudaDeviceGetPCIBusId(32, 0)
        except ImportError:
            continue
        if int(error) == 0:
            return pci((told.decode() if isinstance(told, bytes) else str(told)).strip("\x00"))
    try:
        import torch

        told = torch.cuda.get_device_properties(0)
    except (ImportError, RuntimeError, AssertionError) as error:
        raise StillOpen(f"no library reaches a GPU ({' '.join(str(error).split())[:120]})") from error
    return pci(f"{told.pci_domain_id:04x}:{told.pci_bus_id:02x}:{told.pci_device_id:02x}.0")


def same_gpu(found: Any) -> str:
    """The name that the product shows, when it is that of ``found``."""
    if not found:
        raise StillOpen("CUDA's device 0 is not known")
    named = this_machine().gpus[0].name
    if named != found["name"]:
        raise StillOpen(f"it names {named}, and CUDA's device 0 is {found['name']}")
    return named


def torch_sees() -> str:
    """PyTorch's CUDA and device."""
    try:
        import torch
    except ImportError as error:
        raise StillOpen("PyTorch is not installed") from error
    if not torch.cuda.is_available():
        raise StillOpen(f"torch {torch.__version__} finds none")
    return f"{torch.cuda.get_device_name(0)} with torch {torch.__version__}"


def bindings(rows: Rows) -> None:
    """Everything of run/cuda.py, through each binding that imports."""
    found = list(opened_bindings())
    for name, opened in found:
        gpu = rows.look(f"{name}: a stream", opened, lambda made: made.name)
        if gpu is not None:
            one_binding(rows, name, gpu)
    if not found:
        rows.look("a CUDA binding", nothing("none imports: " + ", ".join(BINDINGS)))


def nothing(why: str) -> Callable[[], Any]:
    """A question that stays open for this reason."""

    def ask() -> Any:
        raise StillOpen(why)

    return ask


def one_binding(rows: Rows, name: str, gpu: Cuda) -> None:
    """All questions to one open binding."""
    for dtype in ("uint8", "float32"):
        rows.look(f"{name}: pinned {dtype} there and back", lambda dtype=dtype: round_trip(gpu, dtype))
    rows.look(f"{name}: events", lambda: events(gpu), lambda told: f"{told['gigabytes_per_second']:.1f} GB/s")
    rows.look(f"{name}: an event without time", lambda: event_without_time(gpu))
    rows.look(f"{name}: capture, launch and free a graph", lambda: graph(gpu))
    rows.look(f"{name}: a failing capture", lambda: failing_capture(gpu))
    rows.look(f"{name}: more memory than there is", lambda: out_of_memory(gpu))
    rows.look(f"{name}: close", lambda: gpu.close() or "closed")


def opened_bindings() -> Iterator[Tuple[str, Callable[[], Cuda]]]:
    """(module, what opens a stream through it) of each binding that imports."""
    for module, driver in BINDINGS.items():
        try:
            imported = importlib.import_module(module)
        except ImportError:
            continue
        yield module, lambda driver=driver, imported=imported: getattr(sr_deploy.run.cuda, driver)(imported)


def round_trip(gpu: Cuda, dtype: str) -> str:
    """A pinned array to the device and into another pinned array."""
    shape = (1, 37, 41, 3)
    sent, back = gpu.pinned(shape, dtype), gpu.pinned(shape, dtype)
    assert sent.dtype == back.dtype == np.dtype(dtype) and sent.nbytes == int(np.prod(shape)) * np.dtype(dtype).itemsize
    sent[...] = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    back[...] = 0
    device = gpu.allocate(sent.nbytes)
    gpu.to_device(device, sent)
    gpu.to_host(back, device)
    gpu.synchronize()
    equal = np.array_equal(sent, back)
    gpu.free(device)
    gpu.free_pinned(sent)
    gpu.free_pinned(back)
    if not equal:
        raise AssertionError("other bytes came back")
    return f"{int(np.prod(shape)) * np.dtype(dtype).itemsize} bytes came back"


def events(gpu: Cuda) -> Dict[str, float]:
    """Time of one copy by events that spin, by events that block, and by the host's clock, in milliseconds."""
    host, device = gpu.pinned((COPIED,), "uint8"), gpu.allocate(COPIED)
    host[...] = 1
    told: Dict[str, float] = {}
    for name, blocking in (("spinning", False), ("blocking", True)):
        start, end = gpu.event(blocking), gpu.event(blocking)
        by_event, by_host = [], []
        for _ in range(7):
            gpu.synchronize()
            before = time.perf_counter()
            gpu.record(start)
            gpu.to_device(device, host)
            gpu.record(end)
            gpu.wait_for(end)
            by_host.append(1e3 * (time.perf_counter() - before))
            by_event.append(1e3 * gpu.seconds_between(start, end))
        told[f"{name}_event_ms"], told[f"{name}_host_ms"] = statistics.median(by_event), statistics.median(by_host)
        gpu.free_event(start)
        gpu.free_event(end)
    gpu.free(device)
    gpu.free_pinned(host)
    return {**told, "gigabytes_per_second": COPIED / told["spinning_event_ms"] / 1e6}


def event_without_time(gpu: Cuda) -> str:
    """The third kind of event, which only tells an end: the runtime's own calls, as the product does not use it."""
    runtime = getattr(gpu, "_runtime", None)
    if runtime is None:
        raise StillOpen("only asked of cuda-python")
    error, event = runtime.cudaEventCreateWithFlags(runtime.cudaEventDisableTiming)
    done = [error, *runtime.cudaEventRecord(event, gpu.stream()), *runtime.cudaEventSynchronize(event)]
    done += runtime.cudaEventDestroy(event)
    if any(int(one) for one in done):
        raise AssertionError(f"errors {done}")
    return "recorded, passed, destroyed"


def graph(gpu: Cuda) -> str:
    """A captured copy runs when it is launched, not before, and copies what is there then."""
    host, back, device = gpu.pinned((1024,), "uint8"), gpu.pinned((1024,), "uint8"), gpu.allocate(1024)
    host[...], back[...] = 1, 0
    gpu.to_device(device, host)
    gpu.synchronize()
    host[...] = 2
    try:
        made = gpu.capture(lambda: gpu.to_device(device, host))
    except UsageError as error:
        raise StillOpen(error.found) from error
    gpu.to_host(back, device)
    gpu.synchronize()
    assert back.max() == 1, "the capture ran"
    host[...] = 3
    gpu.launch(made)
    gpu.to_host(back, device)
    gpu.synchronize()
    assert back.min() == 3, "the launch did not copy"
    gpu.free_graph(made)
    gpu.free(device)
    return "captured, launched, freed"


def failing_capture(gpu: Cuda) -> str:
    """What goes wrong inside a capture is what is told, and the stream works after it."""

    class Inside(Exception):
        pass

    def fails() -> None:
        raise Inside

    try:
        gpu.capture(fails)
    except Inside:
        return f"its own error is told; after it {round_trip(gpu, 'uint8')}"
    except UsageError as error:
        raise StillOpen(error.found) from error
    raise AssertionError("nothing was raised")


def out_of_memory(gpu: Cuda) -> str:
    """An allocation that cannot be had is the product's error, and a small one works after it."""
    try:
        gpu.allocate(1 << 46)
    except EnvironmentFault as fault:
        gpu.free(gpu.allocate(1 << 20))
        return f"{fault.found!r}, and 1 MiB can be had after it"
    raise AssertionError("64 TiB were given")
