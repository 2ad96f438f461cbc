"""Commands that time: bench and sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer

from sr_deploy.api import sizes_of
from sr_deploy.cli.shared import (
    BACKENDS,
    DEPLOYMENT,
    INEXACT,
    JSON_FLAG,
    MEMORY,
    PRECISION,
    print_json,
    print_line,
    render,
    say,
)
from sr_deploy.core.errors import CheckFailed, Inconclusive, UsageError

SIZES = "144,360,480,720,1080"


def bench(
    deployment: Path = DEPLOYMENT,
    sizes: Optional[str] = typer.Option(
        None, "--sizes", help=f"Inputs: HxW or one number for a square, by commas. Default: {SIZES}."
    ),
    backend: Optional[str] = typer.Option(None, "--backend", help=f"{BACKENDS}. Default: the best this machine has."),
    precision: Optional[str] = PRECISION,
    scope: str = typer.Option(
        "compute", "--scope", help="compute, enqueue (the host's part), or end-to-end (upload + compute + download)."
    ),
    seconds: float = typer.Option(3.0, "--seconds", help="Measure each size at least this long.", min=0.0),
    iterations: int = typer.Option(10, "--iterations", help="… and at least this often.", min=1),
    ci: float = typer.Option(
        1.0, "--ci", help="… and until the median's 95 % interval is ± this many percent; 0 asks for none.", min=0.0
    ),
    max_seconds: Optional[float] = typer.Option(
        None, "--max-seconds", help="… but no longer than this. Default: 4 times --seconds for --ci, else a minute."
    ),
    runs: Optional[int] = typer.Option(None, "--runs", help="Instead: time each size exactly so often.", min=1),
    preset: Optional[str] = typer.Option(
        None, "--preset", help="A published protocol, sizes and runs: f2srgan, f2srgan-500 or ntire."
    ),
    processes: int = typer.Option(1, "--processes", help="Measure in so many fresh processes: the variances.", min=1),
    builds: int = typer.Option(1, "--builds", help="… and for so many engines, each built anew.", min=1),
    threads: Optional[int] = typer.Option(None, "--threads", help="ONNX Runtime on the CPU: threads."),
    timer: str = typer.Option("auto", "--timer", help="host, events (the device's, kept busy), or auto."),
    cuda_graph: bool = typer.Option(False, "--cuda-graph", help="TensorRT: launch one captured CUDA graph."),
    wait: str = typer.Option("auto", "--wait", help="TensorRT: spin or block while it works; auto leaves it to CUDA."),
    streams: int = typer.Option(1, "--streams", help="Streams at once; no runtime here has more than 1.", min=1),
    memory: Optional[int] = MEMORY,
    inexact: bool = INEXACT,
    json_file: Optional[Path] = typer.Option(None, "--json", help="Also write the result to this file."),
    resume: bool = typer.Option(False, "--resume", help="Go on where an interrupted sweep of the same kind stopped."),
    times: Optional[Path] = typer.Option(
        None, "--import", help="Measure nothing: take trtexec's --exportTimes; give its one size and --device."
    ),
    device: Optional[str] = typer.Option(None, "--device", help="With --import: the GPU's name; not in the file."),
) -> None:
    """Latency over input sizes: table, JSON and plot in the deployment's results folder."""
    from sr_deploy.bench.presets import preset_named
    from sr_deploy.bench.variance import variance_lines
    from sr_deploy.pipeline.measure.bench import BenchRequest, bench_deployment
    from sr_deploy.pipeline.measure.repeat import bench_repeatedly
    from sr_deploy.report.table import latency_table

    if times is not None:
        _import_times(deployment, times, sizes, device, scope, precision, json_file)
        return
    if device is not None:
        raise UsageError("--device has no meaning without --import", "the device is looked at")
    if preset is not None:
        chosen = preset_named(preset)
        if sizes is not None or runs is not None:
            raise UsageError(f"--preset {preset} has sizes and runs of its own", "--preset, or --sizes and --runs")
        runs, processes = chosen.runs, max(processes, chosen.processes)
        say(f"{preset}: {chosen.source}")
    wanted = sizes_of([sizes or SIZES]) if preset is None else chosen.sizes
    request = BenchRequest(
        deployment,
        wanted,
        backend,
        scope,
        seconds,
        iterations,
        threads,
        json_file,
        resume,
        ci_percent=ci or None,
        max_seconds=max_seconds,
        runs=runs,
        timer=timer,
        cuda_graph=cuda_graph,
        wait=wait,
        streams=streams,
        precision=precision,
        preset=preset,
        memory=memory,
        allow_inexact=inexact,
    )
    if processes > 1 or builds > 1:
        repeated = bench_repeatedly(request, processes, builds, say)
        result, files = repeated.result, repeated.files
    else:
        result, files = bench_deployment(request, say)
    render(latency_table(result))
    if processes > 1 or builds > 1:
        typer.echo("Standard deviations; a run is the median of a tenth of a process's samples:")
        for line in variance_lines(repeated.tables):
            print_line(line)
    for path in files:
        print_line(path)
    failures = [point.failure for point in result.points if point.failure is not None]
    if len(failures) == len(result.points):
        raise CheckFailed(f"no size could be measured: {failures[0]}", "at least one point", "see the reasons above")
    invalid = [point for point in result.points if point.invalid is not None]
    if invalid:
        raise Inconclusive(
            f"{len(invalid)} of {len(result.points)} points are invalid: {invalid[0].invalid}",
            "the same clocks and power mode from begin to end, and no throttling",
            "cool it, lock the clocks (on a Jetson: nvpmodel, jetson_clocks), and go on with --resume",
        )


