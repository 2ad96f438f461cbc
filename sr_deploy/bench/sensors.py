"""What the machine feels: clocks, power, temperatures, throttle reasons. Nothing here raises.

What is unknown is absent. A reading is a flat dictionary, ready for JSON. Its names end in their unit: ``cpu_mhz``,
``gpu_w``, ``…_c``. The kernel's files are read on every Linux, a Jetson's own among them (the ones that jtop reads:
devfreq for the GPU, the INA3221 monitors for power); a discrete GPU is asked through NVML, or nvidia-smi where its
Python module is missing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from sr_deploy.core.host.machine import command_output

Reading = Dict[str, Any]

#: Bits of NVML's clocks event (throttle) reasons, nvml.h. Idle, application clocks and display clocks are set by the
#: user or by having nothing to do; a power cap, a slowdown or a brake takes speed away from a running network.
NVML_REASONS = {
    0x0000000000000001: "idle",
    0x0000000000000002: "application clocks",
    0x0000000000000004: "software power cap",
    0x0000000000000008: "hardware slowdown",
    0x0000000000000010: "sync boost",
    0x0000000000000020: "software thermal slowdown",
    0x0000000000000040: "hardware thermal slowdown",
    0x0000000000000080: "hardware power brake",
    0x0000000000000100: "display clocks",
}
HARMLESS_REASONS = ("idle", "application clocks", "display clocks")

#: What nvidia-smi is asked for: field of its query and name and factor in a reading.
SMI_FIELDS = (
    ("clocks.sm", "gpu_mhz", 1.0),
    ("clocks.mem", "gpu_memory_mhz", 1.0),
    ("power.draw", "gpu_w", 1.0),
    ("power.limit", "gpu_power_limit_w", 1.0),
    ("temperature.gpu", "gpu_c", 1.0),
    ("memory.used", "gpu_used_bytes", float(1 << 20)),
    ("clocks_throttle_reasons.active", "gpu_throttle", None),
)


def read_kernel(root: Path = Path("/")) -> Reading:
    """Clocks, governor, thermal zones, a Jetson's GPU clock and power rails, from the kernel's files.

    Args:
        root: the file system's root, another one for tests.
    """
    found: Reading = {}
    processors = root / "sys/devices/system/cpu"
    governors = {text for text in map(_text, sorted(processors.glob("cpu[0-9]*/cpufreq/scaling_governor"))) if text}
    if governors:
        found["cpu_governor"] = "+".join(sorted(governors))
    for name, file in (("cpu_mhz", "scaling_cur_freq"), ("cpu_max_mhz", "scaling_max_freq")):
        clocks = [v for v in map(_number, sorted(processors.glob(f"cpu[0-9]*/cpufreq/{file}"))) if v is not None]
        if clocks:
            found[name] = round(sum(clocks) / len(clocks) / 1e3, 1)
    counts = [_number(path) for path in processors.glob("cpu[0-9]*/thermal_throttle/*_throttle_count")]
    if counts:
        found["cpu_throttle_count"] = int(sum(count or 0 for count in counts))
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        name, value = _text(zone / "type"), _number(zone / "temp")
        if name and value is not None:
            found[f"{name}_c"] = value / 1e3
    # A Jetson tells of heat by cooling devices of these types, and of too much current by counters (Jetson Linux
    # Developer Guide, "Thermal Management" and "Over-Current Event").
    alerts = [
        _text(device / "type")
        for device in sorted((root / "sys/class/thermal").glob("cooling_device*"))
        if _text(device / "type").endswith("throttle-alert") and (_number(device / "cur_state") or 0) > 0
    ]
    if alerts:
        found["throttle_alerts"] = alerts
    events = [_number(path) for path in (root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")]
    if events:
        found["overcurrent_count"] = int(sum(count or 0 for count in events))
    load = _text(root / "proc/loadavg")
    if load:
        found["load_1min"] = float(load.split()[0])
    found.update(_read_jetson_files(root))
    return found


def _read_jetson_files(root: Path) -> Reading:
    """The integrated GPU's clock and its limits, and the board's power rails."""
    found: Reading = {}
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        if not re.search(r"gv11b|gp10b|gm20b|ga10b|gpu$|gpu-gpc", folder.name):
            continue
        for name, file in (("gpu_mhz", "cur_freq"), ("gpu_min_mhz", "min_freq"), ("gpu_max_mhz", "max_freq")):
            value = _number(folder / file)
            if value is not None:
                found[name] = value / 1e6
    # INA3221: three channels, in…_label names the rail, in…_input is in mV, curr…_input in mA.
    for monitor in sorted((root / "sys/bus/i2c/drivers/ina3221").glob("*/hwmon/hwmon*")):
        for channel in (1, 2, 3):
            label = _text(monitor / f"in{channel}_label")
            volts, amperes = _number(monitor / f"in{channel}_input"), _number(monitor / f"curr{channel}_input")
            if label and volts is not None and amperes is not None:
                found[f"{label}_w"] = round(volts * amperes / 1e6, 3)
    return found


def nvml_reader(bus: Optional[str] = None) -> Optional[Callable[[], Reading]]:
    """A function that asks NVML about one GPU; None without the module (nvidia-ml-py), the driver or that GPU.

    Args:
        bus: its PCI bus id, see ``cuda_device``; None: unknown, which will do where there is one GPU only.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
        if bus is not None:
            handle = pynvml.nvmlDeviceGetHandleByPciBusId(bus.encode())
        elif pynvml.nvmlDeviceGetCount() == 1:
            handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        else:
            return None
    except Exception:
        # The module's own exception class is not there when the module is not.
        return None

    def read() -> Reading:
        # The driver renamed throttle reasons to event reasons; older modules have the first name only.
        reasons = getattr(pynvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
        reasons = reasons or pynvml.nvmlDeviceGetCurrentClocksThrottleReasons
        questions = (
            ("gpu_mhz", lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)),
            ("gpu_memory_mhz", lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)),
            ("gpu_w", lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3),
            ("gpu_power_limit_w", lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3),
            ("gpu_c", lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
            ("gpu_used_bytes", lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)),
            ("gpu_throttle", lambda: throttle_names(int(reasons(handle)))),
        )
        found: Reading = {}
        for name, ask in questions:
            try:
                found[name] = ask()
            except Exception:
                # Each GPU lacks some of these: then the reading lacks it too.
                continue
        return found

    return read


