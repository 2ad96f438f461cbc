"""INT8 quality step by step: plain ranges, bias correction, learned rounding, fine-tuning; PSNR-Y lost, and seconds.

    python tests/benchmarks/qat_quality.py WORK                     the four networks, all steps
    python tests/benchmarks/qat_quality.py WORK --only span --steps 300

Each network's rows are kept in WORK as they are measured and are not measured again, and an interrupted fine-tuning
goes on where it stopped. Ranges and training see the calibration photographs only; Set5 and Set14 only judge. Seconds
are CPU time of this process, and of fine-tuning the time that passed. Data is found through SRDEPLOY_ASSETS (default
../shared).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np

from sr_deploy.core.artifact import write_json
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.media.image import find_images, read_picture, to_network
from sr_deploy.graph.census import work_by_node
from sr_deploy.graph.specialise import load_graph
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.precision.calibrate.collect import patches, ranges_of
from sr_deploy.precision.calibrate.ranges import scale_of
from sr_deploy.precision.choose.islands import kinds_of
from sr_deploy.precision.choose.plan_from_ranges import Scales, narrow_plan, narrow_share
from sr_deploy.precision.evaluate import computing, judge, scenes_of
from sr_deploy.precision.fit.adaptive_rounding import learned_rounding
from sr_deploy.precision.fit.bias_correction import corrected_bias
from sr_deploy.precision.fit.qat import STATE_NAME, fine_tune
from sr_deploy.precision.fit.qat_learner import Lesson, QatOptions
from sr_deploy.precision.lower.typed_graph import typed_graph

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[3] / "shared"))
NETWORKS = ("efdn_x4.pth", "span_ch26_x4.pth", "dsclora_x4.pth", "light_f2srgan_x4_whole_module.pt")
SETS = ("Set5", "Set14")

Weights = Dict[str, np.ndarray]


class Bench:
    """One network: its graph, its pictures, and the rows measured so far."""

    def __init__(self, name: str, work: Path, options: QatOptions) -> None:
        self.folder = work / name.split(".")[0]
        self.rows_file = self.folder / "rows.json"
        self.rows: Dict[str, Any] = json.loads(self.rows_file.read_text()) if self.rows_file.is_file() else {}
        self.options = options
        self.deployment = self._deployment(name)
        path = self.deployment.folder / "model.onnx"
        manifest = self.deployment.manifest
        self.model, self.contract, self.scale = load_graph(path), manifest.contract, manifest.scale
        self.macs = {name: work.macs for name, work in work_by_node(path, (64, 64)).items()}
        self.kinds = kinds_of(self.model, self.macs)
        files = find_images([ASSETS / "images" / "calibration" / "DIV2K_test_LRx4"])
        self.images = [to_network(read_picture(file), self.contract) for file in files]
        reference = computing(self.model)
        self.scenes = {
            name: scenes_of(
                ASSETS / "images" / name / "LR_bicubic" / f"X{self.scale}", ASSETS / "images" / name / "HR",
                self.scale, self.contract, reference,
            )
            for name in SETS
        }  # fmt: skip

    def _deployment(self, name: str) -> Deployment:
        if not (self.folder / "net" / "manifest.json").is_file():
            return export_deployment(ExportOptions(ASSETS / "weights" / name, self.folder / "net"))
        return open_deployment(self.folder / "net")

    def row(self, method: str, plan: Plan, weights: Weights, seconds: float) -> None:
        """Judge, keep and print."""
        compute = computing(typed_graph(self.model, plan, weights))
        judged = {name: judge(scenes, compute, self.scale, self.contract) for name, scenes in self.scenes.items()}
        self.rows[method] = {
            "loss": {name: one.loss for name, one in judged.items()},
            "shift": max(one.mean_shift for one in judged.values()),
            "share": narrow_share(plan, self.macs, self.kinds),
            "seconds": seconds,
        }
        write_json(self.rows_file, self.rows)
        self.print(method)

    def print(self, method: str) -> None:
        """One line of the table."""
        row = self.rows[method]
        losses = " | ".join(f"{row['loss'][name]:+.3f}" for name in SETS)
        rest = f"{row['shift']:.2f} | {row['share']:.1%} | {row['seconds']:.0f}"
        print(f"| {self.folder.name} | {method} | {losses} | {rest} |", flush=True)


def timed(make: Callable[[], Tuple[Plan, Weights]]) -> Tuple[Plan, Weights, float]:
    """What ``make`` gives, and the CPU seconds it took."""
    began = time.process_time()
    plan, weights = make()
    return plan, weights, time.process_time() - began


def measure(bench: Bench) -> None:
    """All rows of one network."""
    wanted = [*(f"ranges: {method}" for method in ("minmax", "percentile", "mse")), "bias", "rounding", "qat"]
    for method in wanted:
        if method in bench.rows:
            bench.print(method)
    if all(method in bench.rows for method in wanted):
        return
    squares = list(patches(bench.images))
    ranges = ranges_of(bench.model, squares)
    sha = bench.deployment.graph_for().sha256

    def planned(method: str) -> Plan:
        scales = {name: scale_of(stats, method) for name, stats in ranges.tensors.items()}
        return narrow_plan(bench.model, bench.kinds, sha, Scales(scales))

    for method in ("minmax", "percentile", "mse"):
        if f"ranges: {method}" not in bench.rows:
            bench.row(f"ranges: {method}", planned(method), {}, 0.0)
    plan = planned("mse")
    if "bias" not in bench.rows:
        bench.row("bias", *timed(lambda: (plan, corrected_bias(bench.model, plan, {}, squares))))
    rounded, weights, seconds = timed(lambda: learned_rounding(bench.model, plan, {}, squares))
    if "rounding" not in bench.rows:
        bench.row("rounding", rounded, weights, seconds)
    if "qat" not in bench.rows:
        state = bench.folder / "training"
        lesson = Lesson(bench.model, rounded, weights, bench.images, bench.contract.value_range)
        tuned = fine_tune(
            lesson, bench.options, folder=state, resume=(state / STATE_NAME).is_file(),
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )  # fmt: skip
        bench.row("qat", tuned.plan, tuned.weights, tuned.seconds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="where networks, rows and states are kept")
    parser.add_argument("--only", help="only networks whose file begins so")
    parser.add_argument("--steps", type=int, default=QatOptions.steps)
    parser.add_argument("--minutes", type=float, help="of each fine-tuning")
    arguments = parser.parse_args()
    if not (ASSETS / "weights").is_dir():
        sys.exit(f"no checkpoints at {ASSETS}: set SRDEPLOY_ASSETS")
    options = QatOptions(steps=arguments.steps, minutes=arguments.minutes)
    names: List[str] = [name for name in NETWORKS if name.startswith(arguments.only or "")]
    print("| network | method | Set5, dB lost | Set14 | mean shift, of 255 | MACs in INT8 | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        (arguments.work / name.split(".")[0]).mkdir(parents=True, exist_ok=True)
        measure(Bench(name, arguments.work, options))


if __name__ == "__main__":
    main()
