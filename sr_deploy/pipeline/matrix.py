"""Many sweeps as one: networks × precisions × runtimes × scopes × devices, each over all sizes, with resume.

The matrix is a TOML or JSON file:

    deployments = ["efdn", "span"]       # folders, relative to the file
    sizes = ["144", "360x640"]
    backends = ["onnxruntime", "tensorrt"]
    precisions = ["fp32", "fp16"]        # left out: fp32
    scopes = ["compute", "end-to-end"]   # left out: compute
    threads = [1, 2]                     # left out: the runtime's default
    devices = ["xavier-nx", "h200"]      # left out: this machine; needs Dask workers, see cluster.py
    seconds = 3.0                        # and iterations, ci_percent, max_seconds, runs: as for bench

Every combination of all but the sizes is a cell. A cell is one result file and one fresh process, so its memory is
free before the next and a crash costs its running point only.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

from sr_deploy.bench.lock import locked_device, locked_file
from sr_deploy.core.contract import parse_size
from sr_deploy.core.errors import BadInput, CheckFailed, SrDeployError, UsageError
from sr_deploy.core.temporary import sweep as clear_temporaries
from sr_deploy.core.toml import toml_reader
from sr_deploy.pipeline.bench import BenchRequest, options_of
from sr_deploy.pipeline.fresh import bench_in_fresh_process, request_from_dict, request_to_dict
from sr_deploy.pipeline.runner import check_backend

#: The lists of a matrix and what a missing one stands for.
LISTS: Tuple[Tuple[str, Tuple[Any, ...]], ...] = (
    ("backends", (None,)),
    ("precisions", (None,)),
    ("scopes", ("compute",)),
    ("threads", (None,)),
    ("devices", (None,)),
)
#: Values of a matrix that every cell shares, under the names of BenchRequest.
SHARED = ("seconds", "iterations", "ci_percent", "max_seconds", "runs", "timer", "cuda_graph", "wait")


@dataclass(frozen=True)
class Cell:
    """One sweep of a matrix.

    Attributes:
        label: for people and for the file name.
        request: what to measure and where to save it.
        device: the workers that may do it, by the name of a resource; None for any.
    """

    label: str
    request: BenchRequest
    device: Optional[str] = None


@dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    Attributes:
        label: of the cell.
        points, failed, invalid: how many points it has, how many of them failed or are invalid.
        error: why the cell has no result; None when it has.
    """

    label: str
    points: int = 0
    failed: int = 0
    invalid: int = 0
    error: Optional[str] = None


def read_matrix(file: Path, out: Path) -> Tuple[Cell, ...]:
    """The cells of a matrix file.

    Args:
        file: TOML or JSON.
        out: the folder of the results.

    Raises:
        BadInput: the file cannot be read.
        UsageError: an unknown or missing entry, or values that cannot be measured.
    """
    raw = _read(file)
    known = ("deployments", "sizes", *(name for name, _ in LISTS), *SHARED)
    unknown = sorted(set(raw) - set(known))
    if unknown:
        raise UsageError(f"{file} has the unknown entry {unknown[0]!r}", "one of " + ", ".join(known))
    for name in ("deployments", "sizes"):
        if not raw.get(name):
            raise UsageError(f"{file} names no {name}", f'{name} = ["…"]')
    for name, value in raw.items():
        _check_type(f"{name} of {file}", name, value)
    sizes = tuple(dict.fromkeys(parse_size(str(size)) for size in raw["sizes"]))
    shared = {name: raw[name] for name in SHARED if name in raw}
    axes = [raw.get(name, list(default)) for name, default in LISTS]
    cells: List[Cell] = []
    for folder, (backend, precision, scope, threads, device) in itertools.product(
        raw["deployments"], itertools.product(*axes)
    ):
        path = Path(os.path.abspath(str(Path(file).parent / folder)))
        words = (path.name, backend or "best", precision, scope, threads and f"{threads}threads", device)
        label = "_".join(str(word) for word in words if word)
        # Two folders of one name, in different places.
        twins = sum(cell.label.split("#")[0] == label for cell in cells)
        label += f"#{twins + 1}" if twins else ""
        check_backend(backend)
        request = BenchRequest(
            path,
            sizes,
            backend,
            scope,
            threads=threads,
            precision=precision,
            result_file=Path(out) / f"{label}.json",
            **shared,
        )
        options_of(request)
        cells.append(Cell(label, request, device))
    return tuple(cells)


