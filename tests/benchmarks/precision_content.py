"""What INT8 costs on photographs and on graphics, in the mean and in the worst picture, by the content it was made for.

    python -m tests.benchmarks.precision_content --results content.json              what is missing in content.json
    python -m tests.benchmarks.precision_content --results content.json --print      the tables

    --only NAME …   checkpoints     --precisions int8 auto-0.1 auto-0.05     --contents photo any
    --photographs N                 calibrate with the first N of the 100 photographs
    --graphics N                    and with N graphics as a user may have them, in the same folder

Plans are made by ``srdeploy build --precision … --content …`` with the calibration photographs and the graphics that
srdeploy paints. Set5, Set14, Graphics (five rendered pictures) and Held (those of held_graphics.py, but for the ones on
which float32 itself is worse than bicubic enlargement) are not seen before they are judged. The user's graphics are
painted from a seed of their own and shrunk: whole screens beside photographs. "Found less
promised" is what each picture loses less what the plan's report promises of the worst, of the plans with a budget.
Data is found through SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import onnx

from sr_deploy.core.artifact import write_json
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.media.bicubic import resize
from sr_deploy.core.media.graphics.paint import painted
from sr_deploy.core.media.image import Picture, find_images, write_picture
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.pipeline.precision.deployed_plan import PrecisionOptions
from sr_deploy.pipeline.precision.make_plan import plan_for
from sr_deploy.precision.evaluate import computing, judge, scenes_of, within_reach
from tests.benchmarks.held_graphics import write_held

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[3] / "shared"))
CHECKPOINTS = ("span_ch26_x4.pth", "dsclora_x4.pth", "efdn_x4.pth", "f2srgan_x4_student.pt", "spanf_x4.pth")
SETS = ("Set5", "Set14", "Graphics", "Held")
#: Of the graphics that a user might have.
USER_SEED, USER_SIDE = 77, 160


def say(text: str) -> None:
    """Progress to stderr: the table alone goes to stdout."""
    print(text, file=sys.stderr, flush=True)


def folders_of(name: str, scale: int, held: Path) -> Tuple[Path, Path]:
    """Where the low-resolution pictures and the originals of a set are."""
    if name == "Held":
        return held / f"X{scale}", held / "HR"
    folder = ASSETS / "images" / name
    return folder / f"X{scale}" if name == "Graphics" else folder / "LR_bicubic" / f"X{scale}", folder / "HR"


def judged(deployment: Deployment, typed: Path, held: Path) -> Dict[str, List[Dict[str, Any]]]:
    """Set → what each of its pictures loses."""
    manifest = deployment.manifest
    exact, graph = (computing(onnx.load(str(path))) for path in (deployment.folder / "model.onnx", typed))
    found = {}
    for name in SETS:
        scenes = scenes_of(*folders_of(name, manifest.scale, held), manifest.scale, manifest.contract, exact)
        if name == "Held":
            scenes = tuple(scene for scene in scenes if within_reach(scene, manifest.scale))
        each = judge(scenes, graph, manifest.scale, manifest.contract).each
        found[name] = [{"name": one.name, "loss": one.loss, "shift": one.shift, "off": one.off} for one in each]
    return found


def measured(place: Path, name: str, precision: str, content: str, images: Path) -> Dict[str, Any]:
    """One row."""
    folder = place / f"{name.split('.')[0]}_{content}"
    if not folder.exists():
        export_deployment(ExportOptions(ASSETS / "weights" / name, folder, target="xavier-nx"), say)
    deployment = open_deployment(folder)
    kind, _, budget = precision.partition("-")
    options = PrecisionOptions(
        kind, budget=float(budget) if budget else None, images=images, content=content, remake=True
    )
    started = time.perf_counter()
    made = plan_for(deployment, options, say)
    report = {key: value for key, value in made.report.items() if key != "judged"}
    return {
        "seconds": time.perf_counter() - started,
        "report": report,
        "sets": judged(deployment, made.typed, place / "held"),
    }


def row_of(name: str, precision: str, content: str, row: Dict[str, Any]) -> str:
    """One line of the table."""
    cells = [name, precision, content, f"{row['report']['narrow_share_outside_pinned']:.0%}"]
    for one in SETS:
        losses = [picture["loss"] for picture in row["sets"][one]]
        cells.append(f"{np.mean(losses):.3f} / {max(losses):.3f}")
    everything = [picture for one in SETS for picture in row["sets"][one]]
    cells.append(f"{max(picture['off'] for picture in row['sets']['Graphics']):.1%}")
    cells.append(f"{max(picture['shift'] for picture in everything):.2f}")
    promised = row["report"].get("promised_worst_db")
    cells.append("" if promised is None else f"{promised:.3f}")
    return "| " + " | ".join([*cells, f"{row['seconds']:.0f}"]) + " |"


def histogram(rows: List[Dict[str, Any]]) -> str:
    """How far what is found is from what was promised, over all pictures of plans with a budget."""
    beyond = [
        picture["loss"] - row["report"]["promised_worst_db"]
        for row in rows
        if "promised_worst_db" in row["report"]
        for pictures in row["sets"].values()
        for picture in pictures
    ]
    edges = [-np.inf, -0.1, -0.05, -0.02, 0.0, 0.02, 0.05, 0.1, np.inf]
    counts = [str(count) for count in np.histogram(beyond, edges)[0]]
    named = [f"{low:+.2f} … {high:+.2f}" for low, high in zip(edges, edges[1:])]
    lines = [" | ".join(["| found less promised, dB", *named]), "|---" * (len(named) + 1)]
    return " |\n".join([*lines, " | ".join(["| pictures", *counts])]) + " |"


def table(results: Dict[str, Dict[str, Any]]) -> str:
    """Markdown: one row a plan, then the histogram."""
    heads = ["checkpoint", "precision", "content", "INT8 share", *(f"{one} mean / worst" for one in SETS)]
    heads += ["pixels off by > 8 (Graphics, worst)", "colour shift (worst)", "promised worst", "seconds"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for key, row in results.items():
        name, precision, content = key.split("|")
        lines.append(row_of(name, precision, content, row))
    return "\n".join([*lines, "", histogram(list(results.values()))])


def gather(folder: Path, photographs: int, graphics: int) -> None:
    """A folder as a user may have it: photographs, and graphics of LR size among them."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True)
    for file in find_images([ASSETS / "images" / "calibration" / "DIV2K_test_LRx4"])[:photographs]:
        shutil.copy(file, folder)
    for name, pixels in painted(graphics, 4 * USER_SIDE, USER_SEED):
        write_picture(Picture(resize(pixels, (USER_SIDE, USER_SIDE))), folder / f"user_{name}.png")


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("content.json"))
    parser.add_argument("--only", nargs="*", default=CHECKPOINTS)
    parser.add_argument("--precisions", nargs="*", default=("int8",))
    parser.add_argument("--contents", nargs="*", default=("photo", "any"))
    parser.add_argument("--photographs", type=int, default=100)
    parser.add_argument("--graphics", type=int, default=0)
    parser.add_argument("--print", action="store_true")
    asked = parser.parse_args()
    results = json.loads(asked.results.read_text()) if asked.results.is_file() else {}
    place = asked.results.with_suffix("")
    images = place / f"photographs_{asked.photographs}"
    if asked.graphics:
        images = place / f"photographs_{asked.photographs}_graphics_{asked.graphics}"
    if not asked.print:
        gather(images, asked.photographs, asked.graphics)
        write_held(place / "held")
    for name in () if asked.print else asked.only:
        for content in asked.contents:
            for precision in asked.precisions:
                usual = (asked.photographs, asked.graphics) == (100, 0)
                shown = content if usual else f"{content}, {asked.photographs} + {asked.graphics}"
                key = "|".join((name, precision, shown))
                if key not in results:
                    say(key)
                    results[key] = measured(place, name, precision, content, images)
                    write_json(asked.results, results)
    print(table(results))


if __name__ == "__main__":
    main()
