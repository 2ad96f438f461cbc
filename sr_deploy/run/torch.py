"""A PyTorch network as a runner: the reference that graphs and engines are compared with."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Dict, Iterator, Optional

import numpy as np

from sr_deploy.core.contract import Size
from sr_deploy.core.errors import EnvironmentFault, MissingPackage
from sr_deploy.core.host.install import pip_install
from sr_deploy.run.base import DeviceTime, no_device_events
from sr_deploy.run.inputs import checked_input, nothing_uploaded
from sr_deploy.run.names import processor_name
from sr_deploy.run.settings import DeviceSettings, refuse_settings

if TYPE_CHECKING:
    import torch


class TorchRunner:
    """See ``run/base.py``. Any size goes; what the network itself refuses, it refuses in ``compute``.

    Args:
        module: (1, 3, H, W) to (1, 3, scale·H, scale·W), float32, in eval mode; it is moved to ``device``.
        device: "cpu" or "cuda".

    Raises:
        MissingPackage: PyTorch is not installed.
        EnvironmentFault: "cuda" was asked for and PyTorch sees no GPU.
    """

    runtime = "torch"

    def __init__(self, module: torch.nn.Module, device: str = "cpu") -> None:
        try:
            import torch
        except ImportError as error:
            raise MissingPackage("PyTorch is not installed", "torch", pip_install("export")) from error
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise EnvironmentFault(
                "PyTorch sees no GPU",
                "an NVIDIA GPU, its driver, and a CUDA build of PyTorch",
                "use the device cpu, or see srdeploy doctor",
            )
        self._torch, self._device = torch, torch.device(device)
        self.device = torch.cuda.get_device_name(self._device) if self._on_gpu else processor_name()
        self._module: Optional[torch.nn.Module] = module.to(self._device)
        self._size: Optional[Size] = None
        self._lr: Any = None
        self._sr: Any = None

    io_dtype = "float32"

    @property
    def asynchronous(self) -> bool:
        """See ``run/base.py``."""
        return self._on_gpu

    @property
    def device_events(self) -> bool:
        """See ``run/base.py``."""
        return self._on_gpu

    def configure(self, settings: DeviceSettings) -> None:
        """See ``run/base.py``; there is nothing to choose here."""
        refuse_settings(settings, f"PyTorch on {self._device.type}")

    @property
    def _on_gpu(self) -> bool:
        return self._device.type == "cuda"

    def prepare(self, size: Size) -> None:
        """Remember the size; PyTorch allocates as it goes."""
        self._size, self._lr, self._sr = (size[0], size[1]), None, None

    def upload(self, lr: np.ndarray) -> None:
        """Copy the input to the device."""
        # A copy, so that a caller may reuse the array: from_numpy shares its memory.
        self._lr = self._torch.from_numpy(checked_input(lr, self._size).copy()).to(self._device)
        self._sr = None

    def compute(self) -> None:
        """One forward pass; on a GPU it returns before the pass has finished."""
        if self._lr is None or self._module is None:
            raise nothing_uploaded()
        try:
            with self._torch.inference_mode(), self._float32():
                self._sr = self._module(self._lr)
        except RuntimeError as error:
            # PyTorch has an exception of its own for GPU memory only; for the CPU's the text must tell.
            if "out of memory" not in str(error) and "allocate" not in str(error):
                raise
            raise EnvironmentFault(
                f"not enough memory on {self.device}: {str(error).splitlines()[0]}",
                "more free memory",
                "choose a smaller size",
            ) from error

    def synchronize(self) -> None:
        """Wait for the GPU; the CPU is done when ``compute`` returns."""
        if self._on_gpu:
            self._torch.cuda.synchronize(self._device)

    def timed_compute(self) -> DeviceTime:
        """See ``run/base.py``; not run on a GPU."""
        if not self._on_gpu:
            raise no_device_events(self)
        # PyTorch's own events carry no types.
        events = [self._torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
        before = time.perf_counter()
        self.compute()
        enqueued = time.perf_counter() - before
        events[0].record()
        self.compute()
        events[1].record()
        events[1].synchronize()
        return DeviceTime(events[0].elapsed_time(events[1]) / 1e3, enqueued)

    def download(self) -> np.ndarray:
        """A new array with the result."""
        if self._sr is None:
            raise nothing_uploaded()
        self.synchronize()
        return np.array(self._sr.cpu().numpy(), dtype=np.float32, order="C", copy=True)

    def describe(self) -> Dict[str, Any]:
        """Version, device, threads, precision."""
        return {
            "runtime": self.runtime,
            "version": str(self._torch.__version__),
            "provider": self._device.type,
            "threads": self._torch.get_num_threads(),
            "precision": "fp32",
            "pinned_memory": False if self._on_gpu else None,
        }

    def close(self) -> None:
        """Let the network and its tensors go."""
        self._module = self._lr = self._sr = self._size = None

    @contextlib.contextmanager
    def _float32(self) -> Iterator[None]:
        """TensorFloat-32 off on a GPU: cuDNN uses it by default, and a reference must be exact to float32."""
        if not self._on_gpu:
            yield
            return
        cudnn = self._torch.backends.cudnn
        with cudnn.flags(
            enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
        ):
            yield
