"""The report of ``srdeploy verify --json`` as a file: what the gate reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

from pydantic import Field
from typing_extensions import Annotated

from sr_deploy.core.schema import Amount, ShortText, described, read_described

#: dB of PSNR; equal pictures have none that is finite, so the file says null.
_Decibels = Annotated[float, Field(ge=-1000.0, le=1000.0)]
#: SSIM.
_Ssim = Annotated[float, Field(ge=-1.0, le=1.0)]


@described
@dataclass(frozen=True)
class QualityRow:
    """One picture; the fields of ImageQuality, see pipeline/verify.py."""

    name: str
    psnr_y: Optional[_Decibels]
    ssim_y: _Ssim
    torch_psnr_y: Optional[_Decibels] = None
    difference: Optional[Amount] = None


@described
@dataclass(frozen=True)
class QualityMean:
    """Means over the pictures; None where a figure was not taken of all of them."""

    psnr_y: Optional[_Decibels] = None
    ssim_y: Optional[_Ssim] = None
    torch_psnr_y: Optional[_Decibels] = None


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
