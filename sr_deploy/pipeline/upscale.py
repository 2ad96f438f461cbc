"""Pictures through a deployment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Tuple

from sr_deploy.core.deployment import Deployment, open_deployment
from sr_deploy.core.errors import UsageError
from sr_deploy.core.image import (
    Picture,
    check_writable,
    find_images,
    from_network,
    read_picture,
    to_network,
    write_picture,
)
from sr_deploy.pipeline.runner import runners
from sr_deploy.run.base import Runner, upscale


@dataclass(frozen=True)
class UpscaleOptions:
    """What ``srdeploy run`` is asked for.

    Attributes:
        deployment: the folder.
        inputs: pictures and folders of pictures.
        out: the folder to write to.
        backend, engine, precision: which runtime; see pipeline/runner.py.
        suffix: "png" or "jpg"; None keeps each picture's own.
        force: overwrite pictures that exist.
    """

    deployment: Path
    inputs: Tuple[Path, ...]
    out: Path
    backend: Optional[str] = None
    engine: Optional[Path] = None
    suffix: Optional[str] = None
    force: bool = False
    precision: Optional[str] = None


def upscale_files(options: UpscaleOptions, say: Callable[[str], None] = lambda _: None) -> Tuple[Path, ...]:
    """Upscale every picture; each result is written whole or not at all.

    Returns:
        The paths written, in order.

    Raises:
        BadImage: a picture cannot be read or does not fit; those before it are written.
        UsageError: a result exists and ``force`` is False, or two inputs would have one result.
    """
    from sr_deploy.report.progress import track

    deployment = open_deployment(options.deployment)
    inputs = find_images(options.inputs)
    targets = _targets(inputs, options)
    with runners(deployment, options.backend, options.engine, say, options.precision) as runner_at:
        for source, target in track(list(zip(inputs, targets)), "upscaling"):
            picture = read_picture(source)
            check_writable(target, picture.alpha is not None, picture.depth)
            write_picture(upscale_picture(deployment, runner_at(picture.size), picture), target)
    return tuple(targets)


def upscale_picture(deployment: Deployment, runner: Runner, picture: Picture) -> Picture:
    """One picture through a runner, grey, alpha and depth kept."""
    contract = deployment.manifest.contract
    return from_network(upscale(runner, to_network(picture, contract)), contract, picture)


def _targets(inputs: Tuple[Path, ...], options: UpscaleOptions) -> List[Path]:
    """Where each result goes; refuses to overwrite and to write two results into one file."""
    if options.suffix is not None and options.suffix.lower() not in ("png", "jpg", "jpeg"):
        raise UsageError(f"--format {options.suffix} is not written here", "png or jpg")
    targets: List[Path] = []
    for source in inputs:
        suffix = f".{options.suffix.lower()}" if options.suffix else source.suffix
        target = options.out / (source.stem + suffix)
        if target in targets:
            raise UsageError(f"two inputs would be written to {target}", "different file names", "run them separately")
        if target.exists() and not options.force:
            raise UsageError(f"{target} exists already", "a new file", "choose another -o, or overwrite with --force")
        targets.append(target)
    return targets
