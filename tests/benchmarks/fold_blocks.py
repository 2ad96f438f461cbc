"""Convolutions before and after folding: blocks of published networks, and networks given as ONNX by torch's exporters.

    python tests/benchmarks/fold_blocks.py blocks [--channels 16]
    python tests/benchmarks/fold_blocks.py routes [--only efdn]

blocks: each block of tests/graph/training_blocks.py with random weights and BatchNorm statistics, activation inside, as
torch's TorchScript exporter and its newer one write it: operators before and after ``--rewrite fold``, multiply-
accumulates per pixel, and the largest difference of the graph in float32 from the block in float64 over its largest
value at an even, an odd and two tiny sizes.

routes: each shared checkpoint, and EFDN, SPAN and ECBSR in training form with random weights: convolutions of the graph
that ``export`` writes, and of the graph that each of torch's exporters writes of the network as trained, before and
after the default passes; the largest difference of weights between the routes, convolution by convolution, each over
its largest (a factor in front of a region goes into its weights), and of the pictures in 8-bit steps. The data is found
through SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Iterator, List, Tuple

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sr_deploy.core.contract import Size  # noqa: E402
from sr_deploy.graph.rewrite import RewriteOptions, passes_named, rewrite  # noqa: E402
from sr_deploy.models.ecbsr import ECBSRNetwork  # noqa: E402
from sr_deploy.pipeline.export import ExportOptions, export_deployment  # noqa: E402
from sr_deploy.pipeline.load import LoadOptions, load_model  # noqa: E402
from tests import synthetic_checkpoints  # noqa: E402
from tests.graph.training_blocks import BLOCKS, randomised  # noqa: E402
from tests.models.random_weights import random_tensors, renamed  # noqa: E402
from tests.published import GOLDEN, NTIRE  # noqa: E402

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", ROOT.parent / "shared"))
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


def blocks(channels: int) -> None:
    """Print the table of blocks."""
    print("| block | exporter | before | after | MACs a pixel | relative error |\n|---|---|---|---|---|---|")
    for name, make in BLOCKS.items():
        for dynamo in (False, True):
            block = randomised(make(channels))
            model = exported(block, channels, dynamo)
            (step,) = passes_named("fold")
            result = step.apply(model, RewriteOptions(traced=TRACED))
            worst = 0.0
            for size in PROVED:
                x = torch.randn((1, channels, *size), generator=torch.Generator().manual_seed(sum(size)))
                with torch.no_grad():
                    wanted = block.double()(x.double()).numpy()
                    block.float()
                worst = max(worst, np.abs(output_of(result.model, x.numpy()) - wanted).max() / np.abs(wanted).max())
            macs = " + ".join(f"{one.macs_before:,} → {one.macs_after:,}" for one in result.folded)
            kind = "newer" if dynamo else "TorchScript"
            row = (name, kind, counted(model), counted(result.model), macs, f"{worst:.1e}")
            print("| " + " | ".join(row) + " |", flush=True)
            for one in result.kept:
                print(f"stays: {one}")


def checkpoints(folder: Path, only: str) -> Iterator[Path]:
    """The shared checkpoints, and two in training form, written to ``folder``."""
    ecbsr = random_tensors(ECBSRNetwork((3, 16, 16, 12), 2, "prelu", (32, 32, 24), identity=True))
    training = {
        "efdn_training.pth": synthetic_checkpoints.efdn_training(16, 2, 0),
        "span_training.pth": synthetic_checkpoints.span_training(16, 2, 0),
        "ecbsr_training.pth": renamed(ecbsr, {f"backbone.{n}.conv3x3.": f"backbone.{n}." for n in range(3)}),
    }
    for name, weights in training.items():
        if only in name:
            torch.save(dict(weights), folder / name)
            yield folder / name
    for name in [case[0] for case in (*GOLDEN, *NTIRE)]:
        if only in name:
            yield ASSETS / "weights" / name


def weights_of(model: onnx.ModelProto) -> List[np.ndarray]:
    """The weights of all convolutions, in the graph's order, each over its largest magnitude."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = [constants[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]
    return [weight / np.abs(weight).max() for weight in found]


def routes(only: str) -> None:
    """Print the table of routes."""
    print("| checkpoint | export | exporter | before | after | weights differ | pictures differ |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for path in checkpoints(Path(name), only):
            own = onnx.load(str(export_deployment(ExportOptions(path, Path(name) / path.stem)).folder / "model.onnx"))
            _, loaded = load_model(path, LoadOptions())
            for dynamo in (False, True):
                kind = "newer" if dynamo else "TorchScript"
                try:
                    model = exported(loaded.module, 3, dynamo)
                except Exception as error:  # networks with transforms are not written by torch
                    print(f"| {path.name} | {counted(own)} | {kind} | {type(error).__name__} | | | |", flush=True)
                    continue
                options = RewriteOptions(traced=TRACED, value_range=loaded.value_range)
                after, _ = rewrite(model, passes_named("default"), options)
                pairs = list(zip(weights_of(own), weights_of(after)))
                same = len(weights_of(own)) == len(weights_of(after)) and all(a.shape == b.shape for a, b in pairs)
                weights = max(float(np.abs(a - b).max()) for a, b in pairs) if same else np.inf
                x = np.random.default_rng(0).random((1, 3, *TRACED), np.float32) * np.float32(loaded.value_range)
                pictures = np.abs(
                    output_of(own, x) - np.clip(output_of(after, x), 0, np.float32(loaded.value_range))
                ).max() * (255 / loaded.value_range)
                row = (path.name, counted(own), kind, counted(model), counted(after), f"{weights:.0e}")
                print("| " + " | ".join(row) + f" | {pictures:.4f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("table", choices=("blocks", "routes"))
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--only", default="", help="only checkpoints whose name holds this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.table == "blocks":
        blocks(arguments.channels)
    else:
        routes(arguments.only)
