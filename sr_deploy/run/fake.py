"""A runner without a runtime, for tests: known pictures, and a latency that a script decides."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional

import numpy as np

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.errors import BadInput
from sr_deploy.run.base import DeviceTime, no_device_events
from sr_deploy.run.inputs import checked_input, nothing_uploaded
from sr_deploy.run.settings import DeviceSettings, refuse_settings


class FakeClock:
    """Time that passes only when somebody sleeps. Seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time, as ``time.perf_counter`` gives it."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self.now += seconds


class FakeRunner:
    """Repeats every pixel ``scale`` times in both directions. See ``run/base.py``.

    Like a GPU it works behind the caller's back: ``compute`` returns at once, and the time is spent in
    ``synchronize`` or ``download``. A benchmark that forgets to synchronize measures nothing.

    Args:
        scale: output size over input size.
        latency: (size, n) → seconds that the n-th ``compute`` since ``prepare`` takes, n from 0. It may raise, as a
            real runtime would.
        sleep: spends the seconds: ``time.sleep`` or ``FakeClock().sleep``.
        largest: the largest input it takes, or None for any.
    """

    runtime = "fake"
    device = "fake device"
    asynchronous = True
    device_events = False
    io_dtype = "float32"

    def __init__(
        self,
        scale: int,
        latency: Callable[[Size, int], float],
        sleep: Callable[[float], None],
        largest: Optional[Size] = None,
    ) -> None:
        self._scale, self._latency, self._sleep, self._largest = scale, latency, sleep, largest
        self._size: Optional[Size] = None
        self._lr: Optional[np.ndarray] = None
        self._sr: Optional[np.ndarray] = None
        self._count = 0
        self._pending = 0.0

    def configure(self, settings: DeviceSettings) -> None:
        """It has nothing to choose."""
        refuse_settings(settings, "the fake runner")

    def prepare(self, size: Size) -> None:
        """Start counting anew."""
        if self._largest is not None and (size[0] > self._largest[0] or size[1] > self._largest[1]):
            raise BadInput(
                f"the fake runner does not take an input of {format_size(size)}", f"up to {format_size(self._largest)}"
            )
        self._size, self._lr, self._sr, self._count, self._pending = (size[0], size[1]), None, None, 0, 0.0

    def upload(self, lr: np.ndarray) -> None:
        """Keep a copy of the input."""
        self._lr, self._sr = checked_input(lr, self._size).copy(), None

    def compute(self) -> None:
        """Put one run of the scripted length on the device's queue."""
        if self._lr is None or self._size is None:
            raise nothing_uploaded()
        self._pending += self._latency(self._size, self._count)
        self._count += 1
        self._sr = self._lr.repeat(self._scale, axis=2).repeat(self._scale, axis=3)

    def synchronize(self) -> None:
        """Spend the time of everything queued."""
        pending, self._pending = self._pending, 0.0
        if pending:
            self._sleep(pending)

    def timed_compute(self) -> DeviceTime:
        """See ``run/base.py``; the device has no clock of its own."""
        raise no_device_events(self)

    def download(self) -> np.ndarray:
        """The enlarged input, a new array."""
        if self._sr is None:
            raise nothing_uploaded()
        self.synchronize()
        return self._sr.copy()

    def describe(self) -> Dict[str, Any]:
        """What every runner tells."""
        return {"runtime": self.runtime, "version": "1", "provider": "fake", "threads": 1, "precision": "fp32"}

    def close(self) -> None:
        """Forget everything."""
        self._size = self._lr = self._sr = None
