"""From a network to an ONNX graph. The only place that calls ``torch.onnx``."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, Iterator, Optional

import onnx
import torch

from sr_deploy.core.contract import IOContract, Size
from sr_deploy.core.errors import CheckFailed
from sr_deploy.fold.dft import real_dft, scope_pattern
from sr_deploy.graph.target import Target

#: What a pinned node carries in its doc_string, for people who look at the graph.
PIN_MARK = "precision: float32"
#: Words of the exporter about operators that ONNX has for sizes known beforehand only.
_OF_THE_SIZE = ("not constant", "adaptive", "output_size", "dynamic", "unknown", "statically")
#: Another way, for what the exporter by tracing cannot see.
_NEWER = "or write it yourself with torch.onnx.export(…, dynamo=True), and give srdeploy export the .onnx file"


@dataclass(frozen=True)
class Graph:
    """An exported graph.

    Attributes:
        path: the ONNX file.
        size: its fixed input (height, width), or None when both are dynamic.
        opset: ONNX operator set version.
        pinned_fp32: node name → why it must stay float32.
    """

    path: Path
    size: Optional[Size]
    opset: int
    pinned_fp32: Dict[str, str]


class ClampedNetwork(torch.nn.Module):
    """The network with its output limited to ``0…value_range``, so that no consumer can wrap around at uint8."""

    def __init__(self, network: torch.nn.Module, value_range: float) -> None:
        super().__init__()
        self.network = network
        self.value_range = value_range

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 3, scale·H, scale·W), both in ``0…value_range``."""
        return self.network(lr).clamp(0.0, self.value_range)


def graph_from_model(
    network: torch.nn.Module,
    contract: IOContract,
    path: Path,
    target: Target,
    size: Optional[Size],
    traced_size: Size,
    pinned_modules: Dict[str, str],
) -> Graph:
    """Trace ``network`` and write it as ONNX, with its output clamped.

    ``torch.fft`` and complex tensors become real matrix products (fold/dft.py).

    The TorchScript exporter is used because the newer one writes operator sets from 18 on, and TensorRT 8.5 reads
    sets up to 17.

    Args:
        network: (1, 3, H, W) to (1, 3, scale·H, scale·W), in eval mode.
        contract: names and value range of both tensors.
        path: the file to write.
        target: gives the operator set.
        size: the fixed input (height, width); None writes dynamic axes named "height" and "width".
        traced_size: the input to trace with when ``size`` is None.
        pinned_modules: module name → reason; every node made by such a module is pinned to float32.

    Raises:
        CheckFailed: the exporter cannot write this network; the message holds what it said.
    """
    wrapped = ClampedNetwork(network, contract.value_range).eval()
    example = torch.rand(1, 3, *(size or traced_size)) * contract.value_range
    axes = None
    if size is None:
        axes = {
            contract.input_name: {2: "height", 3: "width"},
            contract.output_name: {2: "out_height", 3: "out_width"},
        }
    stream = io.BytesIO()
    try:
        with torch.no_grad(), _quiet(), real_dft(fixed=size is not None):
            torch.onnx.export(
                wrapped,
                (example,),
                stream,  # type: ignore[arg-type]  # a stream too, where dynamo is off
                opset_version=target.opset,
                input_names=[contract.input_name],
                output_names=[contract.output_name],
                dynamic_axes=axes,
                dynamo=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError, ValueError) as error:
        raise CheckFailed(
            f"this network cannot be written as ONNX: {_first_line(error)}",
            "a network made of operators that ONNX has",
            _hint(str(error), size),
        ) from error
    model = onnx.load_from_string(stream.getvalue())
    model.producer_name = "srdeploy"
    pinned = _pin(model, pinned_modules)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return Graph(Path(path), size, target.opset, pinned)


def _pin(model: onnx.ModelProto, pinned_modules: Dict[str, str]) -> Dict[str, str]:
    """Mark every node made inside a pinned module, and give node name → reason."""
    patterns = [(scope_pattern(f"network.{name}"), reason) for name, reason in pinned_modules.items()]
    pinned: Dict[str, str] = {}
    for node in model.graph.node:
        for pattern, reason in patterns:
            if pattern.match(node.name):
                node.doc_string = f"{PIN_MARK} ({reason})"
                pinned[node.name] = reason
    return pinned


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tracer's warnings and its dump of a failed trace from the user.

    Shapes frozen by tracing are caught by the proof at other sizes; what a failure was is in the exception. The dump
    is written by C++ to the process's stdout, and PyTorch 2.13 switches it on at every export, so the file descriptor
    itself is turned away.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    sys.stdout.flush()
    stdout, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(nowhere)
        logger.setLevel(level)


def _hint(text: str, size: Optional[Size]) -> str:
    """What helps against what the exporter said, by its words."""
    pooling = "output_size" in text or "adaptive" in text
    if size is None and any(mark in text for mark in _OF_THE_SIZE):
        sized = "export a graph for each size that you need: with --size HxW it is constant"
        # Of adaptive pooling the newer exporter writes what is right at whole multiples only.
        return sized if pooling else f"{sized}; {_NEWER}"
    if pooling:
        return f"adaptive pooling needs a --size of whole multiples of its output's, which tracing must see; {_NEWER}"
    if any(mark in text for mark in ("complex", "fft", "stft")):
        return "complex numbers and torch.fft need --spectral dft"
    return "replace the operator in the network"


def _first_line(error: BaseException) -> str:
    lines: Iterable[str] = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
