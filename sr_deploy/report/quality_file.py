"""The result of ``srdeploy verify`` as a file: what it keeps in a deployment, and what report and gate read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Optional, Sequence, Tuple

from pydantic import Field
from typing_extensions import Annotated

from sr_deploy.core.quality.metrics import CRITERION, figure_types
from sr_deploy.core.schema import (
    Amount,
    Positive,
    Sha256,
    ShortText,
    SizeText,
    described,
    read_described,
    with_fields,
)

#: Lost against PyTorch, dB.
_Decibels = Annotated[float, Field(ge=-1000.0, le=1000.0)]


@described
@dataclass(frozen=True)
class Ran:
    """One file that ran, and where.

    Attributes:
        runtime, device: names of the runner.
        file: the engine's or graph's name.
        sha256: of that file.
        sizes: the inputs that it took.
    """

    runtime: ShortText
    device: ShortText
    file: ShortText
    sha256: Sha256
    sizes: Tuple[SizeText, ...]


@described
@dataclass(frozen=True)
class PictureSet:
    """The pictures that were judged.

    Attributes:
        name: the last two folders of the originals, for people.
        count: how many pairs.
        sha256: of all their hashes, by name: equal for equal pictures, wherever they lie.
    """

    name: ShortText
    count: Positive
    sha256: Sha256


@described
@dataclass(frozen=True)
@with_fields(figure_types())
class QualityRow:
    """One picture: a field for each figure of core/quality/metrics.py beside these.

    None where it was not taken, as in a file from before its metric, or is not finite, as the PSNR of equal pictures.

    Attributes:
        name: of the original, without its suffix.
        difference: the largest from the PyTorch network, in 8-bit steps; None where it was not compared.
        lr_sha256, hr_sha256: of the two files.
        off_share: share of the pixels off from the PyTorch network's by more than 8 of 255; None where not compared.
        structure: by how much an 8x8 patch is further from the original than the PyTorch network's in its mean, of 255;
            likewise.
    """

    name: str
    difference: Optional[Amount] = None
    lr_sha256: Optional[Sha256] = None
    hr_sha256: Optional[Sha256] = None
    off_share: Optional[Amount] = None
    structure: Optional[Amount] = None


@described
@dataclass(frozen=True)
@with_fields(figure_types())
class QualityMean:
    """Means over the pictures, a field for each figure; None where it was not taken of all of them."""


@described
@dataclass(frozen=True)
class QualityFile:
    """What ``QualityReport.to_dict`` writes.

    Attributes:
        convention, precision: how the figures are computed, and in what the network ran.
        ran: what ran, one entry a file.
        images, mean: the figures.
        pictures: which they were; None where nothing was hashed.
        created: when, ISO 8601 in UTC; "" where it is not known.
        checkpoint_sha256: of the PyTorch network that was compared with; None where none was.
        largest_difference, tolerance: from PyTorch in 8-bit steps, and the bound on it; None where not compared.
        loss_db, tolerance_db: PSNR-Y lost against PyTorch, dB, and the bound on it; likewise.
        worst_loss_db, worst_loss_picture: the same of the picture that loses most, and its name; likewise.
        largest_off_share, largest_structure: over the pictures, see QualityRow; likewise.
        problem: which bound is broken; None where none is.
        schema: version of this layout.
    """

    convention: ShortText
    ran: Tuple[Ran, ...]
    images: Tuple[QualityRow, ...]
    mean: QualityMean
    precision: ShortText = "fp32"
    pictures: Optional[PictureSet] = None
    created: ShortText = ""
    checkpoint_sha256: Optional[Sha256] = None
    largest_difference: Optional[Amount] = None
    tolerance: Optional[Amount] = None
    loss_db: Optional[_Decibels] = None
    tolerance_db: Optional[Amount] = None
    worst_loss_db: Optional[_Decibels] = None
    worst_loss_picture: Optional[str] = None
    largest_off_share: Optional[Amount] = None
    largest_structure: Optional[Amount] = None
    problem: Optional[str] = None
    schema: int = 2

    @property
    def worst(self) -> Optional[float]:
        """The criterion's figure of the worst picture; None where one has none."""
        values = [getattr(image, CRITERION.key) for image in self.images]
        if not values or None in values:
            return None
        return float(min(values) if CRITERION.higher_is_better else max(values))


def read_quality(path: Path) -> QualityFile:
    """Read a report of ``srdeploy verify``.

    Raises:
        BadInput: not a file, or not as described.
    """
    return read_described(QualityFile, path, "quality report", "make it again with srdeploy verify --json")


def ran_text(ran: Sequence[Mapping[str, object]]) -> str:
    """What ran, for people: "onnxruntime on AMD EPYC: model.onnx", one part a file.

    Args:
        ran: dict forms of Ran.
    """
    return "; ".join(dict.fromkeys(f"{one['runtime']} on {one['device']}: {one['file']}" for one in ran))


def hash_of_pictures(hashes: Sequence[Tuple[str, str, str]]) -> str:
    """One SHA-256 for a set of (name, of the low-resolution file, of the original), in whatever order."""
    text = "".join(f"{name}\0{low}\0{high}\n" for name, low, high in sorted(hashes))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def kept_name(runtime: str, precision: str, pictures: PictureSet) -> str:
    """The file's name in a deployment's results: one for each runtime, precision and set of pictures."""
    return f"verify_{runtime}_{precision}_{pictures.sha256[:8]}.json"
