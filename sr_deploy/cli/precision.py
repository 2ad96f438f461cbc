"""Commands for precision: calibrate and sensitivity."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional

import typer

from sr_deploy.cli.shared import (
    CONTENT_OPTION,
    DEPLOYMENT,
    JSON_FLAG,
    METHOD_OPTION,
    SEEDS,
    print_json,
    print_line,
    render,
    say,
)


def calibrate(
    deployment: Path = DEPLOYMENT,
    images: List[Path] = typer.Option(..., "--images", help="A folder of photographs, or one; may be repeated."),
    method: str = METHOD_OPTION,
    content: str = CONTENT_OPTION,
    percentile: float = typer.Option(99.99, "--percentile", help="With --method percentile: what stays inside, in %."),
    count: Optional[int] = typer.Option(None, "--count", help="Use so many of the photographs. Default: all."),
    seed: Optional[int] = typer.Option(
        None, "--seed", help="Of the choice and of the patches' places. Default: 0.", **SEEDS
    ),
    manifest: Optional[Path] = typer.Option(
        None, "--manifest", help="A calibration set (calibration/NAME.toml): the photographs must be its files."
    ),
    write_manifest: Optional[Path] = typer.Option(
        None, "--write-manifest", help="Write a calibration set of the photographs used."
    ),
    force: bool = typer.Option(False, "--force", help="Replace a calibration that is there."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Check everything and say what would be done."),
    as_json: bool = JSON_FLAG,
) -> None:
    """Ranges of all tensors on real photographs, and INT8 scales: DIR/precision/calibration/METHOD.json."""
    from sr_deploy.pipeline.precision.calibrate import CalibrateOptions, calibrate_deployment, plan_calibration
    from sr_deploy.report.facts import facts_table

    options = CalibrateOptions(
        deployment, tuple(images), method, percentile, count, seed, manifest, write_manifest, force, content=content
    )
    if dry_run:
        facts = {"kind": "would calibrate", **plan_calibration(options)}
    else:
        facts = calibrate_deployment(options, say).summary()
    if as_json:
        print_json(facts)
    else:
        render(facts_table(facts))


def sensitivity(
    deployment: Path = DEPLOYMENT,
    images: Path = typer.Option(..., "--images", help="A folder of photographs: to calibrate, and shrunk, to judge."),
    lr: Optional[Path] = typer.Option(None, "--lr", help="Judge on these pictures instead of shrunk photographs …"),
    hr: Optional[Path] = typer.Option(None, "--hr", help="… with these originals."),
    method: str = METHOD_OPTION,
    content: str = CONTENT_OPTION,
    as_json: bool = JSON_FLAG,
) -> None:
    """What each layer costs in dB when it alone runs in INT8: DIR/precision/sensitivity.json and .png."""
    from sr_deploy.pipeline.precision.sensitivity import SensitivityOptions, measure_sensitivity
    from sr_deploy.report.table import sensitivity_table

    found = measure_sensitivity(SensitivityOptions(deployment, images, lr, hr, method, content), say)
    if as_json:
        print_json({"table": str(found.table), "plot": str(found.plot), **found.facts})
        return
    render(sensitivity_table(found.facts))
    print_line(found.table)
    print_line(found.plot)
