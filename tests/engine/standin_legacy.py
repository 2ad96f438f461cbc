"""A stand-in for TensorRT 8.5 that records precisions: flags, held layers, the calibrator.

It has only names that tests/engine/bindings/tensorrt_8_5.txt lists (``names_used`` gives them for a test). The layers
are given by the test; what it builds means nothing.
"""

from __future__ import annotations

import enum
import types
from typing import Any, Dict, List, Optional, Sequence, Tuple


class Severity(enum.Enum):
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    ERROR, WARNING, INFO, VERBOSE = Severity

    def __init__(self) -> None:
        pass


DataType = enum.Enum("DataType", ["FLOAT", "HALF", "INT8", "INT32", "BOOL"])


class Tensor:
    """A tensor of a network."""

    def __init__(self, name: str, dtype: DataType, is_shape_tensor: bool = False) -> None:
        self.name, self.dtype, self.is_shape_tensor = name, dtype, is_shape_tensor
        self.shape: Tuple[int, ...] = (1, 3, 8, 8)


class Layer:
    """A layer that remembers what it was told."""

    def __init__(self, name: str, kind: str, outputs: Sequence[Tensor]) -> None:
        self.name, self.type = name, types.SimpleNamespace(name=kind)
        self._outputs = list(outputs)
        self.num_outputs, self.num_inputs = len(self._outputs), 1
        self.precision: Optional[DataType] = None
        self.output_types: Dict[int, DataType] = {}

    def get_input(self, index: int) -> Tensor:
        return Tensor(f"{self.name} reads", DataType.FLOAT)

    def get_output(self, index: int) -> Tensor:
        return self._outputs[index]

    def set_output_type(self, index: int, dtype: DataType) -> None:
        self.output_types[index] = dtype


class Calibrator:
    """What TensorRT's calibrator classes have to be initialised with, or the builder crashes."""

    ready = False

    def __init__(self) -> None:
        self.ready = True


class IInt8EntropyCalibrator2(Calibrator):
    pass


class IInt8MinMaxCalibrator(Calibrator):
    pass


def tensorrt_8_5(
    layers: List[Layer],
    fast_fp16: bool = True,
    fast_int8: bool = True,
    accepts_cache: bool = True,
    inspected: str = "",
) -> Any:
    """The module.

    Args:
        layers: of the parsed network.
        fast_fp16, fast_int8: what the GPU can.
        accepts_cache: False lets the builder ask the calibrator for pictures.
        inspected: JSON of the engine inspector; "" makes an engine that cannot be opened.
    """
    trt = types.ModuleType("tensorrt")
    trt.__version__, trt.flags, trt.built_with = "8.5.2.2", [], {}
    trt.ILogger, trt.DataType = ILogger, DataType
    trt.float32, trt.float16, trt.int8 = DataType.FLOAT, DataType.HALF, DataType.INT8
    trt.NetworkDefinitionCreationFlag = enum.IntEnum(
        "NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, "EXPLICIT_PRECISION": 1}
    )
    trt.BuilderFlag = enum.Enum(
        "BuilderFlag", ["FP16", "INT8", "TF32", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"]
    )
    trt.ProfilingVerbosity = enum.Enum("ProfilingVerbosity", ["NONE", "LAYER_NAMES_ONLY", "DETAILED"])
    trt.LayerInformationFormat = enum.Enum("LayerInformationFormat", ["ONELINE", "JSON"])
    trt.IBuilderConfig = type("IBuilderConfig", (), {})
    trt.IInt8EntropyCalibrator2, trt.IInt8MinMaxCalibrator = IInt8EntropyCalibrator2, IInt8MinMaxCalibrator

    class Network:
        num_inputs = num_outputs = 1
        num_layers = len(layers)

        def get_input(self, index: int) -> Tensor:
            return Tensor("lr", DataType.FLOAT)

        def get_layer(self, index: int) -> Layer:
            return layers[index]

    class Parser:
        num_errors = 0

        def __init__(self, network: Any, logger: Any) -> None:
            pass

        def parse_from_file(self, path: str) -> bool:
            return True

    class Config(trt.IBuilderConfig):
        int8_calibrator: Optional[Calibrator] = None

        def set_flag(self, flag: Any) -> None:
            trt.flags.append(flag.name)

        def clear_flag(self, flag: Any) -> None:
            assert flag.name == "TF32"

    class Builder:
        platform_has_fast_fp16, platform_has_fast_int8 = fast_fp16, fast_int8

        def __init__(self, logger: Any) -> None:
            pass

        def create_network(self, flags: int) -> Network:
            assert flags == 1
            return Network()

        def create_builder_config(self) -> Config:
            return Config()

        def build_serialized_network(self, network: Network, config: Config) -> bytearray:
            calibrator = config.int8_calibrator
            if calibrator is not None:
                assert calibrator.ready, "the base class was not initialised"
                trt.built_with["cache"] = bytes(calibrator.read_calibration_cache())
                trt.built_with["base"] = type(calibrator).__mro__[1].__name__
                if not accepts_cache:
                    assert calibrator.get_batch_size() >= 1
                    assert calibrator.get_batch(["lr"]) is None
                    calibrator.write_calibration_cache(b"TensorRT's own")
            trt.built_with["verbosity"] = getattr(config, "profiling_verbosity", None)
            return bytearray(b"plan")

    class Inspector:
        def get_engine_information(self, form: Any) -> str:
            assert form is trt.LayerInformationFormat.JSON
            return inspected

    class Engine:
        device_memory_size = 4096

        def create_engine_inspector(self) -> Inspector:
            return Inspector()

    class Runtime:
        def __init__(self, logger: Any) -> None:
            pass

        def deserialize_cuda_engine(self, plan: bytes) -> Optional[Engine]:
            return Engine() if inspected else None

    trt.Builder, trt.OnnxParser, trt.Runtime = Builder, Parser, Runtime
    return trt
