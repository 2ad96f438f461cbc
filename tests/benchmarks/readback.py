"""What TensorRT-RTX makes of every network, and whether the read-back finds each product of it, as a table.

    python tests/benchmarks/readback.py [--only span] [--targets 8.6,8.9,12.0] [--size 144] [--keep FOLDER]

The shared checkpoints, and EDSR-baseline, EDSRmini, SwinIR-lightweight and SwinIRmini at ×2 with random weights; fp16
and int8 (minmax, weights as they are: only the types matter here). "graph" counts the convolutions and matrix products
of what was built, in float16 the graph rewritten for the builder, "found" those that its listing names; MB are read and
written, without weights. Exit code 1 when a product is not found or an engine is refused. Needs no GPU. Data is found
through SRDEPLOY_ASSETS (default ../shared). ``--keep`` keeps deployments and plans for the next time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.errors import SrDeployError
from sr_deploy.core.media.image import Picture, find_images, read_picture, write_picture
from sr_deploy.models.architectures.edsr import BasicSREDSR
from sr_deploy.models.architectures.swinir import LightweightSwinIR, SwinShape
from sr_deploy.pipeline.engines.build import build_engines
from sr_deploy.pipeline.engines.request import BuildOptions
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.pipeline.inspect import listings_of
from sr_deploy.pipeline.load import LoadOptions
from sr_deploy.pipeline.precision.deployed_plan import PrecisionOptions

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[3] / "shared"))
CHECKPOINTS = (
    "span_ch26_x4.pth", "span_ch28_x4.pth", "dsclora_x4.pth", "efdn_x4.pth", "efdn_x2.pth", "f2srgan_x4_student.pt",
    "light_f2srgan_x4_whole_module.pt", "f2srgan_x4.pt", "f2srgan_x2.pt", "f2srgan_x4_qat.pth.tar",
)  # fmt: skip
#: Name → residual scaling, where the network has one.
RANDOM = {"edsr_mini": 2.0, "edsr_baseline": 1.0, "swinir_mini": None, "swinir_lightweight": None}
#: Calibration: so many pictures, of which this corner.
PICTURES, SIDE = 2, 128


def random_network(name: str) -> torch.nn.Module:
    """A published form with random weights."""
    torch.manual_seed(0)
    if name == "edsr_baseline":
        return BasicSREDSR(64, 16, 2, 1.0)
    if name == "edsr_mini":
        return BasicSREDSR(16, 8, 2, 2.0)
    depths, dim = ([6] * 4, 60) if name == "swinir_lightweight" else ([4] * 3, 24)
    shape = SwinShape(dim=dim, window=8, heads=6, hidden=2 * dim, qkv_bias=True)
    return LightweightSwinIR(depths, [shape] * len(depths), False, 2)


def deployment_of(name: str, folder: Path) -> Deployment:
    """The deployment of a checkpoint or of random weights; one that is there already is taken."""
    if (folder / name).is_dir():
        return open_deployment(folder / name)
    checkpoint, load = ASSETS / "weights" / name, LoadOptions()
    if name in RANDOM:
        checkpoint, load = folder / f"{name}.pth", LoadOptions(res_scale=RANDOM[name])
        torch.save(random_network(name).state_dict(), checkpoint)
    return export_deployment(ExportOptions(checkpoint, folder / name, load=load))


def calibration(folder: Path) -> Path:
    """A few small photographs."""
    pictures = folder / "pictures"
    for path in find_images([ASSETS / "images" / "calibration" / "DIV2K_test_LRx4"])[:PICTURES]:
        pixels = read_picture(path).pixels[:SIDE, :SIDE]
        write_picture(Picture(np.ascontiguousarray(pixels)), pictures / f"{path.stem}.png")
    return pictures


def row(deployment: Deployment, name: str, precision: str, target: str, size: int, pictures: Path) -> tuple[str, bool]:
    """One line of the table, and whether it is as it should be."""
    asked = {
        "fp16": PrecisionOptions("fp16"),
        "int8": PrecisionOptions("int8", images=pictures, method="minmax", improve=False),
    }
    options = BuildOptions(
        deployment.folder, "tensorrt-rtx", sizes=((size, size),), compute_capabilities=(target,), force=True,
        precision=asked[precision],
    )  # fmt: skip
    head = f"| {name.split('.')[0]} | {precision} | {target} |"
    try:
        engines = build_engines(options)
    except SrDeployError as error:
        return f"{head} {' '.join(error.found.split())[:300]} | | | | |", False
    (listing,) = listings_of(deployment.folder, engines).values()
    count = listing["products_in_graph"]
    types = ", ".join(f"{types} {number}" for types, number in listing["products"].items())
    cells = (count, listing["products_found"], types, listing["kernels"], f"{listing['bytes_moved'] / 1e6:.1f}")
    good = count == listing["products_found"] and not listing["unread_lines"]
    wider = [warning for warning in engines[0].warnings if "wider type" in warning]
    return f"{head} {' | '.join(map(str, cells))} | {'; '.join(wider)} |".replace(" |  |", " |"), good


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only networks whose name begins so")
    parser.add_argument("--targets", default="8.6,8.9,12.0", help="compute capabilities")
    parser.add_argument("--size", type=int, default=144)
    parser.add_argument("--keep", type=Path, help="where deployments and plans are kept")
    arguments = parser.parse_args()
    if not (ASSETS / "weights").is_dir():
        sys.exit(f"no checkpoints at {ASSETS}: set SRDEPLOY_ASSETS")
    print("| network | precision | target | graph | found | input → output | kernels | MB |\n" + "|---" * 8 + "|")
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        pictures = calibration(folder)
        for name in (*CHECKPOINTS, *RANDOM):
            if not name.startswith(arguments.only):
                continue
            deployment = deployment_of(name, folder)
            for precision in ("fp16", "int8"):
                for target in arguments.targets.split(","):
                    line, fine = row(deployment, name, precision, target, arguments.size, pictures)
                    good &= fine
                    print(line, flush=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
