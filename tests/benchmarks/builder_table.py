"""What TensorRT-RTX makes of every network in float16, plain and rewritten, and what that should take on five GPUs.

    python tests/benchmarks/builder_table.py [--only efdn] [--sizes 144,360,1080] [--keep FOLDER] [--rows 8]

"plain" is the export of the folded network without any rewriting, "built" what ``srdeploy build`` makes of it: the
passes of the runtime's row where the listing is better for it, else the plain one. Kernels, MB read and written without
weights, GB of activations, 10⁹ multiply-accumulates, and estimates in milliseconds (engine/estimate.py; never a
measurement). ``--rows`` prints the largest kernels of what is built, too. Needs no GPU. Data is found through
SRDEPLOY_ASSETS (default ../shared). ``--keep`` keeps deployments.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Optional

from sr_deploy.core.contract import Size, parse_size
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.errors import SrDeployError
from sr_deploy.core.host.gpu_rates import gpu_named
from sr_deploy.engine.built import BuiltEngine
from sr_deploy.engine.estimate import estimated_ms, giga_macs
from sr_deploy.engine.runtimes import RUNTIMES
from sr_deploy.pipeline.engines.rewritten import is_better
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.pipeline.measure.listed import LISTING_RUNTIME, built_in_half

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[3] / "shared"))
CHECKPOINTS = (
    "efdn_x4.pth", "span_ch26_x4.pth", "f2srgan_x4_student.pt", "light_f2srgan_x4_whole_module.pt", "f2srgan_x4.pt",
    "span_ch28_x4.pth", "dsclora_x4.pth", "efdn_x2.pth", "spanf_x4.pth", "spanv2_x4.pth", "rlfn_x4.pth", "rfdn_x4.pkl",
    "f2srgan_x2.pt", "f2srgan_x4_qat.pth.tar",
)  # fmt: skip
DEVICES = ("xavier-nx", "orin-nx", "rtx-3060", "rtx-4090", "h200")
FORMS = {"plain": "none", "built": RUNTIMES[LISTING_RUNTIME].rewrite}


def deployment_of(name: str, folder: Path) -> Deployment:
    """The deployment of a checkpoint, exported without rewriting; one that is there already is taken."""
    if (folder / name / "manifest.json").is_file():
        return open_deployment(folder / name)
    return export_deployment(ExportOptions(ASSETS / "weights" / name, folder / name, rewrite="none"))


def built(deployment: Deployment, size: Size, form: str) -> BuiltEngine:
    """The engine of one form."""
    return built_in_half(deployment, deployment.graph_for(size), size, FORMS[form], "8.6")


def figures(engine: BuiltEngine) -> str:
    """The cells of one engine."""
    listing = engine.listing
    assert listing is not None and listing.bytes_moved is not None
    times = " | ".join(f"{estimated_ms(listing, gpu_named(name, '--for')):.2f}" for name in DEVICES)
    memory = f"{(engine.activation_bytes or 0) / 1e9:.3f}"
    return f"{listing.kernels} | {listing.bytes_moved / 1e6:.1f} | {memory} | {giga_macs(listing):.1f} | {times}"


def largest(engine: BuiltEngine, rows: int) -> None:
    """Print the kernels that move most."""
    assert engine.listing is not None
    kernels = sorted((one for one in engine.listing.layers if one.is_kernel), key=lambda one: -(one.bytes_moved or 0))
    for layer in kernels[:rows]:
        shapes = " + ".join(str(list(tensor.shape)) for tensor in layer.inputs)
        made = " + ".join(str(list(tensor.shape)) for tensor in layer.outputs)
        nodes = ", ".join(layer.nodes)[-60:]
        print(f"    {(layer.bytes_moved or 0) / 1e6:7.2f} MB {layer.kind}: {shapes} → {made}  {nodes}")


def print_rows(deployment: Deployment, name: str, size: Size, rows: int) -> None:
    """Print both lines of a network at a size, and of what is built the largest ``rows`` kernels."""
    kept: Optional[BuiltEngine] = None
    for form in FORMS:
        head = f"| {name} | {size[0]}² | {form} |"
        try:
            engine = built(deployment, size, form)
        except SrDeployError as error:
            print(f"{head} {' '.join(error.found.split())[:120]} |", flush=True)
            continue
        kept = engine if kept is None or is_better(kept, engine) else kept
        print(f"{head} {figures(kept)} |", flush=True)
    if kept is not None and rows:
        largest(kept, rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only networks whose name begins so")
    parser.add_argument("--sizes", default="144", help="square inputs")
    parser.add_argument("--keep", type=Path, help="where deployments are kept")
    parser.add_argument("--rows", type=int, default=0, help="print so many kernels of what is built")
    arguments = parser.parse_args()
    if not (ASSETS / "weights").is_dir():
        sys.exit(f"no checkpoints at {ASSETS}: set SRDEPLOY_ASSETS")
    heads = ["network", "size", "form", "kernels", "MB", "GB", "GMACs", *DEVICES]
    print("| " + " | ".join(heads) + " |\n|---|---|---|" + "---:|" * (len(heads) - 3), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in CHECKPOINTS:
            if not name.startswith(arguments.only):
                continue
            for size in map(parse_size, arguments.sizes.split(",")):
                print_rows(deployment_of(name, folder), name.split(".")[0], size, arguments.rows)


if __name__ == "__main__":
    main()
