"""Where a network's time goes in ONNX Runtime on one CPU thread, and how far that is from the machine's own bound.

    python tests/benchmarks/cpu_profile.py [--size 144] [--only span_ch26] [--repeats 9]

Milliseconds and share of each operator of the graph that ``export --rewrite cpu`` writes. The bound is the
fastest that this runtime multiplies two float32 matrices here (1024x1024, in the same run, between the profiled runs):
no convolution kernel without a transform does more. "padded" counts channels as the runtime's blocked kernels do,
rounded up to their block (--block, 16 with AVX-512): 26 channels cost as much as 32, and no rewriting of the graph that
computes the same changes that. Checkpoints are in weights/ of SRDEPLOY_ASSETS, default ../shared.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sr_deploy.core.media.sample import sample_input  # noqa: E402
from sr_deploy.graph.census import work_by_node  # noqa: E402
from sr_deploy.pipeline.export import ExportOptions, export_deployment  # noqa: E402

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", ROOT.parent / "shared"))
NETWORKS = ("span_ch26_x4.pth", "efdn_x4.pth", "light_f2srgan_x4_whole_module.pt", "f2srgan_x4.pt")
SIDE = 1024


def session(model: bytes, profile: str = "") -> onnxruntime.InferenceSession:
    """On one thread, with ONNX Runtime's own rewriting, as users run it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def matrices() -> onnxruntime.InferenceSession:
    """One product of two square matrices; the second is a constant, as weights are."""
    rng = np.random.default_rng(0)
    constant = onnx.numpy_helper.from_array(rng.random((SIDE, SIDE), np.float32), "b")
    shape = [SIDE, SIDE]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, shape)],
        [constant],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return session(model.SerializeToString())


def profiled(path: Path, lr: np.ndarray, repeats: int) -> Tuple[Dict[str, Dict[str, float]], float, float]:
    """Runs the graph and the matrices in turn.

    Returns:
        Node → {"operator", "ms" (median)}; the graph's median in ms; the matrices' best in products a second.
    """
    product, feed = matrices(), {"a": np.random.default_rng(1).random((SIDE, SIDE), np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        graph = session(path.read_bytes(), str(Path(folder) / "profile"))
        name = graph.get_inputs()[0].name
        walls: List[float] = []
        peak = 0.0
        for _ in range(repeats + 1):
            started = time.perf_counter()
            product.run(None, feed)
            peak = max(peak, SIDE**3 / (time.perf_counter() - started))
            started = time.perf_counter()
            graph.run(None, {name: lr})
            walls.append((time.perf_counter() - started) * 1e3)
        events: List[Dict[str, Any]] = json.loads(Path(graph.end_profiling()).read_text())
    times: Dict[str, List[float]] = defaultdict(list)
    operators: Dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            node = event["name"][: -len("_kernel_time")]
            times[node].append(event["dur"] / 1e3)
            operators[node] = event["args"]["op_name"]
    nodes = {node: {"operator": operators[node], "ms": statistics.median(values[1:])} for node, values in times.items()}
    return nodes, statistics.median(walls[1:]), peak


def convolutions(path: Path, size: Tuple[int, int], block: int) -> Tuple[int, float]:
    """Multiply-accumulates of all nodes, and what they are when channels are rounded up to ``block``."""
    work = work_by_node(path, size)
    model = onnx.load(str(path))
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    total, padded = 0, 0.0
    for node in model.graph.node:
        macs = work[node.name].macs if node.name in work else 0
        total += macs
        factor = 1.0
        if node.op_type == "Conv" and node.input[1] in shapes:
            outputs, inputs = shapes[node.input[1]][:2]
            group = next((a.i for a in node.attribute if a.name == "group"), 1)
            if group == 1:
                # Its first convolution reads three channels as they are.
                rounded = inputs if inputs < block else math.ceil(inputs / block) * block
                factor = rounded / inputs * math.ceil(outputs / block) * block / outputs
        padded += macs * factor
    return total, padded


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=144, help="side of the square input")
    parser.add_argument("--repeats", type=int, default=9, help="profiled runs, after one that is not counted")
    parser.add_argument("--only", default="", help="only checkpoints whose name begins so")
    parser.add_argument("--block", type=int, default=16, help="channels that the runtime's kernels take at once")
    arguments = parser.parse_args()
    if not (ASSETS / "weights").is_dir():
        parser.error(f"no checkpoints at {ASSETS}: set SRDEPLOY_ASSETS")
    warnings.simplefilter("ignore")
    size = (arguments.size, arguments.size)
    print(f"ONNX Runtime {onnxruntime.__version__}, one thread, {arguments.size}x{arguments.size}")
    for weights in filter(lambda name: name.startswith(arguments.only), NETWORKS):
        with tempfile.TemporaryDirectory() as folder:
            checkpoint, place = ASSETS / "weights" / weights, Path(folder) / "net"
            path = export_deployment(ExportOptions(checkpoint, place, (size,), rewrite="cpu")).folder / "model.onnx"
            lr = sample_input(size, 255.0 if "f2srgan" in weights else 1.0)
            nodes, wall, peak = profiled(path, lr, arguments.repeats)
            macs, padded = convolutions(path, size, arguments.block)
        by_operator: Dict[str, float] = defaultdict(float)
        for node in nodes.values():
            by_operator[str(node["operator"])] += float(node["ms"])
        total = sum(by_operator.values())
        print(f"\n{weights}: {wall:.1f} ms; {macs / 1e9:.3f} G multiply-accumulates, padded {padded / macs:.2f} times")
        for operator, spent in sorted(by_operator.items(), key=lambda item: -item[1]):
            print(f"  {operator:<24}{spent:>9.2f} ms  {spent / total:>6.1%}")
        convolving = sum(spent for operator, spent in by_operator.items() if "Conv" in operator)
        bound, real = macs / peak * 1e3, padded / peak * 1e3
        print(f"  matrices here: {peak / 1e9:.1f} G multiply-accumulates a second")
        print(f"  bound: {bound:.1f} ms, {real:.1f} ms padded; convolutions take {convolving:.1f} ms "
              f"({real / convolving:.0%} of the padded bound's speed)")  # fmt: skip


if __name__ == "__main__":
    main()
