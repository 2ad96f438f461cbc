"""The command line: parse, call one function of the pipeline, print. The only file that knows typer.

Heavy imports happen inside the commands, so that ``srdeploy --help`` is quick.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import typer

from sr_deploy import __version__
from sr_deploy.core.contract import Size, parse_size
from sr_deploy.core.errors import SrDeployError, UsageError

app = typer.Typer(
    name="srdeploy",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Put a trained or compressed PyTorch super-resolution network on a GPU or a Jetson, "
    "with its quality and its latency proved.\n\n"
    "Start with [bold]srdeploy demo[/bold], then [bold]srdeploy export net.pth -o net[/bold], "
    "[bold]srdeploy build net[/bold], [bold]srdeploy run net -i picture.png -o out[/bold].\n\n"
    "Exit codes: 0 good, 1 a check failed, 2 usage, 3 environment, 4 bad input, 5 measurement inconclusive.",
)

DEPLOYMENT = typer.Argument(..., help="A deployment folder made by srdeploy export.", show_default=False)
JSON_FLAG = typer.Option(False, "--json", help="Print JSON for machines instead of a table.")
BACKENDS = "onnxruntime, tensorrt or tensorrt-rtx"


def _say(text: str) -> None:
    """Progress goes to stderr, so that stdout holds results only."""
    typer.echo(text, err=True)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))


def _render(renderable: Any) -> None:
    from rich.console import Console

    Console().print(renderable)


def _sizes(texts: Optional[List[str]]) -> Tuple[Size, ...]:
    """Sizes from repeated options and comma-separated lists, each once, in the order given."""
    parts = [part.strip() for text in texts or [] for part in text.split(",")]
    return tuple(dict.fromkeys(parse_size(part) for part in parts))


def _version(value: bool) -> None:
    if value:
        typer.echo(f"srdeploy {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


@app.command()
def export(
    checkpoint: Path = typer.Argument(..., help=".pth, .pt, .pth.tar, .ckpt or .safetensors. No code in it is run."),
    out: Path = typer.Option(..., "-o", "--out", help="The deployment folder to make."),
    size: Optional[List[str]] = typer.Option(
        None, "--size", help="Fixed input HxW, height first; repeat for more graphs. Default: one graph for any size."
    ),
    dynamic: bool = typer.Option(False, "--dynamic", help="One graph for any size (the default)."),
    arch: Optional[str] = typer.Option(None, "--arch", help="Do not detect the architecture; it is this one."),
    scale: Optional[int] = typer.Option(None, "--scale", help="Output size over input size, if the file leaves it open."),
    target: str = typer.Option("any", "--target", help="any, xavier-nx (TensorRT 8.5) or orin."),
    spectral: str = typer.Option(
        "fold", "--spectral", help="Fourier units: fold (1x1 convolutions and a width matrix) or dft (DFT matrices)."
    ),
    fold: bool = typer.Option(True, "--fold/--no-fold", help="Fold training-time branches into single convolutions."),
    model: Optional[str] = typer.Option(
        None, "--model", help="pkg.module:factory, a function without arguments that gives your own nn.Module."
    ),
    value_range: Optional[float] = typer.Option(None, "--value-range", help="With --model: the value of white, 1 or 255."),
    lora_alpha: Optional[str] = typer.Option(
        None, "--lora-alpha", help="LoRA alpha, which no file stores: a number, or a multiple of the rank such as 2r."
    ),
    res_scale: Optional[float] = typer.Option(None, "--res-scale", help="EDSR's residual scaling, which no file stores."),
    key: Optional[str] = typer.Option(None, "--key", help="Entry of the checkpoint with the weights, such as params_ema."),
    force: bool = typer.Option(False, "--force", help="Replace an existing deployment."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Read and recognise the checkpoint, say the plan, write nothing."),
) -> None:
    """Checkpoint to a proved ONNX graph: load, fold, prove, export, compare at other sizes."""
    from sr_deploy.pipeline.export import ExportOptions, export_deployment, plan_export
    from sr_deploy.pipeline.load import LoadOptions

    sizes = _sizes(size)
    if dynamic and sizes:
        raise UsageError("--dynamic and --size exclude each other", "one graph for any size, or graphs of fixed sizes")
    load = LoadOptions(arch, model, scale, value_range, lora_alpha, res_scale, key)
    options = ExportOptions(checkpoint, out, sizes, target, spectral, fold, force, load)
    if dry_run:
        for line in plan_export(options):
            typer.echo(line)
        return
    deployment = export_deployment(options, _say)
    for note in deployment.manifest.notes:
        _say(f"note: {note}")
    typer.echo(str(deployment.folder))


@app.command()
def build(
    deployment: Path = DEPLOYMENT,
    backend: Optional[str] = typer.Option(None, "--backend", help=f"{BACKENDS}. Default: the best this machine has."),
    size: Optional[List[str]] = typer.Option(None, "--size", help="Fixed input HxW; repeat or separate by commas."),
    min_size: Optional[str] = typer.Option(None, "--min-size", help="Dynamic engine: smallest input HxW."),
    opt_size: Optional[str] = typer.Option(None, "--opt-size", help="Dynamic engine: the input HxW to optimise for."),
    max_size: Optional[str] = typer.Option(None, "--max-size", help="Dynamic engine: largest input HxW."),
    compute_capability: Optional[List[str]] = typer.Option(
        None, "--compute-capability", help="tensorrt-rtx: build for these GPUs, such as 8.6; no GPU is needed."
    ),
    workspace: Optional[int] = typer.Option(None, "--workspace", help="Limit of the builder's workspace, MiB."),
    force: bool = typer.Option(False, "--force", help="Replace an existing engine."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say which engines would be built, build nothing."),
    as_json: bool = JSON_FLAG,
) -> None:
    """Graph to engine, with a manifest beside it: backend, GPU, versions, memory."""
    from sr_deploy.pipeline.build import BuildOptions, build_engines, plan_build

    profile = tuple(parse_size(text) if text else None for text in (min_size, opt_size, max_size))
    options = BuildOptions(
        deployment=deployment,
        backend=backend,
        sizes=_sizes(size),
        profile=profile if any(profile) else None,
        compute_capabilities=tuple(part for text in compute_capability or [] for part in text.split(",")),
        workspace_bytes=workspace * 2**20 if workspace else None,
        force=force,
    )
    if dry_run:
        for line in plan_build(options):
            typer.echo(line)
        return
    engines = build_engines(options, _say)
    if as_json:
        _print_json([engine.to_dict() for engine in engines])
    else:
        from sr_deploy.report.table import engine_table

        _render(engine_table([engine.to_dict() for engine in engines]))


@app.command()
def run(
    deployment: Path = DEPLOYMENT,
    images: List[Path] = typer.Option(..., "-i", "--input", help="A picture or a folder of pictures; may be repeated."),
    out: Path = typer.Option(..., "-o", "--out", help="The folder for the upscaled pictures."),
    backend: Optional[str] = typer.Option(None, "--backend", help=f"{BACKENDS}. Default: the best this machine has."),
    engine: Optional[Path] = typer.Option(None, "--engine", help="Run this engine, whatever else there is."),
    suffix: Optional[str] = typer.Option(None, "--format", help="png or jpg. Default: the input's own."),
    force: bool = typer.Option(False, "--force", help="Overwrite pictures that exist."),
) -> None:
    """Upscale pictures; alpha, grey and 16 bits are kept."""
    from sr_deploy.pipeline.upscale import UpscaleOptions, upscale_files

    written = upscale_files(UpscaleOptions(deployment, tuple(images), out, backend, engine, suffix, force), _say)
    for path in written:
        typer.echo(str(path))


@app.command()
def verify(
    deployment: Path = DEPLOYMENT,
    lr: Path = typer.Option(..., "--lr", help="Folder of low-resolution pictures (babyx4.png or baby.png)."),
    hr: Path = typer.Option(..., "--hr", help="Folder of high-resolution pictures (baby.png)."),
    backend: Optional[str] = typer.Option(None, "--backend", help=f"{BACKENDS}. Default: the best this machine has."),
    engine: Optional[Path] = typer.Option(None, "--engine", help="Verify this engine."),
    checkpoint: Optional[Path] = typer.Option(
        None, "--checkpoint", help="The checkpoint to compare with, where it has moved since the export."
    ),
    no_torch: bool = typer.Option(False, "--no-torch", help="Do not compare with the PyTorch network."),
    as_json: bool = JSON_FLAG,
) -> None:
    """PSNR-Y and SSIM-Y against HR pictures, and the difference from the PyTorch network."""
    from sr_deploy.pipeline.verify import VerifyOptions, verify_quality

    report = verify_quality(VerifyOptions(deployment, lr, hr, backend, engine, checkpoint, not no_torch), _say)
    if as_json:
        _print_json(report.to_dict())
    else:
        from sr_deploy.report.table import quality_table

        _render(quality_table(report.to_dict()))
    report.raise_on_failure()


@app.command()
def bench(
    deployment: Path = DEPLOYMENT,
    sizes: str = typer.Option("144,360,480,720,1080", "--sizes", help="Inputs: HxW or one number for a square, by commas."),
    backend: Optional[str] = typer.Option(None, "--backend", help=f"{BACKENDS}. Default: the best this machine has."),
    scope: str = typer.Option("compute", "--scope", help="compute, or end-to-end (upload + compute + download)."),
    seconds: float = typer.Option(3.0, "--seconds", help="Measure each size at least this long.", min=0.0),
    iterations: int = typer.Option(10, "--iterations", help="… and at least this often.", min=1),
    threads: Optional[int] = typer.Option(None, "--threads", help="ONNX Runtime on the CPU: threads."),
    json_file: Optional[Path] = typer.Option(None, "--json", help="Also write the result to this file."),
    resume: bool = typer.Option(False, "--resume", help="Go on where an interrupted sweep of the same kind stopped."),
) -> None:
    """Latency over input sizes: table, JSON and plot in the deployment's results folder."""
    from sr_deploy.pipeline.bench import BenchRequest, bench_deployment
    from sr_deploy.report.table import latency_table

    request = BenchRequest(deployment, _sizes([sizes]), backend, scope, seconds, iterations, threads, json_file, resume)
    result, files = bench_deployment(request, _say)
    _render(latency_table(result))
    for path in files:
        typer.echo(str(path))


