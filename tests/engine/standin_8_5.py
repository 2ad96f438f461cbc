"""A recording stand-in for the Python module ``tensorrt`` of 8.5, because 8.5 cannot be had here.

It behaves as the developer guide and the API reference of 8.5 say; each rule is named in ``RULES``. It really reads the
ONNX file (with the onnx package), refuses operators that the 8.5 parser does not document, records every call in
``calls``, and holds no name that is not in tests/engine/bindings/tensorrt_8_5.txt: asking for one, or setting one, is
an AttributeError, as in the extension module. What it builds is a text, not an engine.
"""

from __future__ import annotations

import enum
import re
import types
from typing import Any, List

import onnx

from tests.engine.bindings_contract import read_bindings

LISTED = read_bindings("tensorrt_8_5")
#: What of the documentation the stand-in holds.
RULES = (
    "OnnxParser wants a network with EXPLICIT_BATCH",
    "a dynamic input needs an optimization profile",
    "the flag INT8 needs a calibrator, dynamic ranges or Q/DQ",
    "a calibration table's first line must name the calibrator's algorithm",
    "OBEY_PRECISION_CONSTRAINTS holds layers that have a precision, and needs the flag of that precision",
    "DLA: static shapes, FP16 or INT8, GPU_FALLBACK for what it does not take",
)
#: Operators without a row, or with N, in the table of the 8.5 parser (onnx-tensorrt, docs/operators.md, 8.5-GA).
UNSUPPORTED = {"DFT", "STFT", "LayerNormalization", "GroupNormalization", "HardSwish", "QLinearConv", "Mish", "Col2Im"}
#: What the DLA of 8.5 takes, of the kinds of layers a network here has ("DLA Supported Layers").
ON_DLA = {"CONVOLUTION", "ACTIVATION", "ELEMENTWISE", "CONCATENATION", "DECONVOLUTION", "PARAMETRIC_RELU", "POOLING"}
KINDS = {
    "Conv": "CONVOLUTION", "Relu": "ACTIVATION", "LeakyRelu": "ACTIVATION", "Sigmoid": "ACTIVATION",
    "Clip": "ACTIVATION", "Tanh": "ACTIVATION",
    "Add": "ELEMENTWISE", "Mul": "ELEMENTWISE", "Sub": "ELEMENTWISE", "Div": "ELEMENTWISE",
    "Concat": "CONCATENATION", "PRelu": "PARAMETRIC_RELU", "MatMul": "MATRIX_MULTIPLY", "Reshape": "SHUFFLE",
    "Transpose": "SHUFFLE", "DepthToSpace": "SHUFFLE", "QuantizeLinear": "QUANTIZE", "DequantizeLinear": "DEQUANTIZE",
    "Constant": "CONSTANT", "Shape": "SHAPE", "Gather": "GATHER", "Slice": "SLICE", "Resize": "RESIZE",
}  # fmt: skip


class Listed:
    """An object of the class ``listed`` of 8.5: names that 8.5 does not have cannot be read or set."""

    listed = ""

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and LISTED.lookup(self.listed, name) is None:
            raise AttributeError(f"{self.listed!r} of 8.5 has no {name!r}")
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if LISTED.lookup(self.listed, name) is not None and not name.startswith("_"):
            raise NotImplementedError(f"the stand-in says nothing of {self.listed}.{name}")
        raise AttributeError(f"{self.listed!r} of 8.5 has no {name!r}")


def listed_enum(name: str) -> enum.EnumMeta:
    """An enumeration with the members of the list, numbered in the order of the list."""
    members = [member for member in LISTED.classes[name][1] if member not in ("name", "value")]
    return enum.IntEnum(name.split(".")[-1], members, start=0)


