"""The machine before, during and after a measurement, and whether it stayed the same machine."""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
import threading
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

from sr_deploy.bench.sensors import (
    HARMLESS_REASONS,
    Reading,
    nvml_reader,
    peak_rss_bytes,
    read_kernel,
    read_smi,
    reset_peak_rss,
)
from sr_deploy.bench.tegrastats import parse_tegrastats
from sr_deploy.core.host.cuda_device import cuda_device
from sr_deploy.core.host.machine import command_output, parse_power_mode

#: Seconds between readings while a network is timed: seldom, as each one takes the processor for about a millisecond.
INTERVAL = 1.0

#: Of the readings taken while timing, at most so many are kept in the record, evenly spread.
KEPT_READINGS = 60

#: A GPU whose clock, while it is timed, falls below this part of its highest is not one clock.
CLOCK_DROP = 0.9

#: What must be the same before and after: name of the reading and what a person calls it.
CONSTANT = (
    ("power_mode", "power mode"),
    ("cpu_governor", "CPU governor"),
    ("cpu_max_mhz", "CPU clock limit"),
    ("gpu_min_mhz", "lower GPU clock limit"),
    ("gpu_max_mhz", "upper GPU clock limit"),
    ("gpu_power_limit_w", "GPU power limit"),
)
#: What may not grow: name of the reading and what it counts.
COUNTERS = (("cpu_throttle_count", "the CPU throttled"), ("overcurrent_count", "the board drew too much current"))


class Watch:
    """Takes readings of the machine in a thread of its own.

    Attributes:
        sensors: "before", "during" and "after", filled when the watch ends.
        peak_memory: see Point of result.py.
        invalid: why the measurement must not be used, or None.
    """

    def __init__(self, read: Callable[[], Reading], read_slow: Callable[[], Reading], interval: float) -> None:
        self._read, self._read_slow, self._interval = read, read_slow, interval
        self._stop = threading.Event()
        self._during: List[Reading] = []
        self._memory: List[int] = []
        self._thread = threading.Thread(target=self._run, name="srdeploy sensors", daemon=True)
        self.sensors: Dict[str, Any] = {}
        self.peak_memory: Dict[str, int] = {}
        self.invalid: Optional[str] = None

    def begin(self) -> None:
        """Read once and start the thread."""
        reset_peak_rss()
        self._before = {**self._read(), **self._read_slow()}
        self._thread.start()

    def timing_begins(self) -> None:
        """The warm-up is over: what was read while clocks rose says nothing of the samples."""
        self._during = []

    def end(self) -> None:
        """Stop the thread, read once more, and judge."""
        self._stop.set()
        self._thread.join()
        after = {**self._read(), **self._read_slow()}
        step = -(-len(self._during) // KEPT_READINGS) or 1
        self.sensors = {"before": self._before, "during": self._during[::step], "after": after}
        self.invalid = why_invalid(self._before, self._during, after)
        peak = peak_rss_bytes()
        if peak is not None:
            self.peak_memory["rss_bytes"] = peak
        memory = self._memory + [after[key] for key in ("gpu_used_bytes",) if key in after]
        if memory:
            self.peak_memory["gpu_used_bytes"] = max(memory)

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            reading = self._read()
            self._during.append(reading)
            if "gpu_used_bytes" in reading:
                self._memory.append(reading["gpu_used_bytes"])


@contextlib.contextmanager
def watch_machine(interval: float = INTERVAL) -> Iterator[Watch]:
    """Watch this machine while the block runs.

    A Jetson's tegrastats runs meanwhile, if it is there; its last line is part of each reading.
    """
    with _tegrastats(interval) as last_line, _gpu_reader() as read_gpu:
        watch = Watch(lambda: {**read_kernel(), **read_gpu(), **parse_tegrastats(last_line())}, _power_mode, interval)
        watch.begin()
        try:
            yield watch
        finally:
            watch.end()


@contextlib.contextmanager
def no_watch() -> Iterator[Watch]:
    """A watch that sees nothing, for tests and for machines that shall do nothing else."""
    yield Watch(dict, dict, INTERVAL)


def why_invalid(before: Reading, during: Sequence[Reading], after: Reading) -> Optional[str]:
    """Why samples taken between two readings must not be used, or None. Pure.

    Args:
        before: read before the warm-up.
        during: read between the warm-up and the last sample.
        after: read right after the last sample.
    """
    reasons: List[str] = []
    active = {reason for reading in (*during, after) for reason in reading.get("gpu_throttle", ()) if reason != "idle"}
    harmful = sorted(active.difference(HARMLESS_REASONS))
    if harmful:
        reasons.append(f"the GPU throttled: {', '.join(harmful)}")
    alerts = sorted({alert for reading in (*during, after) for alert in reading.get("throttle_alerts", ())})
    if alerts:
        reasons.append(f"the board throttled: {', '.join(alerts)}")
    for name, words in CONSTANT:
        values = [reading[name] for reading in (before, *during, after) if name in reading]
        changed = [value for value in values if value != values[0]]
        if changed:
            reasons.append(f"the {words} changed from {values[0]} to {changed[0]}")
    for name, words in COUNTERS:
        if name in before and after.get(name, 0) > before[name]:
            reasons.append(f"{words} {after[name] - before[name]} times")
    clocks = [reading["gpu_mhz"] for reading in during if reading.get("gpu_mhz")]
    if clocks and min(clocks) < CLOCK_DROP * max(clocks):
        reasons.append(f"the GPU clock went between {min(clocks):.0f} and {max(clocks):.0f} MHz")
    return "; ".join(reasons) or None


@contextlib.contextmanager
def _gpu_reader() -> Iterator[Callable[[], Reading]]:
    """NVML, else nvidia-smi where there is one, else nothing; of the GPU that CUDA runs on."""
    device = cuda_device()
    bus = device.pci_bus_id if device is not None else None
    reader = nvml_reader(bus)
    if reader is not None:
        yield reader
    elif shutil.which("nvidia-smi"):
        yield functools.partial(read_smi, bus)
    else:
        yield dict


@contextlib.contextmanager
def _tegrastats(interval: float) -> Iterator[Callable[[], str]]:
    """A function that gives the last line of tegrastats, "" where there is none."""
    if not shutil.which("tegrastats"):
        yield lambda: ""
        return
    lines = [""]
    process = subprocess.Popen(
        ["tegrastats", "--interval", str(int(interval * 1000))], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )

    def follow() -> None:
        for line in process.stdout or ():
            lines[0] = line.decode("utf-8", "replace").strip()

    thread = threading.Thread(target=follow, name="srdeploy tegrastats", daemon=True)
    thread.start()
    try:
        yield lambda: lines[0]
    finally:
        process.terminate()
        process.wait()
        thread.join()


def _power_mode() -> Reading:
    """A Jetson's power mode; asking takes about as long as starting a program."""
    number, name = parse_power_mode(command_output(["nvpmodel", "-q"])) if shutil.which("nvpmodel") else (None, None)
    return {} if number is None else {"power_mode": f"{number} ({name})"}