@app.command()
def inspect(
    path: Path = typer.Argument(..., help="A checkpoint, an ONNX graph, an engine or a deployment folder."),
    size: Optional[str] = typer.Option(None, "--size", help="Count multiply-accumulates for this input HxW."),
    as_json: bool = JSON_FLAG,
) -> None:
    """What a file or folder is: architecture, form, scale, parameters, MACs, operators, types, size rules."""
    from sr_deploy.pipeline.inspect import inspect_path

    facts = inspect_path(path, parse_size(size) if size else None)
    if as_json:
        _print_json(facts)
    else:
        from sr_deploy.report.table import facts_table

        _render(facts_table(facts))


@app.command()
def doctor(as_json: bool = JSON_FLAG) -> None:
    """What this machine has and lacks, and how to get it."""
    from sr_deploy.core.device import doctor_findings, environment

    findings = doctor_findings()
    if as_json:
        _print_json({"environment": environment(), "findings": [f.to_dict() for f in findings]})
    else:
        from sr_deploy.report.table import doctor_table

        _render(doctor_table(findings))


@app.command()
def demo(
    out: Path = typer.Option(Path("srdeploy-demo"), "-o", "--out", help="The folder for the deployment and the pictures."),
    scale: int = typer.Option(2, "--scale", help="2 or 4."),
    force: bool = typer.Option(False, "--force", help="Replace an earlier demo."),
) -> None:
    """The whole line on the small network that ships with srdeploy, ending in two pictures."""
    from sr_deploy.pipeline.demo import run_demo
    from sr_deploy.report.table import latency_table, quality_table

    outcome = run_demo(out, scale, force, _say)
    _render(quality_table(outcome.quality))
    _render(latency_table(outcome.latency))
    for path in outcome.files:
        typer.echo(str(path))


def _failure(error: SrDeployError) -> Dict[str, Any]:
    return {"error": error.found, "wanted": error.wanted, "next": error.todo, "exit_code": error.exit_code}


def main(arguments: Optional[List[str]] = None) -> None:
    """Entry point: every error of ours becomes a message and an exit code, never a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        app(args=arguments)
    except SrDeployError as error:
        if "--json" in arguments and arguments[0] != "bench":
            _print_json(_failure(error))
        lines = error.lines()
        typer.secho(f"error: {lines[0]}", fg="red", err=True)
        for line in lines[1:]:
            typer.echo(f"  {line}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted; what was complete is kept", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
