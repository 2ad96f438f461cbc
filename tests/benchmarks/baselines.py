"""Every network at hand in every runtime that this machine has, measured and saved as this machine's baselines.

    python tests/benchmarks/baselines.py -o WORK [--sizes 144,360] [--seconds 3] [--baselines engines/baselines]

Exports the two networks that ship with srdeploy and every checkpoint of weights/ in the folder SRDEPLOY_ASSETS (default
../shared) into WORK, builds engines for each runtime that srdeploy doctor finds, and runs srdeploy sweep over all of
them, with --resume: started again, it goes on where it stopped. With --baselines each complete result is saved there as
DEVICE/NETWORK_RUNTIME_compute.json (srdeploy gate --update-baseline has one file a network, and one runtime would
replace the other). Prints one line for each network and runtime; exit code 1 when one of them failed.
A network that does not export here (its architecture needs an option that only its owner knows) is named and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import List

ROOT = Path(__file__).resolve().parents[2]
ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", ROOT.parent / "shared"))
SUFFIXES = (".pth", ".pt", ".tar", ".ckpt", ".safetensors")
sys.path.insert(0, str(ROOT))

from sr_deploy.bench.result import load_result, save_result  # noqa: E402
from sr_deploy.core.contract import format_size  # noqa: E402
from sr_deploy.core.host.machine import this_machine  # noqa: E402
from sr_deploy.engine.flavour import flavours  # noqa: E402
from sr_deploy.pipeline.measure.gate import device_folder  # noqa: E402


def srdeploy(*arguments: object) -> int:
    """Run a command; its exit code."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "sr_deploy.cli", *map(str, arguments)]
    return subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode


def backends() -> List[str]:
    """ONNX Runtime, and with a GPU each TensorRT that is installed."""
    return ["onnxruntime"] + ([flavour.name for flavour in flavours()] if this_machine().gpus else [])


def main() -> int:
    """Export, build, sweep, save; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for deployments and results")
    parser.add_argument("--sizes", default="144,360", help="inputs, by commas")
    parser.add_argument("--seconds", type=float, default=3.0, help="each size is measured at least this long")
    parser.add_argument("--baselines", type=Path, help="save there, such as engines/baselines; default: do not save")
    parser.add_argument("--only", default="", help="only checkpoints with this word in their name")
    arguments = parser.parse_args()
    checkpoints = sorted((ROOT / "sr_deploy" / "demo").glob("*.safetensors"))
    checkpoints += sorted(path for path in (ASSETS / "weights").rglob("*") if path.suffix in SUFFIXES)
    sizes = arguments.sizes.split(",")
    names, failed = [], []
    for checkpoint in (path for path in checkpoints if arguments.only in path.name):
        name = checkpoint.name.split(".")[0]
        folder = arguments.out / name
        if not folder.exists() and srdeploy("export", checkpoint, "-o", folder) != 0:
            failed.append(f"{name}: no export")
            continue
        names.append(name)
        for backend in backends()[1:]:
            # Engines that are there already are an error of build, which a second start shall not stop at.
            srdeploy("build", folder, "--backend", backend, *(word for size in sizes for word in ("--size", size)))
    matrix = {"deployments": names, "sizes": sizes, "backends": backends(), "seconds": arguments.seconds}
    (arguments.out / "matrix.json").write_text(json.dumps(matrix, indent=2))
    results = arguments.out / "results"
    if srdeploy("sweep", arguments.out / "matrix.json", "-o", results, "--resume") != 0:
        failed.append("sweep: see the lines above")
    for file in sorted(results.glob("*.json")):
        result = load_result(file)
        usable = [point for point in result.points if point.usable]
        texts = ", ".join(f"{format_size(point.size)} {1e3 * point.median_s:.3f} ms" for point in usable)
        print(f"{file.stem}: {texts or 'no usable point'}")
        if arguments.baselines is not None and len(usable) == len(result.points):
            save_result(arguments.baselines / device_folder(usable[0].device) / file.name, result)
    for line in failed:
        print(f"failed: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
