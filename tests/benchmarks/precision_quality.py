"""Every shared checkpoint in every precision: dB lost on Set5 and Set14, colour shift, shares, who accepts the graph.

    python tests/benchmarks/precision_quality.py --results precision.json             what is missing in precision.json
    python tests/benchmarks/precision_quality.py --results precision.json --print     the table

    --only NAME …         checkpoints            --precisions fp16 int8 auto-0.1 auto-0.01

Plans are made by ``srdeploy build --precision`` with the 100 calibration photographs alone; Set5 and Set14 are not
seen before they are judged. ONNX Runtime on the CPU computes the typed graph node by node, float16 results rounded.
"rtx" says whether TensorRT-RTX builds the typed graph for SM86 at 96x96, "8.5" whether the checker passes the Q/DQ
graph exported for the Xavier NX. Data is found through SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Dict

import onnx

from sr_deploy.core.artifact import write_json
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.errors import SrDeployError
from sr_deploy.core.media.image import find_images
from sr_deploy.pipeline.engines.build import build_engines
from sr_deploy.pipeline.engines.request import BuildOptions
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.pipeline.precision.deployed_plan import Planned, PrecisionOptions, ready_plan
from sr_deploy.pipeline.precision.make_plan import plan_for
from sr_deploy.precision.evaluate import computing, judge, scenes_of
from sr_deploy.precision.lower.tensorrt8_importer import check_legacy

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[3] / "shared"))
CHECKPOINTS = (
    "span_ch26_x4.pth", "dsclora_x4.pth", "span_ch28_x4.pth", "efdn_x4.pth", "light_f2srgan_x4_whole_module.pt",
    "f2srgan_x4_student.pt", "efdn_x2.pth", "f2srgan_x4.pt", "f2srgan_x4_qat.pth.tar", "f2srgan_x2.pt",
)  # fmt: skip
PRECISIONS = ("fp16", "int8", "auto-0.1", "auto-0.01")
SETS = ("Set5", "Set14")


def say(text: str) -> None:
    """Progress to stderr: the table alone goes to stdout."""
    print(text, file=sys.stderr, flush=True)


def photographs(place: Path, count: int) -> Path:
    """A folder with the first so many of the calibration photographs."""
    folder = place / f"photographs_{count}"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        for file in find_images([ASSETS / "images" / "calibration" / "DIV2K_test_LRx4"])[:count]:
            shutil.copy(file, folder)
    return folder


def deployed(folder: Path, name: str) -> Deployment:
    """The checkpoint exported for the Xavier NX, so that one graph serves every TensorRT."""
    place = folder / name.split(".")[0]
    if not place.exists():
        export_deployment(ExportOptions(ASSETS / "weights" / name, place, target="xavier-nx"), say)
    return open_deployment(place)


def planned(deployment: Deployment, precision: str, remake: bool) -> Planned:
    """The plan, made now or before."""
    kind, _, budget = precision.partition("-")
    options = PrecisionOptions(
        kind,
        budget=float(budget) if budget else None,
        images=ASSETS / "images" / "calibration" / "DIV2K_test_LRx4",
        remake=remake,
    )
    return ready_plan(deployment, options) or plan_for(deployment, options, say)


def measured(deployment: Deployment, precision: str, remake: bool) -> Dict[str, Any]:
    """One row of the table."""
    started = time.perf_counter()
    made = planned(deployment, precision, remake)
    row: Dict[str, Any] = {"seconds": time.perf_counter() - started, "report": made.report}
    manifest = deployment.manifest
    exact = computing(onnx.load(str(deployment.folder / "model.onnx")))
    typed = computing(onnx.load(str(made.typed)))
    for name in SETS:
        folder = ASSETS / "images" / name
        scenes = scenes_of(
            folder / "LR_bicubic" / f"X{manifest.scale}", folder / "HR", manifest.scale, manifest.contract, exact
        )
        found = judge(scenes, typed, manifest.scale, manifest.contract)
        row[name] = {
            "float32": found.reference_psnr, "psnr": found.psnr, "shift": found.mean_shift, "worst": found.worst_shift,
            "sick": found.sick,
        }  # fmt: skip
    legacy = made.folder / "legacy.onnx"
    row["legacy"] = legacy.is_file() and not check_legacy(onnx.load(str(legacy)))
    try:
        build_engines(
            BuildOptions(
                deployment.folder, "tensorrt-rtx", sizes=((96, 96),), compute_capabilities=("8.6",), force=True,
                precision=PrecisionOptions(made.plan.precision, plan=made.folder),
            )
        )  # fmt: skip
        row["rtx"] = True
    except SrDeployError as error:
        row["rtx"] = str(error)
    return row


def table(results: Dict[str, Dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| checkpoint | precision | Set5 | Set14 | colour shift (worst picture) | INT8 share | seconds | rtx | 8.5 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in CHECKPOINTS:
        for precision in PRECISIONS:
            row = results.get(name, {}).get(precision)
            if row is None:
                continue
            losses = [f"{row[s]['psnr']:.3f} ({row[s]['psnr'] - row[s]['float32']:+.3f})" for s in SETS]
            shift, worst = (max(row[s][key] for s in SETS) for key in ("shift", "worst"))
            share = row["report"]["narrow_share_outside_pinned"]
            accepted = "yes" if row["rtx"] is True else row["rtx"]
            cells = [name, precision, *losses, f"{shift:.2f} ({worst:.2f})", f"{share:.1%}", f"{row['seconds']:.0f}"]
            cells.append(accepted)
            lines.append("| " + " | ".join([*cells, "yes" if row["legacy"] else "no"]) + " |")
    return "\n".join(lines)


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("precision.json"))
    parser.add_argument("--deployments", type=Path, help="where exports and plans are kept; default beside the results")
    parser.add_argument("--only", nargs="*", default=CHECKPOINTS)
    parser.add_argument("--precisions", nargs="*", default=PRECISIONS)
    parser.add_argument("--remake", action="store_true", help="make plans again that are there")
    parser.add_argument("--print", action="store_true")
    asked = parser.parse_args()
    results = json.loads(asked.results.read_text()) if asked.results.is_file() else {}
    place = asked.deployments or asked.results.with_suffix("")
    for name in () if asked.print else asked.only:
        for precision in asked.precisions:
            if precision in results.get(name, {}):
                continue
            say(f"{name} {precision}")
            deployment = deployed(place, name)
            row = measured(deployment, precision, asked.remake)
            results.setdefault(name, {})[precision] = row
            write_json(asked.results, results)
    print(table(results))


if __name__ == "__main__":
    main()
