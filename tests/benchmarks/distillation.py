"""What each loss of a distillation brings in the same steps from the same start; and the first paper's networks.

    python tests/benchmarks/distillation.py losses WORK                 three students, every loss
    python tests/benchmarks/distillation.py losses WORK --only student
    python tests/benchmarks/distillation.py quality NET.safetensors --res-scale 2     Set5 and Set14, beside bicubic

Each row is kept in WORK and is not measured again. Training sees the unlabelled photographs only; Set5 and Set14 judge.
*Fidelity* is PSNR over RGB to the teacher's output on squares of photographs that were not trained on. One thread. Data
is found through SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, Optional, Tuple

import numpy as np
import torch

from sr_deploy.core.contract import IOContract
from sr_deploy.core.media.bicubic import resize
from sr_deploy.core.media.image import from_network, read_picture, to_network
from sr_deploy.core.quality.metrics import CRITERION
from sr_deploy.core.quality.pairing import pair_images
from sr_deploy.core.quality.psnr_ssim import crop_like
from sr_deploy.pipeline.load import LoadOptions, load_model
from sr_deploy.pipeline.train.distill import distill
from sr_deploy.pipeline.train.request import DistillRequest, Wanted

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[3] / "shared"))
PHOTOGRAPHS = ASSETS / "images" / "calibration" / "DIV2K_test_LRx4"


@dataclass(frozen=True)
class Case:
    """A student, its teacher, and how it is trained."""

    request: DistillRequest
    steps: int


def _case(teacher: str, steps: int, wanted: Wanted, **student) -> Case:
    request = DistillRequest(
        Path("x.safetensors"), teacher=ASSETS / "weights" / teacher, images=PHOTOGRAPHS, wanted=wanted, steps=steps,
        judge_every=steps, device="cpu", **student,
    )  # fmt: skip
    return Case(request, steps)


CASES: Dict[str, Case] = {
    "student": _case("f2srgan_x4.pt", 80, Wanted(rate=2e-4, batch=4, patch=24),
                     student=ASSETS / "weights" / "f2srgan_x4_student.pt"),
    "span-tiny": _case("efdn_x4.pth", 60, Wanted(rate=2e-4, batch=4, patch=24),
                       student=ASSETS / "weights" / "span_ch26_x4.pth"),
    "edsrmini": _case("efdn_x2.pth", 80, Wanted(rate=1e-3, batch=4, patch=32), sizes=("width=16,blocks=8",),
                      load=LoadOptions(arch="EDSR", res_scale=2.0)),
}  # fmt: skip
#: Weights that make each part a tenth or more of L1's; papers' weights where their units are known.
LOSSES: Tuple[str, ...] = (
    "l1=1",
    "charbonnier=1",
    "laplacian=1",
    "laplacian-hf=1",
    "l1=1,gradient-variance=1",
    "l1=1,kl=0.0035",
    "l1=1,at=1000",
    "l1=1,afd=0.78",
    "l1=1,affinity=0.1",
)


def main() -> None:
    """Parse the command line, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("losses", "quality"))
    parser.add_argument("place", type=Path)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--res-scale", type=float)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "losses":
        for name in [options.only] if options.only else CASES:
            losses(name, CASES[name], options.place)
    else:
        quality(options.place, options.res_scale)


def losses(name: str, case: Case, work: Path) -> None:
    """The rows of one student."""
    work.mkdir(parents=True, exist_ok=True)
    print(f"{name}, {case.steps} steps\n| loss | fidelity | Set5 PSNR-Y | seconds |\n|---|---|---|---|")
    for text in LOSSES:
        row = _row(name, case, text, work)
        if text == LOSSES[0]:
            print(f"| before | {row['before']:.2f} | | |")
        print(f"| {text} | {row['fidelity']:.3f} | {row['set5']:.3f} | {row['seconds']:.0f} |", flush=True)


def _row(name: str, case: Case, text: str, work: Path) -> Dict[str, float]:
    kept = work / f"{name}_{text.replace('=', '-').replace(',', '_')}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    out = work / "trained.safetensors"
    rows = 256 if "affinity" in text else None
    wanted = replace(case.request.wanted, loss=text)
    request = replace(case.request, out=out, wanted=wanted, affinity_rows=rows, force=True)
    record = distill(request).record
    first, last = record["points"][0], record["points"][-1]
    row = {
        "before": first["fidelity"],
        "fidelity": last["fidelity"],
        "seconds": record["seconds"],
        "set5": psnr_of(out, "Set5", request.load.res_scale)[0],
    }
    kept.write_text(json.dumps(row))
    return row


def quality(path: Path, res_scale: Optional[float]) -> None:
    """PSNR-Y of a checkpoint and of bicubic."""
    for name in ("Set5", "Set14"):
        network, bicubic = psnr_of(path, name, res_scale)
        print(f"{name}: {network:.3f} dB, bicubic {bicubic:.3f}")


def psnr_of(path: Path, name: str, res_scale: Optional[float]) -> Tuple[float, float]:
    """Mean PSNR-Y of a checkpoint in PyTorch and of bicubic, dB."""
    _, loaded = load_model(path, LoadOptions(res_scale=res_scale))
    contract, scale = IOContract(loaded.value_range), loaded.scale
    folder = ASSETS / "images" / name
    values = []
    for _, low_path, high_path in pair_images(folder / "LR_bicubic" / f"X{scale}", folder / "HR", scale):
        low = read_picture(low_path)
        with torch.no_grad():
            made = loaded.module(torch.from_numpy(to_network(low, contract))).numpy()
        pixels = from_network(made, contract, low).pixels
        high = crop_like(read_picture(high_path).pixels, pixels, str(high_path))
        enlarged = resize(low.pixels, pixels.shape[:2])
        values.append((CRITERION.of(pixels, high, scale), CRITERION.of(enlarged, high, scale)))
    network, bicubic = np.mean(values, axis=0)
    return float(network), float(bicubic)


if __name__ == "__main__":
    main()
