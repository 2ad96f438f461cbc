"""Rewritten and streamed graphs against unrewritten ones, every shared checkpoint: golden pictures and random sizes.

    python tests/benchmarks/rewrite_equality.py [--sizes 20] [--seed 0] [--only f2srgan] [--rewrite cpu]
        [--seams 4] [--strips 8,24] [--results equality.jsonl]

Each checkpoint is exported once, for any size and without rewriting; the rewritten graph must give the same picture, in
ONNX Runtime on the CPU, on its two golden inputs and on pictures of random heights and widths from 16 to 400 (at least
what the network takes, and its multiple). Seams: at the first random sizes the default graph is fixed to the size and
run in row strips; the largest difference anywhere in the picture, strip borders included, from the unrewritten graph.
8 bits: on the golden inputs and at those sizes the default graph with ``--io uint8`` against the default graph of
floats, whose output core/image rounds; the largest difference of two pixels, which should be 0.
Printed are the largest differences in 8-bit steps. Exit code 1 when one exceeds 0.05. With ``--results`` each finished
checkpoint is kept in that file, and a second run goes on behind it. The data is found through SRDEPLOY_ASSETS (default
../shared).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sr_deploy.core.contract import IOContract, format_size  # noqa: E402
from sr_deploy.core.media.image import Picture, from_network, to_network  # noqa: E402
from sr_deploy.core.media.sample import sample_input  # noqa: E402
from sr_deploy.core.tolerance import GRAPH_FP32, largest_difference  # noqa: E402
from sr_deploy.graph.byte_io import byte_graph  # noqa: E402
from sr_deploy.graph.rewrite import RewriteOptions, passes_named, rewrite  # noqa: E402
from sr_deploy.graph.rewrite.streaming import apply_streaming  # noqa: E402
from sr_deploy.graph.specialise import static_graph  # noqa: E402
from sr_deploy.pipeline.export import ExportOptions, contract_of, export_deployment  # noqa: E402
from sr_deploy.run.base import upscale  # noqa: E402
from sr_deploy.run.onnxruntime import runner_from_graph  # noqa: E402
from tests.published import GOLDEN  # noqa: E402

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", ROOT.parent / "shared"))


class Compared:
    """The largest difference of one kind, and where it was."""

    def __init__(self) -> None:
        self.steps, self.where, self.count = 0.0, "-", 0

    def add(self, steps: float, where: str) -> None:
        """Take one comparison in."""
        self.count += 1
        if steps >= self.steps:
            self.steps, self.where = steps, where


def random_sizes(rules, count: int, seed: int) -> List[Tuple[int, int]]:
    """(height, width) from 16 to 400, as the network takes them."""
    generator = np.random.default_rng(seed)
    low = max(16, rules.minimum)
    drawn = (generator.integers(low, 401, 2) for _ in range(count))
    return [tuple(max(int(side) // rules.multiple * rules.multiple, low) for side in pair) for pair in drawn]


def differences(weights: str, golden: str, value_range: float, arguments: argparse.Namespace) -> Dict[str, Any]:
    """One checkpoint's record: kind → largest difference in 8-bit steps, where, and how many were compared."""
    found: Dict[str, Compared] = {}
    begun = time.monotonic()
    stored = np.load(ASSETS / "golden" / golden)
    pictures = [stored[f"input_{parity}"].transpose(2, 0, 1)[None] for parity in ("even", "odd")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        deployment = export_deployment(ExportOptions(ASSETS / "weights" / weights, folder / "net", rewrite="none"))
        manifest = deployment.manifest

        def runner(model: onnx.ModelProto, file: str, contract: IOContract = manifest.contract):
            onnx.save(model, str(folder / file))
            return runner_from_graph(
                folder / file, contract, manifest.scale, threads=1, provider="CPUExecutionProvider"
            )

        plain = onnx.load(str(deployment.folder / "model.onnx"))
        options = RewriteOptions(value_range=value_range)
        rewritten = {names: rewrite(plain, passes_named(names), options)[0] for names in arguments.rewrite}
        runners = {names: runner(model, f"{n}.onnx") for n, (names, model) in enumerate(rewritten.items())}
        reference = runner(plain, "plain.onnx")
        sizes = random_sizes(manifest.sizes, arguments.sizes, arguments.seed)
        inputs = [("golden", picture.astype(np.float32) * (value_range / 255)) for picture in pictures]
        inputs += [("random", sample_input(size, value_range, arguments.seed + n)) for n, size in enumerate(sizes)]
        default = rewrite(plain, passes_named("default"), options)[0]
        floats = runner(default, "floats.onnx")
        pixels = runner(byte_graph(default, value_range), "bytes.onnx", contract_of(value_range, "uint8"))
        for number, (kind, lr) in enumerate(inputs):
            size = (lr.shape[2], lr.shape[3])
            expected = upscale(reference, lr)
            for names, one in runners.items():
                steps = largest_difference(upscale(one, lr), expected, value_range)
                found.setdefault(f"{names}, {kind}", Compared()).add(steps, format_size(size))
            if number < len(pictures) + arguments.seams:
                picture = Picture(np.rint(lr[0].transpose(1, 2, 0) * (255 / value_range)).astype(np.uint8))
                upscaled = [
                    from_network(upscale(one, to_network(picture, contract)), contract, picture).pixels
                    for one, contract in ((floats, manifest.contract), (pixels, contract_of(value_range, "uint8")))
                ]
                found.setdefault("8 bits", Compared()).add(largest_difference(*upscaled, 255.0), format_size(size))
                onnx.save(default, str(folder / "any.onnx"))
                fixed = static_graph(folder / "any.onnx", size)
                for strips in map(int, arguments.strips.split(",")):
                    streamed = apply_streaming(fixed, RewriteOptions(size=size, strips=strips))
                    if not streamed.changed:
                        continue
                    one = runner(streamed.model, "streamed.onnx")
                    steps = largest_difference(upscale(one, lr), expected, value_range)
                    one.close()
                    found.setdefault("seams", Compared()).add(steps, f"{format_size(size)} in {strips} strips")
    return {
        "checkpoint": weights,
        "seconds": round(time.monotonic() - begun),
        "found": {kind: vars(one) for kind, one in found.items()},
    }


def asked_for(arguments: argparse.Namespace) -> Dict[str, Any]:
    """What a kept record must have been made with to count."""
    return {name: getattr(arguments, name) for name in ("sizes", "seed", "rewrite", "seams", "strips")}


def kept(arguments: argparse.Namespace) -> Dict[str, Dict[str, Any]]:
    """Checkpoint → record of an earlier run with the same options."""
    if arguments.results is None or not arguments.results.is_file():
        return {}
    records = [json.loads(line) for line in arguments.results.read_text().splitlines()]
    return {record["checkpoint"]: record for record in records if record["asked"] == asked_for(arguments)}


def main() -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, default=20, help="random sizes for each checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only checkpoints whose name begins so")
    parser.add_argument("--rewrite", nargs="+", default=["default", "cpu"], help="sets of passes to check")
    parser.add_argument("--seams", type=int, default=4, help="random sizes at which the streamed graph is checked")
    parser.add_argument("--strips", default="8,24", help="strip counts of the streamed graph, by commas")
    parser.add_argument("--results", type=Path, help="JSON lines to keep and to go on from")
    arguments = parser.parse_args()
    if not (ASSETS / "weights").is_dir():
        parser.error(f"no checkpoints at {ASSETS}: set SRDEPLOY_ASSETS")
    good, before = True, kept(arguments)
    print("| checkpoint | what | compared | largest, of 255 | at |")
    print("|---|---|---|---|---|")
    for weights, golden, value_range in GOLDEN:
        if not weights.startswith(arguments.only):
            continue
        record = before.get(weights) or differences(weights, golden, value_range, arguments)
        if weights not in before and arguments.results is not None:
            with open(arguments.results, "a", encoding="utf-8") as stream:
                stream.write(json.dumps({**record, "asked": asked_for(arguments)}) + "\n")
        for kind, one in record["found"].items():
            good = good and one["steps"] <= GRAPH_FP32.steps
            print(f"| {weights} | {kind} | {one['count']} | {one['steps']:.5f} | {one['where']} |", flush=True)
    print(f"largest allowed: {GRAPH_FP32.steps} of 255")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
