"""Rewritten graphs against unrewritten ones, every shared checkpoint: golden pictures and random sizes.

    python tests/benchmarks/rewrite_equality.py [--sizes 20] [--seed 0] [--only f2srgan] [--rewrite default,prelu]

Each checkpoint is exported once, for any size and without rewriting; the rewritten graph must give the same picture, in
ONNX Runtime on the CPU, on its two golden inputs and on pictures of random heights and widths from 16 to 400 (at least
what the network takes). Printed is the largest difference in 8-bit steps. Exit code 1 when one exceeds 0.05. The data
is found through SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sr_deploy.core.sample import sample_input  # noqa: E402
from sr_deploy.core.tolerance import GRAPH_FP32, largest_difference  # noqa: E402
from sr_deploy.graph.rewrite import RewriteOptions, passes_named, rewrite  # noqa: E402
from sr_deploy.pipeline.export import ExportOptions, export_deployment  # noqa: E402
from sr_deploy.run.base import upscale  # noqa: E402
from sr_deploy.run.onnxruntime import runner_from_graph  # noqa: E402
from tests.published import GOLDEN  # noqa: E402

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", ROOT.parent / "shared"))


def differences(weights: str, golden: str, value_range: float, names: str, count: int, seed: int):
    """Largest difference on the golden inputs; the one on random sizes, and at which size."""
    generator = np.random.default_rng(seed)
    stored = np.load(ASSETS / "golden" / golden)
    scale = value_range / 255
    with tempfile.TemporaryDirectory() as folder:
        export = ExportOptions(ASSETS / "weights" / weights, Path(folder) / "net", rewrite="none")
        deployment = export_deployment(export)
        contract = deployment.manifest.contract
        paths = [deployment.folder / "model.onnx", Path(folder) / "rewritten.onnx"]
        options = RewriteOptions(value_range=value_range)
        onnx.save(rewrite(onnx.load(str(paths[0])), passes_named(names), options)[0], str(paths[1]))
        before, after = (
            runner_from_graph(path, contract, deployment.manifest.scale, provider="CPUExecutionProvider")
            for path in paths
        )

        def difference(lr: np.ndarray) -> float:
            return largest_difference(upscale(after, lr), upscale(before, lr), value_range)

        pictures = (stored[f"input_{parity}"].transpose(2, 0, 1)[None] for parity in ("even", "odd"))
        on_golden = max(difference(picture.astype(np.float32) * scale) for picture in pictures)
        worst, where = 0.0, "-"
        low = max(16, deployment.manifest.sizes.minimum)
        for number in range(count):
            size = tuple(int(side) for side in generator.integers(low, 401, 2))
            here = difference(sample_input(size, value_range, seed + number))
            if here >= worst:
                worst, where = here, f"{size[0]}x{size[1]}"
    return on_golden, worst, where


def main() -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, default=20, help="random sizes for each checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only checkpoints whose name begins so")
    parser.add_argument("--rewrite", nargs="+", default=["default", "default,prelu"], help="sets of passes to check")
    arguments = parser.parse_args()
    if not (ASSETS / "weights").is_dir():
        parser.error(f"no checkpoints at {ASSETS}: set SRDEPLOY_ASSETS")
    good = True
    print("| checkpoint | passes | golden | random sizes | worst at |")
    print("|---|---|---|---|---|")
    for weights, golden, value_range in GOLDEN:
        if not weights.startswith(arguments.only):
            continue
        for names in arguments.rewrite:
            on_golden, worst, where = differences(
                weights, golden, value_range, names, arguments.sizes, arguments.seed
            )
            good = good and max(on_golden, worst) <= GRAPH_FP32.steps
            print(f"| {weights} | {names} | {on_golden:.5f} | {worst:.5f} | {where} |", flush=True)
    print(f"largest allowed: {GRAPH_FP32.steps} of 255")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
