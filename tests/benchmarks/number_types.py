"""What FP8, BF16, INT8, FP16 and a mix of them cost: dB lost on Set5 and Set14, share of the work, who builds it.

    python tests/benchmarks/number_types.py --results types.json              what is missing in types.json
    python tests/benchmarks/number_types.py --results types.json --print      the tables

    --only NAME …        checkpoints, or swinir (random weights, for the range of bfloat16)
    --types fp8-naive fp8 int8 bf16 fp16 auto-0.1 mean-0.1 mean-0.01
    --photographs N      calibrate with the first N of the 100 photographs

Plans are made as ``srdeploy build --backend tensorrt-rtx --compute-capability 8.9,12.0,12.1 --precision …`` makes them,
with the calibration photographs and the graphics that srdeploy paints; "fp8-naive" is FP8 with the largest magnitude as
448 and nothing fitted, "auto" keeps its budget in the worst picture, "mean" in the mean.
ONNX Runtime on the CPU simulates each graph. TensorRT-RTX then builds the typed graph for each of the three GPUs at
96x96 without one, and the listing is read back; for 7.5 and 8.6, which lack FP8 or BF16 too, it says why not. Data is
found through SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import onnx
import torch

from sr_deploy.core.artifact import write_json
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.deployment.target import Target
from sr_deploy.core.errors import SrDeployError
from sr_deploy.engine.options import EngineOptions
from sr_deploy.engine.tensorrt import engine_from_graph
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.pipeline.precision.deployed_plan import Planned, PrecisionOptions
from sr_deploy.pipeline.precision.make_plan import plan_for
from sr_deploy.precision.calibrate.ranges import METHOD
from sr_deploy.precision.evaluate import computing, judge, scenes_of
from tests.benchmarks.precision_quality import ASSETS, CHECKPOINTS, SETS, photographs, say
from tests.models.test_swinir import small_tensors

TYPES = ("fp8-naive", "fp8", "int8", "bf16", "fp16", "auto-0.1", "mean-0.1", "mean-0.01")
GPUS, OLDER = ("8.9", "12.0", "12.1"), ("7.5", "8.6")


def deployed(folder: Path, name: str) -> Deployment:
    """The checkpoint exported, now or before."""
    place = folder / name.split(".")[0]
    if not place.exists():
        checkpoint = ASSETS / "weights" / name
        if name == "swinir":
            checkpoint = folder / "swinir.pth"
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(far_tensors(), checkpoint)
        export_deployment(ExportOptions(checkpoint, place), say)
    return open_deployment(place)


def far_tensors() -> Dict[str, torch.Tensor]:
    """A small SwinIR of random weights with values beyond 65504 between its first and its last convolution."""
    tensors = small_tensors()
    for name, factor in (("conv_first", 1e6), ("upsample.0", 1e-6)):
        tensors[f"{name}.weight"] = tensors[f"{name}.weight"] * factor
    tensors["conv_first.bias"] = tensors["conv_first.bias"] * 1e6
    return tensors


def planned(deployment: Deployment, kind: str, images: Path) -> Planned:
    """A new plan for the three GPUs."""
    precision, _, rest = kind.partition("-")
    options = PrecisionOptions(
        "auto" if precision == "mean" else precision,
        budget=float(rest) if precision == "auto" else None,
        mean_budget=float(rest) if precision == "mean" else None,
        images=images,
        method="minmax" if rest == "naive" else METHOD,
        improve=rest != "naive",
        target=Target("tensorrt-rtx", "", GPUS),
    )
    return plan_for(deployment, options, say)


def measured(deployment: Deployment, kind: str, images: Path) -> Dict[str, Any]:
    """One row."""
    started = time.perf_counter()
    made = planned(deployment, kind, images)
    row: Dict[str, Any] = {"seconds": time.perf_counter() - started, "report": made.report, "notes": made.plan.notes}
    manifest = deployment.manifest
    exact = computing(onnx.load(str(deployment.folder / "model.onnx")))
    typed = computing(onnx.load(str(made.typed)))
    for name in SETS:
        folder = ASSETS / "images" / name
        lr = folder / "LR_bicubic" / f"X{manifest.scale}"
        scenes = scenes_of(lr, folder / "HR", manifest.scale, manifest.contract, exact)
        found = judge(scenes, typed, manifest.scale, manifest.contract)
        row[name] = {"lost": found.loss, "sick": found.sick}
    row["built"] = {gpu: built(made, gpu) for gpu in (*OLDER, *GPUS)}
    return row


def built(made: Planned, gpu: str) -> str:
    """What TensorRT-RTX makes of it: the types that products run in by its listing, or why it is refused."""
    options = EngineOptions(precision=made.precision, planned=made.plan.nodes)
    try:
        engine = engine_from_graph("tensorrt-rtx", made.typed, [(96, 96)] * 3, (gpu,), options)
    except SrDeployError as error:
        return f"refused: {' '.join(error.found.split())[:300]}"
    if engine.refusal is not None:
        return f"not as planned: {' '.join(engine.refusal.found.split())[:300]}"
    return engine.settings["built"]


def lost(row: Dict[str, Any], share: bool) -> str:
    """A cell of the table."""
    if not row:
        return ""
    if any(row[name]["sick"] for name in SETS):
        return "NaN"
    text = " / ".join(f"{-row[name]['lost']:+.3f}" for name in SETS)
    parts = {kind: part for kind, part in row["report"]["macs_share"].items() if kind in ("int8", "float8") and part}
    told = " + ".join(f"{part:.0%} {'INT8' if kind == 'int8' else 'FP8'}" for kind, part in parts.items())
    return f"{text} ({told or 'none'})" if share else text


def table(results: Dict[str, Any]) -> str:
    """What was measured, and what TensorRT-RTX made of it."""
    lines = ["| checkpoint | " + " | ".join(TYPES) + " |", "|---" * (len(TYPES) + 1) + "|"]
    for name, rows in results.items():
        cells: List[str] = [lost(rows.get(kind, {}), kind not in ("bf16", "fp16")) for kind in TYPES]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    lines += [
        "",
        "| checkpoint, type | " + " | ".join((*OLDER, *GPUS)) + " |",
        "|---" * (len(OLDER) + len(GPUS) + 1) + "|",
    ]
    for name, rows in results.items():
        for kind, row in rows.items():
            lines.append(f"| {name}, {kind} | " + " | ".join(row["built"][gpu][:90] for gpu in (*OLDER, *GPUS)) + " |")
    return "\n".join(lines)


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("types.json"))
    parser.add_argument("--only", nargs="*", default=(*CHECKPOINTS, "swinir"))
    parser.add_argument("--types", nargs="*", default=TYPES)
    parser.add_argument("--photographs", type=int, default=100)
    parser.add_argument("--print", action="store_true")
    asked = parser.parse_args()
    results = json.loads(asked.results.read_text()) if asked.results.is_file() else {}
    place = asked.results.with_suffix("")
    images = photographs(place, asked.photographs)
    for name in () if asked.print else asked.only:
        for kind in asked.types:
            if kind in results.get(name, {}):
                continue
            say(f"{name} {kind}")
            try:
                row = measured(deployed(place, name), kind, images)
            except SrDeployError as error:
                print(f"{name} {kind}: {error}", file=sys.stderr)
                continue
            results.setdefault(name, {})[kind] = row
            write_json(asked.results, results)
    print(table(results))


if __name__ == "__main__":
    main()
