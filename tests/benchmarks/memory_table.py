"""Activation memory that TensorRT-RTX plans for SM86, plain and streamed, as a table and a plot. No GPU needed.

    python tests/benchmarks/memory_table.py
    python tests/benchmarks/memory_table.py --only f2srgan_x4.pt --sizes 720,1080 --types fp16 --plot growth.png
    python tests/benchmarks/memory_table.py --cases efdn_x4.pth:fp16,f2srgan_x4.pt:fp32 --json memory.json

Every graph is exported with the default rewrites, fixed to the size, typed, and built once for each strip count; the
streamed figure is the least of them. "fp16" computes everything in float16 with float32 at both ends; "fp16-pinned"
keeps the pinned nodes in float32. With ``--json`` every answer is kept as it comes, and a second run asks only for what
is not there. The plot shows GB over the input's megapixels, with linear and with logarithmic axes. Data is found
through SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

from sr_deploy.core.artifact import write_json
from sr_deploy.engine.options import EngineOptions
from sr_deploy.engine.tensorrt import engine_from_graph
from sr_deploy.graph.memory import SHARES, activation_bytes
from sr_deploy.graph.rewrite.base import RewriteOptions
from sr_deploy.graph.rewrite.streaming import apply_streaming
from sr_deploy.graph.specialise import static_graph
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.precision.lower.typed_graph import half_graph

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[3] / "shared"))
CHECKPOINTS = (
    "f2srgan_x4.pt", "efdn_x4.pth", "dsclora_x4.pth", "span_ch26_x4.pth", "f2srgan_x4_student.pt",
    "light_f2srgan_x4_whole_module.pt",
)  # fmt: skip


def ask(path: Path) -> int:
    """Bytes of activations of an engine for SM86, built as within a budget: one layer after the other."""
    options = EngineOptions(precision="auto", one_stream=True)
    return int(engine_from_graph("tensorrt-rtx", path, None, ("8.6",), options).activation_bytes or 0)


def measured(graph: Path, side: int, kind: str, counts: List[int]) -> Dict[int, int]:
    """Strip count → the least bytes with either share of strips for the narrower parts; 1 is the graph as it is."""
    model = static_graph(graph, (side, side))
    if kind != "fp32":
        model = half_graph(model, keep_pinned=kind == "fp16-pinned")
    answers = {1: activation_bytes(model, ask)}
    for strips, share in itertools.product(counts, SHARES):
        result = apply_streaming(model, RewriteOptions(size=(side, side), strips=strips, share=share))
        if result.changed:
            found = activation_bytes(result.model, ask)
            answers[strips] = min(found, answers.get(strips, found))
    return answers


def plot(rows: List[Dict[str, Any]], path: Path) -> None:
    """GB against the megapixels of the input; dashed where nothing is streamed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(14, 6))
    cases = sorted({(row["network"], row["type"]) for row in rows})
    for number, (network, kind) in enumerate(cases):
        here = [row for row in rows if (row["network"], row["type"]) == (network, kind)]
        here.sort(key=lambda row: row["side"])
        pixels = [row["side"] ** 2 / 1e6 for row in here]
        for form, style in (("plain", "--"), ("streamed", "-")):
            values = [row[f"{form}_bytes"] / 1e9 for row in here]
            for axes in panels:
                label = f"{network.split('.')[0]} {kind} {form}"
                axes.plot(pixels, values, style, marker="o", color=f"C{number}", label=label)
    panels[1].set(xscale="log", yscale="log")
    for axes in panels:
        axes.set(xlabel="input, megapixels", ylabel="activations, GB (TensorRT-RTX, SM86)")
        axes.grid(True, alpha=0.3)
    panels[0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def ask_all(
    cases: List[Tuple[str, str]],
    sizes: List[int],
    counts: List[int],
    kept: List[Dict[str, Any]],
    save: Callable[[List[Dict[str, Any]]], None],
) -> None:
    """Ask for every case and size that ``kept`` does not hold; print and ``save`` each as it comes."""
    print("| network | type | size | plain GB | streamed GB | strips |\n|---|---|---|---|---|---|")
    for name in dict.fromkeys(name for name, _ in cases):
        with tempfile.TemporaryDirectory() as folder:
            graph = None
            for kind in (kind for network, kind in cases if network == name):
                for side in sizes:
                    key = {"network": name, "type": kind, "side": side, "asked": counts}
                    row = next((one for one in kept if key.items() <= one.items()), None)
                    if row is None:
                        graph = graph or exported(name, Path(folder) / "net")
                        answers = measured(graph, side, kind, counts)
                        best = min(answers, key=lambda strips: (answers[strips], strips))
                        row = {
                            **key,
                            "plain_bytes": answers[1],
                            "streamed_bytes": answers[best],
                            "strips": best,
                            "bytes_by_strips": {str(strips): found for strips, found in answers.items()},
                        }
                        kept.append(row)
                        save(kept)
                    plain, least = row["plain_bytes"] / 1e9, row["streamed_bytes"] / 1e9
                    print(f"| {name} | {kind} | {side}² | {plain:.3f} | {least:.3f} | {row['strips']} |", flush=True)


def exported(name: str, folder: Path) -> Path:
    """The checkpoint's graph for any size, with the default rewrites."""
    return export_deployment(ExportOptions(ASSETS / "weights" / name, folder)).folder / "model.onnx"


def main() -> None:
    """Print the table, write the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="144,360,480,720,1080", help="sides of square inputs, by commas")
    parser.add_argument("--types", default="fp32,fp16", help="of fp32, fp16 and fp16-pinned, by commas")
    parser.add_argument("--strips", default="8,12,24,36,48", help="strip counts to ask for, by commas")
    parser.add_argument("--only", default="", help="only checkpoints whose name begins so")
    parser.add_argument("--cases", help="CHECKPOINT:TYPE by commas, instead of --only and --types")
    parser.add_argument("--json", type=Path, help="keep every answer in this file, and go on from it")
    parser.add_argument("--plot", type=Path, help="write the growth curves to this PNG")
    arguments = parser.parse_args()
    if not (ASSETS / "weights").is_dir():
        sys.exit(f"no checkpoints at {ASSETS}: set SRDEPLOY_ASSETS")
    cases = [(name, kind) for name in CHECKPOINTS if name.startswith(arguments.only)
             for kind in arguments.types.split(",")]  # fmt: skip
    if arguments.cases:
        cases = [tuple(case.rsplit(":", 1)) for case in arguments.cases.split(",")]
    kept = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.is_file() else []

    def save(rows: List[Dict[str, Any]]) -> None:
        if arguments.json:
            write_json(arguments.json, rows)

    sizes, counts = ([int(part) for part in text.split(",")] for text in (arguments.sizes, arguments.strips))
    ask_all(cases, sizes, counts, kept, save)
    if arguments.plot:
        shown = [row for row in kept if (row["network"], row["type"]) in cases and row["side"] in sizes]
        plot([row for row in shown if row["asked"] == counts], arguments.plot)


if __name__ == "__main__":
    main()
