"""Convolutions before and after folding: blocks of published networks, and two networks of such blocks.

    python tests/benchmarks/fold_blocks.py blocks [--channels 16]
    python tests/benchmarks/fold_blocks.py networks

blocks: each block of tests/graph/training_blocks.py with random weights and BatchNorm statistics, activation inside, as
torch's TorchScript exporter and its newer one write it: operators before and after ``--rewrite fold``, multiply-
accumulates per pixel, and the largest difference of the graph in float32 from the block in float64 over its largest
value at an even, an odd and two tiny sizes.

networks: RepRLFN and ECBSR (M4C16, one channel, x2), random weights, as the TorchScript exporter writes them, beside
the convolutions and parameters of what their authors deploy.
"""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Sequence, Tuple

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sr_deploy.core.contract import Size  # noqa: E402
from sr_deploy.graph.rewrite import RewriteOptions, passes_named  # noqa: E402
from sr_deploy.models.architectures.ecbsr import ECBSRNetwork  # noqa: E402
from sr_deploy.models.architectures.rlfn import BlockShape, LocalFeatureBlock, RLFNNetwork  # noqa: E402
from tests.graph.training_blocks import BLOCKS, RepBlock, randomised  # noqa: E402
from tests.models.random_weights import random_tensors  # noqa: E402

TRACED: Size = (40, 56)
PROVED: Tuple[Size, ...] = (TRACED, (45, 51), (5, 4), (3, 3))


def exported(network: torch.nn.Module, channels: int, dynamo: bool) -> onnx.ModelProto:
    """What torch writes of a network of any picture size, by its newer exporter or by the TorchScript one."""
    example = torch.rand(1, channels, *TRACED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            free = torch.export.Dim.DYNAMIC
            program = torch.onnx.export(
                network, (example,), dynamo=True, dynamic_shapes=({2: free, 3: free},), verbose=False
            )
            return program.model_proto
        stream = io.BytesIO()
        axes = {"x": {2: "height", 3: "width"}, "y": {2: "out_height", 3: "out_width"}}
        torch.onnx.export(
            network, (example,), stream, dynamo=False, opset_version=17, input_names=["x"], output_names=["y"],
            dynamic_axes=axes,
        )  # fmt: skip
        return onnx.load_from_string(stream.getvalue())


def counted(model: onnx.ModelProto) -> str:
    """ "6 Conv, 1 BatchNormalization": what weighs values."""
    layers = ("Conv", "BatchNormalization", "AveragePool", "MatMul")
    counts = Counter(node.op_type for node in model.graph.node)
    return ", ".join(f"{counts[name]} {name}" for name in layers if counts[name])


def output_of(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """What the graph gives, in ONNX Runtime on the CPU."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def relative_error(model: onnx.ModelProto, network: torch.nn.Module, channels: int, sizes: Sequence[Size]) -> float:
    """The largest difference of the graph from ``network`` in float64, over the largest value."""
    worst = 0.0
    for size in sizes:
        x = torch.randn((1, channels, *size), generator=torch.Generator().manual_seed(sum(size)))
        with torch.no_grad():
            wanted = network.double()(x.double()).numpy()
            network.float()
        worst = max(worst, np.abs(output_of(model, x.numpy()) - wanted).max() / np.abs(wanted).max())
    return worst


def blocks(channels: int) -> None:
    """Print the table of blocks."""
    print("| block | exporter | before | after | MACs a pixel | relative error |\n|---|---|---|---|---|---|")
    for name, make in BLOCKS.items():
        for dynamo in (False, True):
            block = randomised(make(channels))
            model = exported(block, channels, dynamo)
            (step,) = passes_named("fold")
            result = step.apply(model, RewriteOptions(traced=TRACED))
            worst = relative_error(result.model, block, channels, PROVED)
            macs = " + ".join(f"{one.macs_before:,} → {one.macs_after:,}" for one in result.folded)
            kind = "newer" if dynamo else "TorchScript"
            row = (name, kind, counted(model), counted(result.model), macs, f"{worst:.1e}")
            print("| " + " | ".join(row) + " |", flush=True)
            for one in result.kept:
                print(f"stays: {one}")


def parameters(model: onnx.ModelProto) -> int:
    """How many weights, biases and slopes convolutions and PReLU have."""
    constants = {tensor.name: numpy_helper.to_array(tensor).size for tensor in model.graph.initializer}
    trained = [node for node in model.graph.node if node.op_type in ("Conv", "PRelu")]
    return sum(constants.get(name, 0) for node in trained for name in node.input)


def rep_rlfn() -> torch.nn.Module:
    """RepRLFN: RLFN whose 3x3 convolutions are branches with an activation behind them."""
    network = RLFNNetwork(48, [BlockShape(48, 48, 15)] * 4, scale=4)
    for block in [part for part in network.modules() if isinstance(part, LocalFeatureBlock)]:
        block.c1_r, block.c2_r, block.c3_r = (RepBlock(48) for _ in range(3))  # type: ignore[assignment]
    return randomised(network)


def ecbsr_m4c16() -> torch.nn.Module:
    """ECBSR as published for luma: four blocks of 16 channels between the first and the last, x2."""
    network = ECBSRNetwork((1, *[16] * 5, 4), 2, "prelu", (*[32] * 5, 8), identity=True)
    network.load_state_dict(random_tensors(network))
    return network.eval()


def networks() -> None:
    """Print the table of networks."""
    print("| network | before | after | parameters | as its authors deploy it | relative error |")
    print("|---|---|---|---|---|---|")
    for name, make, channels, deployed in (
        ("RepRLFN", rep_rlfn, 3, "39 Conv, 325,020 parameters"),
        ("ECBSR M4C16", ecbsr_m4c16, 1, "6 Conv, 10,100 parameters"),
    ):
        network = make()
        model = exported(network, channels, dynamo=False)
        (step,) = passes_named("fold")
        result = step.apply(model, RewriteOptions(traced=TRACED))
        worst = relative_error(result.model, network, channels, PROVED[:2])
        weights = f"{parameters(result.model):,}"
        row = (name, counted(model), counted(result.model), weights, deployed, f"{worst:.1e}")
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("table", choices=("blocks", "networks"))
    parser.add_argument("--channels", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.table == "blocks":
        blocks(arguments.channels)
    else:
        networks()
