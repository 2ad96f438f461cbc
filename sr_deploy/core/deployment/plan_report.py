"""What lies beside a precision plan: the report of what was measured when it was made, and the types for TensorRT 8."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional

from typing_extensions import TypedDict

from sr_deploy.core.errors import BadDeployment
from sr_deploy.core.number_formats import FormatName
from sr_deploy.core.quality.metrics import CRITERION
from sr_deploy.core.schema import Amount, Count, Sha256, described, described_open, read_described

REPORT_NAME = "report.json"
#: Keys of what a plan is judged by: the criterion of its graph, and of the float32 one.
QUALITY_KEY, FLOAT32_QUALITY_KEY = CRITERION.key, f"{CRITERION.key}_float32"


@described
class LintRecord(TypedDict, total=False):
    """What the lint found in the typed graph."""

    not_fusing: List[str]
    narrow_products: Count
    reformats: Count
    casts: Count


@described
class PictureRecord(TypedDict):
    """What one picture lost when the plan was judged; see ``PictureJudged`` in precision/evaluate.py."""

    name: str
    kind: str
    loss: float
    shift: Amount
    off: Amount
    structure: Amount


@described_open
class PlanReport(TypedDict, total=False):
    """The keys of the report that commands work with; see ``report_of`` in pipeline/precision/make_plan.py."""

    macs_share: Dict[FormatName, Amount]
    loss_db: float
    psnr_y: float
    psnr_y_float32: float
    pictures: Count
    mean_shift: Amount
    worst_shift: Amount
    worst_loss_db: float
    worst_picture: str
    largest_off_share: Amount
    largest_structure: Amount
    promised_worst_db: float
    promised_mean_db: float
    judged: List[PictureRecord]
    gave_up: Dict[str, str]
    lint: LintRecord
    legacy: str
    plan_sha256: Optional[Sha256]
    request: Dict[str, Any]


@described
class LayerTypes(TypedDict):
    """Node → type that TensorRT 8 must obey: with Q/DQ, and with the calibration cache."""

    explicit: Dict[str, str]
    implicit: Dict[str, str]


def read_plan_report(folder: Path) -> PlanReport:
    """The report beside a plan.

    Raises:
        BadDeployment: missing, or not as described.
    """
    return read_described(PlanReport, Path(folder) / REPORT_NAME, "precision report", "make it with --remake-plan",
                          BadDeployment)  # fmt: skip


def read_layer_types(path: Path) -> LayerTypes:
    """The list of types for TensorRT 8.

    Raises:
        BadDeployment: missing, or not as described.
    """
    return read_described(LayerTypes, path, "list of layer types", "make it with --remake-plan", BadDeployment)
