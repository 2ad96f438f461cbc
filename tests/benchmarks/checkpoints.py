"""Every shared checkpoint through the whole line, as tables: what the README's figures come from.

    python tests/benchmarks/checkpoints.py golden     largest difference from the published code, PyTorch and graph
    python tests/benchmarks/checkpoints.py quality    PSNR-Y and SSIM-Y on Set5 and Set14
    python tests/benchmarks/checkpoints.py engines    TensorRT-RTX builds for SM86 and SM120 at 144² and 1080²

Data is found through SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from sr_deploy.core.tolerance import largest_difference
from sr_deploy.pipeline.engines.build import build_engines
from sr_deploy.pipeline.engines.request import BuildOptions
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.pipeline.load import LoadOptions, load_model
from sr_deploy.pipeline.verify import VerifyOptions, verify_quality
from sr_deploy.run.base import upscale
from sr_deploy.run.onnxruntime import runner_from_graph

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[3] / "shared"))
CHECKPOINTS = (
    "efdn_x4.pth", "efdn_x2.pth", "span_ch26_x4.pth", "span_ch28_x4.pth", "dsclora_x4.pth", "f2srgan_x4.pt",
    "f2srgan_x2.pt", "f2srgan_x4_qat.pth.tar", "f2srgan_x4_student.pt", "light_f2srgan_x4_whole_module.pt",
    "spanf_x4.pth", "spanv2_x4.pth", "dscf_fused_x4.pth", "disp_x4.pth", "rlfn_x4.pth", "rfdn_x4.pkl",
)  # fmt: skip


def golden(deployment, name: str) -> str:
    """Largest difference from the published code in 8-bit steps: PyTorch, graph; even and odd input."""
    import torch

    _, loaded = load_model(ASSETS / "weights" / name, LoadOptions())
    stored = np.load(ASSETS / "golden" / (name.split(".")[0] + ".npz"))
    step = loaded.value_range / 255
    runner = runner_from_graph(deployment.folder / "model.onnx", deployment.manifest.contract, loaded.scale)
    cells = []
    for parity in ("even", "odd"):
        lr = stored[f"input_{parity}"].transpose(2, 0, 1)[None].astype(np.float32) * step
        expected = stored[f"output_{parity}"] * step
        with torch.no_grad():
            network = loaded.module(torch.from_numpy(lr)).numpy()
        clamped = np.clip(expected, 0, loaded.value_range)
        cells.append(f"{largest_difference(network, expected, loaded.value_range):.5f}")
        cells.append(f"{largest_difference(upscale(runner, lr), clamped, loaded.value_range):.5f}")
    runner.close()
    return " | ".join(cells)


def quality(deployment, name: str) -> str:
    """Mean PSNR-Y in dB / SSIM-Y on both sets."""
    cells = []
    for images in ("Set5", "Set14"):
        lr = ASSETS / "images" / images / "LR_bicubic" / f"X{deployment.manifest.scale}"
        report = verify_quality(VerifyOptions(deployment.folder, lr, ASSETS / "images" / images / "HR")).to_dict()
        mean = report["mean"]
        cells.append(f"{mean['psnr_y']:.3f} | {mean['ssim_y']:.4f} | {report['largest_difference']:.4f}")
    return " | ".join(cells)


def engines(deployment, name: str) -> str:
    """Activation memory and plan size of TensorRT-RTX engines for SM86 and SM120 together."""
    cells = []
    for side in (144, 1080):
        options = BuildOptions(
            deployment.folder, "tensorrt-rtx", sizes=((side, side),), compute_capabilities=("8.6", "12.0")
        )
        (engine,) = build_engines(options)
        plan = deployment.engines_folder / engine.file
        cells.append(
            f"{engine.activation_bytes / 1e9:.3f} GB | {plan.stat().st_size / 1e6:.2f} MB"
            f" | {engine.build_seconds:.1f} s"
        )
    return " | ".join(cells)


TABLES = {
    "golden": (golden, "checkpoint | torch even | graph even | torch odd | graph odd"),
    "quality": (quality, "checkpoint | Set5 PSNR-Y | SSIM-Y | vs PyTorch | Set14 PSNR-Y | SSIM-Y | vs PyTorch"),
    "engines": (engines, "checkpoint | 144² activations | plan | build | 1080² activations | plan | build"),
}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--only", help="only checkpoints whose name begins so")
    parser.add_argument("--spectral", default="fold", choices=["fold", "dft"])
    arguments = parser.parse_args()
    if not (ASSETS / "weights").is_dir():
        sys.exit(f"no checkpoints at {ASSETS}: set SRDEPLOY_ASSETS")
    row, header = TABLES[arguments.table]
    print(f"| {header} |")
    print("|" + "---|" * (header.count("|") + 1))
    for name in CHECKPOINTS:
        if arguments.only and not name.startswith(arguments.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            options = ExportOptions(ASSETS / "weights" / name, Path(folder) / "net", spectral=arguments.spectral)
            print(f"| {name} | {row(export_deployment(options), name)} |", flush=True)


if __name__ == "__main__":
    main()
