"""What TensorRT-RTX makes of a graph that is fixed to a size, of one for any that is told it, and of one for a range.

    python tests/benchmarks/fixed_or_dynamic.py [--size 144] [--only efdn] [--rewrite default]

Kernels, MB read and written without weights and MB of activations in float16, for SM86. "fixed": all that follows from
the size is a constant of the graph. "told": the graph for any size, with a profile of this one alone. "range": the same
with a profile from half of the size to the size; of such an engine no bytes are known. Needs no GPU. Data is found
through SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Dict, Optional

import onnx

from sr_deploy.core.contract import Size
from sr_deploy.engine.built import BuiltEngine
from sr_deploy.engine.manifest import Profile
from sr_deploy.engine.options import EngineOptions
from sr_deploy.engine.tensorrt import engine_from_graph
from sr_deploy.graph.specialise import load_graph, static_graph
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.precision.lower.typed_graph import half_graph

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[3] / "shared"))
CHECKPOINTS = (
    "span_ch26_x4.pth", "rlfn_x4.pth", "efdn_x4.pth", "light_f2srgan_x4_whole_module.pt", "f2srgan_x4_student.pt",
    "f2srgan_x4.pt",
)  # fmt: skip


def engine(model: onnx.ModelProto, profile: Optional[Profile], folder: Path) -> BuiltEngine:
    """The engine of a graph in float16."""
    path = folder / "half.onnx"
    onnx.save(half_graph(model, keep_pinned=False), str(path))
    return engine_from_graph("tensorrt-rtx", path, profile, ("8.6",), EngineOptions(precision="auto"))


def forms(graph: Path, size: Size, folder: Path) -> Dict[str, BuiltEngine]:
    """The engines of the three forms."""
    half = (size[0] // 2, size[1] // 2)
    return {
        "fixed": engine(static_graph(graph, size), None, folder),
        "told": engine(load_graph(graph), (size,) * 3, folder),
        "range": engine(load_graph(graph), (half, size, size), folder),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=144)
    parser.add_argument("--only", default="", help="only networks whose name begins so")
    parser.add_argument("--rewrite", default="default", help="passes of the export")
    arguments = parser.parse_args()
    if not (ASSETS / "weights").is_dir():
        sys.exit(f"no checkpoints at {ASSETS}: set SRDEPLOY_ASSETS")
    print("| network | form | kernels | MB | MB of activations |\n|---|---|---:|---:|---:|")
    for name in CHECKPOINTS:
        if not name.startswith(arguments.only):
            continue
        with tempfile.TemporaryDirectory() as temporary:
            options = ExportOptions(ASSETS / "weights" / name, Path(temporary) / "net", rewrite=arguments.rewrite)
            graph = export_deployment(options).folder / "model.onnx"
            for form, built in forms(graph, (arguments.size,) * 2, Path(temporary)).items():
                moved = built.listing.bytes_moved if built.listing else None
                shown = "-" if moved is None else f"{moved / 1e6:.1f}"
                kernels = built.listing.kernels if built.listing else "-"
                memory = f"{(built.activation_bytes or 0) / 1e6:.1f}"
                print(f"| {name.split('.')[0]} | {form} | {kernels} | {shown} | {memory} |", flush=True)


if __name__ == "__main__":
    main()
