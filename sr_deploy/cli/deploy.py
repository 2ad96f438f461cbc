"""Commands from checkpoint to picture: export, build, run, verify, inspect, doctor, demo."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional

import typer

from sr_deploy.api import sizes_of
from sr_deploy.cli import video
from sr_deploy.cli.shared import (
    BACKEND,
    CONTENT_OPTION,
    DEPLOYMENT,
    INEXACT,
    JSON_FLAG,
    MEMORY,
    METHOD_OPTION,
    PRECISION,
    architecture_names,
    print_json,
    print_line,
    print_plan,
    render,
    say,
    say_next,
    target_names,
)
from sr_deploy.core.contract import parse_bytes, parse_size
from sr_deploy.core.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from sr_deploy.pipeline.export import ExportOptions

ARCH = typer.Option(
    None, "--arch", help="Do not detect the architecture; it is this one.", autocompletion=architecture_names
)
TARGET = typer.Option("any", "--target", help="any, xavier-nx (TensorRT 8.5) or orin.", autocompletion=target_names)


def export(
    checkpoint: Path = typer.Argument(
        ..., help=".pth, .pt, .pth.tar, .ckpt or .safetensors, of which no code is run; or .onnx."
    ),
    out: Path = typer.Option(..., "-o", "--out", help="The deployment folder to make."),
    size: Optional[List[str]] = typer.Option(
        None, "--size", help="Fixed input HxW, height first; repeat for more graphs. Default: one graph for any size."
    ),
    dynamic: bool = typer.Option(False, "--dynamic", help="One graph for any size (the default)."),
    arch: Optional[str] = ARCH,
    scale: Optional[int] = typer.Option(None, "--scale", help="Output over input size, if the file leaves it open."),
    target: str = TARGET,
    spectral: str = typer.Option("fold", "--spectral", help="Fourier units: fold (1x1 and a width matrix) or dft."),
    fold: bool = typer.Option(True, "--fold/--no-fold", help="Fold training-time branches into single convolutions."),
    model: Optional[str] = typer.Option(
        None, "--model", help="pkg.module:factory or net.py:factory, a function that gives your own nn.Module."
    ),
    model_arg: Optional[List[str]] = typer.Option(
        None, "--model-arg", help="With --model: an argument of the function, such as scale=4; may be repeated."
    ),
    value_range: Optional[float] = typer.Option(
        None, "--value-range", help="With --model, or a file that leaves it open: the value of white, 1 or 255."
    ),
    colours: Optional[str] = typer.Option(None, "--colours", help="Of .onnx: its channels, rgb (default) or bgr."),
    lora_alpha: Optional[str] = typer.Option(
        None, "--lora-alpha", help="LoRA alpha, which no file stores: a number, or a multiple of the rank such as 2r."
    ),
    res_scale: Optional[float] = typer.Option(None, "--res-scale", help="EDSR's scaling, which no file stores."),
    key: Optional[str] = typer.Option(None, "--key", help="Entry with the weights, such as params_ema."),
    ignore_surplus: bool = typer.Option(
        False, "--ignore-surplus", help="Leave out tensors that the network has no use for, and name them."
    ),
    rewrite: str = typer.Option(
        "default", "--rewrite", help="Equality-preserving passes over the graph: default, none, or names by commas."
    ),
    io: str = video.IO,
    matrix: Optional[str] = video.MATRIX_OF_PLANES,
    levels: Optional[str] = video.RANGE_OF_PLANES,
    siting: Optional[str] = video.SITING_OF_PLANES,
    force: bool = typer.Option(False, "--force", help="Replace an existing deployment."),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Read and recognise the checkpoint, say the plan, write nothing."
    ),
    as_json: bool = JSON_FLAG,
) -> None:
    """Checkpoint or ONNX file to a proved ONNX graph: load, fold, prove, export, compare at other sizes."""
    from sr_deploy.pipeline.export import ExportOptions
    from sr_deploy.pipeline.load import LoadOptions

    sizes = sizes_of(size)
    if dynamic and sizes:
        raise UsageError("--dynamic and --size exclude each other", "one graph for any size, or graphs of fixed sizes")
    given = tuple(model_arg or ())
    load = LoadOptions(arch, model, scale, value_range, lora_alpha, res_scale, key, colours, ignore_surplus, given)
    planes = video.yuv_colour(matrix, levels, siting)
    _export(
        ExportOptions(checkpoint, out, sizes, target, spectral, fold, force, load, rewrite, io, planes),
        dry_run,
        as_json,
    )


def _export(options: ExportOptions, dry_run: bool, as_json: bool) -> None:
    from sr_deploy.pipeline.export import export_deployment, plan_export

    if dry_run:
        print_plan(plan_export(options), as_json)
        return
    deployment = export_deployment(options, say)
    for note in deployment.manifest.notes:
        say(f"note: {note}")
    if as_json:
        print_json(dataclasses.asdict(deployment.manifest))
        return
    say_next("build", deployment.folder, *(["--size", "HxW"] if deployment.dynamic_graph else []))
    print_line(deployment.folder)


def build(
    deployment: Path = DEPLOYMENT,
    backend: Optional[str] = BACKEND,
    size: Optional[List[str]] = typer.Option(None, "--size", help="Fixed input HxW; repeat or separate by commas."),
    min_size: Optional[str] = typer.Option(None, "--min-size", help="Dynamic engine: smallest input HxW."),
    opt_size: Optional[str] = typer.Option(None, "--opt-size", help="Dynamic engine: the input HxW to optimise for."),
    max_size: Optional[str] = typer.Option(None, "--max-size", help="Dynamic engine: largest input HxW."),
    compute_capability: Optional[List[str]] = typer.Option(
        None, "--compute-capability", help="tensorrt-rtx: build for these GPUs, such as 8.6; no GPU is needed."
    ),
    workspace: Optional[int] = typer.Option(None, "--workspace", help="Limit of the builder's workspace, MiB.", min=1),
    memory_budget: Optional[str] = typer.Option(
        None, "--memory-budget", help="Activations at most, such as 600MB: the graph runs in as many strips as needed."
    ),
    dla: Optional[int] = typer.Option(
        None, "--dla", help="Run on this DLA core of a Jetson (0 or 1); what it does not take runs on the GPU.", min=0
    ),
    precision: Optional[str] = typer.Option(
        None,
        "--precision",
        help="fp32 (default), fp16, bf16 (GPUs from 8.0 on), int8, fp8 (from 8.9 on), or auto: the fastest that keeps "
        "the budget, of the types that the target has.",
    ),
    psnr_budget: Optional[float] = typer.Option(
        None,
        "--psnr-budget",
        help="dB of PSNR-Y that any picture may lose; more is an error (auto: searched, colours held too).",
    ),
    mean_budget: Optional[float] = typer.Option(
        None, "--mean-budget", help="dB of PSNR-Y that may be lost in the mean over the pictures judged."
    ),
    content: str = CONTENT_OPTION,
    images: Optional[Path] = typer.Option(
        None, "--images", help="Photographs for int8, fp8 and auto: to calibrate, to fit weights, to judge."
    ),
    lr: Optional[Path] = typer.Option(None, "--lr", help="Judge on these pictures instead of shrunk photographs …"),
    hr: Optional[Path] = typer.Option(None, "--hr", help="… with these originals."),
    method: str = METHOD_OPTION,
    fit: bool = typer.Option(
        True, "--fit/--no-fit", help="Fit weights and biases to 8 bits (INT8, FP8); --no-fit only rounds."
    ),
    allow_fp16_spectral: bool = typer.Option(
        False,
        "--allow-fp16-spectral",
        help="All Fourier units in float16, transforms too, if the check of the pictures passes.",
    ),
    fp16_times: Optional[Path] = typer.Option(
        None, "--fp16-times", help="auto: trtexec --exportProfile of the FP16 engine; what layers save is measured …"
    ),
    int8_times: Optional[Path] = typer.Option(None, "--int8-times", help="… with that of the INT8 engine beside it."),
    plan: Optional[Path] = typer.Option(None, "--plan", help="This plan.json, edited or fine-tuned (srdeploy qat)."),
    remake_plan: bool = typer.Option(False, "--remake-plan", help="Make the plan again though there is one."),
    implicit: bool = typer.Option(False, "--implicit", help="TensorRT 8: scales from the calibration cache, no Q/DQ."),
    timing_cache: Optional[Path] = typer.Option(
        None, "--timing-cache", help="tensorrt: file of layer timings, or none. Default: one a GPU, beside the engines."
    ),
    default: bool = typer.Option(
        True, "--default/--no-default", help="From now on run, verify and bench take this precision."
    ),
    force: bool = typer.Option(False, "--force", help="Replace an existing engine."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say which engines would be built, build nothing."),
    as_json: bool = JSON_FLAG,
) -> None:
    """Graph to engine, with a manifest beside it: backend, GPU, versions, memory."""
    from sr_deploy.pipeline.engines.build import build_engines, plan_build
    from sr_deploy.pipeline.engines.request import BuildOptions
    from sr_deploy.pipeline.inspect import listings_of
    from sr_deploy.pipeline.precision.deployed_plan import precision_options

    low, best, high = (parse_size(text) if text else None for text in (min_size, opt_size, max_size))
    options = BuildOptions(
        deployment=deployment,
        backend=backend,
        sizes=sizes_of(size),
        profile=(low, best, high) if low or best or high else None,
        compute_capabilities=tuple(part for text in compute_capability or [] for part in text.split(",")),
        workspace_bytes=workspace * 2**20 if workspace else None,
        force=force,
        memory_budget=parse_bytes(memory_budget) if memory_budget else None,
        precision=precision_options(
            precision,
            plan,
            budget=psnr_budget,
            mean_budget=mean_budget,
            content=content,
            images=images,
            lr=lr,
            hr=hr,
            method=method,
            improve=fit,
            spectral_half=allow_fp16_spectral,
            remake=remake_plan,
            half_times=fp16_times,
            int8_times=int8_times,
        ),
        implicit=implicit,
        dla_core=dla,
        timing_cache=timing_cache,
        default=default,
    )
    if dry_run:
        print_plan(plan_build(options), as_json)
        return
    engines = build_engines(options, say)
    listings = listings_of(deployment, engines)
    if as_json:
        print_json([{**engine.to_dict(), "listing": listings.get(engine.file)} for engine in engines])
    else:
        from sr_deploy.report.table import built_table, engine_table

        render(engine_table([engine.to_dict() for engine in engines]))
        if listings:
            render(built_table(list(listings.items())))


def verify(
    deployment: Path = DEPLOYMENT,
    lr: Optional[Path] = typer.Option(None, "--lr", help="Folder of low-resolution pictures (babyx4.png or baby.png)."),
    hr: Optional[Path] = typer.Option(None, "--hr", help="Folder of high-resolution pictures (baby.png)."),
    golden: bool = typer.Option(
        False, "--golden", help="Instead: hold the engines against the golden pictures of the bundle (srdeploy unpack)."
    ),
    tolerance: Optional[float] = typer.Option(
        None, "--tolerance", help="With --golden: 8-bit steps it may differ. Default: by precision.", min=0
    ),
    backend: Optional[str] = BACKEND,
    engine: Optional[Path] = typer.Option(None, "--engine", help="Verify this engine."),
    precision: Optional[str] = PRECISION,
    checkpoint: Optional[Path] = typer.Option(
        None, "--checkpoint", help="The checkpoint to compare with, where it has moved since the export."
    ),
    no_torch: bool = typer.Option(False, "--no-torch", help="Do not compare with the PyTorch network."),
    reference: Optional[Path] = typer.Option(
        None, "--reference", help="Fidelity too: PSNR to what this deployment gives, or to pictures in a folder."
    ),
    niqe_params: Optional[Path] = typer.Option(
        None, "--niqe-params", help="NIQE too: niqe_pris_params.npz of BasicSR. Default: of an installed BasicSR."
    ),
    memory: Optional[int] = MEMORY,
    inexact: bool = INEXACT,
    as_json: bool = JSON_FLAG,
) -> None:
    """PSNR-Y, SSIM-Y, grid and colour shift against HR pictures, and the difference from the PyTorch network."""
    if golden:
        _verify_golden(deployment, lr or hr or checkpoint, backend, engine, precision, tolerance, as_json)
        return
    if lr is None or hr is None or tolerance is not None:
        raise UsageError("verify needs pictures to compare", "--lr and --hr, or --golden (with --tolerance)")
    from sr_deploy.pipeline.verify import VerifyOptions, verify_quality

    options = VerifyOptions(
        deployment, lr, hr, backend, engine, checkpoint, not no_torch, precision, memory, inexact,
        reference=reference, niqe_params=niqe_params,
    )  # fmt: skip
    report = verify_quality(options, say)
    if as_json:
        print_json(report.to_dict())
    else:
        from sr_deploy.report.table import quality_table

        render(quality_table(report.to_dict()))
    report.raise_on_failure()


def _verify_golden(
    deployment: Path,
    pictures: Optional[Path],
    backend: Optional[str],
    engine: Optional[Path],
    precision: Optional[str],
    tolerance: Optional[float],
    as_json: bool,
) -> None:
    """The form of verify that needs no pictures of the user's own."""
    from sr_deploy.pipeline.ship.golden import GoldenOptions, check_goldens

    if pictures is not None:
        raise UsageError("--golden compares with the bundle's own pictures", "it without --lr, --hr and --checkpoint")
    report = check_goldens(GoldenOptions(deployment, backend, engine, tolerance, precision), say)
    if as_json:
        print_json(report.to_dict())
    else:
        for row in report.rows:
            verdict = "within" if row.difference <= row.tolerance else "OUTSIDE"
            found = f"{row.measure} {row.difference:.4f} of 255"
            print_line(f"{row.what} at {row.size}: {found}, {verdict} {row.tolerance:g}")
    report.raise_on_failure()


