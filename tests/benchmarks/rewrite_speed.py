"""Speed of rewritten graphs in ONNX Runtime on the CPU, FP32, as ratios.

    python tests/benchmarks/rewrite_speed.py [--sizes 144,360] [--repeats 9] [--threads 1,0] [--only f2srgan]
    python tests/benchmarks/rewrite_speed.py --strips 8,24,48 --sizes 360 --only f2srgan

For each network and size, graphs of that fixed size: the plain export of the folded network; the same with --rewrite
default; with the passes for a CPU (cpu), and with these and Fourier units' matrices split (cpu,parity). For F2SRGAN
also the plain export of the published Fourier transforms, made as in fourier_unit.py. All run in turn, so that a slow
moment of the machine falls on all; for each number of threads anew (0: ONNX Runtime's default, all cores).
Wanted: F2SRGAN ten times as fast as the published form at 144x144 and eight times at 360x360; Light and EFDN 1.15 times
as fast as the plain export of the folded network. With --strips instead: what running in so many row strips costs, as a
ratio to the default graph. Exit code 1 when one is missed. The checkpoints are in weights/ of the folder
SRDEPLOY_ASSETS, default ../shared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import numpy as np
import onnx
import onnxruntime
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from fourier_unit import write_graphs  # noqa: E402

from sr_deploy.core.media.sample import sample_input  # noqa: E402
from sr_deploy.core.tolerance import largest_difference  # noqa: E402
from sr_deploy.graph.rewrite import RewriteOptions, passes_named, rewrite  # noqa: E402
from sr_deploy.graph.rewrite.streaming import apply_streaming  # noqa: E402
from sr_deploy.graph.specialise import static_graph  # noqa: E402
from sr_deploy.pipeline.export import ExportOptions, export_deployment  # noqa: E402
from sr_deploy.pipeline.load import LoadOptions, load_model  # noqa: E402

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", ROOT.parent / "shared"))
PUBLISHED, FOLDED, DEFAULT = "published FFT", "folded, plain", "rewritten: default"
#: Form → passes, as for --rewrite.
REWRITTEN = {DEFAULT: "default", "rewritten: cpu": "cpu", "rewritten: cpu,parity": "cpu,parity"}
#: Checkpoint, what the rewritten graph is compared with, how many times as fast it should be at each side.
NETWORKS = (
    ("f2srgan_x4.pt", PUBLISHED, {144: 10.0, 360: 8.0}),
    ("light_f2srgan_x4_whole_module.pt", FOLDED, {144: 1.15, 360: 1.15}),
    ("efdn_x4.pth", FOLDED, {144: 1.15, 360: 1.15}),
    ("span_ch26_x4.pth", FOLDED, {}),
)


def graphs(weights: str, side: int, folder: Path) -> Dict[str, Path]:
    """Form → graph of that size."""
    paths: Dict[str, Path] = {}
    if weights.startswith("f2srgan"):
        _, loaded = load_model(ASSETS / "weights" / weights, LoadOptions())
        with torch.no_grad():
            made = write_graphs(loaded.module, torch.from_numpy(sample_input((side, side), 255.0)), folder)
        paths[PUBLISHED] = made["plain export"]
    options = ExportOptions(ASSETS / "weights" / weights, folder / "net", ((side, side),), rewrite="none")
    paths[FOLDED] = export_deployment(options).folder / "model.onnx"
    plain = onnx.load(str(paths[FOLDED]))
    for name, passes in REWRITTEN.items():
        made, steps = rewrite(plain, passes_named(passes), RewriteOptions(size=(side, side)))
        if "parity" in passes and not any(one.name == "parity" and result.changed for one, result in steps):
            continue
        paths[name] = folder / f"{passes}.onnx"
        onnx.save(made, str(paths[name]))
    return paths


def streamed_graphs(weights: str, side: int, folder: Path, counts: List[int]) -> Dict[str, Path]:
    """Form → the default graph of that size, as it is and in strips."""
    exported = export_deployment(ExportOptions(ASSETS / "weights" / weights, folder / "net")).folder / "model.onnx"
    model = static_graph(exported, (side, side))
    paths = {DEFAULT: folder / "whole.onnx"}
    onnx.save(model, str(paths[DEFAULT]))
    for strips in counts:
        name = f"in {strips} strips"
        paths[name] = folder / f"{strips}.onnx"
        onnx.save(apply_streaming(model, RewriteOptions(size=(side, side), strips=strips)).model, str(paths[name]))
    return paths


def measure(
    paths: Dict[str, Path], lr: np.ndarray, value_range: float, repeats: int, threads: int, clock: Callable[[], float]
) -> Tuple[Dict[str, List[float]], float]:
    """Form → seconds of every run, and the rewritten graphs' largest difference from the folded one in 8-bit steps."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    sessions = {
        name: onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for name, path in paths.items()
    }
    feeds = {name: {session.get_inputs()[0].name: lr} for name, session in sessions.items()}
    outputs = {name: session.run(None, feeds[name])[0] for name, session in sessions.items()}
    plain = outputs.get(FOLDED, outputs[DEFAULT])
    error = max(largest_difference(outputs[name], plain, value_range) for name in outputs if name != PUBLISHED)
    times: Dict[str, List[float]] = {name: [] for name in sessions}
    for _ in range(repeats):
        for name, session in sessions.items():
            start = clock()
            session.run(None, feeds[name])
            times[name].append(clock() - start)
    return times, error


