"""Is an engine of this machine right? It is held against the golden pictures that came with the bundle."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from sr_deploy.bundle.golden import Golden, read_goldens
from sr_deploy.core.contract import format_size
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.errors import BadDeployment, BadInput, CheckFailed
from sr_deploy.core.number_formats import LOSSY
from sr_deploy.core.tolerance import GRAPH_FP32, rms_difference
from sr_deploy.pipeline.runner import check_backend, check_precision, engine_files, precision_of, runner_for
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
    check_backend(options.backend)
    check_precision(options.precision)
    deployment = open_deployment(options.deployment)
    goldens = read_goldens(deployment.folder, deployment.manifest.contract, deployment.manifest.scale)
    if not goldens:
        raise BadDeployment(
            f"{deployment.folder} has no golden pictures",
            "a folder that was unpacked from a bundle",
            f"srdeploy pack {deployment.folder} -o net.srd, then srdeploy unpack net.srd -o FOLDER",
        )
    engines, unchecked = _engines(deployment, options)
    rows: List[GoldenRow] = []
    for engine in engines:
        fitting = [golden for golden in goldens if engine is None or _takes(engine, golden)]
        if not fitting and engine is not None:
            unchecked[engine.name] = "no golden picture of its sizes; srdeploy pack --golden-size HxW adds one"
        rows += [_row(deployment, options, engine, golden) for golden in fitting]
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


def _engines(deployment: Deployment, options: GoldenOptions) -> Tuple[List[Optional[Path]], Dict[str, str]]:
    """What to check: engine files, or None for the graph in ONNX Runtime; and what this machine cannot run."""
    from sr_deploy.engine.fits import check_engine, host_facts
    from sr_deploy.engine.manifest import open_engine

    if options.engine is not None:
        return [options.engine], {}
    found: List[Optional[Path]] = []
    refused: Dict[str, str] = {}
    hashes = tuple(graph.sha256 for graph in deployment.manifest.graphs)
    for path in engine_files(deployment):
        try:
            manifest = open_engine(path)
            if options.backend in (None, manifest.backend) and options.precision in (None, manifest.precision):
                check_engine(manifest, host_facts(manifest.backend), hashes, ends=deployment.ends)
                found.append(path)
        except BadInput as error:
            refused[path.name] = "; ".join(line.strip() for line in error.found.splitlines())
    if not found and not refused and options.backend in (None, "onnxruntime") and options.precision in (None, "fp32"):
        found = [None]
    if not found and not refused:
        refused["engines"] = f"there is none of {' '.join(filter(None, (options.precision, options.backend)))}"
    return found, refused


def _takes(engine: Path, golden: Golden) -> bool:
    from sr_deploy.engine.manifest import open_engine

    return open_engine(engine).takes(golden.size)


def _plan_of(engine: Optional[Path]) -> str:
    """Name of the precision plan that an engine was built from; "" where none is known."""
    from sr_deploy.engine.manifest import open_engine

    return "" if engine is None else open_engine(engine).settings.get("plan", "")


def _row(deployment: Deployment, options: GoldenOptions, engine: Optional[Path], golden: Golden) -> GoldenRow:
    precision = precision_of(engine, None)
    lossy = LOSSY.get(precision)
    bound = GRAPH_FP32.steps if lossy is None else lossy.rms_steps
    backend = options.backend if engine is not None else "onnxruntime"
    chosen = runner_for(deployment, golden.size, backend, engine)
    try:
        result = upscale(chosen.runner, golden.lr)
    finally:
        chosen.runner.close()
    white = deployment.manifest.contract.value_range
    if lossy is None:
        difference = difference_of(result, golden.sr, white)
    else:
        difference = rms_difference(result, golden.planned.get(_plan_of(engine), golden.sr), white)
    what = engine.name if engine is not None else f"onnxruntime on {chosen.runner.device}"
    tolerance = bound if options.tolerance is None else options.tolerance
    measure = "largest difference" if lossy is None else "root-mean-square difference"
    return GoldenRow(what, format_size(golden.size), precision, difference, tolerance, measure)