def inspect(
    path: Path = typer.Argument(..., help="A checkpoint, ONNX graph, engine, bundle or deployment folder."),
    size: Optional[str] = typer.Option(None, "--size", help="Count multiply-accumulates for this input HxW."),
    roofline: Optional[str] = typer.Option(
        None, "--roofline", help="Estimate what a deployment takes on this GPU, such as xavier-nx, orin-nx, rtx-4090."
    ),
    as_json: bool = JSON_FLAG,
) -> None:
    """What a file or folder is: architecture, form, scale, parameters, MACs, operators, types, size rules."""
    from sr_deploy.pipeline.inspect import inspect_path

    if roofline:
        from sr_deploy.pipeline.measure.roofline import roofline_of
        from sr_deploy.report.table import roofline_table

        found = roofline_of(path, roofline, parse_size(size) if size else None)
        if as_json:
            print_json(found)
        else:
            render(roofline_table(found))
        return
    facts = inspect_path(path, parse_size(size) if size else None)
    if as_json:
        print_json(facts)
    else:
        from sr_deploy.report.facts import facts_table
        from sr_deploy.report.numbers import listing_text
        from sr_deploy.report.table import layers_table

        layers = facts.pop("layers", None)
        render(facts_table(facts))
        if layers is not None:
            render(layers_table(listing_text(facts["listing"]), layers))


