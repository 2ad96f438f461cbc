"""Activation memory that TensorRT-RTX plans for SM86, plain and streamed, as a table and a plot. No GPU needed.

    python tests/benchmarks/memory_table.py
    python tests/benchmarks/memory_table.py --only f2srgan_x4.pt --sizes 720,1080 --types fp16 --plot growth.png

Every graph is exported with the default rewrites, fixed to the size, typed, and built once for each strip count; the
streamed figure is the least of them. "fp16" computes everything in float16 with float32 at both ends; "fp16-pinned"
keeps the pinned nodes in float32. Data is found through SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Dict, List, Tuple

from sr_deploy.engine.tensorrt import engine_from_graph
from sr_deploy.graph.memory import activation_bytes
from sr_deploy.graph.rewrite.base import RewriteOptions
from sr_deploy.graph.rewrite.streaming import apply_streaming
from sr_deploy.graph.specialise import static_graph
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.precision.apply import half_graph

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[3] / "shared"))
CHECKPOINTS = (
    "f2srgan_x4.pt", "efdn_x4.pth", "dsclora_x4.pth", "span_ch26_x4.pth", "f2srgan_x4_student.pt",
    "light_f2srgan_x4_whole_module.pt",
)  # fmt: skip


def ask(path: Path) -> int:
    """Bytes of activations of an engine for SM86."""
    return int(engine_from_graph("tensorrt-rtx", path, None, ("8.6",)).activation_bytes or 0)


def measured(graph: Path, side: int, kind: str, counts: List[int]) -> Dict[int, int]:
    """Strip count → bytes; 1 is the graph as it is."""
    model = static_graph(graph, (side, side))
    if kind != "fp32":
        model = half_graph(model, keep_pinned=kind == "fp16-pinned")
    answers = {1: activation_bytes(model, ask)}
    for strips in counts:
        result = apply_streaming(model, RewriteOptions(size=(side, side), strips=strips))
        if result.changed:
            answers[strips] = activation_bytes(result.model, ask)
    return answers


def plot(curves: Dict[Tuple[str, str, str], List[Tuple[int, float]]], path: Path) -> None:
    """GB against the side; dashed where nothing is streamed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6))
    colours: Dict[Tuple[str, str], str] = {}
    for (name, kind, form), points in curves.items():
        style = "-" if form == "streamed" else "--"
        label, colour = f"{name} {kind} {form}", colours.get((name, kind))
        (line,) = axes.plot(*zip(*points), style, marker="o", label=label, color=colour)
        colours[(name, kind)] = line.get_color()
    axes.set(xlabel="side of the square input, pixels", ylabel="activations, GB (TensorRT-RTX, SM86)", yscale="log")
    axes.grid(True, alpha=0.3)
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Print the table, write the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="144,360,480,720,1080", help="sides of square inputs, by commas")
    parser.add_argument("--types", default="fp32,fp16", help="of fp32, fp16 and fp16-pinned, by commas")
    parser.add_argument("--strips", default="8,12,24,36,48", help="strip counts to ask for, by commas")
    parser.add_argument("--only", default="", help="only checkpoints whose name begins so")
    parser.add_argument("--plot", type=Path, help="write the growth curves to this PNG")
    arguments = parser.parse_args()
    if not (ASSETS / "weights").is_dir():
        sys.exit(f"no checkpoints at {ASSETS}: set SRDEPLOY_ASSETS")
    sizes = [int(side) for side in arguments.sizes.split(",")]
    counts = [int(count) for count in arguments.strips.split(",")]
    curves: Dict[Tuple[str, str, str], List[Tuple[int, float]]] = {}
    print("| network | type | size | plain GB | streamed GB | strips |\n|---|---|---|---|---|---|")
    for name in (name for name in CHECKPOINTS if name.startswith(arguments.only)):
        with tempfile.TemporaryDirectory() as folder:
            deployment = export_deployment(ExportOptions(ASSETS / "weights" / name, Path(folder) / "net"))
            for kind in arguments.types.split(","):
                for side in sizes:
                    answers = measured(deployment.folder / "model.onnx", side, kind, counts)
                    best = min(answers, key=lambda strips: (answers[strips], strips))
                    plain, least = answers[1] / 1e9, answers[best] / 1e9
                    print(f"| {name} | {kind} | {side}² | {plain:.3f} | {least:.3f} | {best} |", flush=True)
                    curves.setdefault((name.split(".")[0], kind, "plain"), []).append((side, plain))
                    curves.setdefault((name.split(".")[0], kind, "streamed"), []).append((side, least))
    if arguments.plot:
        plot(curves, arguments.plot)


if __name__ == "__main__":
    main()
