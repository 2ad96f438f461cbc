"""Processor time of every node of the graph that ONNX Runtime makes of a network, each timed alone, one thread.

    python tests/benchmarks/cpu_nodes.py [--size 144] [--only f2srgan_x4.pt] [--rewrite cpu] [--rows 20]

A profile of a whole run counts the time in which other programs had the processor; here each distinct node of the
optimised graph, with its shapes and weights, is a graph of its own and run until its least processor time is known. So
it can be read on a machine in use. Nodes of equal shapes are timed once. Not counted are nodes that only say shapes.
"products" are dense convolutions and matrix products; what they need at the speed of a large matrix product (1024x1024,
timed so too) is the floor that no rewriting without fewer products passes. Checkpoints are in weights/ of
SRDEPLOY_ASSETS, default ../shared.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import onnx
import onnxruntime
from cpu_profile import NETWORKS, SIDE, matrices
from onnx import helper

from sr_deploy.pipeline.export import ExportOptions, export_deployment

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[3] / "shared"))
#: Each node is run until this many seconds are spent, at least three and at most twelve times.
BUDGET = 0.25


def opened(model: bytes, optimise: bool, keep: str = "", profile: str = "") -> onnxruntime.InferenceSession:
    """A session of one thread; ``keep`` is where the optimised graph goes, ``profile`` where times and shapes go."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.optimized_model_filepath = keep
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def least(run: Any) -> float:
    """Least processor time of a call, seconds."""
    run()
    found: List[float] = []
    while len(found) < 3 or (sum(found) < BUDGET and len(found) < 12):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)


def optimised(path: Path, folder: Path) -> Tuple[onnx.ModelProto, Dict[str, Tuple[list, list]]]:
    """The graph as ONNX Runtime runs it, and node → types and shapes of its inputs and outputs."""
    opened(path.read_bytes(), True, keep=str(folder / "optimised.onnx"))
    model = onnx.load(str(folder / "optimised.onnx"))
    session = opened(model.SerializeToString(), False, profile=str(folder / "shapes"))
    entry = session.get_inputs()[0]
    session.run(None, {entry.name: np.random.default_rng(0).random(entry.shape, np.float32)})
    shapes = {}
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            given = (event["args"]["input_type_shape"], event["args"]["output_type_shape"])
            shapes[event["name"][: -len("_kernel_time")]] = given
    return model, shapes


def alone(model: onnx.ModelProto, node: onnx.NodeProto, inputs: list) -> float:
    """Milliseconds of one node with random inputs and its own constants; 0 where it computes no float32."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    names = [name for name in node.input if name]
    given = {name: next(iter(entry.items())) for name, entry in zip(names, inputs) if name not in constants}
    if not given or node.op_type == "Reshape" or any(kind != "float" for kind, _ in given.values()):
        return 0.0
    entries = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, (_, shape) in given.items()]
    ends = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    kept = [constants[name] for name in dict.fromkeys(names) if name in constants]
    graph = helper.make_graph([node], "node", entries, ends, kept)
    whole = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    session = opened(whole.SerializeToString(), False)
    feeds = {name: np.random.default_rng(1).random(shape, np.float32) for name, (_, shape) in given.items()}
    return least(lambda: session.run(None, feeds)) * 1e3


def products(node: onnx.NodeProto, inputs: list, outputs: list) -> float:
    """Multiply-accumulates of a dense convolution (its channels as the runtime pads them) or a matrix product."""
    shapes = [next(iter(entry.values())) for entry in inputs]
    made = next(iter(outputs[0].values())) if outputs else []
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    if node.op_type == "Conv" and groups == 1:
        return float(np.prod(shapes[1]) * np.prod(made[2:]))
    return float(np.prod(made) * shapes[0][-1]) if node.op_type == "MatMul" else 0.0


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=144, help="side of the square input")
    parser.add_argument("--only", default="f2srgan_x4.pt", help="only checkpoints whose name begins so")
    parser.add_argument("--rewrite", default="cpu", help="passes, as for export")
    parser.add_argument("--rows", type=int, default=20, help="so many kinds of nodes are shown")
    arguments = parser.parse_args()
    if not (ASSETS / "weights").is_dir():
        parser.error(f"no checkpoints at {ASSETS}: set SRDEPLOY_ASSETS")
    warnings.simplefilter("ignore")
    square, size = matrices(), (arguments.size, arguments.size)
    feed = {"a": np.random.default_rng(1).random((SIDE, SIDE), np.float32)}
    for weights in filter(lambda name: name.startswith(arguments.only), NETWORKS):
        with tempfile.TemporaryDirectory() as name:
            asked = ExportOptions(ASSETS / "weights" / weights, Path(name) / "net", (size,), rewrite=arguments.rewrite)
            model, shapes = optimised(export_deployment(asked).folder / "model.onnx", Path(name))
        times: Dict[str, List[float]] = {}
        count: Dict[str, int] = defaultdict(int)
        macs = 0.0
        for node in (one for one in model.graph.node if one.name in shapes):
            inputs, outputs = shapes[node.name]
            kind = f"{node.op_type} {[list(entry.values())[0] for entry in inputs]}"
            count[kind] += 1
            macs += products(node, inputs, outputs)
            if kind not in times:
                times[kind] = [alone(model, node, inputs), float(products(node, inputs, outputs) > 0)]
        total = {kind: count[kind] * spent for kind, (spent, _) in times.items()}
        dense = sum(total[kind] for kind, (_, is_product) in times.items() if is_product)
        speed = SIDE**3 / least(lambda: square.run(None, feed))
        print(
            f"{weights}, {arguments.size}x{arguments.size}, --rewrite {arguments.rewrite}: {sum(total.values()):.0f} ms"
        )
        print(
            f"products: {dense:.0f} ms; {macs / 1e9:.2f} G at {speed / 1e9:.1f} G/s: floor {macs / speed * 1e3:.0f} ms"
        )
        for kind in sorted(total, key=lambda kind: -total[kind])[: arguments.rows]:
            print(f"  {total[kind]:>8.2f} ms  {count[kind]:>3} x {times[kind][0]:.3f}  {kind}")


if __name__ == "__main__":
    main()
