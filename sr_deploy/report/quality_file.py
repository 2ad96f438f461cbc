"""The report of ``srdeploy verify --json`` as a file: what the gate reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

from pydantic import Field
from typing_extensions import Annotated

from sr_deploy.core.quality.metrics import figure_types
from sr_deploy.core.schema import Amount, ShortText, described, read_described, with_fields

#: Lost against PyTorch, dB.
_Decibels = Annotated[float, Field(ge=-1000.0, le=1000.0)]


@described
@dataclass(frozen=True)
@with_fields(figure_types())
class QualityRow:
    """One picture: a field for each figure of core/quality/metrics.py beside these.

    None where it was not taken, as in a file from before its metric, or is not finite, as the PSNR of equal pictures.

    Attributes:
        name: of the original, without its suffix.
        difference: the largest from the PyTorch network, in 8-bit steps; None where it was not compared.
    """

    name: str
    difference: Optional[Amount] = None


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
        convention, runtime, precision: how the figures are computed, what ran, and in what.
        images, mean: the figures.
        largest_difference, tolerance: from PyTorch in 8-bit steps, and the bound on it; None where not compared.
        loss_db, tolerance_db: PSNR-Y lost against PyTorch, dB, and the bound on it; likewise.
        schema: version of this layout.
    """

    convention: ShortText
    runtime: str
    images: Tuple[QualityRow, ...]
    mean: QualityMean
    precision: ShortText = "fp32"
    largest_difference: Optional[Amount] = None
    tolerance: Optional[Amount] = None
    loss_db: Optional[_Decibels] = None
    tolerance_db: Optional[Amount] = None
    schema: int = 1


def read_quality(path: Path) -> QualityFile:
    """Read a report of ``srdeploy verify --json``.

    Raises:
        BadInput: not a file, or not as described.
    """
    return read_described(QualityFile, path, "quality report", "make it again with srdeploy verify --json")
