"""The runtimes that run an engine: one row each. Another one is a file with three functions, and its row here.

A row says what a runtime can; whoever asks looks there and never at its name. The functions stand as "module:function"
and are imported when they are called: the table loads no runtime, and everything may read it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

from pydantic import AfterValidator
from typing_extensions import Annotated

#: The runtime that runs a deployment's graphs as they are.
GRAPH_RUNTIME = "onnxruntime"


@dataclass(frozen=True)
class Runtime:
    """One row.

    Attributes:
        name: as ``--backend`` gives it.
        suffix: of its engines' files.
        version: () → its version here, or None where it is not installed.
        build: (deployment, BuildPlan, BuildOptions, say) → EngineManifest; writes the engine and its manifest into the
            deployment, see pipeline/engines/build.py.
        open: (path, EngineManifest, threads) → Runner of an engine that was proved and fits; see run/base.py.
        title: as people write it.
        engine_is_graph: its engine is an ONNX file.
        for_one_gpu: its engines are built for compute capabilities and run on no other GPU.
        builds_for_absent: it builds for compute capabilities that are given, without such a GPU.
        any_size: it builds an engine for any size, without being told sizes.
        tells_memory: its builder reports the memory of activations, which ``--memory-budget`` needs.
        times_layers: its builder keeps timings of layers for the next build.
        has_dla: it drives a Jetson's DLA.
        implicit_int8: one of its generations takes INT8 scales from a calibration cache.
        weighs_8_bits: its engines of 8 bits move more bytes than FP16 ones for some networks, so the two are compared.
        rewrite: passes of graph/rewrite that its builds try on the deployment's graph, see
            pipeline/engines/rewritten.py; "": it is given the graph as it is.
        triton: the name of Triton's backend that loads its engines; "" where none does.
    """

    name: str
    suffix: str
    version: str
    build: str
    open: str
    title: str
    engine_is_graph: bool = False
    for_one_gpu: bool = False
    builds_for_absent: bool = False
    any_size: bool = False
    tells_memory: bool = False
    times_layers: bool = False
    has_dla: bool = False
    implicit_int8: bool = False
    weighs_8_bits: bool = False
    rewrite: str = ""
    triton: str = ""

    def call(self, function: str, *arguments: Any) -> Any:
        """Call one of its functions, "version", "build" or "open"; see the attribute."""
        module, name = getattr(self, function).split(":")
        return getattr(importlib.import_module(module), name)(*arguments)

    def version_here(self) -> Optional[str]:
        """Its version; None where it is not installed."""
        version: Optional[str] = self.call("version")
        return version


_ROWS = (
    Runtime(
        "tensorrt",
        ".engine",
        version="sr_deploy.engine.flavour:tensorrt_version",
        build="sr_deploy.pipeline.engines.build_tensorrt:build_engine",
        open="sr_deploy.run.tensorrt:open_engine",
        title="TensorRT",
        for_one_gpu=True,
        tells_memory=True,
        times_layers=True,
        has_dla=True,
        implicit_int8=True,
        triton="tensorrt",
    ),
    Runtime(
        "tensorrt-rtx",
        ".engine",
        version="sr_deploy.engine.flavour:tensorrt_rtx_version",
        build="sr_deploy.pipeline.engines.build_tensorrt:build_engine",
        open="sr_deploy.run.tensorrt:open_engine",
        title="TensorRT-RTX",
        for_one_gpu=True,
        builds_for_absent=True,
        tells_memory=True,
        weighs_8_bits=True,
        rewrite="tensorrt-rtx",
    ),
    Runtime(
        "onnxruntime",
        ".onnx",
        version="sr_deploy.engine.onnxruntime:onnxruntime_version",
        build="sr_deploy.pipeline.engines.build_onnxruntime:build_engine",
        open="sr_deploy.run.onnxruntime:open_engine",
        title="ONNX Runtime",
        engine_is_graph=True,
        any_size=True,
        triton="onnxruntime",
    ),
)

#: Name → row, the one that is preferred first.
RUNTIMES: Dict[str, Runtime] = {row.name: row for row in _ROWS}


def rank(name: str) -> int:
    """Place of a runtime in the table: the engine of the first one is preferred."""
    return list(RUNTIMES).index(name)


def names() -> Tuple[str, ...]:
    """All names, in the alphabet's order."""
    return tuple(sorted(RUNTIMES))


def named() -> str:
    """All names in words, for help and errors."""
    first = names()
    return f"{', '.join(first[:-1])} or {first[-1]}"


def suffixes() -> Tuple[str, ...]:
    """Endings that engines' files have."""
    return tuple(dict.fromkeys(row.suffix for row in RUNTIMES.values()))


def _known(name: str) -> str:
    if name not in RUNTIMES:
        *rest, last = (repr(one) for one in names())
        raise ValueError(f"input should be {', '.join(rest)} or {last}")
    return name


#: A runtime's name in a file that is read.
RuntimeName = Annotated[str, AfterValidator(_known)]
