"""The protocol that every runtime follows, so that run, verify and bench are written once."""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Protocol

import numpy as np

from sr_deploy.core.contract import Size, picture_size
from sr_deploy.core.errors import UsageError
from sr_deploy.run.settings import DeviceSettings


class DeviceTime(NamedTuple):
    """One run by the device's clock.

    Attributes:
        seconds: between two events on the device, before and after the run.
        enqueue_seconds: how long the host takes to queue such a run on an idle device.
    """

    seconds: float
    enqueue_seconds: float


class Runner(Protocol):
    """One loaded graph or engine on one device. State lives here and nowhere else.

    The life of a runner: ``prepare`` a size, then any number of ``upload``, ``compute``, ``synchronize``,
    ``download``; ``prepare`` again for another size; ``close`` at the end.
    """

    @property
    def runtime(self) -> str:
        """ "onnxruntime", "tensorrt", "tensorrt-rtx", "torch" or "fake"."""

    @property
    def device(self) -> str:
        """The device's name as people know it, for example "NVIDIA H200" or the CPU's model name."""

    @property
    def asynchronous(self) -> bool:
        """Whether ``compute`` returns before the device is done; only then is there an enqueue time."""

    @property
    def device_events(self) -> bool:
        """Whether ``timed_compute`` asks the device's own clock."""

    @property
    def io_dtype(self) -> str:
        """The form of both tensors, a name of IO_FORMS: "float32" (NCHW), "uint8" (NHWC), "nv12" or "p010"."""

    def configure(self, settings: DeviceSettings) -> None:
        """How the device is driven from now on; call it before ``prepare``.

        Raises:
            UsageError: this runtime cannot do it. Nothing is ever ignored.
        """

    def prepare(self, size: Size) -> None:
        """Make buffers for an input of ``size`` (height, width).

        Raises:
            BadInput: this graph or engine does not take the size; the message names what it takes.
        """

    def upload(self, lr: np.ndarray) -> None:
        """Bring the input to the device: float32 (1, 3, H, W) in the contract's value range, or as ``io_dtype``."""

    def compute(self) -> None:
        """Run the network once on what was uploaded. May return before the device is done."""

    def synchronize(self) -> None:
        """Wait until the device has finished all that was asked."""

    def timed_compute(self) -> DeviceTime:
        """``compute`` twice and ``synchronize``; the second run's time, by the device's own clock.

        The timed run is queued while the device is busy with the first, as trtexec keeps 1 + overlap in flight: begun
        on an idle device, a short run would be the launch of its first kernel. Where queueing takes longer than
        computing, it still is what is timed; the time of the first run's queueing, which nothing holds up, tells.

        Raises:
            UsageError: ``device_events`` is False.
            BadInput: nothing was uploaded.
        """

    def download(self) -> np.ndarray:
        """The result, a new array on the host, in the input's type and layout, scale times as large. Synchronizes."""

    def describe(self) -> Dict[str, Any]:
        """Runtime version, provider, threads, precision: what a record must carry to be repeatable."""

    def close(self) -> None:
        """Free device memory and handles. Calling it twice is allowed."""


def no_device_events(runner: Runner) -> UsageError:
    """The error of ``timed_compute`` where the device has no clock to ask."""
    return UsageError(
        f"{runner.runtime} on {runner.device} has no device events", "--timer host", "or time a TensorRT engine"
    )


def upscale(runner: Runner, lr: np.ndarray) -> np.ndarray:
    """One picture through a runner.

    Args:
        runner: any runtime.
        lr: as the contract says: float32 (1, 3, H, W) in its value range, uint8 (1, H, W, 3) or planes.

    Returns:
        The same form, ``scale`` times as large.
    """
    runner.prepare(picture_size(lr))
    runner.upload(lr)
    runner.compute()
    return runner.download()
