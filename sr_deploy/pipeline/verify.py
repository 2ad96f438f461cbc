"""Quality: a deployment against high-resolution pictures and against the PyTorch network it was made from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Mapping, Optional, Sequence, Tuple

import numpy as np

from sr_deploy.bench.result import now_utc
from sr_deploy.core.artifact import sha256_of, write_json
from sr_deploy.core.contract import IOContract, Size, format_size
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.errors import BadCheckpoint, CheckFailed, EnvironmentFault
from sr_deploy.core.media.image import Picture, from_network, read_picture, to_network
from sr_deploy.core.media.room import bytes_to_upscale
from sr_deploy.core.number_formats import LOSSY
from sr_deploy.core.quality.metrics import (
    CRITERION,
    Beside,
    figure_columns,
    figures_of,
    means_of,
    torch_figures_of,
    unjudged,
)
from sr_deploy.core.quality.niqe import Natural, natural_of
from sr_deploy.core.quality.pairing import pair_images
from sr_deploy.core.quality.psnr_ssim import CONVENTION, crop_like
from sr_deploy.core.quality.structure import new_structure, off_share
from sr_deploy.core.tolerance import GRAPH_FP32
from sr_deploy.engine.index import EngineIndex
from sr_deploy.pipeline.reference import ReferencePictures, reference_pictures
from sr_deploy.pipeline.runner import Chosen, Resolved, resolve, runners
from sr_deploy.pipeline.tiling import tiling_of
from sr_deploy.report.quality_file import PictureSet, Ran, hash_of_pictures, kept_name
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
        keep: whether ``verify_quality`` writes the report into the deployment's results.
        reference: for the fidelity: a deployment whose output is followed, or a folder of its pictures (baby.png).
        niqe_params: statistics of natural photographs, see core/quality/niqe.py; None: those of an installed BasicSR.
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
    keep: bool = True
    reference: Optional[Path] = None
    niqe_params: Optional[Path] = None


@dataclass(frozen=True)
class ImageQuality:
    """One picture.

    Attributes:
        name: of the picture.
        figures: by the keys of core/quality/metrics.py; PyTorch's own only where it was compared.
        difference: largest difference from PyTorch in 8-bit steps; None where it was not compared.
        off_share: share of the pixels off from PyTorch's by more than 8 of 255 (core/quality/structure.py); likewise.
        structure: by how much a patch of it is further from the original than PyTorch's, 8-bit steps; likewise.
        lr_sha256, hr_sha256: of the two files; None where they were not read here.
    """

    name: str
    figures: Mapping[str, float]
    difference: Optional[float] = None
    lr_sha256: Optional[str] = None
    hr_sha256: Optional[str] = None
    off_share: Optional[float] = None
    structure: Optional[float] = None

    @property
    def loss(self) -> Optional[float]:
        """PSNR-Y lost against PyTorch, dB; None when it was not compared."""
        return CRITERION.lost(self.figures.get(CRITERION.torch_key), self.figures[CRITERION.key])


@dataclass(frozen=True)
class QualityReport:
    """All pictures of a set.

    Attributes:
        convention: how the figures are computed.
        ran: what ran, one entry a file.
        images: one row a picture.
        precision: of what ran. "fp32" is bound in the largest difference from PyTorch, a lower one in the mean PSNR-Y.
        tolerance_steps: the bound on the difference from PyTorch, in 8-bit steps.
        pictures: which they were.
        checkpoint_sha256: of the network that was compared with.
    """

    convention: str
    ran: Tuple[Ran, ...]
    images: Tuple[ImageQuality, ...]
    precision: str = "fp32"
    tolerance_steps: float = GRAPH_FP32.steps
    pictures: Optional[PictureSet] = None
    checkpoint_sha256: Optional[str] = None

    @property
    def worst(self) -> float:
        """The largest difference from PyTorch over all pictures, in 8-bit steps; 0 when it was not compared."""
        return max((image.difference or 0.0 for image in self.images), default=0.0)

    @property
    def loss(self) -> Optional[float]:
        """Mean PSNR-Y lost against PyTorch, dB; None when it was not compared."""
        known = [image.loss for image in self.images if image.loss is not None]
        return float(np.mean(known)) if len(known) == len(self.images) else None

    @property
    def loses_most(self) -> Optional[ImageQuality]:
        """The picture that loses most against PyTorch; None when it was not compared."""
        compared = [image for image in self.images if image.loss is not None]
        return max(compared, key=lambda image: image.loss or 0.0, default=None)

    def to_dict(self) -> Dict[str, Any]:
        """Plain values for JSON and tables, as ``QualityFile`` describes them."""
        keys = [key for key, _, _ in figure_columns()]
        mean = means_of([image.figures for image in self.images])
        lossy, failed = LOSSY.get(self.precision), self.failure()
        return {
            "schema": 2,
            "created": now_utc(),
            "convention": self.convention,
            "ran": [asdict(one) for one in self.ran],
            "precision": self.precision,
            "pictures": None if self.pictures is None else asdict(self.pictures),
            "checkpoint_sha256": self.checkpoint_sha256,
            "images": [_row(image, keys) for image in self.images],
            "mean": _finite(mean),
            "largest_difference": self.worst if CRITERION.torch_key in mean else None,
            "tolerance": self.tolerance_steps if lossy is None else None,
            **_finite({"loss_db": self.loss}),
            **_finite(self._worst_facts()),
            "tolerance_db": None if lossy is None else lossy.decibels,
            "problem": None if failed is None else f"{failed.found}, {failed.wanted} is allowed",
        }

    def _worst_facts(self) -> Dict[str, Any]:
        """What is told of single pictures: who loses most, and the largest figures of what can be seen."""
        most = self.loses_most
        return {
            "worst_loss_db": None if most is None else most.loss,
            "worst_loss_picture": None if most is None else most.name,
            "largest_off_share": _largest(image.off_share for image in self.images),
            "largest_structure": _largest(image.structure for image in self.images),
        }

    def raise_on_failure(self) -> None:
        """Raise CheckFailed when a picture differs from PyTorch by more than the tolerance of the precision."""
        failed = self.failure()
        if failed is not None:
            raise failed

    def failure(self) -> Optional[CheckFailed]:
        """What ``raise_on_failure`` raises; None where the tolerance is kept."""
        lossy = LOSSY.get(self.precision)
        if lossy is not None:
            if self.loss is None or self.loss <= lossy.decibels:
                return None
            return CheckFailed(
                f"the {self.precision} engine loses {self.loss:.4f} dB against the PyTorch network",
                f"at most {lossy.decibels:g} dB ({lossy.name})",
                "build it with --precision auto --psnr-budget, or fine-tune it with srdeploy qat",
            )
        if self.worst <= self.tolerance_steps:
            return None
        name = max(self.images, key=lambda image: image.difference or 0.0).name
        return CheckFailed(
            f"{name} differs from the PyTorch network by {self.worst:.4g} of 255",
            f"at most {self.tolerance_steps} ({GRAPH_FP32.name})",
            "export again; if it stays, report the network",
        )


def _row(image: ImageQuality, keys: Sequence[str]) -> Dict[str, Any]:
    """One picture for JSON: None for a figure that was not taken."""
    figures = {key: image.figures.get(key) for key in keys}
    hashes = {"lr_sha256": image.lr_sha256, "hr_sha256": image.hr_sha256}
    seen = {"difference": image.difference, "off_share": image.off_share, "structure": image.structure}
    return {**_finite({"name": image.name, **figures, **seen}), **hashes}


def _largest(values: Iterable[Optional[float]]) -> Optional[float]:
    """Of those that are known."""
    return max((value for value in values if value is not None), default=None)


def _finite(figures: Dict[str, Any]) -> Dict[str, Any]:
    """The same figures, None for the PSNR of equal pictures: JSON has no infinity."""
    return {key: None if isinstance(value, float) and not np.isfinite(value) else value
            for key, value in figures.items()}  # fmt: skip


def verify_quality(options: VerifyOptions, say: Callable[[str], None] = lambda _: None) -> QualityReport:
    """Measure a deployment on a set of picture pairs, and keep the report in its results.

    Where the deployment cannot be written the report is given all the same, and ``say`` is told so.

    Raises:
        BadImage: pictures without a partner, or of sizes that do not belong together.
        BadCheckpoint: the checkpoint is gone or is another one, and a comparison with PyTorch was asked for.
    """
    index = EngineIndex(open_deployment(options.deployment))
    tiling = tiling_of(options.memory, options.allow_inexact)
    resolved = resolve(index, options.backend, options.engine, options.precision, tiling=tiling)
    report = verify_resolved(resolved, options, say)
    if options.keep:
        try:
            say(f"kept in {keep_report(index.deployment, report)}")
        except EnvironmentFault as fault:
            say(f"note: the report is not kept in the deployment: {fault.found}")
    return report


def keep_report(deployment: Deployment, report: QualityReport) -> Path:
    """Write a report into the deployment's results; report and gate find it there. Returns the file.

    Raises:
        DiskFull, EnvironmentFault: it cannot be written.
    """
    assert report.pictures is not None and report.ran, "verify_resolved tells both"
    path = deployment.results_folder / kept_name(report.ran[0].runtime, report.precision, report.pictures)
    write_json(path, report.to_dict())
    return path


def verify_resolved(resolved: Resolved, options: VerifyOptions, say: Callable[[str], None]) -> QualityReport:
    """``verify_quality`` of a deployment that is open: what runs is ``resolved``, what it is judged on the options'."""
    from sr_deploy.report.progress import track

    deployment = resolved.deployment
    pairs = pair_images(options.lr, options.hr, deployment.manifest.scale)
    network, network_range = _torch_runner(deployment, options) if options.against_torch else (None, 1.0)
    ran: Dict[Tuple[str, str], Ran] = {}

    def remember(size: Size, chosen: Chosen) -> None:
        runner, decision = chosen.runner, chosen.decision
        one = Ran(runner.runtime, runner.device, decision.file.name, decision.sha256, ())
        before = ran.get((one.runtime, one.sha256), one)
        ran[one.runtime, one.sha256] = replace(one, sizes=tuple(dict.fromkeys((*before.sizes, format_size(size)))))

    natural = natural_of(options.niqe_params)
    with runners(resolved, say, remember) as runner_at, reference_pictures(options.reference, deployment, say) as made:
        rows = [
            _one(deployment, runner_at, (network, network_range), partial(_beside, made, natural), pair)
            for pair in track(pairs, "verifying")
        ]
    for line in unjudged([row.figures for row in rows]):
        say(line)
    hashes = [(row.name, str(row.lr_sha256), str(row.hr_sha256)) for row in rows]
    name = "/".join(options.hr.resolve().parts[-2:])[-1000:]
    return QualityReport(
        CONVENTION,
        tuple(ran.values()),
        tuple(rows),
        resolved.runs_in,
        pictures=PictureSet(name, len(rows), hash_of_pictures(hashes)),
        checkpoint_sha256=None if network is None else deployment.manifest.source["sha256"],
    )


