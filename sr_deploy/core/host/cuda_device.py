"""The CUDA binding of this machine, and what CUDA says of its device 0, the one that every engine here runs on.

CUDA counts the devices that CUDA_VISIBLE_DEVICES leaves, in the order of CUDA_DEVICE_ORDER; nvidia-smi and NVML count
all of them by bus. So the driver's tools are asked for this device by its PCI bus id, never by a number. CUDA also
answers where they do not: JetPack 5 has no nvidia-smi, and a container hides the device tree.
"""

from __future__ import annotations

import functools
import importlib
import re
from dataclasses import dataclass
from typing import Any, Optional, Tuple

from sr_deploy.core.errors import EnvironmentFault, MissingPackage

#: In the order tried: cuda-python from 12.6 on (and 11.8.5), cuda-python before, PyCUDA.
BINDINGS = ("cuda.bindings.runtime", "cuda.cudart", "pycuda.driver")


@dataclass(frozen=True)
class CudaDevice:
    """CUDA's device 0.

    Attributes:
        name: CUDA's, for example "NVIDIA GeForce RTX 3090" or "Orin".
        compute_capability: for example "8.6".
        pci_bus_id: as ``bus_id`` writes it; None when CUDA tells none.
        memory_bytes: of the device; of the whole board where it is integrated.
        integrated: whether it shares the processor's memory, as a Jetson's does.
    """

    name: str
    compute_capability: str
    pci_bus_id: Optional[str]
    memory_bytes: int
    integrated: bool


def import_binding() -> Tuple[str, Any]:
    """(name of BINDINGS, module) of the first binding that imports.

    Raises:
        MissingPackage: there is no binding.
        EnvironmentFault: one is installed and does not import, as PyCUDA without a driver.
    """
    problem: Optional[ImportError] = None
    for name in BINDINGS:
        try:
            return name, importlib.import_module(name)
        except ImportError as error:
            absent = isinstance(error, ModuleNotFoundError) and name.startswith(error.name or " ")
            problem = problem if absent else problem or error
    if problem is not None:
        raise EnvironmentFault(
            f"the CUDA binding for Python does not import: {problem}",
            "an NVIDIA GPU and a driver for it",
            "see srdeploy doctor; in a container, start it with --gpus all, or --runtime nvidia on a Jetson",
        ) from problem
    raise MissingPackage(
        "there is no CUDA binding for Python",
        "cuda-python, or pycuda on a Jetson",
        "pip install cuda-python (on a Jetson: pip install pycuda)",
    )


@functools.lru_cache(maxsize=None)
def cuda_device() -> Optional[CudaDevice]:
    """CUDA's device 0, asked once; None without a binding, a driver or a GPU. Raises nothing, makes no context."""
    try:
        name, binding = import_binding()
        return _told_by_pycuda(binding) if name == "pycuda.driver" else _told_by_runtime(binding)
    except Exception:
        # Each binding has its own errors for an absent driver (RuntimeError, its own class): no answer is the answer.
        return None


def free_device_bytes() -> Optional[int]:
    """Memory of CUDA's device 0 that is free now; None where there is none to ask. Raises nothing."""
    device = cuda_device()
    if device is None:
        return None
    try:
        name, binding = import_binding()
        if name == "pycuda.driver":
            context = binding.Device(0).retain_primary_context()
            context.push()
            try:
                return int(binding.mem_get_info()[0])
            finally:
                binding.Context.pop()
        error, free, _ = binding.cudaMemGetInfo()
        return int(free) if error == binding.cudaError_t.cudaSuccess else None
    except Exception:
        # As in ``cuda_device``: each binding has errors of its own, and no answer is the answer.
        return None


def bus_id(text: Any) -> Optional[str]:
    """A PCI bus id as "0000:65:00.0", from what CUDA, NVML (bytes, an end in NUL) or nvidia-smi (8 digits) tells."""
    told = text.decode("ascii", "replace") if isinstance(text, bytes) else str(text)
    found = re.match(r"\s*([0-9a-fA-F]{4,8}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-9a-fA-F])", told)
    if not found:
        return None
    domain, bus, device, function = (int(part, 16) for part in found.groups())
    return f"{domain:04x}:{bus:02x}:{device:02x}.{function:x}"


def _told_by_runtime(runtime: Any) -> CudaDevice:
    """From cuda-python; every call gives (error, results…)."""

    def ask(function: str, *arguments: Any) -> Any:
        error, *results = getattr(runtime, function)(*arguments)
        if error != runtime.cudaError_t.cudaSuccess:
            raise OSError(f"{function}: {error}")
        return results[0]

    kinds = runtime.cudaDeviceAttr
    major = ask("cudaDeviceGetAttribute", kinds.cudaDevAttrComputeCapabilityMajor, 0)
    minor = ask("cudaDeviceGetAttribute", kinds.cudaDevAttrComputeCapabilityMinor, 0)
    integrated = bool(ask("cudaDeviceGetAttribute", kinds.cudaDevAttrIntegrated, 0))
    properties = ask("cudaGetDeviceProperties", 0)
    # The bus id is given in a buffer of the length asked for: the text, a NUL, and what was there before.
    bus = bus_id(ask("cudaDeviceGetPCIBusId", 32, 0))
    name = properties.name.split(b"\0")[0].decode("utf-8", "replace")
    return CudaDevice(name, f"{major}.{minor}", bus, int(properties.totalGlobalMem), integrated)


def _told_by_pycuda(driver: Any) -> CudaDevice:
    """From PyCUDA, which raises its own errors."""
    driver.init()
    device = driver.Device(0)
    major, minor = device.compute_capability()
    integrated = bool(device.get_attribute(driver.device_attribute.INTEGRATED))
    bus = bus_id(device.pci_bus_id())
    return CudaDevice(device.name(), f"{major}.{minor}", bus, int(device.total_memory()), integrated)
