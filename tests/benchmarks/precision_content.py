"""What INT8 costs on photographs and on graphics, in the mean and in the worst picture, by the content it was made for.

    python -m tests.benchmarks.precision_content --results content.json              what is missing in content.json
    python -m tests.benchmarks.precision_content --results content.json --print      the tables

    --only NAME …   checkpoints     --precisions int8 auto-0.1 auto-0.05     --contents photo any
    --photographs N                 calibrate with the first N of the 100 photographs
    --graphics N                    and with N graphics as a user may have them, in the same folder
    --plot FILE                     the errors of the promises as a picture, .png or .svg

Plans are made by ``srdeploy build --precision … --content …`` with the calibration photographs and the graphics that
srdeploy paints. Set5, Set14, Graphics (five rendered pictures) and Held (those of held_graphics.py, but for the ones on
which float32 itself runs away or is worse than bicubic enlargement by more than 1 dB) are not seen before they are
judged. The user's graphics are painted from a seed of their own and shrunk: whole screens beside photographs. The error
of a promise is what a picture loses less what the plan's report promises of the worst one, of the plans with a budget.
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
from matplotlib.figure import Figure

from sr_deploy.core.artifact import write_json
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.media.bicubic import resize
from sr_deploy.core.media.graphics.paint import painted
from sr_deploy.core.media.image import Picture, write_picture
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.pipeline.precision.deployed_plan import PrecisionOptions
from sr_deploy.pipeline.precision.make_plan import plan_for
from sr_deploy.precision.evaluate import computing, judge, scenes_of, within_reach
from sr_deploy.report.plots import COLOURS, save_figure
from tests.benchmarks.held_graphics import write_held
from tests.benchmarks.precision_quality import photographs

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[3] / "shared"))
CHECKPOINTS = ("span_ch26_x4.pth", "dsclora_x4.pth", "efdn_x4.pth", "f2srgan_x4_student.pt", "spanf_x4.pth")
SETS = ("Set5", "Set14", "Graphics", "Held")
#: Of the graphics that a user might have.
USER_SEED, USER_SIDE = 77, 160
#: Of the histogram, in budgets; what is beyond counts in the last.
EDGES = (-3.0, -1.0, -0.8, -0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 1.0)


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


def errors(results: Dict[str, Dict[str, Any]]) -> Dict[str, Dict[str, List[float]]]:
    """Budget → set → of each picture of each plan with that budget what it loses less what was promised, dB."""
    found: Dict[str, Dict[str, List[float]]] = {}
    for key, row in results.items():
        budget = key.split("|")[1].partition("-")[2]
        if not budget:
            continue
        for name, pictures in row["sets"].items():
            beyond = [picture["loss"] - row["report"]["promised_worst_db"] for picture in pictures]
            found.setdefault(budget, {name: [] for name in SETS})[name] += beyond
    return found


def histogram(results: Dict[str, Dict[str, Any]]) -> str:
    """The errors counted, each in the unit of its budget."""
    heads = [f"{low:+.1f} … {high:+.1f}" for low, high in zip(EDGES, EDGES[1:])]
    lines = ["| budget, dB | set | " + " | ".join(heads) + " |", "|---" * (len(heads) + 2) + "|"]
    for budget, sets in errors(results).items():
        for name, beyond in sets.items():
            shares = np.clip(np.asarray(beyond) / float(budget), EDGES[0], EDGES[-1])
            counts = np.histogram(shares, EDGES)[0]
            lines.append(" | ".join([f"| {budget} | {name}", *(str(count or "") for count in counts)]) + " |")
    return "\n".join(lines)


def plot(results: Dict[str, Dict[str, Any]], path: Path) -> None:
    """The same as bars, one panel a budget."""
    found = errors(results)
    figure = Figure(figsize=(8.0, 1.0 + 2.4 * len(found)), dpi=110, layout="constrained")
    bins = np.linspace(EDGES[0], EDGES[-1], 31)
    for axes, (budget, sets) in zip(np.atleast_1d(figure.subplots(len(found), 1, sharex=True)), found.items()):
        shares = [np.clip(np.asarray(beyond) / float(budget), bins[0], bins[-1]) for beyond in sets.values()]
        axes.hist(shares, bins, stacked=True, label=list(sets), color=COLOURS[: len(sets)])
        axes.axvline(0.0, color="black", linewidth=0.8)
        axes.set_ylabel("pictures")
        axes.set_title(f"budget {budget} dB in every picture, {sum(map(len, shares))} pictures", loc="left")
        axes.legend()
    axes.set_xlabel("loss less the promised worst loss, in budgets (right of the line: lost more than was promised)")
    save_figure(figure, path)


def table(results: Dict[str, Dict[str, Any]]) -> str:
    """Markdown: one row a plan, then the histogram."""
    heads = ["checkpoint", "precision", "content", "INT8 share", *(f"{one} mean / worst" for one in SETS)]
    heads += ["pixels off by > 8 (Graphics, worst)", "colour shift (worst)", "promised worst", "seconds"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for key, row in results.items():
        name, precision, content = key.split("|")
        lines.append(row_of(name, precision, content, row))
    return "\n".join([*lines, "", histogram(results)])


def gather(place: Path, count: int, graphics: int) -> Path:
    """A folder as a user may have it: photographs, and graphics of LR size among them."""
    images = photographs(place, count)
    if not graphics:
        return images
    mixed = place / f"photographs_{count}_graphics_{graphics}"
    if not mixed.is_dir():
        shutil.copytree(images, mixed)
        for name, pixels in painted(graphics, 4 * USER_SIDE, USER_SEED):
            write_picture(Picture(resize(pixels, (USER_SIDE, USER_SIDE))), mixed / f"user_{name}.png")
    return mixed


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("content.json"))
    parser.add_argument("--only", nargs="*", default=CHECKPOINTS)
    parser.add_argument("--precisions", nargs="*", default=("int8",))
    parser.add_argument("--contents", nargs="*", default=("photo", "any"))
    parser.add_argument("--photographs", type=int, default=100)
    parser.add_argument("--graphics", type=int, default=0)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--print", action="store_true")
    asked = parser.parse_args()
    results = json.loads(asked.results.read_text()) if asked.results.is_file() else {}
    place = asked.results.with_suffix("")
    if not asked.print:
        write_held(place / "held")
    for name in () if asked.print else asked.only:
        for content in asked.contents:
            for precision in asked.precisions:
                usual = (asked.photographs, asked.graphics) == (100, 0)
                shown = content if usual else f"{content}, {asked.photographs} + {asked.graphics}"
                key = "|".join((name, precision, shown))
                if key not in results:
                    say(key)
                    results[key] = measured(
                        place, name, precision, content, gather(place, asked.photographs, asked.graphics)
                    )
                    write_json(asked.results, results)
    print(table(results))
    if asked.plot is not None:
        plot(results, asked.plot)


if __name__ == "__main__":
    main()
