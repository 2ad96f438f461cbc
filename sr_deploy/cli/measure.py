"""Commands that time: bench and sweep."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Optional

import typer

from sr_deploy.api import sizes_of
from sr_deploy.cli.shared import (
    BACKEND,
    DEPLOYMENT,
    INEXACT,
    JSON_FLAG,
    MEMORY,
    PRECISION,
    print_json,
    print_line,
    print_plan,
    render,
    say,
)
from sr_deploy.core.errors import CheckFailed, Inconclusive, UsageError
from sr_deploy.core.text import counted

if TYPE_CHECKING:
    from sr_deploy.bench.result import Result

SIZES = "144,360,480,720,1080"


def bench(
    deployment: Path = DEPLOYMENT,
    size: Optional[List[str]] = typer.Option(
        None, "--size", help=f"Input HxW, or one number for a square; repeat or separate by commas. Default: {SIZES}."
    ),
    backend: Optional[str] = BACKEND,
    precision: Optional[str] = PRECISION,
    every: bool = typer.Option(
        False, "--all", help="Every precision that is built: one table of ms, dB, MB and energy, and what is slower."
    ),
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
    processes: int = typer.Option(
        1, "--processes", help="In fresh processes, 5 or more, which the gate compares.", min=1
    ),
    builds: int = typer.Option(1, "--builds", help="… and for so many engines, each built anew.", min=1),
    threads: Optional[int] = typer.Option(None, "--threads", help="ONNX Runtime on the CPU: threads.", min=1),
    timer: str = typer.Option("auto", "--timer", help="host, events (the device's, kept busy), or auto."),
    cuda_graph: bool = typer.Option(False, "--cuda-graph", help="TensorRT: launch one captured CUDA graph."),
    wait: str = typer.Option("auto", "--wait", help="TensorRT: spin or block while it works; auto leaves it to CUDA."),
    streams: int = typer.Option(1, "--streams", help="Streams at once; no runtime here has more than 1.", min=1),
    pace: Optional[float] = typer.Option(
        None, "--pace", help="Also as it is in life: so many pictures a second. Latency, jitter, missed deadlines."
    ),
    burst: Optional[int] = typer.Option(None, "--burst", help="With --pace: also so many pictures at once."),
    submit: Optional[Path] = typer.Option(
        None, "--submit", help="Also write an entry for a public table, NAME.entry.json, with paced and bursty load."
    ),
    axis: str = typer.Option("size", "--axis", help="Of the plot: size (logarithmic), or area (linear, from 0)."),
    memory: Optional[int] = MEMORY,
    inexact: bool = INEXACT,
    out: Optional[Path] = typer.Option(None, "-o", "--out", help="Also write the result, JSON, to this file."),
    as_json: bool = JSON_FLAG,
    resume: bool = typer.Option(False, "--resume", help="Go on where an interrupted sweep of the same kind stopped."),
) -> None:
    """Latency over input sizes: table, JSON and plot in the deployment's results folder."""
    from sr_deploy.bench.presets import preset_named
    from sr_deploy.bench.variance import variance_lines
    from sr_deploy.pipeline.measure.bench import BenchRequest, bench_deployment
    from sr_deploy.pipeline.measure.repeat import bench_repeatedly
    from sr_deploy.report.loads import load_table
    from sr_deploy.report.table import latency_table

    if preset is not None:
        chosen = preset_named(preset)
        if size or runs is not None:
            raise UsageError(f"--preset {preset} has sizes and runs of its own", "--preset, or --size and --runs")
        runs, processes = chosen.runs, max(processes, chosen.processes)
        say(f"{preset}: {chosen.source}")
    wanted = sizes_of(size or [SIZES]) if preset is None else chosen.sizes
    request = BenchRequest(
        deployment,
        wanted,
        backend,
        scope,
        seconds,
        iterations,
        threads,
        out,
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
        pace=pace,
        burst=burst,
        axis=axis,
        memory=memory,
        allow_inexact=inexact,
    )
    if every:
        _bench_all(request, processes * builds, submit, as_json)
        return
    if submit is not None:
        from sr_deploy.pipeline.measure.submit import prepared

        request, write_entry = prepared(request, submit)
    if processes > 1 or builds > 1:
        repeated = bench_repeatedly(request, processes, builds, say)
        result, files = repeated.result, repeated.files
    else:
        result, files = bench_deployment(request, say)
    if as_json:
        print_json(result.to_dict())
    else:
        render(latency_table(result))
        if request.pace is not None:
            render(load_table(result))
        if processes > 1 or builds > 1:
            print_line("Standard deviations; a run is the median of a tenth of a process's samples:")
            for line in variance_lines(repeated.tables):
                print_line(line)
        for path in files:
            print_line(path)
    _judge(result)
    if submit is not None:
        write_entry(result)
        say(f"the entry for a public table: {submit}")


