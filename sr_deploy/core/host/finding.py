"""One line of ``doctor``, and what its judges share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Dict, Tuple

from sr_deploy.core.host.machine import Gpu, Machine
from sr_deploy.core.host.packages import Software

OK, MISSING, WARNING = "ok", "missing", "warning"


@dataclass(frozen=True)
class Finding:
    """One line of ``doctor``.

    Attributes:
        level: "ok", "missing" (the capability is not there) or "warning" (there, with a catch).
        what: the capability, in the words of the commands.
        found: what is there, or what lacks.
        how_to_get: a command or a step; "" when nothing is to be done.
    """

    level: str
    what: str
    found: str
    how_to_get: str = ""

    def to_dict(self) -> Dict[str, str]:
        """The finding, ready for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Facts:
    """Everything that ``doctor`` looks at."""

    machine: Machine
    software: Software


def gpu_text(gpu: Gpu) -> str:
    """Name, compute capability, memory and driver, as far as they are known."""
    parts = [gpu.name]
    if gpu.compute_capability:
        parts.append(f"compute capability {gpu.compute_capability}")
    parts.append("memory shared with the CPU" if gpu.memory_bytes is None else f"{gpu.memory_bytes / 2**30:.1f} GiB")
    if gpu.driver:
        parts.append(f"driver {gpu.driver}")
    return ", ".join(parts)


def version_tuple(text: str) -> Tuple[int, ...]:
    """The leading numbers of a version: "3.8.10" gives (3, 8, 10), "" gives ()."""
    numbers = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
