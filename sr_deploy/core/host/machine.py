"""The processor, memory, GPUs and Jetson board of this machine. Nothing here raises.

What cannot be found out is None, never a guess. The functions named ``parse_…`` take text, so that they can be
tested with the output of machines that are not at hand.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence, Tuple

from sr_deploy.core.host.cuda_device import CudaDevice, bus_id, cuda_device

MIB = 1 << 20

#: Compute capability of a Jetson's own GPU by a word of the device-tree model; the first match counts.
#: NVIDIA's list of CUDA GPUs.
JETSON_CAPABILITIES = (
    ("Thor", "11.0"),
    ("Orin", "8.7"),
    ("Xavier", "7.2"),
    ("TX2", "6.2"),
    ("TX1", "5.3"),
    ("Nano", "5.3"),
)

#: GPU clock in MHz of the power modes of a Jetson Xavier NX, by mode number; from NVIDIA's nvpmodel_t194_p3668.conf.
XAVIER_NX_GPU_MHZ = {0: 1109, 1: 1109, 2: 1109, 3: 803, 4: 803, 5: 510, 6: 1109, 7: 1109, 8: 1109}


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU.

    Attributes:
        name: as people know it, for example "NVIDIA H200".
        compute_capability: for example "8.6"; None when the driver does not tell.
        memory_bytes: of its own; None for a GPU that shares the processor's memory.
        driver: driver version.
        pci_bus_id: such as "0000:65:00.0", by which the driver's tools and CUDA mean the same GPU.
        integrated: whether it shares the processor's memory; None when CUDA was not asked or does not tell.
    """

    name: str
    compute_capability: Optional[str]
    memory_bytes: Optional[int]
    driver: Optional[str]
    pci_bus_id: Optional[str] = None
    integrated: Optional[bool] = None


@dataclass(frozen=True)
class Jetson:
    """A Jetson board.

    Attributes:
        model: from the device tree, for example "NVIDIA Jetson Xavier NX Developer Kit"; None inside most containers.
        l4t: version of Linux for Tegra, for example "35.4.1" (35.x is JetPack 5, 36.x is JetPack 6).
        power_mode: number of the nvpmodel power mode.
        power_mode_name: its name, for example "MODE_10W_DESKTOP".
    """

    model: Optional[str]
    l4t: Optional[str]
    power_mode: Optional[int]
    power_mode_name: Optional[str]


@dataclass(frozen=True)
class Machine:
    """The hardware and system underneath.

    Attributes:
        cpu: the processor's model name.
        architecture: for example "x86_64" or "aarch64".
        cores: logical processors that this process may use.
        memory_total_bytes: installed, or the container's limit when that is lower.
        memory_available_bytes: what can be had now without swapping (MemAvailable of the Linux kernel).
        system: name and version of the operating system.
        python: version of this interpreter.
        gpus: NVIDIA GPUs: CUDA's device 0, on which engines are built and run, then the others in the driver's order.
        jetson: None on anything else.
    """

    cpu: str
    architecture: str
    cores: int
    memory_total_bytes: Optional[int]
    memory_available_bytes: Optional[int]
    system: str
    python: str
    gpus: Tuple[Gpu, ...]
    jetson: Optional[Jetson]


def this_machine() -> Machine:
    """Look at this machine. Takes about as long as one call of nvidia-smi and CUDA's start; raises nothing."""
    jetson = _this_jetson()
    total, _ = parse_meminfo(_text_of("/proc/meminfo"))
    return Machine(
        cpu=parse_cpu_model(_text_of("/proc/cpuinfo"))
        or parse_cpu_model(command_output(["lscpu"]))
        or platform.processor()
        or platform.machine(),
        architecture=platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_total_bytes=_limited(total),
        memory_available_bytes=available_memory_bytes(),
        system=parse_os_release(_text_of("/etc/os-release")) or platform.platform(),
        python=platform.python_version(),
        gpus=_gpus(jetson),
        jetson=jetson,
    )


def available_memory_bytes() -> Optional[int]:
    """Memory that can be had now without swapping, at most the container's limit; None where Linux does not tell."""
    _, available = parse_meminfo(_text_of("/proc/meminfo"))
    return _limited(available)


def parse_cpu_model(text: str) -> Optional[str]:
    """The processor's name in the text of /proc/cpuinfo or of ``lscpu``."""
    found = re.search(r"^model name\s*:\s*(\S.*)$", text, re.IGNORECASE | re.MULTILINE)
    return found.group(1).strip() if found else None


def parse_meminfo(text: str) -> Tuple[Optional[int], Optional[int]]:
    """(MemTotal, MemAvailable) in bytes from the text of /proc/meminfo."""
    found = {name: int(kib) * 1024 for name, kib in re.findall(r"^(Mem\w+):\s*(\d+) kB$", text, re.MULTILINE)}
    return found.get("MemTotal"), found.get("MemAvailable")


def parse_os_release(text: str) -> Optional[str]:
    """PRETTY_NAME in the text of /etc/os-release."""
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)"?$', text, re.MULTILINE)
    return found.group(1) if found else None


def parse_nvidia_smi(text: str, fields: Sequence[str]) -> Tuple[Gpu, ...]:
    """GPUs from ``nvidia-smi --query-gpu=<fields> --format=csv,noheader,nounits``.

    Args:
        text: its output, one GPU a line; what the driver cannot tell is "[N/A]" or "[Not Supported]".
        fields: the query, out of name, compute_cap, memory.total (in MiB), driver_version and pci.bus_id.
    """
    gpus = []
    for line in text.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) != len(fields):
            continue
        known = {field: value for field, value in zip(fields, values) if value not in ("", "N/A") and value[0] != "["}
        if "name" not in known:
            continue
        memory = known.get("memory.total", "")
        gpus.append(
            Gpu(
                known["name"],
                known.get("compute_cap"),
                int(memory) * MIB if memory.isdigit() else None,
                known.get("driver_version"),
                bus_id(known.get("pci.bus_id", "")),
            )
        )
    return tuple(gpus)


