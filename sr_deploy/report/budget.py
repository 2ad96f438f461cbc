"""Budgets: what a deployment may cost, by device and size, as a TOML file in engines/. An unknown key is an error."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Optional, Tuple

from sr_deploy.core.contract import Size, parse_size
from sr_deploy.core.errors import BadInput
from sr_deploy.core.quality.metrics import METRICS
from sr_deploy.core.schema import Amount, SizeText, described, read_described_toml, with_fields
from sr_deploy.core.text import plain


@dataclass(frozen=True)
class SizeBudget:
    """Bounds for one input (height, width), milliseconds; None where there is none."""

    size: Size
    max_median_ms: Optional[float] = None
    max_p99_ms: Optional[float] = None


@dataclass(frozen=True)
class DeviceBudget:
    """The bounds on one device, by the name that results carry."""

    device: str
    sizes: Tuple[SizeBudget, ...]


@described
@dataclass(frozen=True)
@with_fields(
    {
        **{metric.bound_key: metric.value_type for metric in METRICS},
        **{metric.loss_key: Amount for metric in METRICS if metric.against_torch},
        **{metric.worst_loss_key: Amount for metric in METRICS if metric.against_torch},
    }
)
class QualityFloors:
    """Bounds on the figures of ``srdeploy verify --json``; None where there is none.

    Of each metric its ``bound_key``, such as ``min_psnr_y``, bounds the mean, and where PyTorch's own figure is taken
    ``loss_key``, such as ``max_psnr_y_loss``, bounds by how much the mean of the deployment is worse than that of the
    FP32 PyTorch network, and ``worst_loss_key``, such as ``max_worst_psnr_y_loss``, by how much any picture's is.

    Attributes:
        max_difference: largest difference from the FP32 PyTorch network, in 8-bit steps.
        max_structure: by how much any 8x8 patch may be further from the original than the FP32 PyTorch network's, in
            8-bit steps.
    """

    max_difference: Optional[Amount] = None
    max_structure: Optional[Amount] = None


@dataclass(frozen=True)
class Budget:
    """What the gate holds a candidate against.

    Attributes:
        threshold_percent: slower than the baseline by more than this, and…
        floor_us: …by more than so many microseconds, is a regression.
        run_noise_percent: standard deviation from run to run, for results of one run each. Ten percent by default: a
            shared machine whose noise nobody measured. ``srdeploy bench --processes 5`` measures it.
        quality: floors, judged with a quality report.
        devices: absolute bounds; empty when there are none.
        source: the file, for messages.
    """

    threshold_percent: float = 3.0
    floor_us: float = 20.0
    run_noise_percent: float = 10.0
    quality: QualityFloors = QualityFloors()
    devices: Tuple[DeviceBudget, ...] = ()
    source: str = "the default budget"

    @property
    def has_floors(self) -> bool:
        """Whether there is any bound on quality."""
        return self.quality != QualityFloors()

    def for_device(self, name: str) -> DeviceBudget:
        """The bounds on a device; without any bounds at all, none.

        Raises:
            BadInput: there are bounds, and none for this device.
        """
        for entry in self.devices:
            if entry.device == name:
                return entry
        if self.devices:
            raise BadInput(
                f"{plain(self.source)} has no budget for {name!r}",
                "one of its devices: " + ", ".join(repr(entry.device) for entry in self.devices),
                f'add [devices."{name}".sizes.HxW] with max_median_ms to it, or gate on one of those devices',
            )
        return DeviceBudget(name, ())


@described
@dataclass(frozen=True)
class _Bounds:
    """The table of one size in the file."""

    max_median_ms: Optional[Amount] = None
    max_p99_ms: Optional[Amount] = None


@described
@dataclass(frozen=True)
class _Device:
    """The table of one device in the file.

    Attributes:
        sizes: bounds by the input's HxW.
    """

    sizes: Dict[SizeText, _Bounds] = field(default_factory=dict)


@described
@dataclass(frozen=True)
class BudgetFile:
    """What stands in a budget file; see ``Budget`` for the meaning of each key."""

    threshold_percent: Amount = 3.0
    floor_us: Amount = 20.0
    run_noise_percent: Amount = 10.0
    quality: QualityFloors = QualityFloors()
    devices: Dict[str, _Device] = field(default_factory=dict)


def read_budget(path: Path) -> Budget:
    """Read a budget.

    Raises:
        BadInput: not a file, not TOML, or not as described.
        MissingPackage: a Python before 3.11 without the package tomli.
    """
    read = read_described_toml(BudgetFile, path, "budget", "compare it with engines/example.toml")
    devices = tuple(
        DeviceBudget(
            name,
            tuple(
                SizeBudget(parse_size(text), bounds.max_median_ms, bounds.max_p99_ms)
                for text, bounds in device.sizes.items()
            ),
        )
        for name, device in read.devices.items()
    )
    return Budget(read.threshold_percent, read.floor_us, read.run_noise_percent, read.quality, devices, str(path))
