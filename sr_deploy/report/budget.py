"""Budgets: what a deployment may cost, by device and size, as a TOML file in engines/. An unknown key is an error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

from sr_deploy.core.contract import Size, parse_size
from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.core.toml import toml_reader


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


@dataclass(frozen=True)
class QualityFloors:
    """Bounds on the figures of ``srdeploy verify --json``; None where there is none.

    Attributes:
        min_psnr_y: mean PSNR-Y against HR, dB.
        min_ssim_y: mean SSIM-Y against HR.
        max_psnr_y_loss: mean PSNR-Y of the FP32 PyTorch network minus that of the deployment, both against HR, dB.
        max_difference: largest difference from the FP32 PyTorch network, in 8-bit steps.
    """

    min_psnr_y: Optional[float] = None
    min_ssim_y: Optional[float] = None
    max_psnr_y_loss: Optional[float] = None
    max_difference: Optional[float] = None


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
                f"{self.source} has no budget for {name!r}",
                "one of its devices: " + ", ".join(repr(entry.device) for entry in self.devices),
                f'add [devices."{name}".sizes.HxW] with max_median_ms to it, or gate on one of those devices',
            )
        return DeviceBudget(name, ())


def read_budget(path: Path) -> Budget:
    """Read a budget.

    Raises:
        BadInput: not a file, not TOML, an unknown key, a value of the wrong kind.
        MissingPackage: a Python before 3.11 without the package tomli.
    """
    try:
        raw = toml_reader().loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        found = f"cannot read the budget {path}: {error.strerror}"
        raise BadInput(found, "a file such as engines/example.toml") from error
    except ValueError as error:
        raise BadInput(f"{path} is not TOML: {error}", "a budget such as engines/example.toml") from error
    known = ("threshold_percent", "floor_us", "run_noise_percent", "quality", "devices")
    _only(raw, known, path, "")
    numbers = {key: _number(raw[key], path, key) for key in known[:3] if key in raw}
    floors = _table(raw.get("quality", {}), path, "quality")
    names = tuple(QualityFloors.__dataclass_fields__)
    _only(floors, names, path, "quality.")
    quality = QualityFloors(**{key: _number(value, path, f"quality.{key}") for key, value in floors.items()})
    devices = tuple(
        _device(name, _table(entry, path, f"devices.{name}"), path)
        for name, entry in _table(raw.get("devices", {}), path, "devices").items()
    )
    return Budget(quality=quality, devices=devices, source=str(path), **numbers)


def _device(name: str, entry: Dict[str, Any], path: Path) -> DeviceBudget:
    where = f"devices.{name}."
    _only(entry, ("sizes",), path, where)
    sizes = []
    for text, bounds in _table(entry.get("sizes", {}), path, where + "sizes").items():
        try:
            size = parse_size(text)
        except UsageError as error:
            raise BadInput(f"{path}: {where}sizes.{text} is not a size", error.wanted) from error
        inside = f"{where}sizes.{text}"
        _only(_table(bounds, path, inside), ("max_median_ms", "max_p99_ms"), path, inside + ".")
        numbers = {key: _number(value, path, f"{inside}.{key}") for key, value in bounds.items()}
        sizes.append(SizeBudget(size, **numbers))
    return DeviceBudget(name, tuple(sizes))


def _only(found: Dict[str, Any], known: Sequence[str], path: Path, where: str) -> None:
    unknown = sorted(set(found) - set(known))
    if unknown:
        wanted = "one of " + ", ".join(known)
        raise BadInput(f"{path} has the unknown key {where}{unknown[0]}", wanted, "correct its name")


def _table(value: Any, path: Path, name: str) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{path}: {name} is {value!r}", "a table")
    return value


def _number(value: Any, path: Path, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise BadInput(f"{path}: {name} is {value!r}", "a number that is not negative")
    return float(value)
