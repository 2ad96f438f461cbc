"""The commands that train a network: distill and density."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional

import typer

from sr_deploy.cli.shared import JSON_FLAG, SEED, architecture_names, print_json, print_line, print_plan, say
from sr_deploy.core.errors import UsageError

_PRESET = typer.Option(
    "plain", "--preset", help="Settings: plain (ours), or of a paper: cdism, light-f2srgan, efdn, dsclora."
)
_LOSS = typer.Option(
    None, "--loss", help="Instead of the preset's: l1=1,laplacian=0.5; against originals: l1@hr=0.1. "
    "l1, charbonnier, laplacian, laplacian-hf, gradient-variance, kl, tv; of features: at, afd, affinity.",
)  # fmt: skip
_ARCH_ARG = typer.Option(None, "--arch-arg", help="Sizes of a new network: width=24,depths=[4,4,4]; repeat or join.")
_FEATURES = typer.Option(
    None, "--features", help="Modules that losses of features compare: STUDENT=TEACHER; repeat. Default: known ones."
)


def _told(record: Dict[str, Any]) -> str:
    """The end of a training in a line."""
    best, kinds = record["best"], (("fidelity", "to the teacher"), ("psnr", "to originals"))
    figures = ", ".join(f"{best[key]:.2f} dB {what}" for key, what in kinds if best[key] is not None)
    return f"best after step {best['step']}: {figures}; next: {' '.join(record['export'])} -o FOLDER"


def distill(
    student: Optional[Path] = typer.Argument(
        None, help="A checkpoint; without it --arch or --model.", show_default=False
    ),
    out: Path = typer.Option(..., "-o", "--out", help="The .safetensors file to write.", show_default=False),
    teacher: Optional[Path] = typer.Option(None, "--teacher", help="A checkpoint, deployment or ONNX file to follow."),
    images: Optional[Path] = typer.Option(None, "--images", help="Low-resolution photographs; no originals needed."),
    hr: Optional[Path] = typer.Option(None, "--hr", help="Originals, of --images or to be made smaller by bicubic."),
    preset: str = _PRESET,
    loss: Optional[str] = _LOSS,
    features: Optional[List[str]] = _FEATURES,
    affinity_rows: Optional[int] = typer.Option(None, "--affinity-rows", help="Compare so many rows. Default: all."),
    arch: Optional[str] = typer.Option(None, "--arch", help="Which network.", autocompletion=architecture_names),
    arch_arg: Optional[List[str]] = _ARCH_ARG,
    model: Optional[str] = typer.Option(None, "--model", help="Your own network: FILE.py:FACTORY."),
    model_arg: Optional[List[str]] = typer.Option(None, "--model-arg", help="NAME=VALUE for the factory; repeat."),
    scale: Optional[int] = typer.Option(None, "--scale", help="Of a new network. Default: the teacher's."),
    res_scale: Optional[float] = typer.Option(None, "--res-scale", help="EDSR's scaling, which no file stores."),
    value_range: Optional[float] = typer.Option(None, "--value-range", help="White, 1 or 255, as export has it."),
    lora: Optional[str] = typer.Option(None, "--lora", help="Freeze it, train changes of low rank: r=2,alpha=2r."),
    optimiser: Optional[str] = typer.Option(None, "--optimiser", help="adam, adamw or adamax."),
    rate: Optional[float] = typer.Option(None, "--rate", help="Learning rate at its highest."),
    schedule: Optional[str] = typer.Option(None, "--schedule", help="cosine, or step: halved at shares."),
    batch: Optional[int] = typer.Option(None, "--batch", help="Squares in a step."),
    patch: Optional[int] = typer.Option(None, "--patch", help="Side of a square, low-resolution pixels."),
    ema: Optional[float] = typer.Option(None, "--ema", help="Decay of the weights' moving average; 0 has none."),
    steps: Optional[int] = typer.Option(None, "--steps", help="Steps of the optimiser."),
    minutes: Optional[float] = typer.Option(None, "--minutes", help="Stop after so long. Default: 10 without --steps."),
    judge_every: int = typer.Option(200, "--judge-every", help="Steps between two looks at what is kept back."),
    device: str = typer.Option("auto", "--device", help="cpu, cuda, or auto: a GPU if there is one."),
    mixed: bool = typer.Option(False, "--mixed", help="CUDA: bfloat16 where it is safe."),
    seed: int = SEED,
    plot: Optional[Path] = typer.Option(None, "--plot", help="Curves, .png or .svg. Default: OUT.png."),
    resume: bool = typer.Option(False, "--resume", help="Go on where an interrupted training stopped."),
    force: bool = typer.Option(False, "--force", help="Begin again, or replace OUT."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Load everything, say what would be done, write nothing."),
    json_output: bool = JSON_FLAG,
) -> None:
    """Train a network to follow another one, or originals: a checkpoint that export takes, its record, its curves."""
    from sr_deploy.pipeline.load import LoadOptions
    from sr_deploy.pipeline.train.distill import distill as distilled
    from sr_deploy.pipeline.train.distill import plan_distill
    from sr_deploy.pipeline.train.request import DistillRequest, Wanted

    load = LoadOptions(arch, model, scale, value_range, None, res_scale, model_arg=tuple(model_arg or ()))
    wanted = Wanted(loss, optimiser, rate, batch, patch, ema, lora, schedule)
    request = DistillRequest(
        out, student, tuple(arch_arg or ()), load, teacher, images, hr, preset, wanted, tuple(features or ()),
        affinity_rows, steps, minutes, judge_every, seed, device, mixed, plot, resume, force,
    )  # fmt: skip
    if dry_run:
        print_plan(plan_distill(request, say), json_output)
        return
    record = distilled(request, say).record
    if json_output:
        print_json(record)
        return
    say(_told(record))
    print_line(out)


def density(
    checkpoint: Optional[Path] = typer.Argument(None, help="A checkpoint; none with --density.", show_default=False),
    out: Optional[Path] = typer.Option(None, "-o", "--out", help="The sparse network: a .safetensors file."),
    images: Optional[Path] = typer.Option(None, "--images", help="Low-resolution photographs: it follows itself."),
    hr: Optional[Path] = typer.Option(
        None, "--hr", help="Originals, of --images or to be made smaller: it follows them."
    ),
    value: Optional[float] = typer.Option(None, "--density", help="Train nothing: the shape that this density gives."),
    of: str = typer.Option("", "--of", help="The original: blocks=16,layers=1,channels=64. Default: the checkpoint's."),
    root: Optional[str] = typer.Option(None, "--root", help="Of eq. 7: cube, as printed, or square. Default: both."),
    rounding: str = typer.Option("", "--round", help="blocks=floor,layers=ceil,channels=nearest. Default: all ways."),
    steps: int = typer.Option(2000, "--steps", help="Steps; a tenth are proximal."),
    batch: int = typer.Option(4, "--batch", help="Squares in a step."),
    patch: int = typer.Option(48, "--patch", help="Side of a square, low-resolution pixels."),
    rate: float = typer.Option(5e-3, "--rate", help="Learning rate."),
    penalty: float = typer.Option(1e-4, "--penalty", help="Weight of the L1 penalty."),
    deep: Optional[List[str]] = typer.Option(None, "--deep", help="How names of the deep part begin; repeat."),
    arch: Optional[str] = typer.Option(None, "--arch", help="Which network.", autocompletion=architecture_names),
    model: Optional[str] = typer.Option(None, "--model", help="Your own network: FILE.py:FACTORY."),
    model_arg: Optional[List[str]] = typer.Option(None, "--model-arg", help="NAME=VALUE for the factory; repeat."),
    res_scale: Optional[float] = typer.Option(None, "--res-scale", help="EDSR's scaling, which no file stores."),
    value_range: Optional[float] = typer.Option(None, "--value-range", help="White, 1 or 255, as export has it."),
    judge_every: int = typer.Option(200, "--judge-every", help="Steps between two looks at what is kept back."),
    device: str = typer.Option("auto", "--device", help="cpu, cuda, or auto: a GPU if there is one."),
    seed: int = SEED,
    resume: bool = typer.Option(False, "--resume", help="Go on where an interrupted training stopped."),
    force: bool = typer.Option(False, "--force", help="Begin again, or replace OUT."),
    json_output: bool = JSON_FLAG,
) -> None:
    """How many of a network's weights it needs (OBProx-SG), and the shape of the smaller one that follows."""
    from sr_deploy.pipeline.load import LoadOptions
    from sr_deploy.pipeline.train.density import Choices, DensityRequest, calculated, made_sparse, shape_lines

    choices = Choices(root, rounding, of)
    if value is not None:
        given = {"checkpoint": checkpoint, "-o": out, "--images": images, "--hr": hr, "--deep": deep, "--arch": arch,
                 "--model": model, "--model-arg": model_arg, "--res-scale": res_scale, "--value-range": value_range,
                 "--resume": resume, "--force": force}  # fmt: skip
        idle = ", ".join(name for name, one in given.items() if one not in (None, False, []))
        if idle:
            raise UsageError(
                f"--density trains nothing, so it takes no {idle}", "one of the two", f"leave out {idle}, or --density"
            )
        record = calculated(value, choices)
    else:
        if checkpoint is None or out is None:
            raise UsageError("density needs a checkpoint and a place", "CKPT -o sparse.safetensors, or --density d")
        load = LoadOptions(arch, model, None, value_range, None, res_scale, model_arg=tuple(model_arg or ()))
        request = DensityRequest(
            checkpoint, out, images, hr, load, steps, batch, patch, rate, penalty, tuple(deep or ()), choices,
            judge_every, seed, device, resume, force,
        )  # fmt: skip
        record = made_sparse(request, say)
    if json_output:
        print_json(record)
        return
    for line in shape_lines(record):
        print_line(line)
