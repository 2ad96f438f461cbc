"""``srdeploy run``: pictures, a clip, or a pipe of frames."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional, Tuple

import typer

from sr_deploy.cli import video
from sr_deploy.cli.shared import (
    BACKEND,
    CHROMA,
    DEPLOYMENT,
    INEXACT,
    JSON_FLAG,
    MEMORY,
    PRECISION,
    QUALITY,
    STRIP,
    print_json,
    print_line,
    say,
)
from sr_deploy.core.errors import CheckFailed


def run(
    deployment: Path = DEPLOYMENT,
    images: List[Path] = typer.Option(
        ..., "-i", "--input", help="A picture or a folder of pictures; may be repeated. Or a clip, or -."
    ),
    out: Path = typer.Option(
        ..., "-o", "--out", help="The folder for the results; of one picture also a file, x.png, of a clip the file."
    ),
    backend: Optional[str] = BACKEND,
    engine: Optional[Path] = typer.Option(None, "--engine", help="Run this engine, whatever else there is."),
    precision: Optional[str] = PRECISION,
    suffix: Optional[str] = typer.Option(None, "--format", help="png, jpg, webp, tif or bmp. Default: as the input."),
    quality: Optional[int] = QUALITY,
    chroma: Optional[str] = CHROMA,
    strip: bool = STRIP,
    force: bool = typer.Option(False, "--force", help="Overwrite results that exist."),
    keep: bool = typer.Option(
        False, "--resume", help="Keep results of this very command, and make the others; go on with a clip."
    ),
    recursive: bool = typer.Option(False, "--recursive", help="Folders in folders too; their structure is kept."),
    memory: Optional[int] = MEMORY,
    inexact: bool = INEXACT,
    codec: Optional[str] = video.CODEC,
    crf: Optional[int] = video.CRF,
    pixel_format: Optional[str] = video.PIXEL_FORMAT,
    matrix: Optional[str] = video.MATRIX,
    siting: Optional[str] = video.SITING,
    sound: bool = video.SOUND,
    raw: Optional[Tuple[str, str]] = video.RAW,
    y4m: bool = video.Y4M,
    full: bool = video.FULL,
    cluster: Optional[str] = video.CLUSTER,
    as_json: bool = JSON_FLAG,
) -> None:
    """Upscale pictures, a clip or a pipe of frames; what they say of colour and time is kept.

    Pictures of any size: what does not fit is made in tiles without seams. Of several pictures, one that cannot be read
    or does not fit is skipped and named at the end, with exit code 1.
    """
    from sr_deploy.core.media.encode import Saving

    common = video.Common(deployment, out, backend, engine, precision, force, keep, as_json, memory, inexact, cluster)
    asked = video.VideoAsked(codec, crf, pixel_format, matrix, siting, sound, raw, y4m, full)
    for_pictures = {"--format": suffix, "--quality": quality, "--chroma": chroma, "--strip": strip or None,
                    "--recursive": recursive or None}  # fmt: skip
    if not video.handled(images, common, asked, [name for name, given in for_pictures.items() if given is not None]):
        _pictures(tuple(images), common, suffix, recursive, Saving(quality, chroma, strip))


def _pictures(inputs, common: video.Common, suffix: Optional[str], recursive: bool, saving) -> None:
    from sr_deploy.pipeline.pictures.cluster import upscale_on_cluster
    from sr_deploy.pipeline.upscale import UpscaleOptions, upscale_files

    options = UpscaleOptions(
        common.deployment, inputs, common.out, common.backend, common.engine, suffix, common.force, common.precision,
        common.resume, common.memory, common.inexact, recursive, saving,
    )  # fmt: skip
    done = upscale_files(options, say) if common.cluster is None else upscale_on_cluster(options, common.cluster, say)
    if common.as_json:
        print_json(done.to_dict())
    else:
        for path in done.written:
            print_line(path)
    for line in done.summary():
        say(line)
    if done.skipped:
        raise typer.Exit(CheckFailed.exit_code)