def read_smi(bus: Optional[str] = None) -> Reading:
    """The same from nvidia-smi; empty where it does not answer. ``bus`` as for ``nvml_reader``."""
    query = "--query-gpu=" + ",".join(field for field, _, _ in SMI_FIELDS)
    which = ["-i", bus] if bus is not None else []
    return parse_smi(command_output(["nvidia-smi", *which, query, "--format=csv,noheader,nounits"]))


def parse_smi(text: str) -> Reading:
    """A reading from the line of ``nvidia-smi --query-gpu`` with SMI_FIELDS, ``csv,noheader,nounits``; empty for lines
    of several GPUs, as nothing says which of them is meant."""
    lines = text.strip().split("\n")
    values = [value.strip() for value in lines[0].split(",")]
    found: Reading = {}
    if len(lines) != 1 or len(values) != len(SMI_FIELDS):
        return found
    for (_, name, factor), value in zip(SMI_FIELDS, values):
        if factor is None:
            if re.fullmatch(r"0x[0-9a-fA-F]+", value):
                found[name] = throttle_names(int(value, 16))
        elif re.fullmatch(r"[0-9.]+", value):
            found[name] = int(float(value) * factor) if name.endswith("bytes") else float(value) * factor
    return found


def throttle_names(bits: int) -> List[str]:
    """The names of NVML's throttle reasons in a bit field, unknown bits by their number."""
    return [NVML_REASONS.get(1 << bit, f"reason {1 << bit:#x}") for bit in range(64) if bits >> bit & 1]


def peak_rss_bytes(root: Path = Path("/")) -> Optional[int]:
    """The most memory this process has held since ``reset_peak_rss`` (VmHWM); None where Linux does not tell."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", _text(root / "proc/self/status"), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


def reset_peak_rss() -> bool:
    """Begin VmHWM anew (proc(5), clear_refs: 5); False where it is not allowed, then the peak counts from the start."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\x00\n ")
    except OSError:
        return ""


def _number(path: Path) -> Optional[float]:
    try:
        return float(_text(path))
    except ValueError:
        return None
