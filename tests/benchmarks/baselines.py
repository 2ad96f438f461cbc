"""Every network at hand in every runtime that this machine has, measured and saved as entries of the public table.

    python tests/benchmarks/baselines.py -o WORK [--entries engines/baselines] [--size 144,360] [--only efdn_x4]

Exports the two networks that ship with srdeploy and every checkpoint of weights/ in the folder SRDEPLOY_ASSETS
(default ../shared) into WORK, builds engines for each runtime that srdeploy doctor finds, verifies each on Set5 and
measures it with srdeploy bench --submit. Each entry is ENTRIES/DEVICE/NETWORK_RUNTIME_PRECISION_SCOPE.entry.json.
One that exists is kept, without --again, so that started again it goes on where it stopped. At the end srdeploy
report --catalogue checks them all and writes WORK/catalogue.html. Prints one line for each network and runtime;
exit code 1 when one of them failed. A network that does not export here (its architecture needs an option that only
its owner knows) is named and left out.

The machine should be idle: a busy one gives true entries that are slow.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import List

ROOT = Path(__file__).resolve().parents[2]
ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", ROOT.parent / "shared"))
SUFFIXES = (".pth", ".pt", ".pkl", ".tar", ".ckpt", ".safetensors")
sys.path.insert(0, str(ROOT))

from sr_deploy.core.contract import format_size  # noqa: E402
from sr_deploy.core.deployment.manifest import open_deployment  # noqa: E402
from sr_deploy.core.host.machine import this_machine  # noqa: E402
from sr_deploy.engine.flavour import flavours  # noqa: E402
from sr_deploy.pipeline.measure.baseline import baseline_name, device_folder  # noqa: E402
from sr_deploy.report.submission import SUFFIX, read_submission  # noqa: E402


def srdeploy(*arguments: object) -> str:
    """Run a command; "" or what it said when it failed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "sr_deploy.cli", *map(str, arguments)]
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return "" if done.returncode == 0 else next((line for line in lines if line.startswith("error:")), lines[-1])


def backends() -> List[str]:
    """ONNX Runtime, and with a GPU each TensorRT that is installed."""
    return ["onnxruntime"] + ([flavour.name for flavour in flavours()] if this_machine().gpus else [])


def measured(folder: Path, backend: str, arguments: argparse.Namespace) -> str:
    """One network in one runtime: "" where its entry is there at the end, else why not."""
    if not arguments.again and list(arguments.entries.glob(f"*/{folder.name}_{backend}_fp32_compute{SUFFIX}")):
        return ""
    scale = open_deployment(folder).manifest.scale
    pictures = ASSETS / "images" / "Set5"
    # Engines that are there already are an error of build, which a second start shall not stop at.
    srdeploy("build", folder, "--backend", backend, "--size", arguments.sizes)
    told = srdeploy("verify", folder, "--backend", "onnxruntime", "--lr", pictures / "LR_bicubic" / f"X{scale}", "--hr",
                    pictures / "HR", "--precision", "fp32")  # fmt: skip
    new = arguments.out / f"{folder.name}_{backend}{SUFFIX}"
    told = told or srdeploy("bench", folder, "--backend", backend, "--precision", "fp32", "--size", arguments.sizes,
                            "--seconds", arguments.seconds, "--submit", new)  # fmt: skip
    if told:
        return told
    result = read_submission(new).result
    target = arguments.entries / device_folder(result.points[0].device)
    target.mkdir(parents=True, exist_ok=True)
    new.replace(target / baseline_name(result).replace(".json", SUFFIX))
    print(
        f"{folder.name} {backend}: "
        + ", ".join(f"{format_size(p.size)} {1e3 * p.median_s:.3f} ms" for p in result.points)
    )
    return ""


def main() -> int:
    """Export, build, verify, measure, check; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for deployments and the page")
    parser.add_argument("--entries", type=Path, default=ROOT / "engines" / "baselines", help="folder of the entries")
    parser.add_argument("--size", dest="sizes", default="144,360", help="inputs, by commas")
    parser.add_argument("--seconds", type=float, default=3.0, help="each size is measured at least this long")
    parser.add_argument("--again", action="store_true", help="measure those too that have an entry")
    parser.add_argument("--only", default="", help="only checkpoints with this word in their name")
    arguments = parser.parse_args()
    checkpoints = sorted((ROOT / "sr_deploy" / "demo").glob("*.safetensors"))
    checkpoints += sorted(path for path in (ASSETS / "weights").rglob("*") if path.suffix in SUFFIXES)
    failed = []
    for checkpoint in (path for path in checkpoints if arguments.only in path.name):
        folder = arguments.out / checkpoint.name.split(".")[0]
        told = "" if folder.exists() else srdeploy("export", checkpoint, "-o", folder)
        if told:
            failed.append(f"{folder.name}: {told}")
            continue
        for backend in backends():
            told = measured(folder, backend, arguments)
            failed += [f"{folder.name} {backend}: {told}"] if told else []
    page = arguments.out / "catalogue.html"
    told = srdeploy("report", "--catalogue", arguments.entries, "-o", page, "--force")
    failed += [f"the catalogue: {told}"] if told else []
    for line in failed:
        print(f"FAILED {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