def shown(name: str, found: Tuple[Dict[str, List[float]], float], reference: str) -> float:
    """Print the forms of one network; how many times as fast as ``reference`` the fastest rewritten one is."""
    times, error = found
    print(f"\n{name}; rewritten differs by {error:.5f} of 255 at most")
    base = statistics.median(times[reference])
    for form, values in times.items():
        median = statistics.median(values)
        spread = f"({min(values) * 1e3:.1f} … {max(values) * 1e3:.1f})"
        print(f"  {form:<26}{median * 1e3:>10.1f} ms  {spread:<22}{base / median:.2f} x {reference}", flush=True)
    return base / min(statistics.median(times[form]) for form in REWRITTEN if form in times)


def main() -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="144,360", help="sides of the square inputs, by commas")
    parser.add_argument("--repeats", type=int, default=9, help="timed runs of each form, after one that is not timed")
    parser.add_argument("--threads", default="0", help="threads of ONNX Runtime, by commas (0: its default)")
    parser.add_argument("--processor", action="store_true", help="processor time of one thread, on a machine in use")
    parser.add_argument("--only", default="", help="only checkpoints whose name begins so")
    parser.add_argument("--strips", default="", help="strip counts, by commas: time streaming instead of rewriting")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.strips.split(",") if count]
    if not (ASSETS / "weights").is_dir():
        parser.error(f"no checkpoints at {ASSETS}: set SRDEPLOY_ASSETS")
    if arguments.processor and arguments.threads != "1":
        parser.error("processor time is that of one thread: --threads 1")
    clock = time.process_time if arguments.processor else time.perf_counter
    warnings.simplefilter("ignore")
    print(f"ONNX Runtime {onnxruntime.__version__} on the CPU, {arguments.repeats} runs each, median (min … max)")
    missed: List[str] = []
    for weights, reference, wanted in NETWORKS:
        if not weights.startswith(arguments.only):
            continue
        for side in map(int, arguments.sizes.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                made = streamed_graphs(weights, side, Path(folder), counts) if counts else None
                paths = made or graphs(weights, side, Path(folder))
                value_range = 255.0 if "f2srgan" in weights else 1.0
                for threads in map(int, arguments.threads.split(",")):
                    lr = sample_input((side, side), value_range)
                    found = measure(paths, lr, value_range, arguments.repeats, threads, clock)
                    name = f"{weights}, input {side}x{side}, {threads or 'all'} threads"
                    reached = shown(name, found, DEFAULT if counts else reference)
                    if not counts and reached < wanted.get(side, 0.0):
                        missed.append(f"{name}: {reached:.2f}, wanted {wanted[side]:g}")
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
