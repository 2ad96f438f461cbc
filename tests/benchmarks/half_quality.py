"""Every shared checkpoint in float16 against float32: PSNR-Y on Set5 and Set14, and whether extremes stay finite.

    python tests/benchmarks/half_quality.py --results half.json            what is missing in half.json, lightest first
    python tests/benchmarks/half_quality.py --results half.json --large    then one picture of 1080x1080 each
    python tests/benchmarks/half_quality.py --results half.json --print    the table

Nodes beyond the float16 range are pinned by the scan, on calibration photographs. ONNX Runtime on the CPU computes the
graphs, with every float16 result rounded (precision/float16_rounding.py). At 1080x1080 the graph runs in strips.
Data is found through SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict

import numpy as np
import onnx

from sr_deploy.core.artifact import write_json
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.media.image import find_images, read_picture, to_network
from sr_deploy.graph.rewrite.base import RewriteOptions
from sr_deploy.graph.rewrite.streaming import apply_streaming
from sr_deploy.graph.specialise import static_graph
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.precision.calibrate.collect import patches, ranges_of
from sr_deploy.precision.calibrate.scan import extreme_inputs, is_finite, pinned, scan_half
from sr_deploy.precision.evaluate import computing, judge, scenes_of
from sr_deploy.precision.lower.typed_graph import half_graph

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[3] / "shared"))
CHECKPOINTS = (
    "span_ch26_x4.pth", "span_ch28_x4.pth", "dsclora_x4.pth", "efdn_x4.pth", "efdn_x2.pth",
    "f2srgan_x4_student.pt", "light_f2srgan_x4_whole_module.pt", "f2srgan_x2.pt", "f2srgan_x4.pt",
    "f2srgan_x4_qat.pth.tar",
)  # fmt: skip
#: Photographs for the ranges, and those of them that the float16 graph runs on.
SCANNED, RUN = 12, 2
LARGE, STRIPS = (1080, 1080), 24


def measured(deployment: Deployment) -> Dict[str, Any]:
    """Pins, PSNR-Y of both types on both sets, and the extreme pictures at the least size and at 64x64."""
    manifest = deployment.manifest
    contract, scale = manifest.contract, manifest.scale
    model = onnx.load(str(deployment.folder / "model.onnx"))
    files = find_images([ASSETS / "images" / "calibration" / "DIV2K_test_LRx4"])[:SCANNED]
    arrays = list(patches(to_network(read_picture(file), contract) for file in files))
    least = max(8, manifest.sizes.minimum)
    least = -(-least // manifest.sizes.multiple) * manifest.sizes.multiple
    extreme = {f"{name} {side}": array for side in (least, 64)
               for name, array in extreme_inputs((side, side), contract.value_range).items()}  # fmt: skip
    seen = ranges_of(model, arrays)
    # As build does: the margin covers extreme pictures too, so that larger ones stay finite.
    ranges = ranges_of(model, [*arrays, *extreme.values()])
    pins = scan_half(model, ranges, [*arrays[:RUN], *extreme.values()], say=say)
    half = half_graph(pinned(model, pins))
    exact, rounded = computing(model), computing(half)
    row: Dict[str, Any] = {
        "pins": pins,
        "pinned_by_export": len(manifest.pinned_fp32),
        "largest_activation": max(stats.amax for stats in seen.tensors.values()),
        "largest_on_extremes": max(stats.amax for stats in ranges.tensors.values()),
    }
    for name in ("Set5", "Set14"):
        folder = ASSETS / "images" / name
        scenes = scenes_of(folder / "LR_bicubic" / f"X{scale}", folder / "HR", scale, contract, exact)
        found = judge(scenes, rounded, scale, contract)
        row[name] = {"float32": found.reference_psnr, "float16": found.psnr, "noise": found.noise, "sick": found.sick}
    row["sick"] = [name for name, array in extreme.items() if not np.isfinite(rounded(array)).all()]
    return row


def large(deployment: Deployment, pins: Dict[str, str]) -> Dict[str, Any]:
    """One picture of 1080x1080 in float16, its quarters black, white, noise and a checkerboard; finite or not."""
    value_range = deployment.manifest.contract.value_range
    quarter = extreme_inputs((LARGE[0] // 2, LARGE[1] // 2), value_range)
    top = np.concatenate([quarter["black"], quarter["noise"]], axis=3)
    bottom = np.concatenate([quarter["checkerboard"], quarter["white"]], axis=3)
    picture = np.concatenate([top, bottom], axis=2)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(pinned(onnx.load(str(deployment.folder / "model.onnx")), pins), str(path))
        static = static_graph(path, LARGE)
    # Typed first: the cuts and joins of strips know no pins, and would cast what is float32 on purpose.
    streamed = apply_streaming(half_graph(static), RewriteOptions(size=LARGE, strips=STRIPS)).model
    finite = is_finite(streamed, [picture])
    return {"finite": finite, "seconds": time.perf_counter() - start}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(rows: Dict[str, Any]) -> str:
    """The rows as a markdown table."""
    lines = [
        "| checkpoint | pinned by export + scan | largest activation | Set5 | FP16 | Set14 | FP16 | extremes | 1080² |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        cells = [f"{row['pinned_by_export']} + {len(row['pins'])}", f"{row['largest_activation']:.4g}"]
        for images in ("Set5", "Set14"):
            judged = row[images]
            cells += [f"{judged['float32']:.3f}", f"{judged['float16'] - judged['float32']:+.4f}"]
        cells.append("finite" if not row["sick"] else "NaN: " + ", ".join(row["sick"]))
        cells.append({True: "finite", False: "NaN", None: "not run"}[row.get("large", {}).get("finite")])
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, or print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="JSON file; kept after every checkpoint")
    parser.add_argument("--deployments", type=Path, help="folder with exported deployments, kept and used again")
    parser.add_argument("--only", default="", help="only checkpoints whose name begins so")
    parser.add_argument("--large", action="store_true", help="also one picture of 1080x1080 each")
    parser.add_argument("--print", dest="only_print", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    if not (ASSETS / "weights").is_dir():
        sys.exit(f"no checkpoints at {ASSETS}: set SRDEPLOY_ASSETS")
    rows = json.loads(arguments.results.read_text()) if arguments.results.is_file() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.deployments or Path(temporary)
        for name in () if arguments.only_print else CHECKPOINTS:
            if not name.startswith(arguments.only) or (name in rows and (not arguments.large or "large" in rows[name])):
                continue
            say(name)
            place = folder / name.split(".")[0]
            if not (place / "manifest.json").is_file():
                export_deployment(ExportOptions(ASSETS / "weights" / name, place))
            deployment = open_deployment(place)
            if name not in rows:
                rows[name] = measured(deployment)
                write_json(arguments.results, rows)
            if arguments.large:
                rows[name]["large"] = large(deployment, rows[name]["pins"])
                write_json(arguments.results, rows)
    print(table(rows))


if __name__ == "__main__":
    main()