def parse_tegra_release(text: str) -> Optional[str]:
    """The L4T version, such as "35.4.1", in the text of /etc/nv_tegra_release."""
    found = re.search(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", text)
    return f"{found.group(1)}.{found.group(2)}" if found else None


def parse_power_mode(text: str) -> Tuple[Optional[int], Optional[str]]:
    """(number, name) of the power mode in the output of ``nvpmodel -q``; its warnings are skipped."""
    found = re.search(r"NV Power Mode:\s*(\S+)\s*\n\s*(\d+)\s*$", text, re.MULTILINE)
    return (int(found.group(2)), found.group(1)) if found else (None, None)


def capability_of_jetson(model: Optional[str]) -> Optional[str]:
    """Compute capability of the GPU inside a Jetson, from the device-tree model."""
    return next((capability for word, capability in JETSON_CAPABILITIES if model and word in model), None)


#: Memory limit of a container in bytes: cgroup version 2, then version 1.
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_SMI_QUERIES = (
    ("name", "compute_cap", "memory.total", "driver_version", "pci.bus_id"),
    ("name", "memory.total", "driver_version", "pci.bus_id"),
)


def _limited(count: Optional[int]) -> Optional[int]:
    """The kernel tells of the whole machine; a container may have less."""
    limits = [int(text) for text in map(_text_of, _MEMORY_LIMITS) if text.strip().isdigit()]
    return None if count is None else min([count, *limits])


def _gpus(jetson: Optional[Jetson]) -> Tuple[Gpu, ...]:
    """Ask nvidia-smi (drivers before 495 do not know compute_cap) or NVML, and CUDA; last the Jetson's model."""
    gpus: Tuple[Gpu, ...] = ()
    for fields in _SMI_QUERIES:
        gpus = gpus or parse_nvidia_smi(
            command_output(["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader,nounits"]), fields
        )
    gpus = with_cuda_first(gpus or _gpus_by_nvml(), cuda_device())
    if jetson:
        own = capability_of_jetson(jetson.model)
        # nvidia-smi is absent up to JetPack 5, and on JetPack 6 it names the GPU and little else.
        gpus = gpus or (Gpu(f"{jetson.model or 'NVIDIA Jetson'} (integrated)", own, None, None),)
        gpus = tuple(dataclasses.replace(g, compute_capability=g.compute_capability or own) for g in gpus)
    return gpus


def with_cuda_first(gpus: Tuple[Gpu, ...], device: Optional[CudaDevice]) -> Tuple[Gpu, ...]:
    """CUDA's device 0 before the others, with what the driver's tools know of the GPU at the same PCI bus id.

    Args:
        gpus: as nvidia-smi or NVML number them.
        device: from ``cuda_device``; None leaves the order.
    """
    if device is None:
        return gpus
    same = [gpu for gpu in gpus if gpu.pci_bus_id is not None and gpu.pci_bus_id == device.pci_bus_id]
    if not same and len(gpus) == 1 and None in (gpus[0].pci_bus_id, device.pci_bus_id):
        # JetPack 6: nvidia-smi names the one GPU that there is and tells no bus.
        same = [gpus[0]]
    name = f"{device.name} (integrated)" if device.integrated else device.name
    told = same[0] if same else Gpu(name, None, None if device.integrated else device.memory_bytes, None)
    first = dataclasses.replace(
        told,
        compute_capability=device.compute_capability,
        pci_bus_id=device.pci_bus_id or told.pci_bus_id,
        integrated=device.integrated,
    )
    return (first, *(gpu for gpu in gpus if gpu not in same))


def _gpus_by_nvml() -> Tuple[Gpu, ...]:
    """The same facts from the driver's library, for containers that hold no nvidia-smi."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            driver = _decoded(pynvml.nvmlSystemGetDriverVersion())
            found = []
            for index in range(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                capability = "{}.{}".format(*pynvml.nvmlDeviceGetCudaComputeCapability(handle))
                memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
                bus = bus_id(pynvml.nvmlDeviceGetPciInfo(handle).busId)
                found.append(Gpu(_decoded(pynvml.nvmlDeviceGetName(handle)), capability, memory, driver, bus))
            return tuple(found)
        finally:
            pynvml.nvmlShutdown()
    except Exception:
        # No module, no library, no driver, or a field that this GPU lacks: then NVML says nothing, which is the answer.
        return ()


def _decoded(text: Any) -> str:
    """Older pynvml releases return bytes."""
    return text.decode() if isinstance(text, bytes) else str(text)


def _this_jetson() -> Optional[Jetson]:
    """None unless L4T or the device tree says that this is a Jetson."""
    model = _text_of("/proc/device-tree/model").strip("\x00\n ") or None
    l4t = parse_tegra_release(_text_of("/etc/nv_tegra_release"))
    if not l4t and not (model and "Jetson" in model):
        return None
    number, name = parse_power_mode(command_output(["nvpmodel", "-q"]))
    return Jetson(model, l4t, number, name)


def _text_of(path: str) -> str:
    """A small system file, or "" when it is not there or may not be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def command_output(command: Sequence[str], timeout_seconds: float = 10.0) -> str:
    """What a system tool prints, or "" when it is absent, fails or hangs."""
    try:
        done = subprocess.run(
            list(command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=timeout_seconds, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