def doctor(
    need: Optional[List[str]] = typer.Option(
        None, "--need", help="Exit with 3 unless this line says ok, such as 'run TensorRT engines'; repeatable."
    ),
    as_json: bool = JSON_FLAG,
) -> None:
    """What this machine has and lacks, and how to get it."""
    from sr_deploy.core.host.device import doctor_findings, environment, unmet

    findings = doctor_findings()
    if as_json:
        print_json({"environment": environment(), "findings": [f.to_dict() for f in findings]})
    else:
        from sr_deploy.report.table import doctor_table

        render(doctor_table(findings))
    lacking = unmet(findings, need or [])
    for line in lacking:
        say(f"needed: {line}")
    if lacking:
        raise typer.Exit(EnvironmentFault.exit_code)


def demo(
    out: Path = typer.Option(
        Path("srdeploy-demo"), "-o", "--out", help="The folder for the deployment and the pictures."
    ),
    scale: int = typer.Option(2, "--scale", help="2 or 4."),
    force: bool = typer.Option(False, "--force", help="Replace an earlier demo."),
    as_json: bool = JSON_FLAG,
) -> None:
    """The whole line on the small network that ships with srdeploy, ending in two pictures."""
    from sr_deploy.pipeline.demo import run_demo
    from sr_deploy.report.table import latency_table, quality_table

    outcome = run_demo(out, scale, force, say)
    if as_json:
        files = [str(path) for path in outcome.files]
        print_json({"quality": outcome.quality, "latency": outcome.latency.to_dict(), "files": files})
        return
    render(quality_table(outcome.quality))
    render(latency_table(outcome.latency))
    for path in outcome.files:
        print_line(path)
    say("next: your own picture, a faster engine, your own network")
    for line in outcome.next:
        say(f"  {line}")
