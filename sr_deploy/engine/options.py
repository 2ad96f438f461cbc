"""How a TensorRT engine is to be built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Optional

from sr_deploy.engine.flavour import Progress


@dataclass(frozen=True)
class EngineOptions:
    """What a build is told beyond the graph, its sizes and the GPU.

    Attributes:
        precision: one of ENGINE_PRECISIONS. A strongly typed flavour takes the types from the graph, and this
            says which it must find there; TensorRT 8 is told by flags.
        workspace_bytes: limit of scratch memory that a layer may use; None leaves it to TensorRT.
        timing_cache: a file with the timings of earlier builds, read if it exists and written after; "tensorrt" only.
            What is wrong with it is among the warnings.
        progress: called during the build where the flavour can tell; raising there stops the build.
        layer_types: ONNX node name → "float16" or "float32" that TensorRT 8 must obey (precision/lower/tensorrt8.py);
            of no meaning to a strongly typed flavour, so it is refused there.
        calibration_cache: INT8 scales for TensorRT 8 and a graph without Q/DQ; refused likewise.
        rest: type of what is not quantised in an INT8 engine of TensorRT 8: "float16", or "float32".
        planned: ONNX node name → type, a plan's ``nodes``. They are compared with the network where it is strongly
            typed, and with the engine where the builder lists its layers or this machine can open it.
        dla_core: a Jetson's DLA core to run on, see engine/dla.py; None: the GPU.
        one_stream: run every layer after the one before. A builder else lets independent layers, such as those of two
            strips of rows, run beside each other, and gives each its own memory.
    """

    precision: str = "fp32"
    workspace_bytes: Optional[int] = None
    timing_cache: Optional[Path] = None
    progress: Optional[Progress] = None
    layer_types: Optional[Mapping[str, str]] = None
    calibration_cache: Optional[Path] = None
    rest: str = "float16"
    planned: Optional[Mapping[str, str]] = None
    dla_core: Optional[int] = None
    one_stream: bool = False


#: In float32, with all else left to TensorRT.
PLAIN = EngineOptions()
