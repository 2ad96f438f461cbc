"""A TensorRT or TensorRT-RTX engine on the GPU it was built for.

Only calls that all of TensorRT 8.5 … 11 and TensorRT-RTX have: tensors by name, ``execute_async_v3``. Element types
are compared with TensorRT's own, never through ``trt.nptype``, which breaks in 8.5 with numpy 1.24.

Not run on a GPU: written against the API documentation. What was checked without one: every name used here exists in
the bindings of TensorRT-RTX 1.7.1 (tests/run/test_run_tensorrt.py), and a plan without a GPU gives the right error.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import numpy as np

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.errors import BadDeployment, BadInput, CheckFailed, EnvironmentFault
from sr_deploy.engine.dla import runtime_for
from sr_deploy.engine.flavour import collected, import_flavour, logger_of
from sr_deploy.engine.manifest import EngineManifest
from sr_deploy.engine.timing_cache import cache_path
from sr_deploy.run.base import DeviceTime
from sr_deploy.run.cuda import Cuda, open_cuda
from sr_deploy.run.inputs import checked_input, io_facts, nothing_uploaded
from sr_deploy.run.names import gpu_name
from sr_deploy.run.runtime_cache import RuntimeCache
from sr_deploy.run.settings import DeviceSettings, refuse_settings


def runner_from_engine(path: Path, manifest: EngineManifest) -> TensorRTRunner:
    """Load an engine. Whether it is whole and belongs here is asked before, see ``engine/index.py``.

    Args:
        path: the plan.
        manifest: what it was proved to be, see ``open_engine``.

    Raises:
        BadDeployment: tensors other than the contract's.
        MissingPackage: TensorRT or a CUDA binding is not installed.
        EnvironmentFault: no GPU, no DLA core that the engine was built for, or TensorRT cannot load the plan; the
            message holds TensorRT's own.
    """
    path = Path(path)
    trt = import_flavour(manifest.backend)
    cuda = open_cuda()
    try:
        with collected(manifest.backend) as messages:
            runtime = runtime_for(trt, logger_of(manifest.backend), manifest.settings)
            engine = runtime.deserialize_cuda_engine(path.read_bytes())
            kernels = RuntimeCache(cache_path(path.parent, "runtime", manifest.backend, trt.__version__, gpu_name()))
            context = None if engine is None else _context_of(trt, engine, kernels)
        if context is None:
            raise EnvironmentFault(
                f"{manifest.backend} {trt.__version__} cannot load {path}: {messages.explain()}",
                f"an engine for this machine's GPU ({gpu_name()})",
                "srdeploy build on this machine, with --force",
            )
        _check_tensors(trt, engine, manifest, path)
    except BaseException:
        cuda.close()
        raise
    return TensorRTRunner(trt, (runtime, engine), context, cuda, manifest, kernels)


def open_engine(path: Path, manifest: EngineManifest, _threads: Optional[int]) -> TensorRTRunner:
    """See ``Runtime.open``; a GPU has no threads to choose."""
    return runner_from_engine(path, manifest)


class TensorRTRunner:
    """See ``run/base.py``. Made by ``runner_from_engine``."""

    asynchronous = True
    device_events = True

    def __init__(
        self,
        trt: Any,
        owners: Any,
        context: Any,
        cuda: Cuda,
        manifest: EngineManifest,
        kernels: Optional[RuntimeCache] = None,
    ) -> None:
        self.runtime = manifest.backend
        self.io_dtype = manifest.contract.io
        self.device = gpu_name()
        # The runtime and the engine must outlive the context.
        self._trt, self._owners, self._context = trt, owners, context
        self._cuda, self._closed = cuda, False
        self._manifest = manifest
        self._kernels = kernels
        self._size: Optional[Size] = None
        self._device_memory: Dict[str, int] = {}
        self._host: Dict[str, np.ndarray] = {}
        self._uploaded = self._computed = False
        self._settings = DeviceSettings()
        self._events: Tuple[Any, ...] = ()
        self._graph: Any = None

    def configure(self, settings: DeviceSettings) -> None:
        """A CUDA graph and the way to wait can be chosen; a prepared size must be prepared again."""
        refuse_settings(settings, f"{self.runtime} with {self._cuda.name}", cuda_graph=True, wait=True)
        self._release()
        self._settings = settings

    def prepare(self, size: Size) -> None:
        """Tell TensorRT the shape and allocate device and pinned host memory for both tensors."""
        manifest, contract = self._manifest, self._manifest.contract
        if not manifest.takes(size):
            raise BadInput(
                f"the engine {manifest.file} does not take an input of {format_size(size)}",
                f"an input of {manifest.allowed_sizes()}",
                manifest.command_for(size),
            )
        self._uploaded = self._computed = False
        if self._size == tuple(size):
            return
        self._release()
        height, width = size
        shape = contract.shape((height, width))
        with collected(self.runtime) as messages:
            if not self._context.set_input_shape(contract.input_name, shape) or self._context.infer_shapes():
                raise CheckFailed(
                    f"{manifest.file} refuses an input of {format_size(size)}: {messages.explain()}",
                    "a size of the engine's profile",
                    "srdeploy inspect ENGINE shows its profile; srdeploy build makes one for another size",
                )
        shapes = {
            contract.input_name: shape,
            contract.output_name: tuple(self._context.get_tensor_shape(contract.output_name)),
        }
        for name, tensor_shape in shapes.items():
            self._host[name] = self._cuda.pinned(tensor_shape, contract.dtype)
            self._device_memory[name] = self._cuda.allocate(self._host[name].nbytes)
            self._context.set_tensor_address(name, self._device_memory[name])
        self._size = (height, width)
        self._events = tuple(self._cuda.event(self._settings.wait == "block") for _ in range(2))

    def upload(self, lr: np.ndarray) -> None:
        """Copy the input through pinned memory; returns before the copy has finished."""
        array = checked_input(lr, self._size, self._manifest.contract)
        # The pinned array may still be on its way to the device from the last upload.
        self._cuda.synchronize()
        name = self._manifest.contract.input_name
        np.copyto(self._host[name], array)
        self._cuda.to_device(self._device_memory[name], self._host[name])
        self._uploaded, self._computed = True, False

    def compute(self) -> None:
        """Queue one run."""
        if not self._uploaded:
            raise nothing_uploaded()
        if self._settings.cuda_graph and self._graph is None:
            self._graph = self._captured()
        if self._graph is not None:
            self._cuda.launch(self._graph)
        else:
            self._enqueue()
        self._computed = True

    def timed_compute(self) -> DeviceTime:
        """See ``run/base.py``."""
        if len(self._events) != 2:
            raise nothing_uploaded()
        start, end = self._events
        before = time.perf_counter()
        self.compute()
        enqueued = time.perf_counter() - before
        self._cuda.record(start)
        self.compute()
        self._cuda.record(end)
        self._cuda.wait_for(end)
        return DeviceTime(self._cuda.seconds_between(start, end), enqueued)

    def synchronize(self) -> None:
        """Wait for the stream, in the way that was configured."""
        if self._closed:
            return
        if self._settings.wait == "auto" or not self._events:
            self._cuda.synchronize()
        else:
            self._cuda.record(self._events[1])
            self._cuda.wait_for(self._events[1])

    def download(self) -> np.ndarray:
        """A new array with the result."""
        if not self._computed:
            raise nothing_uploaded()
        name = self._manifest.contract.output_name
        self._cuda.to_host(self._host[name], self._device_memory[name])
        self._cuda.synchronize()
        return self._host[name].copy()

    def describe(self) -> Dict[str, Any]:
        """Version, CUDA binding, precision and the engine's settings."""
        return {
            "runtime": self.runtime,
            "version": self._trt.__version__,
            "provider": self._cuda.name,
            "threads": None,
            "precision": self._manifest.precision,
            **io_facts(self._manifest.contract),
            "file": self._manifest.file,
            "settings": dict(self._manifest.settings),
            "cuda_graph": self._settings.cuda_graph,
            "wait": self._settings.wait,
            "streams": self._settings.streams,
            "pinned_memory": True,
            "runtime_cache": self._kernels.state if self._kernels else "none",
        }

    def close(self) -> None:
        """Free memory, then context and engine, then the stream."""
        if self._closed:
            return
        self._cuda.synchronize()
        self._release()
        if self._kernels is not None:
            self._kernels.save()
        self._context = self._owners = None
        self._cuda.close()
        self._closed = True

    def _enqueue(self) -> None:
        """Queue the kernels one after the other."""
        if not self._context.execute_async_v3(self._cuda.stream()):
            raise CheckFailed(f"TensorRT failed to run {self._manifest.file} at {self._at()}", "a run", self._remedy())

    def _at(self) -> str:
        """The prepared size, for a message."""
        return format_size(self._size) if self._size else "this size"

    def _remedy(self) -> str:
        """What helps when a run fails; a run that works alone may not be one that CUDA can capture."""
        return "leave --cuda-graph out" if self._settings.cuda_graph else "see srdeploy doctor and dmesg"

    def _captured(self) -> Any:
        """A CUDA graph of one run, proved: a graph can be captured empty and leave the output as it was.

        Raises:
            CheckFailed: the graph does not give what the kernels give.
        """
        name = self._manifest.contract.output_name
        # TensorRT finishes its own preparations in the first run after a shape was set; a capture must come later.
        self._enqueue()
        self._cuda.to_host(self._host[name], self._device_memory[name])
        self._cuda.synchronize()
        expected = self._host[name].copy()
        graph = self._cuda.capture(self._enqueue)
        try:
            self._prove(graph, expected)
        except BaseException:
            self._cuda.free_graph(graph)
            raise
        return graph

    def _prove(self, graph: Any, expected: np.ndarray) -> None:
        """Refuse a graph that does not give the expected output."""
        name = self._manifest.contract.output_name
        # What no run of this picture gives: NaN, or the complement of the bytes that are expected.
        np.copyto(self._host[name], np.nan if expected.dtype != np.uint8 else 255 - expected)
        self._cuda.to_device(self._device_memory[name], self._host[name])
        self._cuda.launch(graph)
        self._cuda.to_host(self._host[name], self._device_memory[name])
        self._cuda.synchronize()
        if not np.array_equal(self._host[name], expected):
            raise CheckFailed(
                f"the CUDA graph of {self._manifest.file} at {self._at()} gives another picture",
                "what its kernels give one after the other",
                "leave --cuda-graph out",
            )

    def _release(self) -> None:
        """Give all tensor memory, the events and the graph back."""
        self._size = None
        self._uploaded = self._computed = False
        for address in self._device_memory.values():
            self._cuda.free(address)
        for array in self._host.values():
            self._cuda.free_pinned(array)
        self._device_memory, self._host = {}, {}
        for event in self._events:
            self._cuda.free_event(event)
        if self._graph is not None:
            self._cuda.free_graph(self._graph)
        self._events, self._graph = (), None


