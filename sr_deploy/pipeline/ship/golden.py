"""Is an engine of this machine right? It is held against the golden pictures that came with the bundle."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from sr_deploy.bundle.golden import Golden, read_goldens
from sr_deploy.core.contract import format_size
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.errors import BadDeployment, BadInput, CheckFailed
from sr_deploy.core.number_formats import LOSSY
from sr_deploy.core.tolerance import GRAPH_FP32, rms_difference
from sr_deploy.engine.index import EngineIndex
from sr_deploy.engine.runtimes import GRAPH_RUNTIME
from sr_deploy.pipeline.runner import Resolved, check_backend, check_precision, runner_for
from sr_deploy.run.base import upscale
from sr_deploy.run.parity import difference_of


@dataclass(frozen=True)
class GoldenOptions:
    """What ``srdeploy verify --golden`` is asked for.

    Attributes:
        deployment: a folder that was unpacked from a bundle.
        backend: only engines of this one; None for all.
        engine: only this engine.
        tolerance: 8-bit steps that an engine may differ; None: the bound of its precision, see core/tolerance.py.
        precision: only engines of this one; None for all.
    """

    deployment: Path
    backend: Optional[str] = None
    engine: Optional[Path] = None
    tolerance: Optional[float] = None
    precision: Optional[str] = None


@dataclass(frozen=True)
class GoldenRow:
    """One engine at one size: what ran, its precision, the difference and its bound in 8-bit steps.

    ``measure`` says of what: the largest difference for float32, the root-mean-square for a lower precision, where
    rounding moves single pixels far. A lower precision is compared with what its plan's graph gives, where the bundle
    has that (``pack --precision``), else with float32.
    """

    what: str
    size: str
    precision: str
    difference: float
    tolerance: float
    measure: str = "largest difference"


@dataclass(frozen=True)
class GoldenReport:
    """All that was held against golden pictures, and what could not be: why, by engine file."""

    rows: Tuple[GoldenRow, ...]
    unchecked: Dict[str, str]

    def to_dict(self) -> Dict[str, Any]:
        """Plain values for JSON."""
        rows = [dataclasses.asdict(row) for row in self.rows]
        for row in rows:
            # JSON has no infinity; it stands for a result with NaN or infinite values.
            row["difference"] = row["difference"] if row["difference"] < float("inf") else None
        return {"schema": 1, "golden": rows, "unchecked": self.unchecked}

    def raise_on_failure(self) -> None:
        """Raise CheckFailed when an engine differs by more than its bound."""
        for row in self.rows:
            if not row.difference <= row.tolerance:
                raise CheckFailed(
                    f"{row.what} differs from the golden picture at {row.size} by {row.difference:.4g} of 255 "
                    f"({row.measure})",
                    f"at most {row.tolerance:g} ({row.precision})",
                    "build the engine again with --force; if it stays, do not use it on this machine",
                )


def check_goldens(options: GoldenOptions, say: Callable[[str], None] = lambda _: None) -> GoldenReport:
    """Run every engine of a deployment that this machine can run on the golden pictures of its sizes.

    Without engines ONNX Runtime runs the graph.

    Raises:
        BadDeployment: it has no golden pictures, or none fits the engines.
        ForeignEngine: the engine that was named belongs to another machine.
    """
    deployment = open_deployment(options.deployment)
    check_backend(options.backend)
    check_precision(options.precision)
    # No default: without a precision every engine is checked.
    asked = Resolved(EngineIndex(deployment), options.backend, options.engine, options.precision)
    goldens = read_goldens(deployment.folder, deployment.manifest.contract, deployment.manifest.scale)
    if not goldens:
        raise BadDeployment(
            f"{deployment.folder} has no golden pictures",
            "a folder that was unpacked from a bundle",
            f"srdeploy pack {deployment.folder} -o net.srd, then srdeploy unpack net.srd -o FOLDER",
        )
    engines, unchecked = _engines(asked)
    rows: List[GoldenRow] = []
    for engine in engines:
        fitting = [golden for golden in goldens if engine is None or asked.index.proved(engine).takes(golden.size)]
        if not fitting and engine is not None:
            unchecked[engine.name] = "no golden picture of its sizes; srdeploy pack --golden-size HxW adds one"
        rows += [_row(asked, options.tolerance, engine, golden) for golden in fitting]
        for row in rows[len(rows) - len(fitting) :]:
            say(f"{row.what} at {row.size}: {row.measure} {row.difference:.5f} of 255")
    for name, why in unchecked.items():
        say(f"{name} not checked: {why}")
    if not rows:
        raise BadDeployment(
            f"no engine of {deployment.folder} could be checked: " + "; ".join(unchecked.values()),
            "an engine for the size of a golden picture: " + ", ".join(format_size(g.size) for g in goldens),
            f"srdeploy build {deployment.folder} --size {format_size(goldens[-1].size)}",
        )
    return GoldenReport(tuple(rows), unchecked)


def _engines(asked: Resolved) -> Tuple[List[Optional[Path]], Dict[str, str]]:
    """What to check: engine files, or None for the graph in ONNX Runtime; and what this machine cannot run."""
    if asked.engine is not None:
        return [asked.engine], {}
    found: List[Optional[Path]] = []
    refused: Dict[str, str] = {}
    for path in asked.index.paths:
        try:
            manifest = asked.index.stated(path)
            if asked.backend in (None, manifest.backend) and asked.precision in (None, manifest.precision):
                asked.index.check_fits(asked.index.proved(path))
                found.append(path)
        except BadInput as error:
            refused[path.name] = "; ".join(line.strip() for line in error.found.splitlines())
    if not found and not refused and asked.backend in (None, GRAPH_RUNTIME) and asked.precision in (None, "fp32"):
        found = [None]
    if not found and not refused:
        refused["engines"] = f"there is none of {' '.join(filter(None, (asked.precision, asked.backend)))}"
    return found, refused


def _row(asked: Resolved, tolerance: Optional[float], engine: Optional[Path], golden: Golden) -> GoldenRow:
    """One engine, or the graph in ONNX Runtime, on one golden picture."""
    backend = asked.backend if engine is not None else GRAPH_RUNTIME
    resolved = dataclasses.replace(asked, backend=backend, engine=engine, precision=None)
    precision = resolved.runs_in
    lossy = LOSSY.get(precision)
    bound = GRAPH_FP32.steps if lossy is None else lossy.rms_steps
    chosen = runner_for(resolved, golden.size)
    try:
        result = upscale(chosen.runner, golden.lr)
    finally:
        chosen.runner.close()
    white = asked.deployment.manifest.contract.value_range
    if lossy is None:
        difference = difference_of(result, golden.sr, white)
    else:
        # The name of the precision plan that the engine was built from; "" where none is known.
        plan = "" if engine is None else asked.index.proved(engine).settings.get("plan", "")
        difference = rms_difference(result, golden.planned.get(plan, golden.sr), white)
    what = engine.name if engine is not None else f"onnxruntime on {chosen.runner.device}"
    tolerance = bound if tolerance is None else tolerance
    measure = "largest difference" if lossy is None else "root-mean-square difference"
    return GoldenRow(what, format_size(golden.size), precision, difference, tolerance, measure)
