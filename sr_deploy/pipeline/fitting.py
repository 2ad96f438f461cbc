"""Which engines of a deployment fit a size on this machine, and why the others do not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Optional, Tuple

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.errors import BadDeployment, BadInput
from sr_deploy.core.number_formats import AUTO, ENGINE_PRECISIONS
from sr_deploy.engine.runtimes import GRAPH_RUNTIME, rank

if TYPE_CHECKING:
    from sr_deploy.pipeline.runner import Resolved


def fitting_engine(resolved: Resolved, size: Size) -> Optional[Path]:
    """The engine in the deployment that this machine should run at ``size``, of what is asked for; None without one.

    TensorRT comes before ONNX Runtime, and an engine of exactly this size before a dynamic one.
    """
    return best_engine(resolved, size, resolved.runs_in)[0]


def best_engine(
    resolved: Resolved, size: Size, precision: str, prove_all: bool = False
) -> Tuple[Optional[Path], List[str]]:
    """The engine to run, and of those that do not fit, which and why.

    By their manifests first: only the file that is to be used is read, and the next one where it is not what it says.
    With ``prove_all`` every one that was asked for is read: of a damaged one that says more than its size.
    Engines of another precision or backend were not asked for, so nothing is said of them.
    """
    index = resolved.index
    fitting: List[Tuple[int, bool, Path]] = []
    refused: Dict[Path, str] = {}
    best: Optional[Path] = None
    for path in index.paths:
        try:
            manifest = index.stated(path)
            if manifest.precision != precision or resolved.backend not in (None, manifest.backend):
                continue
            if prove_all:
                index.proved(path)
            index.check_fits(manifest)
        except BadInput as error:
            refused[path] = _refusal(path, error)
            continue
        if not manifest.takes(size):
            refused[path] = f"{path.name} takes {manifest.allowed_sizes()}"
            continue
        exact = manifest.profile is not None and manifest.profile[0] == manifest.profile[2]
        fitting.append((rank(manifest.backend), not exact, path))
    for _, _, path in sorted(fitting):
        try:
            index.proved(path)
        except BadInput as error:
            refused[path] = _refusal(path, error)
            continue
        best = path
        break
    return best, [refused[path] for path in index.paths if path in refused]


def _refusal(path: Path, error: BadInput) -> str:
    """Why an engine is not used, on one line."""
    lines = [line.strip() for line in error.found.replace(f"{path.parent}{os.sep}", "").splitlines()]
    # Of an engine that is not what it was, the difference from what was wanted says more.
    told = "; ".join(lines[1:] or lines)
    return told if told.startswith(path.name) else f"{path.name}: {told}"


def no_engine(resolved: Resolved, size: Size) -> BadDeployment:
    """The error for an engine that was asked for and is not there, naming what is there instead."""
    folder, backend, precision = resolved.deployment.folder, resolved.backend, resolved.runs_in
    others = [name for name in ENGINE_PRECISIONS if name != precision and _runs(resolved, size, name)]
    _, refused = best_engine(resolved, size, precision, prove_all=True)
    asked = {AUTO: "auto --psnr-budget 0.1"}.get(precision, precision)
    build = f"srdeploy build {folder}"
    if backend is not None:
        build += f" --backend {backend} --size {format_size(size)}"
    return BadDeployment(
        f"{folder} has no {precision} {backend + ' ' if backend else ''}engine for {format_size(size)} that fits this "
        f"machine, and {precision} is {resolved.because}"
        + (f"; what runs is {', '.join(others)}" if others else "")
        + "".join(refusal_lines(refused)),
        "an engine built for this machine and this size" + (f", or --precision {others[0]}" if others else ""),
        build if precision == "fp32" else f"{build} --precision {asked}",
    )


def _runs(resolved: Resolved, size: Size, precision: str) -> bool:
    """Whether anything of that precision runs at ``size`` on this machine: an engine, or the graph itself."""
    graph_runs = precision == "fp32" and resolved.backend in (None, GRAPH_RUNTIME)
    return graph_runs or best_engine(resolved, size, precision)[0] is not None


def refusal_lines(refused: List[str]) -> List[str]:
    """Refused engines, each on a line of its own below the sentence before."""
    return [f"\n  not used: {text}" for text in refused]
