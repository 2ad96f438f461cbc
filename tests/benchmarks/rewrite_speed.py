"""Speed of rewritten graphs in ONNX Runtime on the CPU, FP32, as ratios.

    python tests/benchmarks/rewrite_speed.py [--sizes 144,360] [--repeats 9] [--threads 0] [--only f2srgan]
    python tests/benchmarks/rewrite_speed.py --strips 8,24,48 --sizes 360 --only f2srgan

For each network and size, graphs of that fixed size: the plain export of the folded network; the same with --rewrite
default; and with the passes that pay on a CPU (default,prelu). For F2SRGAN also the plain export of the published
Fourier transforms, made as in fourier_unit.py. All run in turn, so that a slow moment of the machine falls on all.
Wanted: F2SRGAN at 144x144 eight times as fast as the published form; Light, EFDN and SPAN 1.15 times as fast as the
plain export of the folded network. With --strips instead: what running in so many row strips costs, as a ratio to the
default graph. Exit code 1 when one is missed. The checkpoints are in weights/ of the folder
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
from typing import Dict, List

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
PUBLISHED, FOLDED, DEFAULT, CPU = "published FFT", "folded, plain", "rewritten: default", "rewritten: default,prelu"
#: Checkpoint, what the rewritten graph is compared with, how many times as fast it should be, at which side (0: all).
NETWORKS = (
    ("f2srgan_x4.pt", PUBLISHED, 8.0, 144),
    ("light_f2srgan_x4_whole_module.pt", FOLDED, 1.15, 0),
    ("efdn_x4.pth", FOLDED, 1.15, 0),
    ("span_ch26_x4.pth", FOLDED, 1.15, 0),
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
    for name, passes in ((DEFAULT, "default"), (CPU, "default,prelu")):
        paths[name] = folder / f"{passes}.onnx"
        onnx.save(rewrite(plain, passes_named(passes), RewriteOptions(size=(side, side)))[0], str(paths[name]))
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


def measure(paths: Dict[str, Path], lr, value_range: float, repeats: int, threads: int):
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
            start = time.perf_counter()
            session.run(None, feeds[name])
            times[name].append(time.perf_counter() - start)
    return times, error


def main() -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="144,360", help="sides of the square inputs, by commas")
    parser.add_argument("--repeats", type=int, default=9, help="timed runs of each form, after one that is not timed")
    parser.add_argument("--threads", type=int, default=0, help="threads of ONNX Runtime (0: its default)")
    parser.add_argument("--only", default="", help="only checkpoints whose name begins so")
    parser.add_argument("--strips", default="", help="strip counts, by commas: time streaming instead of rewriting")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.strips.split(",") if count]
    if not (ASSETS / "weights").is_dir():
        parser.error(f"no checkpoints at {ASSETS}: set SRDEPLOY_ASSETS")
    warnings.simplefilter("ignore")
    print(f"ONNX Runtime {onnxruntime.__version__} on the CPU, {arguments.repeats} runs each, median (min … max)")
    missed = []
    for weights, reference, wanted, wanted_at in NETWORKS:
        if not weights.startswith(arguments.only):
            continue
        for side in map(int, arguments.sizes.split(",")):
            value_range = 255.0 if "f2srgan" in weights else 1.0
            with tempfile.TemporaryDirectory() as folder:
                if counts:
                    reference, wanted = DEFAULT, 0.0
                    paths = streamed_graphs(weights, side, Path(folder), counts)
                else:
                    paths = graphs(weights, side, Path(folder))
                lr = sample_input((side, side), value_range)
                times, error = measure(paths, lr, value_range, arguments.repeats, arguments.threads)
            print(f"\n{weights}, input {side}x{side}; rewritten differs by {error:.5f} of 255 at most")
            base = statistics.median(times[reference])
            for name, values in times.items():
                median = statistics.median(values)
                spread = f"({min(values) * 1e3:.1f} … {max(values) * 1e3:.1f})"
                ratio = f"{base / median:.2f} x {reference}"
                print(f"  {name:<26}{median * 1e3:>10.1f} ms  {spread:<22}{ratio}", flush=True)
            reached = base / min(statistics.median(times[name]) for name in (DEFAULT, CPU) if name in times)
            if wanted_at in (0, side) and reached < wanted:
                missed.append(f"{weights} at {side}x{side}: {reached:.2f}, wanted {wanted:g}")
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
