"""One line of NVIDIA's tegrastats as a reading, from JetPack 4 to JetPack 7. Pure.

The formats: NVIDIA's Jetson Linux Developer Guide, "tegrastats Utility", and the lines that jetson_stats' parser takes.
Units differ by release (MB or mW, with or without the letter); names end in their unit, as in sensors.py.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List

_BYTES = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_MEMORY = re.compile(r"\b(RAM|SWAP|IRAM) (\d+)/(\d+)([kMG]?)B")
#: "CPU [5%@1190,off]", and "CPU [0%,5%,off]@2601" (JetPack 7) where all run at one clock.
_CPU = re.compile(r"\bCPU \[([^\]]*)\](?:@(\d+))?", re.IGNORECASE)
#: "EMC_FREQ 5%@1600", "GR3D_FREQ 99%@1109", "GR3D_FREQ 0%@[1300,1300]" (JetPack 7), "GR3D_FREQ @[1575,1575]" (Thor),
#: and "EMC_FREQ 0%" or "GR3D_FREQ 99%" where the clock may not be read.
_CLOCK = re.compile(r"\b(EMC|GR3D)(?:_FREQ)? (?:(\d+)%)?(?:@(?:\[([\d, ]+)\]|(\d+)))?")
_TEMPERATURE = re.compile(r"\b([A-Za-z][\w-]*)@(-?\d+(?:\.\d+)?)C\b")
#: "VDD_IN 5079mW/4980mW": now and mean; JetPack 7 of L4T 39 adds the maximum, "VDD_GPU 6330mW/6330mW/6330mW".
_POWER = re.compile(r"\b([A-Z][A-Z0-9_]+) (\d+(?:\.\d+)?)(m?W)?(?:/\d+(?:\.\d+)?(?:m?W)?){1,2}(?=\s|$)")
_NAMES = {"EMC": "memory_controller", "GR3D": "gpu"}
#: What a sensor that is switched off reports, in °C.
_NO_TEMPERATURE = -100.0


def parse_tegrastats(line: str) -> Dict[str, Any]:
    """A reading from one line; what the line does not hold is absent.

    Returns:
        ``ram_used_bytes`` and ``ram_total_bytes`` (and swap, iram); ``cpu_mhz``, the mean of the processors that are
        on, and ``cpus_on``; ``gpu_percent``, ``gpu_mhz``, ``memory_controller_percent``, ``memory_controller_mhz``;
        temperatures as ``<name>_c``; power as ``<rail>_w``, the value of the moment, not the mean.
    """
    found: Dict[str, Any] = {}
    for name, used, total, unit in _MEMORY.findall(line):
        found[f"{name.lower()}_used_bytes"] = int(used) * _BYTES[unit]
        found[f"{name.lower()}_total_bytes"] = int(total) * _BYTES[unit]
    processors = _CPU.search(line)
    if processors:
        on = [entry.strip() for entry in processors.group(1).split(",") if entry.strip() != "off"]
        clocks = [int(entry.split("@")[1]) for entry in on if re.fullmatch(r"\d+%@\d+", entry)]
        found["cpus_on"] = len(on)
        if processors.group(2) and not clocks:
            clocks = [int(processors.group(2))]
        if clocks:
            found["cpu_mhz"] = round(sum(clocks) / len(clocks), 1)
    for name, percent, several, one in _CLOCK.findall(line):
        if percent:
            found[f"{_NAMES[name]}_percent"] = int(percent)
        clocks = _integers(several or one)
        if clocks:
            # A GPU of several clusters reports each; the slowest of those that are on (not 0) decides when a picture
            # is done.
            found[f"{_NAMES[name]}_mhz"] = min([clock for clock in clocks if clock] or clocks)
    for name, value in _TEMPERATURE.findall(line):
        if float(value) > _NO_TEMPERATURE:
            found[f"{name}_c"] = float(value)
    for name, now, unit in _POWER.findall(line):
        # "NC" is a channel of the monitor that is not connected.
        if name not in ("RAM", "SWAP", "IRAM", "NC"):
            # Before JetPack 5 the unit is not written: milliwatts.
            found[f"{name}_w"] = float(now) * (1.0 if unit == "W" else 1e-3)
    return found


def _integers(text: str) -> List[int]:
    return [int(part) for part in re.findall(r"\d+", text)]