def _context_of(trt: Any, engine: Any, kernels: RuntimeCache) -> Any:
    """An execution context.

    TensorRT-RTX by default runs a general kernel first and swaps in one for the shape when that has been compiled in
    the background; a latency would then depend on when it is measured. EAGER compiles before the first run, and what
    it compiled is kept in ``kernels``.
    """
    if not hasattr(engine, "create_runtime_config") or not hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
        return engine.create_execution_context()
    config = engine.create_runtime_config()
    strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    config.dynamic_shapes_kernel_specialization_strategy = strategy
    if hasattr(config, "create_runtime_cache"):
        compiled = config.create_runtime_cache()
        kernels.load(compiled)
        config.set_runtime_cache(compiled)
    return engine.create_execution_context(config)


def _check_tensors(trt: Any, engine: Any, manifest: EngineManifest, path: Path) -> None:
    """Refuse an engine whose tensors are not one input and one output of the contract's names and type."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    contract = manifest.contract
    if inputs != [contract.input_name] or outputs != [contract.output_name]:
        raise BadDeployment(
            f"{path} has inputs {inputs} and outputs {outputs}",
            f"one input {contract.input_name!r} and one output {contract.output_name!r}",
            "build it again",
        )
    wanted = getattr(trt, contract.dtype)
    wrong = [name for name in names if engine.get_tensor_dtype(name) != wanted]
    if wrong:
        raise BadDeployment(
            f"{path} has tensors that are not {contract.dtype}: {', '.join(wrong)}", contract.dtype, "build it again"
        )