def stand_in(version: str = "8.5.2.2", dla_cores: int = 2) -> types.ModuleType:
    """The module. ``calls`` is its record; ``workspace_needed`` makes a build with a lower limit run out of memory."""
    trt = types.ModuleType("tensorrt")
    calls: List[tuple] = []
    state = types.SimpleNamespace(workspace_needed=0)
    names = (
        "BuilderFlag", "NetworkDefinitionCreationFlag", "MemoryPoolType", "DeviceType", "DataType", "LayerType",
        "ProfilingVerbosity", "LayerInformationFormat", "TensorIOMode", "TensorFormat", "ErrorCode",
    )  # fmt: skip
    enums = {name: listed_enum(name) for name in names if name in LISTED.classes}
    # The bits that NvInfer.h of 8.5 gives; the list is sorted by name.
    enums["NetworkDefinitionCreationFlag"] = enum.IntEnum(
        "NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, "EXPLICIT_PRECISION": 1}
    )
    flags, kinds = enums["BuilderFlag"], enums["LayerType"]
    float32, float16, int8 = (enums["DataType"][name] for name in ("FLOAT", "HALF", "INT8"))

    class ILogger:
        Severity = enum.IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"], start=0)
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

        def __init__(self) -> None:
            pass

    class Tensor(Listed):
        listed = "ITensor"

        def __init__(self, name: str, shape: tuple, shape_tensor: bool = False) -> None:
            self.name, self.shape, self.dtype, self.is_shape_tensor = name, shape, float32, shape_tensor

    class Layer(Listed):
        listed = "ILayer"

        def __init__(self, node: Any) -> None:
            self.name, self.type = node.name, kinds[KINDS.get(node.op_type, "UNARY")]
            self.num_inputs, self.num_outputs = len(node.input), len(node.output)
            self._inputs = [Tensor(name, ()) for name in node.input]
            self._outputs = [Tensor(name, ()) for name in node.output]
            self.metadata = f"[ONNX Layer: {node.name}]" if LISTED.lookup("ILayer", "metadata") is not None else None
            self._precision = self._held = None

        @property
        def precision(self) -> Any:
            return self._precision or float32

        @precision.setter
        def precision(self, value: Any) -> None:
            calls.append(("precision", self.name, value.name))
            self._precision = value

        def set_output_type(self, index: int, dtype: Any) -> None:
            calls.append(("output type", self.name, index, dtype.name))

        def get_input(self, index: int) -> Any:
            return self._inputs[index]

        def get_output(self, index: int) -> Any:
            return self._outputs[index]

    class Network(Listed):
        listed = "INetworkDefinition"

        def __init__(self, explicit: bool) -> None:
            self._explicit, self._inputs, self._layers, self._outputs = explicit, [], [], []

        num_inputs = property(lambda self: len(self._inputs))
        num_outputs = property(lambda self: len(self._outputs))
        num_layers = property(lambda self: len(self._layers))

        def get_input(self, index: int) -> Any:
            return self._inputs[index]

        def get_output(self, index: int) -> Any:
            return self._outputs[index]

        def get_layer(self, index: int) -> Any:
            return self._layers[index]

    class ParserError(Listed):
        listed = "ParserError"

        def __init__(self, node: int, text: str, code: str) -> None:
            self._told = node, text, code

        def node(self) -> int:
            return self._told[0]

        def desc(self) -> str:
            return self._told[1]

        def code(self) -> Any:
            return enums["ErrorCode"][self._told[2]]

    class OnnxParser(Listed):
        listed = "OnnxParser"

        def __init__(self, network: Any, logger: Any) -> None:
            self._network, self._logger, self._errors = network, logger, []

        num_errors = property(lambda self: len(self._errors))

        def get_error(self, index: int) -> Any:
            return self._errors[index]

        def parse_from_file(self, path: str) -> bool:
            calls.append(("parse", path))
            if not self._network._explicit:
                self._errors.append(ParserError(0, "the network must have explicit batch", "INVALID_VALUE"))
                return False
            graph = onnx.load(path).graph
            for number, node in enumerate(graph.node):
                if node.op_type in UNSUPPORTED:
                    said = f'While parsing node number {number} [{node.op_type} -> "{node.output[0]}"]:'
                    self._logger.log(ILogger.ERROR, said)
                    text = f"No importer registered for op: {node.op_type}"
                    self._errors.append(ParserError(number, text, "UNSUPPORTED_NODE"))
                    return False
            constants = {initializer.name for initializer in graph.initializer}
            for value, into in ((graph.input, self._network._inputs), (graph.output, self._network._outputs)):
                for tensor in value:
                    if tensor.name not in constants:
                        sizes = tensor.type.tensor_type.shape.dim
                        into.append(Tensor(tensor.name, tuple(d.dim_value if d.dim_value > 0 else -1 for d in sizes)))
            self._network._layers.extend(Layer(node) for node in graph.node)
            return True

    class TimingCache(Listed):
        listed = "ITimingCache"

        def __init__(self, stored: bytes) -> None:
            self._kept = stored if stored == b"timings of 8.5" else b"empty"

        def serialize(self) -> bytes:
            return self._kept

    class Config(Listed):
        listed = "IBuilderConfig"

        def __init__(self) -> None:
            self._flags, self._pools, self._profiles = {flags.TF32}, {}, []
            self.default_device_type, self.DLA_core = enums["DeviceType"].GPU, -1
            self.int8_calibrator, self._timings = None, None
            self.profiling_verbosity = enums["ProfilingVerbosity"].LAYER_NAMES_ONLY

        def set_flag(self, flag: Any) -> None:
            calls.append(("set", flag.name))
            self._flags.add(flag)

        def clear_flag(self, flag: Any) -> None:
            calls.append(("clear", flag.name))
            self._flags.discard(flag)

        def get_flag(self, flag: Any) -> bool:
            return flag in self._flags

        def set_memory_pool_limit(self, pool: Any, size: int) -> None:
            calls.append((pool.name, size))
            self._pools[pool.name] = size

        def add_optimization_profile(self, profile: Any) -> int:
            calls.append(("profile", profile._shapes))
            self._profiles.append(profile)
            return len(self._profiles) - 1

        def create_timing_cache(self, data: bytes) -> Any:
            return TimingCache(data)

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            calls.append(("timings", b"" if cache._kept == b"empty" else cache._kept))
            self._timings = cache
            return True

        def can_run_on_DLA(self, layer: Any) -> bool:  # noqa: N802 - TensorRT's name
            return layer.type.name in ON_DLA

    class Profile(Listed):
        listed = "IOptimizationProfile"

        def set_shape(self, name: str, low: tuple, best: tuple, high: tuple) -> None:
            self._shapes = (name, low, best, high)

    class Builder(Listed):
        listed = "Builder"
        platform_has_fast_fp16 = platform_has_fast_int8 = True
        num_DLA_cores = dla_cores  # noqa: N815 - TensorRT's name

        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def create_network(self, bits: int = 0) -> Any:
            calls.append(("network", bits))
            return Network(bool(bits & 1))

        def create_builder_config(self) -> Any:
            return Config()

        def create_optimization_profile(self) -> Any:
            return Profile()

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            problem = self._problem(network, config)
            if config._timings is not None:
                config._timings._kept = b"timings of 8.5"
            if problem:
                self._logger.log(ILogger.ERROR, problem)
                return None
            calls.append(("build", sorted(flag.name for flag in config._flags)))
            return bytearray(b"plan of the stand-in for 8.5")

        def _problem(self, network: Any, config: Any) -> str:
            used = config._flags
            if -1 in network.get_input(0).shape and not config._profiles:
                return "Error Code 4: Network has dynamic inputs, but no optimization profile has been defined."
            if config._pools.get("WORKSPACE", state.workspace_needed) < state.workspace_needed:
                return "Error Code 2: OutOfMemory (no further information)"
            types_held = {layer._precision for layer in network._layers if layer._precision}
            if flags.OBEY_PRECISION_CONSTRAINTS in used and float16 in types_held and flags.FP16 not in used:
                return "Error Code 3: a layer wants FP16, and the builder flag FP16 is not set"
            quantised = any(layer.type.name == "QUANTIZE" for layer in network._layers)
            if flags.INT8 in used and not quantised:
                if config.int8_calibrator is None:
                    return "Error Code 4: Calibrator is required for INT8 without dynamic ranges"
                table = config.int8_calibrator.read_calibration_cache()
                wanted = config.int8_calibrator._algorithm
                if not re.match(rb"TRT-\d+-" + wanted.encode(), bytes(table or b"")):
                    return "Error Code 1: Calibration table does not match calibrator algorithm type."
                calls.append(("calibration", len(bytes(table).splitlines()) - 1))
            if config.default_device_type.name == "DLA":
                if not {flags.FP16, flags.INT8} & used or -1 in network.get_input(0).shape:
                    return "Error Code 9: DLA wants FP16 or INT8 and static shapes"
                if flags.GPU_FALLBACK not in used and not all(map(config.can_run_on_DLA, network._layers)):
                    return "Error Code 9: a layer cannot run on DLA and GPU fallback is not enabled"
            return ""

    class Inspector(Listed):
        listed = "EngineInspector"

        def get_engine_information(self, format: Any) -> str:
            return '{"Layers": [], "Bindings": []}'

    class Engine(Listed):
        listed = "ICudaEngine"
        device_memory_size = 4096

        def create_engine_inspector(self) -> Any:
            return Inspector()

    class Runtime(Listed):
        listed = "Runtime"
        num_DLA_cores = dla_cores  # noqa: N815 - TensorRT's name

        def __init__(self, logger: Any) -> None:
            self.DLA_core = 0

        def deserialize_cuda_engine(self, plan: bytes) -> Any:
            calls.append(("deserialize", self.DLA_core))
            return Engine() if plan.startswith(b"plan of") else None

    def calibrator(algorithm: str) -> type:
        return type("IInt8Calibrator", (), {"_algorithm": algorithm, "__init__": lambda self: None})

    module = {
        **enums, "ILogger": ILogger, "OnnxParser": OnnxParser, "Builder": Builder, "Runtime": Runtime,
        "IBuilderConfig": Config, "float32": float32, "float16": float16, "int8": int8,
        "IInt8EntropyCalibrator2": calibrator("EntropyCalibration2"),
        "IInt8MinMaxCalibrator": calibrator("MinMaxCalibration"), "__version__": version,
        "uint8": enums["DataType"].UINT8,
    }  # fmt: skip
    for name, value in module.items():
        assert LISTED.lookup("module", name) is not None, f"8.5 has no {name}"
        setattr(trt, name, value)
    trt.calls, trt.state = calls, state
    return trt
