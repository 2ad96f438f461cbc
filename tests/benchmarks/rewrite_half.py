"""What rewriting for a builder changes of a network's quality in FP16.

    python tests/benchmarks/rewrite_half.py [--only span efdn] [--rewrite tensorrt-rtx] [--set Set14]

Each network as it is exported by default and with more passes, both all in float16 with every result rounded to it, in
ONNX Runtime on the CPU; dB of PSNR-Y that each loses on Set5 (or ``--set``) against the float32 graph (negative: it
gains), and how much more the rewritten one loses. Wanted: at most 0.002 dB more. Exit code 1 when one is missed.
Networks whose FP16 is not finite are left out, and said. The data is found through SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Optional, Tuple

import onnx

from sr_deploy.graph.rewrite import RewriteOptions, passes_named, rewrite
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.precision.evaluate import computing, judge, scenes_of
from sr_deploy.precision.lower.typed_graph import half_graph
from tests.published import GOLDEN

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[3] / "shared"))
#: dB that rewriting may cost more.
MORE = 0.002


def losses(weights: str, passes: str, pictures: Path, folder: Path) -> Optional[Tuple[float, float]]:
    """dB lost in FP16 as exported and rewritten; None where FP16 is not finite."""
    deployment = export_deployment(ExportOptions(ASSETS / "weights" / weights, folder))
    manifest = deployment.manifest
    plain = onnx.load(str(deployment.folder / "model.onnx"))
    options = RewriteOptions(value_range=manifest.contract.value_range)
    scenes = scenes_of(
        pictures / "LR_bicubic" / f"X{manifest.scale}", pictures / "HR", manifest.scale, manifest.contract,
        computing(plain),
    )  # fmt: skip
    found = []
    for graph in (plain, rewrite(plain, passes_named(passes), options)[0]):
        half = computing(half_graph(graph, keep_pinned=False))
        judged = judge(scenes, half, manifest.scale, manifest.contract)
        if judged.sick:
            return None
        found.append(judged.loss)
    return found[0], found[1]


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--rewrite", default="tensorrt-rtx")
    parser.add_argument("--set", default="Set5")
    asked = parser.parse_args()
    print("| checkpoint | FP16 as exported, dB lost | rewritten | more |\n|---|---|---|---|")
    missed = False
    for weights, _, _ in GOLDEN:
        if asked.only and not any(name in weights for name in asked.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = losses(weights, asked.rewrite, ASSETS / "images" / asked.set, Path(folder) / "net")
        if found is None:
            print(f"| {weights} | not finite | | |", flush=True)
            continue
        before, after = found
        missed = missed or after - before > MORE
        print(f"| {weights} | {before:+.4f} | {after:+.4f} | {after - before:+.4f} |", flush=True)
    sys.exit(int(missed))


if __name__ == "__main__":
    main()
