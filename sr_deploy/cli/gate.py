"""The command that judges: gate."""

from __future__ import annotations

import dataclasses
import secrets
from pathlib import Path
from typing import Any, Dict, List, Optional

import typer

from sr_deploy.api import sizes_of
from sr_deploy.cli.shared import BACKEND, JSON_FLAG, PRECISION, print_json, print_line, render, say
from sr_deploy.core.artifact import check_can_write


def gate(
    results: List[Path] = typer.Argument(
        ...,
        metavar="[BASELINE] CANDIDATE",
        help="Results of srdeploy bench, or deployments. One alone is held against --budget.",
        show_default=False,
    ),
    budget: Optional[Path] = typer.Option(
        None, "--budget", help="TOML with thresholds, absolute bounds by device, and quality floors (engines/*.toml)."
    ),
    in_turn: bool = typer.Option(
        False, "--interleave", help="Run both deployments here, A B B A …: what holds on shared machines."
    ),
    size: Optional[List[str]] = typer.Option(
        None, "--size", help="With --interleave: input HxW, or one number; repeat or separate by commas. Default: 144."
    ),
    threshold: Optional[float] = typer.Option(
        None, "--threshold", help="Slower by more than this many percent … Default: the budget's, else 3."
    ),
    floor: Optional[float] = typer.Option(
        None, "--floor-us", help="… and by more than this many µs is a regression. Default: the budget's, else 20."
    ),
    run_noise: Optional[float] = typer.Option(
        None, "--run-noise", help="Percent by which runs differ, for results of one run each. Default: 10."
    ),
    quality: Optional[Path] = typer.Option(
        None,
        "--quality",
        help="Report of srdeploy verify for the budget's floors. Default: the one kept in the candidate's deployment.",
    ),
    backend: Optional[str] = BACKEND,
    precision: Optional[str] = PRECISION,
    scope: Optional[str] = typer.Option(None, "--scope", help="compute (the default), enqueue or end-to-end."),
    threads: Optional[int] = typer.Option(None, "--threads", help="ONNX Runtime on the CPU: threads, of both.", min=1),
    max_seconds: Optional[float] = typer.Option(
        None,
        "--max-seconds",
        help="With --interleave: longest session of one size, of which there may be two. Default: 120.",
        min=0.1,
    ),
    seed: Optional[int] = typer.Option(
        None,
        "--seed",
        help="Of the order of rounds and of opening. Default: drawn anew, and kept in the report.",
        min=0,
    ),
    update: bool = typer.Option(
        False, "--update-baseline", help="Judge nothing: show what changes and make CANDIDATE the device's baseline."
    ),
    baselines: Optional[Path] = typer.Option(
        None,
        "--baselines",
        help="Folder where CANDIDATE's own baseline is found, or made by --update-baseline (engines/baselines).",
    ),
    as_json: bool = JSON_FLAG,
    junit: Optional[Path] = typer.Option(None, "--junit", help="Also write JUnit XML to this file."),
    markdown_file: Optional[Path] = typer.Option(None, "--markdown", help="Also write a Markdown summary here."),
    github: bool = typer.Option(False, "--github", help="Also print GitHub annotations."),
) -> None:
    """Is the candidate slower? PASS (exit 0), REGRESSION (1) or INCONCLUSIVE (5), each with why.

    gate BASELINE CANDIDATE --interleave: two deployments, run in turn

    gate BASELINE CANDIDATE: two results of bench --processes 5

    gate CANDIDATE --baselines FOLDER: a result, and its committed baseline

    gate --budget FILE CANDIDATE: a result against absolute bounds

    gate CANDIDATE --update-baseline: judge nothing, show what changes
    """
    from sr_deploy.bench.interleave import InterleaveOptions
    from sr_deploy.pipeline.measure.baseline import baseline_for, update_baseline
    from sr_deploy.pipeline.measure.gate import result_of, run_gate
    from sr_deploy.pipeline.measure.gate_request import GateRequest, check_options, mode_of
    from sr_deploy.report.gate_output import (
        EXIT_CODES,
        gate_table,
        github_annotations,
        junit_xml,
        markdown,
        write_text,
    )

    finds = baselines is not None and len(results) == 1 and not (update or in_turn)
    given: Dict[str, Any] = {
        "--budget": budget, "--size": size or None, "--threshold": threshold, "--floor-us": floor,
        "--run-noise": run_noise,
        "--quality": quality, "--backend": backend, "--precision": precision, "--scope": scope, "--threads": threads,
        "--max-seconds": max_seconds, "--seed": seed, "--baselines": None if finds else baselines, "--junit": junit,
        "--markdown": markdown_file, "--github": github,
    }  # fmt: skip
    check_options(mode_of(2 if finds else len(results), in_turn, update), given, tuple(results))
    drawn = secrets.randbelow(2**32) if seed is None else seed
    request = GateRequest(
        candidate=results[-1],
        baseline=results[0] if len(results) > 1 else None,
        budget=budget,
        threshold_percent=threshold,
        floor_us=floor,
        run_noise_percent=run_noise,
        quality=quality,
        in_turn=in_turn,
        sizes=sizes_of(size or ["144"]) if in_turn else (),
        backend=backend,
        precision=precision,
        threads=threads,
        scope=scope or "compute",
        rounds=InterleaveOptions(max_seconds=max_seconds or 120.0, seed=drawn),
    )
    if update:
        candidate = result_of(request.candidate, request)
        path, changes = update_baseline(candidate, baselines or Path("engines/baselines"), request.baseline)
        if as_json:
            print_json({"baseline": str(path), "changes": list(changes)})
            return
        for line in changes:
            print_line(line)
        print_line(path)
        return
    if finds and baselines is not None:
        found = baseline_for(result_of(request.candidate, request), baselines)
        request = dataclasses.replace(request, baseline=found)
    for path in filter(None, (junit, markdown_file)):
        check_can_write(path)
    report = run_gate(request, say)
    # The files first: one that cannot be written is an error, and its JSON must be the only document on stdout.
    if junit is not None:
        write_text(junit, junit_xml(report))
    if markdown_file is not None:
        write_text(markdown_file, markdown(report))
    if as_json:
        print_json(report.to_dict())
    else:
        render(gate_table(report))
    if github:
        # On stderr beside JSON, which must stay alone on stdout; the runner reads both.
        for line in github_annotations(report):
            typer.echo(line, err=as_json)
    raise typer.Exit(EXIT_CODES[report.verdict])
