"""A graph or an ONNX Runtime engine on the CPU or on an NVIDIA GPU, with the tensors bound to device memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np

from sr_deploy.core.contract import IOContract, Size, format_size
from sr_deploy.core.errors import BadInput, CheckFailed, EnvironmentFault, UsageError
from sr_deploy.engine.manifest import EngineManifest
from sr_deploy.engine.onnxruntime import (
    ONLY_FATAL,
    import_onnxruntime,
    input_size,
    is_out_of_memory,
    open_session,
    providers_here,
)
from sr_deploy.engine.onnxruntime_cuda import CUDA, default_provider, tf32_of
from sr_deploy.run.base import DeviceTime, no_device_events
from sr_deploy.run.inputs import checked_input, io_facts, nothing_uploaded
from sr_deploy.run.names import gpu_name, processor_name
from sr_deploy.run.settings import DeviceSettings, refuse_settings


def runner_from_graph(
    graph: Path,
    contract: IOContract,
    scale: int,
    threads: Optional[int] = None,
    provider: Optional[str] = None,
) -> OnnxRuntimeRunner:
    """Load an ONNX graph.

    Args:
        graph: one input and one output, named, typed and laid out as the contract says.
        contract: the tensors at both ends.
        scale: output size over input size.
        threads: of the CPU, for one operator; None lets ONNX Runtime choose.
        provider: "CUDAExecutionProvider", "CPUExecutionProvider" or another one of this build. None takes CUDA if this
            build has it and there is a GPU, else the CPU; ``describe`` says which one it was, and why. It runs or is an
            error: never another in its place.

    Raises:
        EnvironmentFault: the provider is not here or does not start.
        MissingPackage: ONNX Runtime does not import.
        BadDeployment: the file is no such graph.
        UsageError: ``threads`` is not positive.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads cannot run anything", "1 or more")
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = ONLY_FATAL
    if threads is not None:
        options.intra_op_num_threads = threads
    provider, why = (provider, "asked for") if provider is not None else default_provider(providers_here())
    session = open_session(graph, options, provider)
    return OnnxRuntimeRunner(session, Path(graph), contract, scale, provider, threads, why)


def open_engine(path: Path, manifest: EngineManifest, threads: Optional[int]) -> OnnxRuntimeRunner:
    """See ``Runtime.open``."""
    runner = runner_from_graph(path, manifest.contract, manifest.scale, threads=threads)
    runner.precision = manifest.precision
    return runner


class OnnxRuntimeRunner:
    """See ``run/base.py``. Made by ``runner_from_graph``.

    Attributes:
        precision: of the graph's types, which an engine's manifest knows; a deployment's own graph is float32.
    """

    runtime = "onnxruntime"
    #: run_with_iobinding waits for the provider before it returns.
    asynchronous = False
    device_events = False

    def __init__(
        self,
        session: Any,
        graph: Path,
        contract: IOContract,
        scale: int,
        provider: str,
        threads: Optional[int],
        why: str,
    ) -> None:
        self._session, self._graph, self._contract, self._scale = session, graph, contract, scale
        self._provider, self._threads, self._why = provider, threads, why
        self._tf32 = tf32_of(session)
        self._fixed = input_size(session, contract, graph)
        self.precision = "fp32"
        self.io_dtype = contract.io
        self._memory = "cuda" if provider == CUDA else "cpu"
        self.device = gpu_name() if provider == CUDA else processor_name()
        self._size: Optional[Size] = None
        self._binding: Any = None
        self._input: Any = None
        self._output: Any = None
        self._uploaded = self._computed = False

    def configure(self, settings: DeviceSettings) -> None:
        """See ``run/base.py``; there is nothing to choose here."""
        refuse_settings(settings, f"ONNX Runtime with {self._provider}")

    def prepare(self, size: Size) -> None:
        """Allocate input and output on the device and bind them."""
        if any(have is not None and have != asked for have, asked in zip(self._fixed, size)):
            have = "x".join("any" if value is None else str(value) for value in self._fixed)
            raise BadInput(
                f"{self._graph.name} does not take an input of {format_size(size)}",
                f"an input of {have}",
                f"srdeploy build DEPLOYMENT --backend onnxruntime --size {format_size(size)}; where its graphs are of "
                f"fixed sizes, srdeploy export … --size {format_size(size)} or --dynamic first",
            )
        self._uploaded = self._computed = False
        if self._size == tuple(size):
            return
        value = import_onnxruntime().OrtValue.ortvalue_from_shape_and_type
        height, width = size
        self._size, self._binding = None, self._session.io_binding()
        try:
            kind, enlarged = np.dtype(self._contract.dtype).type, (height * self._scale, width * self._scale)
            self._input = value(list(self._contract.shape(size)), kind, self._memory, 0)
            self._output = value(list(self._contract.shape(enlarged)), kind, self._memory, 0)
        except Exception as error:
            raise self._explained(error, size) from error
        self._binding.bind_ortvalue_input(self._contract.input_name, self._input)
        self._binding.bind_ortvalue_output(self._contract.output_name, self._output)
        self._size = (height, width)

    def upload(self, lr: np.ndarray) -> None:
        """Copy the input into the bound memory."""
        array = checked_input(lr, self._size, self._contract)
        self._input.update_inplace(array)
        self._uploaded, self._computed = True, False

    def compute(self) -> None:
        """Run the session on the bound memory."""
        if not self._uploaded:
            raise nothing_uploaded()
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            # ONNX Runtime's exceptions have no common base below Exception.
            raise self._explained(error, self._size) from error
        self._computed = True

    def synchronize(self) -> None:
        """Wait for the device; the CPU is done when ``compute`` returns."""
        if self._binding is not None:
            self._binding.synchronize_outputs()

    def timed_compute(self) -> DeviceTime:
        """See ``run/base.py``; the device has no clock of its own."""
        raise no_device_events(self)

    def download(self) -> np.ndarray:
        """A new array with the result."""
        if not self._computed:
            raise nothing_uploaded()
        self.synchronize()
        return np.array(self._output.numpy(), order="C", copy=True)

    def describe(self) -> Dict[str, Any]:
        """Version, provider and why this one, threads, precision, and whether CUDA may use TensorFloat-32."""
        return {
            "runtime": self.runtime,
            "version": import_onnxruntime().__version__,
            "provider": self._provider,
            "provider_reason": self._why,
            "threads": self._threads,
            "precision": self.precision,
            "tf32": self._tf32,
            **io_facts(self._contract),
            # Inputs are copied from ordinary memory; on the CPU nothing needs a copy engine.
            "pinned_memory": False if self._provider == CUDA else None,
            "file": self._graph.name,
        }

    def close(self) -> None:
        """Let the session and its memory go."""
        self._session = self._binding = self._input = self._output = self._size = None
        self._uploaded = self._computed = False

    def _explained(self, error: Exception, size: Optional[Size]) -> Exception:
        text = " ".join(str(error).split())
        at = format_size(size) if size else "this size"
        if is_out_of_memory(text):
            return EnvironmentFault(
                f"not enough memory on {self.device} for {self._graph.name} at {at}: {text}",
                "more free memory",
                "choose a smaller size",
            )
        return CheckFailed(
            f"ONNX Runtime failed to run {self._graph.name} at {at}: {text}",
            f"a result of {self._scale} times that size",
            "the graph may not be valid at this size; export it again and check it there",
        )