def _beside(made: Optional[ReferencePictures], natural: Optional[Natural], name: str, picture: Picture) -> Beside:
    return Beside(None if made is None else made(name, picture), natural)


def _one(
    deployment: Deployment,
    runner_at: Callable[[Size], Runner],
    torch: Tuple[Optional[Runner], float],
    beside: Callable[[str, Picture], Beside],
    pair: Tuple[str, Path, Path],
) -> ImageQuality:
    """Quality of one picture; ``torch`` is the PyTorch network and its value of white."""
    (network, network_range), (name, lr_path, hr_path) = torch, pair
    contract, scale = deployment.manifest.contract, deployment.manifest.scale
    picture = read_picture(lr_path, bytes_to_upscale(contract, scale))
    lr = to_network(picture, contract)
    sr = upscale(runner_at(picture.size), lr)
    pixels = from_network(sr, contract, picture).pixels
    hr = crop_like(read_picture(hr_path).pixels, pixels, str(hr_path))
    figures = figures_of(pixels, hr, scale, beside(name, picture))
    hashes = (sha256_of(lr_path), sha256_of(hr_path))
    if network is None:
        return ImageQuality(name, figures, None, *hashes)
    floats = IOContract(network_range)
    given = to_network(picture, floats) if contract.yuv is None else as_floats(lr, contract, network_range)
    expected = np.clip(upscale(network, given), 0, network_range)
    reference = from_network(expected, floats, picture).pixels
    if contract.yuv is None:
        difference = difference_of(sr, expected, network_range)
    else:
        difference = planes_difference(sr, expected, contract, network_range)
    figures = {**figures, **torch_figures_of(reference, hr, scale)}
    seen = (off_share(pixels, reference), new_structure(pixels, reference, hr))
    return ImageQuality(name, figures, difference, *hashes, *seen)


def _torch_runner(deployment: Deployment, options: VerifyOptions) -> Tuple[Runner, float]:
    """The PyTorch network as trained, from the checkpoint that the deployment was made from, and its value of white."""
    from sr_deploy.pipeline.load import load_network, options_of

    source = deployment.manifest.source
    path = options.checkpoint or deployment.source_path
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