def run_matrix(
    cells: Sequence[Cell],
    out: Path,
    resume: bool,
    say: Callable[[str], None],
    run: Optional[Callable[[Sequence[Cell]], Iterable[Outcome]]] = None,
) -> Tuple[Outcome, ...]:
    """Measure every cell; one that fails does not end the others.

    Args:
        cells: from ``read_matrix``.
        out: the folder of the results; with ``resume`` it may hold earlier ones, which go on where they stopped.
        resume: see ``out``.
        say: told how far it is.
        run: measures cells elsewhere and yields their outcomes as they come; None does it here, one after the other.

    Raises:
        UsageError: results are there and ``resume`` is False, or cells want other devices and ``run`` is None.
        EnvironmentFault: another process measures into this folder.
        CheckFailed: after all are done, when a cell has no result or a point failed or is invalid.
    """
    if run is None and any(cell.device for cell in cells):
        raise UsageError("the matrix names devices, and this machine is only one", "--dask ADDRESS", "see README.md")
    clear_temporaries(Path(out))
    present = [cell.request.result_file for cell in cells if cell.request.result_file.exists()]
    if present and not resume:
        raise UsageError(f"{present[0]} is there already", "an empty folder", "go on with --resume, or another -o")
    asked = [dataclasses.replace(cell, request=dataclasses.replace(cell.request, resume=True)) for cell in cells]
    outcomes: List[Outcome] = []
    with locked_file(Path(out) / "sweep"):
        for outcome in (run or _one_after_the_other)(asked):
            outcomes.append(outcome)
            text = outcome.error or f"{outcome.points} points, {outcome.failed} failed, {outcome.invalid} invalid"
            say(f"[{len(outcomes)}/{len(cells)}] {outcome.label}: {text}")
    bad = [outcome for outcome in outcomes if outcome.error or outcome.failed or outcome.invalid]
    if bad:
        raise CheckFailed(
            f"{len(bad)} of {len(cells)} sweeps are not complete: {', '.join(outcome.label for outcome in bad[:5])}",
            "a usable point for every size",
            f"the others are in {out}; try those again with --resume",
        )
    return tuple(outcomes)


def measure_cell(label: str, request: Dict[str, Any]) -> Dict[str, Any]:
    """Measure one cell in a fresh process, alone on its device; the JSON form of an Outcome. Raises nothing of ours.

    Everything goes in and out as JSON values, so that it can be sent to another machine.
    """
    asked = request_from_dict(request)
    try:
        # With a GPU for each worker, CUDA_VISIBLE_DEVICES says which one; workers of different GPUs do not wait.
        with locked_device("measure " + os.environ.get("CUDA_VISIBLE_DEVICES", "")):
            result = bench_in_fresh_process(asked)
    except SrDeployError as error:
        return dataclasses.asdict(Outcome(label, error=" ".join(error.found.split())))
    points = [point for point in (result.point_for(size) for size in asked.sizes) if point is not None]
    failed = sum(point.failure is not None for point in points)
    return dataclasses.asdict(
        Outcome(label, len(points), failed, sum(point.invalid is not None for point in points))
    )


def _check_type(what: str, name: str, value: Any) -> None:
    """Raise UsageError for a value of the wrong kind."""
    if name in SHARED:
        kinds_of_shared = {"cuda_graph": bool, "timer": str, "wait": str, "iterations": int, "runs": int}
        kind: Any = kinds_of_shared.get(name, (int, float))
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise UsageError(f"{what} is {value!r}", "a value as bench takes it")
        return
    kinds = {"threads": int, "sizes": (str, int)}.get(name, str)
    if not isinstance(value, list) or not value or not all(isinstance(entry, kinds) for entry in value):
        raise UsageError(f"{what} is {value!r}", "a list of " + ("numbers" if name == "threads" else "texts"))


def _one_after_the_other(cells: Sequence[Cell]) -> Iterable[Outcome]:
    for cell in cells:
        yield Outcome(**measure_cell(cell.label, request_to_dict(cell.request)))


def _read(file: Path) -> Dict[str, Any]:
    """The dictionary in a TOML or JSON file."""
    try:
        text = Path(file).read_text(encoding="utf-8")
        found = json.loads(text) if Path(file).suffix == ".json" else toml_reader().loads(text)
    except OSError as error:
        raise BadInput(f"cannot read the matrix {file}: {error.strerror}", "a TOML or JSON file") from error
    except ValueError as error:
        raise BadInput(f"{file} is not a matrix: {error}", "valid TOML, or JSON in a file .json") from error
    if not isinstance(found, dict):
        raise BadInput(f"{file} is not a matrix", 'deployments = ["…"] and sizes = ["…"]')
    return found
