"""Quality: a deployment against high-resolution pictures and against the PyTorch network it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.contract import IOContract, Size
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.errors import BadCheckpoint, CheckFailed
from sr_deploy.core.media.image import from_network, read_picture, to_network
from sr_deploy.core.media.room import bytes_to_upscale
from sr_deploy.core.number_formats import LOSSY
from sr_deploy.core.quality.metrics import CRITERION, figure_columns, figures_of, torch_figures_of
from sr_deploy.core.quality.pairing import pair_images
from sr_deploy.core.quality.psnr_ssim import CONVENTION, crop_like
from sr_deploy.core.tolerance import GRAPH_FP32
from sr_deploy.engine.index import EngineIndex
from sr_deploy.pipeline.runner import Resolved, resolve, runners
from sr_deploy.pipeline.tiling import tiling_of
from sr_deploy.run.base import Runner, upscale
from sr_deploy.run.parity import as_floats, difference_of, planes_difference


@dataclass(frozen=True)
class VerifyOptions:
    """What ``srdeploy verify`` is asked for.

    Attributes:
        deployment: the folder.
        lr, hr: folders of low- and high-resolution pictures.
        backend, engine, precision: which runtime; see pipeline/runner.py.
        checkpoint: the checkpoint, where it is no longer at the place the manifest names.
        against_torch: compare with the PyTorch network too.
        memory: bytes that may be used; what takes more, or no engine takes, runs in tiles. None: half of what is free.
        allow_inexact: of a network that is not local too.
    """

    deployment: Path
    lr: Path
    hr: Path
    backend: Optional[str] = None
    engine: Optional[Path] = None
    checkpoint: Optional[Path] = None
    against_torch: bool = True
    precision: Optional[str] = None
    memory: Optional[int] = None
    allow_inexact: bool = False


@dataclass(frozen=True)
class ImageQuality:
    """One picture.

    Attributes:
        name: of the picture.
        figures: by the keys of core/quality/metrics.py; PyTorch's own only where it was compared.
        difference: largest difference from PyTorch in 8-bit steps; None where it was not compared.
    """

    name: str
    figures: Mapping[str, float]
    difference: Optional[float] = None


@dataclass(frozen=True)
class QualityReport:
    """All pictures of a set.

    Attributes:
        convention: how the figures are computed.
        runtime: what ran.
        images: one row a picture.
        precision: of what ran. "fp32" is bound in the largest difference from PyTorch, a lower one in the mean PSNR-Y.
        tolerance_steps: the bound on the difference from PyTorch, in 8-bit steps.
    """

    convention: str
    runtime: str
    images: Tuple[ImageQuality, ...]
    precision: str = "fp32"
    tolerance_steps: float = GRAPH_FP32.steps

    @property
    def worst(self) -> float:
        """The largest difference from PyTorch over all pictures, in 8-bit steps; 0 when it was not compared."""
        return max((image.difference or 0.0 for image in self.images), default=0.0)

    @property
    def loss(self) -> Optional[float]:
        """Mean PSNR-Y lost against PyTorch, dB; None when it was not compared."""
        each = [CRITERION.lost(i.figures.get(CRITERION.torch_key), i.figures[CRITERION.key]) for i in self.images]
        known = [lost for lost in each if lost is not None]
        return float(np.mean(known)) if len(known) == len(each) else None

    def to_dict(self) -> Dict[str, Any]:
        """Plain values for JSON and tables."""
        keys = [key for key, _, _ in figure_columns()]
        mean = {
            key: float(np.mean([image.figures[key] for image in self.images]))
            for key in keys
            if all(key in image.figures for image in self.images)
        }
        lossy = LOSSY.get(self.precision)
        return {
            "schema": 1,
            "convention": self.convention,
            "runtime": self.runtime,
            "precision": self.precision,
            "images": [_row(image, keys) for image in self.images],
            "mean": _finite(mean),
            "largest_difference": self.worst if CRITERION.torch_key in mean else None,
            "tolerance": self.tolerance_steps if lossy is None else None,
            **_finite({"loss_db": self.loss}),
            "tolerance_db": None if lossy is None else lossy.decibels,
        }

    def raise_on_failure(self) -> None:
        """Raise CheckFailed when a picture differs from PyTorch by more than the tolerance of the precision."""
        lossy = LOSSY.get(self.precision)
        if lossy is not None:
            if self.loss is not None and not self.loss <= lossy.decibels:
                raise CheckFailed(
                    f"the {self.precision} engine loses {self.loss:.4f} dB against the PyTorch network",
                    f"at most {lossy.decibels:g} dB ({lossy.name})",
                    "build it with --precision auto --psnr-budget, or fine-tune it with srdeploy qat",
                )
            return
        if self.worst > self.tolerance_steps:
            name = max(self.images, key=lambda image: image.difference or 0.0).name
            raise CheckFailed(
                f"{name} differs from the PyTorch network by {self.worst:.4g} of 255",
                f"at most {self.tolerance_steps} ({GRAPH_FP32.name})",
                "export again; if it stays, report the network",
            )


def _row(image: ImageQuality, keys: Sequence[str]) -> Dict[str, Any]:
    """One picture for JSON: None for a figure that was not taken."""
    figures = {key: image.figures.get(key) for key in keys}
    return _finite({"name": image.name, **figures, "difference": image.difference})


def _finite(figures: Dict[str, Any]) -> Dict[str, Any]:
    """The same figures, None for the PSNR of equal pictures: JSON has no infinity."""
    return {key: None if isinstance(value, float) and not np.isfinite(value) else value
            for key, value in figures.items()}  # fmt: skip


def verify_quality(options: VerifyOptions, say: Callable[[str], None] = lambda _: None) -> QualityReport:
    """Measure a deployment on a set of picture pairs.

    Raises:
        BadImage: pictures without a partner, or of sizes that do not belong together.
        BadCheckpoint: the checkpoint is gone or is another one, and a comparison with PyTorch was asked for.
    """
    index = EngineIndex(open_deployment(options.deployment))
    tiling = tiling_of(options.memory, options.allow_inexact)
    resolved = resolve(index, options.backend, options.engine, options.precision, tiling=tiling)
    return verify_resolved(resolved, options, say)


def verify_resolved(resolved: Resolved, options: VerifyOptions, say: Callable[[str], None]) -> QualityReport:
    """``verify_quality`` of a deployment that is open: what runs is ``resolved``, what it is judged on the options'."""
    from sr_deploy.report.progress import track

    deployment = resolved.deployment
    scale = deployment.manifest.scale
    pairs = pair_images(options.lr, options.hr, scale)
    network, network_range = _torch_runner(deployment, options) if options.against_torch else (None, 1.0)
    told: List[str] = []

    def remember(why: str) -> None:
        told.append(why)
        say(why)

    with runners(resolved, remember) as runner_at:
        rows = [_one(deployment, runner_at, network, network_range, *pair) for pair in track(pairs, "verifying")]
    return QualityReport(CONVENTION, "; ".join(dict.fromkeys(told)), tuple(rows), resolved.runs_in)


