"""A CUDA device of host memory, on which the stand-ins of the bindings stand (standin_cuda_python, standin_pycuda).

Device and pinned memory are real memory, so that a wrong size or address is found rather than copied. What is queued on
a stream runs in order when somebody waits for it, never before: a caller that reuses a buffer too early gets the wrong
bytes, as on a GPU. Freed memory stays known, so that its use is an error. A capture keeps what is queued and is made
invalid by a call that CUDA forbids meanwhile.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

#: Device time of each operation, seconds.
KERNEL_SECONDS, COPY_SECONDS = 250e-6, 10e-6


class Refused(Exception):
    """A call that CUDA answers with an error: the runtime's name of it, such as "cudaErrorInvalidValue"."""


class Memory:
    """One kind of memory: address → bytes, and the addresses that were given back."""

    def __init__(self) -> None:
        self.held: Dict[int, np.ndarray] = {}
        # Kept, so that no address comes twice.
        self.freed: Dict[int, np.ndarray] = {}

    def take(self, size: int) -> int:
        """New memory full of 0xCD, as nobody has written to it."""
        block = np.full(max(size, 1), 0xCD, np.uint8)
        self.held[block.ctypes.data] = block
        return block.ctypes.data

    def give_back(self, address: int) -> None:
        if address not in self.held:
            raise Refused("cudaErrorInvalidValue")
        self.freed[address] = self.held.pop(address)

    def bytes_at(self, address: int, count: int) -> np.ndarray:
        """``count`` bytes from ``address``, all within one allocation that is still held."""
        for begin, block in self.held.items():
            if begin <= address < begin + block.size:
                if address + count > begin + block.size:
                    raise Refused("cudaErrorInvalidValue")
                return block[address - begin : address - begin + count]
        raise Refused("cudaErrorInvalidValue")


class Event:
    """Passed at a time of the device's clock; None: recorded and not passed yet, or never recorded."""

    def __init__(self, blocking: bool) -> None:
        self.blocking, self.at, self.recorded = blocking, None, False


class Driver:
    """The device.

    Args:
        present: False: there is no driver, and nothing works.
        memory: bytes of device memory.
        facts: what the device says of itself: name, capability, bus, integrated.
    """

    def __init__(self, present: bool = True, memory: int = 1 << 30, **facts: Any) -> None:
        self.present, self.limit = present, memory
        self.facts = {"name": "Stand-in", "capability": (8, 6), "bus": "0000:65:00.0", "integrated": 0, **facts}
        self.device, self.host = Memory(), Memory()
        self.streams: Dict[int, List[Callable[[], None]]] = {}
        self.events: Dict[int, Event] = {}
        self.graphs: Dict[int, List[Callable[[], None]]] = {}
        self.executables: Dict[int, List[Callable[[], None]]] = {}
        self.clock, self.waits, self.contexts = 0.0, [], 0
        self.capturing: Optional[Tuple[int, List[Callable[[], None]]]] = None
        self.invalid = False
        self._next = 100

    def leaks(self) -> Dict[str, int]:
        """What was not given back, by kind; empty when all was."""
        kinds = {
            "device memory": self.device.held, "pinned memory": self.host.held, "streams": self.streams,
            "events": self.events, "graphs": self.graphs, "executable graphs": self.executables,
            "contexts": range(self.contexts), "captures": [self.capturing] if self.capturing else [],
        }  # fmt: skip
        return {kind: len(held) for kind, held in kinds.items() if len(held)}

    def handle(self, table: Dict[int, Any], what: Any) -> int:
        """Keep an object under a new number."""
        self._next += 1
        table[self._next] = what
        return self._next

    def forbidden_in_capture(self) -> None:
        """Called by what CUDA does not do while a stream captures: it fails, and the capture with it."""
        if self.capturing:
            self.invalid = True
            raise Refused("cudaErrorStreamCaptureUnsupported")

    def allocate(self, size: int) -> int:
        self.forbidden_in_capture()
        if sum(block.size for block in self.device.held.values()) + size > self.limit:
            raise Refused("cudaErrorMemoryAllocation")
        return self.device.take(size)

    def copy(self, to: Tuple[Memory, int], source: Tuple[Memory, int], count: int, stream: int) -> None:
        """Queue a copy; both ends are checked now, as CUDA does, and once more when it runs."""

        def run() -> None:
            to[0].bytes_at(to[1], count)[:] = source[0].bytes_at(source[1], count)
            self.clock += COPY_SECONDS

        to[0].bytes_at(to[1], count)
        source[0].bytes_at(source[1], count)
        self.queue(stream, run)

    def kernel(self, stream: int, work: Callable[[], None]) -> None:
        """Queue a kernel."""

        def run() -> None:
            work()
            self.clock += KERNEL_SECONDS

        self.queue(stream, run)

    def queue(self, stream: int, work: Callable[[], None]) -> None:
        if stream not in self.streams:
            raise Refused("cudaErrorInvalidResourceHandle")
        if self.capturing and self.capturing[0] == stream:
            self.capturing[1].append(work)
        else:
            self.streams[stream].append(work)

    def synchronize(self, stream: int) -> None:
        """Run what is queued."""
        self.forbidden_in_capture()
        if stream not in self.streams:
            raise Refused("cudaErrorInvalidResourceHandle")
        self.waits.append("stream")
        while self.streams[stream]:
            self.streams[stream].pop(0)()

    def record(self, event: int, stream: int) -> None:
        found = self.find(self.events, event)
        found.recorded, found.at = True, None

        def run() -> None:
            found.at = self.clock

        self.queue(stream, run)

    def wait_for(self, event: int) -> None:
        """Run what was queued before the event; an event that was never recorded is passed."""
        self.forbidden_in_capture()
        found = self.find(self.events, event)
        self.waits.append("sleeping" if found.blocking else "spinning")
        for waiting in self.streams.values():
            while found.recorded and found.at is None and waiting:
                waiting.pop(0)()

    def elapsed_ms(self, start: int, end: int) -> float:
        first, last = self.find(self.events, start), self.find(self.events, end)
        if not (first.recorded and last.recorded):
            raise Refused("cudaErrorInvalidResourceHandle")
        if first.at is None or last.at is None:
            raise Refused("cudaErrorNotReady")
        return (last.at - first.at) * 1e3

    def begin_capture(self, stream: int) -> None:
        self.forbidden_in_capture()
        self.capturing, self.invalid = (stream, []), False

    def end_capture(self, stream: int) -> int:
        if not self.capturing or self.capturing[0] != stream:
            raise Refused("cudaErrorIllegalState")
        work, self.capturing = self.capturing[1], None
        if self.invalid:
            raise Refused("cudaErrorStreamCaptureInvalidated")
        return self.handle(self.graphs, work)

    def launch(self, executable: int, stream: int) -> None:
        for work in self.find(self.executables, executable):
            self.queue(stream, work)

    @staticmethod
    def find(table: Dict[int, Any], handle: int) -> Any:
        if handle not in table:
            raise Refused("cudaErrorInvalidResourceHandle")
        return table[handle]
