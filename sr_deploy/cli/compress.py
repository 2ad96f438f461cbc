"""The command that makes a narrower network: compress."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer

from sr_deploy.cli.shared import DEPLOYMENT, JSON_FLAG, SEED, print_json, print_line, render, say, say_next
from sr_deploy.core.contract import parse_size

IMAGES = typer.Option(
    ..., "--images", help="A folder of low-resolution photographs. No originals are needed.", show_default=False
)
TIME = typer.Option(None, "--time", help="The share of its time that may be left, such as 0.75.")
MACS = typer.Option(None, "--macs", help="Instead: the share of its multiply-accumulates that may be left.")
PSNR_BUDGET = typer.Option(
    None, "--psnr-budget", help="Instead: dB of PSNR-Y that may be lost; as little time as that leaves."
)
FOR = typer.Option(
    None, "--for", help="Whose time: a GPU such as xavier-nx, estimated. Default: ONNX Runtime here, timed."
)
IMPORTANCE = typer.Option(
    "obs",
    "--importance",
    help="How channels are chosen: obs, l1, lamp or random.",
    autocompletion=lambda: ["obs", "l1", "lamp", "random"],
)
MULTIPLE = typer.Option(None, "--multiple", help="Channels in multiples of this. Default: 8 for a time, 1 for --macs.")


def compress(
    deployment: Path = DEPLOYMENT,
    out: Optional[Path] = typer.Option(None, "-o", "--out", help="The deployment to make.", show_default=False),
    images: Path = IMAGES,
    time: Optional[float] = TIME,
    macs: Optional[float] = MACS,
    psnr_budget: Optional[float] = PSNR_BUDGET,
    device_for: Optional[str] = FOR,
    size: str = typer.Option("128", "--size", help="Input HxW that times are taken at."),
    threads: Optional[int] = typer.Option(None, "--threads", help="ONNX Runtime on the CPU: threads.", min=1),
    minutes: Optional[float] = typer.Option(None, "--minutes", help="Then distil from the whole network for so long."),
    steps: Optional[int] = typer.Option(None, "--steps", help="… or for so many steps of the optimiser."),
    importance: str = IMPORTANCE,
    multiple: Optional[int] = MULTIPLE,
    no_refit: bool = typer.Option(False, "--no-refit", help="Do not fit the weights that stay by least squares."),
    batch: int = typer.Option(8, "--batch", help="Squares in a step."),
    patch: int = typer.Option(32, "--patch", help="Side of a square, in low-resolution pixels."),
    rate: float = typer.Option(4e-4, "--rate", help="Learning rate of the weights."),
    device: str = typer.Option("auto", "--device", help="Of distillation: cpu, cuda, or auto: a GPU if there is one."),
    seed: int = SEED,
    resume: bool = typer.Option(False, "--resume", help="Go on where an interrupted distillation stopped."),
    force: bool = typer.Option(False, "--force", help="Replace an existing folder, and begin again."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only show what budgets would leave: cost, parameters, dB."),
    as_json: bool = JSON_FLAG,
) -> None:
    """A narrower, faster network: channels that matter least go, the rest makes up for them, and learns from the whole.

    The result is a deployment as any other: build, qat, pack and report take it.
    """
    from sr_deploy.pipeline.compress.compress import compress_deployment, compress_table
    from sr_deploy.pipeline.compress.request import CompressRequest
    from sr_deploy.report.compression import pareto_table, said

    request = CompressRequest(
        deployment, out, images, time, macs, psnr_budget, importance, device_for, parse_size(size), threads, multiple,
        not no_refit, steps, minutes, batch, patch, rate, seed, device, resume, force,
    )  # fmt: skip
    if dry_run:
        rows = compress_table(request, say)
        print_json({"would": rows}) if as_json else render(pareto_table(rows))
        return
    made = compress_deployment(request, say)
    if as_json:
        print_json({"folder": str(made.deployment.folder), **made.record})
        return
    print_line(said(made.record))
    say_next("build", made.deployment.folder, "--size", "HxW")
    say_next("verify", made.deployment.folder, "--lr", "FOLDER", "--hr", "FOLDER", "--reference", deployment)
    print_line(made.deployment.folder)
