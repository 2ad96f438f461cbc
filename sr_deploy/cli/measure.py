"""Commands that time: bench."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer

from sr_deploy.cli.shared import BACKENDS, DEPLOYMENT, render, say, sizes_of


def bench(
    deployment: Path = DEPLOYMENT,
    sizes: str = typer.Option(
        "144,360,480,720,1080", "--sizes", help="Inputs: HxW or one number for a square, by commas."
    ),
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

    request = BenchRequest(
        deployment, sizes_of([sizes]), backend, scope, seconds, iterations, threads, json_file, resume
    )
    result, files = bench_deployment(request, say)
    render(latency_table(result))
    for path in files:
        typer.echo(str(path))