def _import_times(
    folder: Path,
    times: Path,
    sizes: Optional[str],
    device: Optional[str],
    scope: str,
    precision: Optional[str],
    json_file: Optional[Path],
) -> None:
    """``bench --import``: a file of trtexec becomes a result of the deployment."""
    from sr_deploy.cli.report import import_
    from sr_deploy.core.contract import format_size
    from sr_deploy.core.deployment.manifest import open_deployment

    deployment = open_deployment(folder)
    wanted = sizes_of([sizes]) if sizes else ()
    if len(wanted) != 1 or device is None:
        raise UsageError(
            "trtexec's file holds neither the input's size nor the GPU's name",
            "--sizes with the one size that was timed, and --device",
            f'srdeploy bench {folder} --import {times} --sizes 360x640 --device "Xavier NX"',
        )
    size = format_size(wanted[0])
    out = json_file or deployment.results_folder / f"trtexec_{size}_{scope}.json"
    import_(times, size, device, out, None, scope, None, deployment.manifest.scale, precision, None, False)


def sweep(
    matrix: Path = typer.Argument(..., help="TOML or JSON: deployments, sizes, backends, …", show_default=False),
    out: Path = typer.Option(..., "--out", "-o", help="Folder for the results, one file a combination."),
    resume: bool = typer.Option(False, "--resume", help="Keep what is complete there and go on."),
    dask: Optional[str] = typer.Option(None, "--dask", help="Measure on the workers of this Dask scheduler."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only list what would be measured."),
) -> None:
    """Many sweeps as one: networks × precisions × runtimes × scopes, over all sizes, with progress and resume."""
    from sr_deploy.pipeline.measure.cluster import run_on_dask
    from sr_deploy.pipeline.measure.matrix import read_matrix, run_matrix

    cells = read_matrix(matrix, out)
    if dry_run:
        for cell in cells:
            print_line(f"{cell.request.result_file}")
        return
    say(f"{len(cells)} sweeps of {len(cells[0].request.sizes)} sizes")
    run_matrix(cells, out, resume, say, run_on_dask(dask, say) if dask else None)
    for cell in cells:
        print_line(cell.request.result_file)


def tune(
    deployment: Path = DEPLOYMENT,
    size: str = typer.Option(..., "--size", help="The input HxW to tune for."),
    backend: Optional[str] = typer.Option(None, "--backend", help=f"{BACKENDS}. Default: the best this machine has."),
    rounds: int = typer.Option(11, "--rounds", help="Runs of every variant, all in turn.", min=1),
    threads: Optional[int] = typer.Option(None, "--threads", help="ONNX Runtime on the CPU: threads."),
    as_json: bool = JSON_FLAG,
) -> None:
    """Time equal graphs on this machine and keep the fastest as the graph of this size."""
    from sr_deploy.core.contract import parse_size
    from sr_deploy.pipeline.measure.tune import TuneOptions, tune_deployment

    tuned = tune_deployment(TuneOptions(deployment, parse_size(size), backend, rounds, threads), say)
    facts = tuned.to_dict()
    if as_json:
        print_json(facts)
        return
    for name, median in facts["median_ms"].items():
        kept = "  kept" if name == tuned.best else ""
        print_line(f"{name:<20}{median:>10.2f} ms{kept}")
    for note in tuned.notes:
        say(f"note: {note}")
    print_line(deployment / tuned.file)