def _one(
    deployment: Deployment,
    runner_at: Callable[[Size], Runner],
    network: Optional[Runner],
    network_range: float,
    name: str,
    lr_path: Path,
    hr_path: Path,
) -> ImageQuality:
    """Quality of one picture."""
    contract, scale = deployment.manifest.contract, deployment.manifest.scale
    picture = read_picture(lr_path, bytes_to_upscale(contract, scale))
    lr = to_network(picture, contract)
    sr = upscale(runner_at(picture.size), lr)
    pixels = from_network(sr, contract, picture).pixels
    hr = crop_like(read_picture(hr_path).pixels, pixels, str(hr_path))
    figures = figures_of(pixels, hr, scale)
    if network is None:
        return ImageQuality(name, figures)
    floats = IOContract(network_range)
    given = to_network(picture, floats) if contract.yuv is None else as_floats(lr, contract, network_range)
    expected = np.clip(upscale(network, given), 0, network_range)
    reference = from_network(expected, floats, picture).pixels
    if contract.yuv is None:
        difference = difference_of(sr, expected, network_range)
    else:
        difference = planes_difference(sr, expected, contract, network_range)
    return ImageQuality(name, {**figures, **torch_figures_of(reference, hr, scale)}, difference)


def _torch_runner(deployment: Deployment, options: VerifyOptions) -> Tuple[Runner, float]:
    """The PyTorch network as trained, from the checkpoint that the deployment was made from, and its value of white."""
    from sr_deploy.pipeline.load import load_network, options_of

    source = deployment.manifest.source
    path = options.checkpoint or Path(source["path"])
    if not path.is_file():
        raise BadCheckpoint(
            f"the checkpoint {path} is gone, so nothing can be compared with PyTorch",
            f"the file {source['file']} that this deployment was made from",
            "give its place with --checkpoint, or leave the comparison out with --no-torch",
        )
    if sha256_of(path) != source["sha256"]:
        raise BadCheckpoint(
            f"{path} is not the checkpoint that this deployment was made from: its sha256 differs",
            f"{source['file']}, sha256 {source['sha256'][:12]}…",
            "give the right one with --checkpoint, or export again",
        )
    network = load_network(path, options_of(source["load_options"]))
    if network.source.get("external", {}) != source.get("external", {}):
        raise BadCheckpoint(
            f"the external data of {path} is not what this deployment was made from: a sha256 differs",
            ", ".join(source.get("external", {})),
            "put the right files beside it, or export again",
        )
    return network.body.runner(), network.value_range
