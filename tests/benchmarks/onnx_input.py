"""Checkpoints exported by torch.onnx alone and given back as ONNX files, beside the route of the checkpoint.

    python tests/benchmarks/onnx_input.py [NAME …]                  the graphs' function and number of convolutions
    python tests/benchmarks/onnx_input.py NAME … --int8 IMAGES      and the dB that the INT8 plans of both routes lose

A row is a checkpoint and an exporter: "old" (TorchScript, operator set 17) or "dynamo" (its own default set), with
free sizes. Columns: the largest difference of the two routes' graphs in 8-bit steps, at an even and an odd size;
convolutions of the network as torch wrote it, of the checkpoint's route, of the ONNX file's. Checkpoints that ask for
a value that no file stores are not among them. Data is found through SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Iterator

import onnx
import torch

from sr_deploy.core.media.natural import natural_input
from sr_deploy.core.tolerance import largest_difference
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.pipeline.load import LoadOptions, load_model
from sr_deploy.run.base import upscale
from sr_deploy.run.onnxruntime import runner_from_graph

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[3] / "shared"))
DEMO = Path(__file__).resolve().parents[2] / "sr_deploy" / "demo"
SIZES = ((48, 64), (51, 43))


def checkpoints(names) -> Iterator[Path]:
    """The files to take: those named, or all and the demo's, which are in training form."""
    files = [*sorted((ASSETS / "weights").iterdir()), *sorted(DEMO.glob("*.safetensors"))]
    yield from (file for file in files if not names or any(file.name.startswith(name) for name in names))


def exported(module: torch.nn.Module, value_range: float, path: Path, dynamo: bool) -> None:
    """What a user does who has the network in PyTorch."""
    example = (torch.rand(1, 3, *SIZES[0]) * value_range,)
    names = {"input_names": ["input"], "output_names": ["output"]}
    logging.disable(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if dynamo:
            free = ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
            torch.onnx.export(module, example, str(path), dynamo=True, dynamic_shapes=free, verbose=False, **names)
        else:
            axes = {"input": {2: "h", 3: "w"}, "output": {2: "h2", 3: "w2"}}
            torch.onnx.export(module, example, str(path), dynamo=False, opset_version=17, dynamic_axes=axes, **names)


def convolutions(path: Path) -> int:
    return sum(node.op_type == "Conv" for node in onnx.load(str(path), load_external_data=False).graph.node)


def difference(first, second) -> float:
    """The largest difference of two deployments' graphs on photographs, in 8-bit steps."""
    worst = 0.0
    for size in SIZES:
        rules = first.manifest.sizes
        fitting = (rules.fit(size[0]), rules.fit(size[1]))
        outputs = []
        for one in (first, second):
            white = one.manifest.contract.value_range
            runner = runner_from_graph(one.folder / "model.onnx", one.manifest.contract, one.manifest.scale)
            outputs.append(upscale(runner, natural_input(fitting, white)))
            runner.close()
        worst = max(worst, largest_difference(outputs[1], outputs[0], white))
    return worst


def lost(deployment, images: Path) -> float:
    """dB that the INT8 plan loses."""
    from sr_deploy.pipeline.precision.make_plan import plan_for
    from sr_deploy.pipeline.precision.plan_inputs import PrecisionOptions

    return float(plan_for(deployment, PrecisionOptions("int8", images=images)).report["loss_db"])


def row(file: Path, folder: Path, images) -> Iterator[str]:
    """The table's rows of one checkpoint."""
    try:
        _, loaded = load_model(file, LoadOptions())
    except Exception as error:
        yield f"| {file.name} | – | {str(error).splitlines()[0][:60]} | | |"
        return
    ours = export_deployment(ExportOptions(file, folder / "checkpoint"))
    for dynamo in (False, True):
        name = "dynamo" if dynamo else "old"
        path = folder / f"{name}.onnx"
        try:
            exported(loaded.module, loaded.value_range, path, dynamo)
        except Exception as error:
            yield f"| {file.name} | {name} | torch cannot: {type(error).__name__} | | |"
            continue
        load = LoadOptions()
        try:
            theirs = export_deployment(ExportOptions(path, folder / name, load=load))
        except Exception as error:
            if "--value-range" not in str(error):
                yield f"| {file.name} | {name} | {type(error).__name__}: {str(error).splitlines()[0][:120]} | | |"
                continue
            load = LoadOptions(value_range=loaded.value_range)
            theirs = export_deployment(ExportOptions(path, folder / name, load=load))
            name += ", range asked"
        counts = " → ".join(str(convolutions(one)) for one in (path, ours.folder / "model.onnx"))
        counts += f" / {convolutions(theirs.folder / 'model.onnx')}"
        same = f"{difference(ours, theirs):.5f}"
        planned = f"{lost(ours, images):+.4f} / {lost(theirs, images):+.4f}" if images else ""
        yield f"| {file.name} | {name} | {same} | {counts} | {planned} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--int8", type=Path)
    asked = parser.parse_args()
    print("| checkpoint | exporter | difference | convolutions: torch → ours / from ONNX | INT8 dB |")
    print("|---|---|---|---|---|")
    for file in checkpoints(asked.names):
        with tempfile.TemporaryDirectory() as folder:
            for line in row(file, Path(folder), asked.int8):
                print(line, flush=True)


if __name__ == "__main__":
    main()
