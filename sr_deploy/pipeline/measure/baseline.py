"""A device's baselines: results that were looked at and committed, one file a deployment, runtime, precision, scope."""

from __future__ import annotations

import re
from pathlib import Path
from typing import List, Optional, Tuple

from sr_deploy.bench.compare import fewest_for
from sr_deploy.bench.result import Result, load_result, save_result
from sr_deploy.core.confine import confined
from sr_deploy.core.contract import format_size
from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.report.gate import CONFIDENCE, differences, process_medians


def update_baseline(candidate: Result, baselines: Path, named: Optional[Path] = None) -> Tuple[Path, List[str]]:
    """Make a candidate the baseline of its device: (file written, the difference as lines).

    Args:
        candidate: every point must be usable.
        baselines: the folder, ``engines/baselines``; the file is ``<device>/<deployment>_….json`` below it.
        named: the file that the user named as the baseline; it must be that one.

    Raises:
        UsageError: another file was named.
        BadInput: a point failed or is invalid, it is of too few processes to compare with, or the file there is not a
            result.
        DiskFull, EnvironmentFault: it cannot be written.
    """
    bad = [point for point in candidate.points if not point.usable]
    if bad or not candidate.points:
        why = f"{format_size(bad[0].size)}: {bad[0].failure or bad[0].invalid}" if bad else "it has no point"
        raise BadInput(f"this result cannot be a baseline: {why}", "valid points only", "measure it again")
    _check_count(candidate)
    target = _place(candidate, baselines)
    if named is not None and Path(named).resolve() != target.resolve():
        raise UsageError(
            f"{named} is not where this result's baseline lies",
            f"{target}, which follows from its device, network, runtime, precision and scope",
            "name no baseline: srdeploy gate CANDIDATE --update-baseline",
        )
    old = load_result(target) if target.exists() else None
    lines = baseline_changes(old, candidate)
    save_result(target, candidate)
    return target, lines


def baseline_for(candidate: Result, baselines: Path) -> Path:
    """The committed baseline of a candidate's device, network, runtime, precision and scope.

    Raises:
        BadInput: there is none; the message says how one is made.
    """
    path = _place(candidate, baselines)
    if not path.is_file():
        raise BadInput(
            f"{baselines} has no baseline for this result: no {path.relative_to(baselines)}",
            "one that was made on this device, looked at and committed",
            "srdeploy gate CANDIDATE --update-baseline",
        )
    return path


def _place(candidate: Result, baselines: Path) -> Path:
    """Where the baseline of a candidate lies."""
    if not candidate.points:
        raise BadInput("this result has no point", "a measured size", "measure it again")
    folder = Path(baselines) / device_folder(candidate.points[0].device)
    return confined(folder, baseline_name(candidate), "the result's keys deployment, runtime, precision and scope")


def _check_count(candidate: Result) -> None:
    """Refuse a result of several processes that are too few for any comparison."""
    fewest = fewest_for(CONFIDENCE)
    for point in candidate.points:
        count = len(process_medians(candidate, point.size))
        if 0 < count < fewest:
            raise BadInput(
                f"{format_size(point.size)} was measured {count} times apart, too few to compare with",
                f"{fewest} processes or more",
                f"srdeploy bench … --processes {fewest}",
            )


def baseline_name(result: Result) -> str:
    """``<deployment>_<runtime>_<precision>_<scope>.json``: what may be compared has one name."""
    point = result.points[0]
    precision = point.description.get("precision") or "fp32"
    return f"{result.deployment}_{point.runtime}_{precision}_{point.scope}.json"


def baseline_changes(old: Optional[Result], new: Result) -> List[str]:
    """What a new baseline changes, one line a size or a fact of the environment."""
    if old is None:
        return [f"+ {format_size(p.size)}: median {1e3 * (p.median_s or 0):.3f} ms" for p in new.points]
    lines = [f"! {text}" for text in differences(old, new)]
    for point in old.points:
        if new.point_for(point.size) is None:
            lines.append(f"- {format_size(point.size)}: median {1e3 * (point.median_s or 0):.3f} ms")
    for point in new.points:
        before = old.point_for(point.size)
        if before is None or not before.median_s or not point.median_s:
            lines.append(f"+ {format_size(point.size)}: median {1e3 * (point.median_s or 0):.3f} ms")
        else:
            change = 100 * (point.median_s / before.median_s - 1)
            lines.append(
                f"~ {format_size(point.size)}: median {1e3 * before.median_s:.3f} → {1e3 * point.median_s:.3f} ms "
                f"({change:+.2f} %)"
            )
    return lines


def device_folder(device: str) -> str:
    """A device's name as a folder: "NVIDIA H200" gives "nvidia-h200"."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") or "unknown"
