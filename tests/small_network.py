"""A network small enough to export and build within a second, in every form that the engine and run tests need."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from sr_deploy.core.contract import IOContract

SCALE = 2
CONTRACT = IOContract(value_range=1.0)
FIXED_SIZE = (8, 10)


def small_network() -> torch.nn.Module:
    """Convolution, PReLU, convolution, pixel shuffle, clamp; its outputs lie well inside 0…1 for inputs in 0…1."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.PReLU(8),
        torch.nn.Conv2d(8, 3 * SCALE**2, 3, padding=1),
        torch.nn.PixelShuffle(SCALE),
        torch.nn.Hardtanh(0.0, 1.0),
    )
    torch.nn.init.constant_(network[2].bias, 0.5)
    return network.eval()


@dataclass(frozen=True)
class SmallGraphs:
    """``dynamic`` takes any size, ``fixed`` takes FIXED_SIZE."""

    dynamic: Path
    fixed: Path


def small_graphs(folder: Path) -> SmallGraphs:
    """Export the network as the product does: TorchScript exporter, opset 17, axes named height and width."""
    graphs = SmallGraphs(folder / "model.onnx", folder / "model_8x10.onnx")
    axes = {"lr": {2: "height", 3: "width"}, "sr": {2: "out_height", 3: "out_width"}}
    for path, dynamic_axes in ((graphs.dynamic, axes), (graphs.fixed, None)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                small_network(),
                (torch.rand(1, 3, *FIXED_SIZE),),
                str(path),
                opset_version=17,
                input_names=["lr"],
                output_names=["sr"],
                dynamic_axes=dynamic_axes,
                dynamo=False,
            )
    return graphs
