"""The command that fine-tunes for INT8: qat."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer

from sr_deploy.cli.shared import CONTENT_OPTION, DEPLOYMENT, JSON_FLAG, SEED, print_json, print_line, say, say_next
from sr_deploy.core.text import decibels_lost


def qat(
    deployment: Path = DEPLOYMENT,
    images: Path = typer.Option(
        ..., "--images", help="A folder of low-resolution photographs. No originals are needed.", show_default=False
    ),
    steps: int = typer.Option(1000, "--steps", help="Steps of the optimiser."),
    minutes: Optional[float] = typer.Option(None, "--minutes", help="Stop after so long, with the best state so far."),
    teacher: Optional[Path] = typer.Option(
        None, "--teacher", help="The network to follow: a checkpoint, deployment or ONNX file. Default: its float32."
    ),
    hr: Optional[Path] = typer.Option(None, "--hr", help="The originals of --images: the loss looks at them too."),
    resume: bool = typer.Option(False, "--resume", help="Go on where an interrupted fine-tuning stopped."),
    force: bool = typer.Option(False, "--force", help="Begin again though there is an unfinished or finished one."),
    batch: int = typer.Option(4, "--batch", help="Squares in a step."),
    patch: int = typer.Option(48, "--patch", help="Side of a square, in low-resolution pixels."),
    rate: Optional[float] = typer.Option(None, "--rate", help="Learning rate of the weights."),
    device: str = typer.Option("auto", "--device", help="cpu, cuda, or auto: a GPU if there is one."),
    seed: int = SEED,
    content: str = CONTENT_OPTION,
    json_output: bool = JSON_FLAG,
) -> None:
    """Fine-tune the INT8 plan by following the float32 network: plan, weights, report and plot in DIR/precision/qat.

    It starts from the plan that `srdeploy build DIR --precision int8` made, and
    `srdeploy build DIR --plan DIR/precision/qat` takes the result.
    """
    from sr_deploy.pipeline.precision.qat import QatRequest, fine_tune_deployment

    request = QatRequest(
        deployment, images, steps, batch, patch, minutes, rate, teacher, hr, device, seed, resume, force, content
    )
    result = fine_tune_deployment(request, say)
    if json_output:
        print_json({"folder": str(result.folder), **result.report})
        return
    report = result.report
    typer.echo(
        f"{decibels_lost(report['loss_db'])} against float32 on {report['pictures']} pictures, "
        f"{decibels_lost(report['loss_db_before'])} before; {report['seconds']:.0f} s, "
        f"best after step {report['best_step']}"
    )
    say_next("build", deployment, "--plan", result.folder, "--size", "HxW")
    print_line(result.folder)
