"""Record latency traces of real ONNX Runtime runs for gate_simulation.py.

    python tests/benchmarks/gate_traces.py --out tests/benchmarks/traces/this_machine.npz [--seconds 20]

The networks are small stacks of 3x3 convolutions of three depths, made here, so that no checkpoint is needed; each
runs on one thread and on two, one trace a pair. A trace is every iteration's seconds in the order taken, without a
warm-up cut away, as float32. Whatever else the machine does meanwhile is part of the trace, and wanted: it is what a
gate meets on a shared runner. A second recording under another name adds to what the simulation draws from.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

#: Name → (3x3 convolutions, channels, input height and width): about half a millisecond, a few, and tens of them.
NETWORKS = {"small": (3, 16, 48), "middle": (6, 24, 96), "large": (8, 32, 160)}
#: At most so many samples of a trace are kept, in the order taken: the file stays below 200 KiB.
KEPT = 9000


def write_network(path: Path, depth: int, channels: int, edge: int) -> None:
    """A stack of convolutions with ReLU, random weights, input and output (1, 3, edge, edge)."""
    random = np.random.default_rng(0)
    nodes, weights, name, width = [], [], "lr", 3
    for index in range(depth):
        wide = 3 if index == depth - 1 else channels
        kernel = random.standard_normal((wide, width, 3, 3)).astype(np.float32) / np.float32(9 * width)
        weights.append(numpy_helper.from_array(kernel, f"w{index}"))
        nodes.append(helper.make_node("Conv", [name, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1]))
        name, width = ("sr" if index == depth - 1 else f"r{index}"), wide
        nodes.append(helper.make_node("Relu", [f"c{index}"], [name]))
    graph = helper.make_graph(
        nodes,
        "stack",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, [1, 3, edge, edge])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, edge, edge])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def record(path: Path, edge: int, threads: int, seconds: float) -> np.ndarray:
    """Seconds of every iteration, float32."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {"lr": np.random.default_rng(1).random((1, 3, edge, edge), dtype=np.float32)}
    samples, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds and len(samples) < KEPT:
        before = time.perf_counter()
        session.run(None, feed)
        samples.append(time.perf_counter() - before)
    return np.asarray(samples, dtype=np.float32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the .npz file to write")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of the six traces, at most")
    options = parser.parse_args()
    traces = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (depth, channels, edge) in NETWORKS.items():
            path = Path(folder) / f"{name}.onnx"
            write_network(path, depth, channels, edge)
            for threads in (1, 2):
                trace = record(path, edge, threads, options.seconds)
                traces[f"{name}_{threads}"] = trace
                shown = np.round(np.percentile(trace, [25, 50, 75, 99]) * 1e3, 3)
                print(f"{name:7} {threads} threads: {trace.size:5} samples, ms at 25/50/75/99 %: {shown}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.out, **traces)
    print(f"{options.out}: {options.out.stat().st_size / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
