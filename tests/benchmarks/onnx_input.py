"""Checkpoints exported by torch.onnx alone and given back as ONNX files, beside the route of the checkpoint.

    python tests/benchmarks/onnx_input.py [NAME …]                  the graphs' function and number of convolutions
    python tests/benchmarks/onnx_input.py NAME … --int8 IMAGES      and the dB that the INT8 plans of both routes lose
                                                        [--no-fit]  calibrated plainly, as srdeploy build --no-fit

A row is a checkpoint and an exporter: "old" (TorchScript, operator set 17) or "dynamo" (its own default set), with
free sizes (one size of ExpandRepNet, which computes with sizes in Python). Columns: the largest difference of the two
routes' graphs in 8-bit steps, at an even and an odd size; convolutions of the network as torch wrote it, of the
checkpoint's route, of the ONNX file's. Besides the published files there are those that ship, and two of random
weights, all in training form. Data is found through SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Iterator, Tuple

import onnx
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sr_deploy.core.media.natural import natural_input  # noqa: E402
from sr_deploy.core.tolerance import largest_difference  # noqa: E402
from sr_deploy.models.architectures.ecbsr import ECBSRNetwork  # noqa: E402
from sr_deploy.models.base import LoadedModel  # noqa: E402
from sr_deploy.pipeline.export import ExportOptions, export_deployment  # noqa: E402
from sr_deploy.pipeline.load import LoadOptions, load_model  # noqa: E402
from sr_deploy.run.base import upscale  # noqa: E402
from sr_deploy.run.onnxruntime import runner_from_graph  # noqa: E402
from tests import synthetic_checkpoints  # noqa: E402
from tests.models.random_weights import random_tensors, renamed  # noqa: E402

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", ROOT.parent / "shared"))
SIZES = ((48, 64), (51, 43))


#: Networks that srdeploy does not know, and what else their files need.
_FACTORIES = f"{ROOT / 'tests' / 'models' / 'user_networks.py'}:"
GIVEN = {
    "expandrepnet_x4.pth": LoadOptions(factory=_FACTORIES + "expandrepnet"),
    "fean_x4.pt": LoadOptions(factory=_FACTORIES + "fean", ignore_surplus=True),
}
#: What tracing fixes to one size.
FIXED = ("expandrepnet_x4.pth", "fean_x4.pt")


def checkpoints(names, folder: Path) -> Iterator[Tuple[Path, LoadOptions]]:
    """The files to take, those named or all: published, shipped, and in training form, the last made in ``folder``."""
    files = [*(ASSETS / "weights").iterdir(), *(ROOT / "sr_deploy" / "demo").glob("*.safetensors"), *made(folder)]
    for file in sorted(files, key=lambda file: file.name):
        if not names or any(file.name.startswith(name) for name in names):
            yield file, GIVEN.get(file.name, LoadOptions())


def made(folder: Path) -> Iterator[Path]:
    """Checkpoints in training form, random weights."""
    ecbsr = random_tensors(ECBSRNetwork((3, 16, 16, 12), 2, "prelu", (32, 32, 24), identity=True))
    forms = {
        "ecbsr_branches": renamed(ecbsr, {f"backbone.{n}.conv3x3.": f"backbone.{n}." for n in range(3)}),
        "efdn_branches": synthetic_checkpoints.efdn_training(16, 2, 0),
    }
    for name, weights in forms.items():
        torch.save(dict(weights), folder / f"{name}.pth")
        yield folder / f"{name}.pth"


def exported(loaded: LoadedModel, path: Path, dynamo: bool, fixed: bool) -> None:
    """What a user does who has the network in PyTorch."""
    example = (torch.rand(1, 3, *SIZES[0]) * loaded.value_range,)
    names = {"input_names": ["input"], "output_names": ["output"]}
    logging.disable(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if dynamo:
            free = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
            sizes = {} if fixed else {"dynamic_shapes": (free,)}
            torch.onnx.export(loaded.module, example, str(path), dynamo=True, verbose=False, **names, **sizes)
        else:
            axes = {"input": {2: "h", 3: "w"}, "output": {2: "h2", 3: "w2"}}
            sizes = {"dynamic_axes": {} if fixed else axes, "opset_version": 17}
            torch.onnx.export(loaded.module, example, str(path), dynamo=False, **names, **sizes)


def convolutions(path: Path) -> int:
    return sum(node.op_type == "Conv" for node in onnx.load(str(path), load_external_data=False).graph.node)


def difference(first, second) -> float:
    """The largest difference of two deployments' graphs on photographs, in 8-bit steps."""
    worst = 0.0
    for size in SIZES if first.manifest.graphs[0].size is None else SIZES[:1]:
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


def lost(deployment, asked: argparse.Namespace) -> str:
    """dB that the INT8 plan loses; "" where none is asked for, or none is made for one size."""
    if asked.int8 is None or deployment.manifest.graphs[0].size is not None:
        return ""
    from sr_deploy.pipeline.precision.make_plan import plan_for
    from sr_deploy.pipeline.precision.plan_inputs import PrecisionOptions

    options = PrecisionOptions("int8", images=asked.int8, improve=not asked.no_fit)
    return f"{plan_for(deployment, options).report['loss_db']:+.4f}"


def row(file: Path, options: LoadOptions, folder: Path, asked: argparse.Namespace) -> Iterator[str]:
    """The table's rows of one checkpoint."""
    folder.mkdir()
    try:
        _, loaded = load_model(file, options)
    except Exception as error:
        yield f"| {file.name} | – | {str(error).splitlines()[0][:60]} | | |"
        return
    fixed = file.name in FIXED
    sizes = SIZES[:1] if fixed else ()
    ours = export_deployment(ExportOptions(file, folder / "checkpoint", sizes, load=options))
    ours_lost = lost(ours, asked)
    for dynamo in (False, True):
        name = "dynamo" if dynamo else "old"
        path = folder / f"{name}.onnx"
        try:
            exported(loaded, path, dynamo, fixed)
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
        planned = [one for one in (ours_lost, lost(theirs, asked)) if one]
        yield f"| {file.name} | {name} | {same} | {counts} | {' / '.join(planned)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--int8", type=Path)
    parser.add_argument("--no-fit", action="store_true")
    asked = parser.parse_args()
    print("| checkpoint | exporter | difference | convolutions: torch → ours / from ONNX | INT8 dB |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for number, (file, options) in enumerate(checkpoints(asked.names, Path(folder))):
            for line in row(file, options, Path(folder) / str(number), asked):
                print(line, flush=True)


if __name__ == "__main__":
    main()
