"""A TensorRT 8.5 that runs: a plan names an ONNX file, and a run is a kernel on the stand-in driver, whose numbers
ONNX Runtime computes. Names that 8.5 does not have cannot be read, see standin_8_5.py."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Dict, Tuple

import numpy as np

from sr_deploy.core.contract import IOContract
from sr_deploy.engine.built import BuiltEngine, write_engine
from tests.engine.standin_8_5 import Listed, listed_enum
from tests.run.standin_driver import Driver
from tests.small_network import CONTRACT, SCALE

MAGIC = b"plan of the running stand-in\n"


def running_tensorrt(driver: Driver, dla_cores: int = 2, contract: IOContract = CONTRACT) -> types.ModuleType:
    """The module. ``trt.opened`` holds the DLA core of each engine that was opened; ``trt.while_running`` is called
    inside each execute, to do what a capture forbids."""
    trt = types.ModuleType("tensorrt")
    modes, dtypes = listed_enum("TensorIOMode"), listed_enum("DataType")
    float32, uint8 = dtypes.FLOAT, dtypes.UINT8

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def __init__(self) -> None:
            pass

    class Context(Listed):
        listed = "IExecutionContext"

        def __init__(self, path: str) -> None:
            import onnxruntime

            self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            self._addresses: Dict[str, int] = {}
            self._shape: Tuple[int, ...] = ()

        def set_input_shape(self, name: str, shape: Tuple[int, ...]) -> bool:
            self._shape = tuple(shape)
            return True

        def infer_shapes(self) -> list:
            return []

        def get_tensor_shape(self, name: str) -> Tuple[int, ...]:
            size = self._shape[1:3] if contract.layout == "NHWC" else self._shape[2:]
            return contract.shape(tuple(SCALE * side for side in size))

        def set_tensor_address(self, name: str, address: int) -> bool:
            self._addresses[name] = address
            return True

        def execute_async_v3(self, stream: int) -> bool:
            trt.while_running()
            shape, addresses = self._shape, dict(self._addresses)
            driver.kernel(stream, lambda: self._run(shape, addresses))
            return True

        def _run(self, shape: Tuple[int, ...], addresses: Dict[str, int]) -> None:
            def tensor(name: str, of: Tuple[int, ...]) -> np.ndarray:
                count = int(np.prod(of)) * np.dtype(contract.dtype).itemsize
                return driver.device.bytes_at(addresses[name], count).view(contract.dtype).reshape(of)

            lr = tensor("lr", shape)
            if contract.dtype == "uint8":
                lr = lr.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
            sr = self._session.run(None, {"lr": lr})[0]
            if contract.dtype == "uint8":
                sr = np.rint(255 * sr).astype(np.uint8).transpose(0, 2, 3, 1)
            tensor("sr", sr.shape)[:] = sr

    class Engine(Listed):
        listed = "ICudaEngine"
        num_io_tensors = 2

        def __init__(self, path: str) -> None:
            self._path = path

        def get_tensor_name(self, index: int) -> str:
            return ("lr", "sr")[index]

        def get_tensor_mode(self, name: str) -> Any:
            return modes.INPUT if name == "lr" else modes.OUTPUT

        def get_tensor_dtype(self, name: str) -> Any:
            return uint8 if contract.dtype == "uint8" else float32

        def create_execution_context(self) -> Any:
            return Context(self._path)

    class Runtime(Listed):
        listed = "Runtime"
        num_DLA_cores = dla_cores  # noqa: N815 - TensorRT's name

        def __init__(self, logger: Any) -> None:
            self.DLA_core = 0

        def deserialize_cuda_engine(self, plan: bytes) -> Any:
            trt.opened.append(self.DLA_core)
            return Engine(plan[len(MAGIC) :].decode()) if plan.startswith(MAGIC) else None

    for name, value in {
        "ILogger": ILogger, "Runtime": Runtime, "Builder": object, "TensorIOMode": modes, "float32": float32,
        "uint8": uint8, "__version__": "8.5.2.2",
    }.items():  # fmt: skip
        setattr(trt, name, value)
    trt.opened, trt.while_running = [], lambda: None
    return trt


def engine_file(graph: Path, folder: Path, contract: IOContract = CONTRACT, **settings: str) -> Path:
    """A plan that the stand-in opens, with its manifest."""
    plan, sizes = MAGIC + str(graph).encode(), ((1, 1), (16, 16), (64, 64))
    built = BuiltEngine("tensorrt", plan, sizes, "fp32", ("8.6",), "Stand-in", "8.5.2.2", None, None, 0.1, settings, ())
    return folder / write_engine(built, folder, graph, contract, SCALE).file