def _bench_all(request: Any, repeats: int, submit: Optional[Path], as_json: bool) -> None:
    """``bench --all``."""
    from sr_deploy.pipeline.measure.all_precisions import bench_all
    from sr_deploy.report.precisions import terminal_table

    if repeats > 1 or submit is not None:
        raise UsageError("--all measures each precision once", "it without --processes, --builds and --submit")
    table, results, files = bench_all(request, say)
    if as_json:
        print_json(dataclasses.asdict(table))
    else:
        render(terminal_table(table))
        for path in files:
            print_line(path)
    for result in results:
        _judge(result)


def _judge(result: Result) -> None:
    """Raise CheckFailed where no size could be measured, Inconclusive where a point is invalid."""
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


def sweep(
    matrix: Path = typer.Argument(..., help="TOML or JSON: deployments, sizes, backends, …", show_default=False),
    out: Path = typer.Option(..., "--out", "-o", help="Folder for the results, one file a combination."),
    resume: bool = typer.Option(False, "--resume", help="Keep what is complete there and go on."),
    dask: Optional[str] = typer.Option(None, "--dask", help="Measure on the workers of this Dask scheduler."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only list what would be measured."),
    as_json: bool = JSON_FLAG,
) -> None:
    """Many sweeps as one: networks × precisions × runtimes × scopes, over all sizes, with progress and resume."""
    from sr_deploy.pipeline.measure.cluster import run_on_dask
    from sr_deploy.pipeline.measure.matrix import read_matrix, run_matrix

    cells = read_matrix(matrix, out)
    if dry_run:
        print_plan([str(cell.request.result_file) for cell in cells], as_json)
        return
    say(f"{counted(len(cells), 'sweep')} of {counted(len(cells[0].request.sizes), 'size')}")
    run_matrix(cells, out, resume, say, run_on_dask(dask, say) if dask else None)
    if as_json:
        print_json({"results": [str(cell.request.result_file) for cell in cells]})
        return
    for cell in cells:
        print_line(cell.request.result_file)


def tune(
    deployment: Path = DEPLOYMENT,
    size: str = typer.Option(..., "--size", help="The input HxW to tune for."),
    backend: Optional[str] = BACKEND,
    rounds: int = typer.Option(11, "--rounds", help="Runs of every variant, all in turn.", min=1),
    threads: Optional[int] = typer.Option(None, "--threads", help="ONNX Runtime on the CPU: threads.", min=1),
    device: Optional[str] = typer.Option(
        None,
        "--for",
        help="Estimate for this GPU, such as rtx-4090, from TensorRT-RTX's listings; time it too where it is here.",
    ),
    as_json: bool = JSON_FLAG,
) -> None:
    """Time equal graphs on this machine, or estimate them for another, and keep the fastest for this size."""
    from sr_deploy.core.contract import parse_size
    from sr_deploy.pipeline.measure.tune import TuneOptions, tune_deployment
    from sr_deploy.pipeline.measure.tune_for import tune_for_device

    run = tune_for_device if device else tune_deployment
    tuned = run(TuneOptions(deployment, parse_size(size), backend, rounds, threads, None, device), say)
    facts = tuned.to_dict()
    if as_json:
        print_json(facts)
        return
    shown, what = (facts["estimated_ms"], "ms, estimated") if device else (facts["median_ms"], "ms")
    for name, milliseconds in shown.items():
        timed = f"{facts['median_ms'][name]:>10.2f} ms, measured" if device and name in facts["median_ms"] else ""
        memory = f"{facts['activation_bytes'][name] / 1e6:>10.1f} MB" if name in facts["activation_bytes"] else ""
        kept = "  kept" if name == tuned.best else ""
        print_line(f"{name:<48}{milliseconds:>10.2f} {what}{timed}{memory}{kept}")
    for note in tuned.notes:
        say(f"note: {note}")
    print_line(deployment / tuned.file)
