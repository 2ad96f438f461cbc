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
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple, Union

from pydantic import Field
from typing_extensions import Annotated, Literal

from sr_deploy.bench.lock import locked_device, locked_file
from sr_deploy.core.contract import parse_size
from sr_deploy.core.errors import BadInput, CheckFailed, SrDeployError, UsageError
from sr_deploy.core.number_formats import EnginePrecision
from sr_deploy.core.schema import Edge, ShortText, SizeText, described, read_described, read_described_toml
from sr_deploy.core.temporary import sweep as clear_temporaries
from sr_deploy.core.text import counted
from sr_deploy.engine.runtimes import RuntimeName
from sr_deploy.pipeline.measure.bench import BenchRequest, options_of
from sr_deploy.pipeline.measure.subprocess_bench import bench_in_fresh_process, request_from_dict, request_to_dict

#: Values of a matrix that every cell shares, under the names of BenchRequest.
SHARED = ("seconds", "iterations", "ci_percent", "max_seconds", "runs", "timer", "cuda_graph", "wait")
#: Sweeps of one matrix at most.
MOST_CELLS = 10_000
_SOME = Field(min_length=1, max_length=1000)
#: A device names a resource of the workers, and is a part of the result's file name.
_Device = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f/\\]+$", max_length=100)]
_Often = Annotated[int, Field(ge=1, le=10**7)]


@described
@dataclass(frozen=True)
class Matrix:
    """What stands in a matrix file, see the module; None leaves a value to bench, where the rest is explained.

    Attributes:
        deployments: folders, relative to the file.
        backends, precisions, scopes: every combination is measured; null: bench's own choice.
        devices: the workers that may measure, by the name of a resource; null: any.
    """

    deployments: Annotated[Tuple[ShortText, ...], _SOME]
    sizes: Annotated[Tuple[Union[SizeText, Edge], ...], _SOME]
    backends: Annotated[Tuple[Optional[RuntimeName], ...], _SOME] = (None,)
    precisions: Annotated[Tuple[Optional[EnginePrecision], ...], _SOME] = (None,)
    scopes: Annotated[Tuple[Literal["compute", "enqueue", "end-to-end"], ...], _SOME] = ("compute",)
    threads: Annotated[Tuple[Optional[Annotated[int, Field(ge=1, le=4096)]], ...], _SOME] = (None,)
    devices: Annotated[Tuple[Optional[_Device], ...], _SOME] = (None,)
    seconds: Optional[Annotated[float, Field(ge=0.0, le=1e6)]] = None
    iterations: Optional[_Often] = None
    ci_percent: Optional[Annotated[float, Field(gt=0.0, lt=100.0)]] = None
    max_seconds: Optional[Annotated[float, Field(gt=0.0, le=1e7)]] = None
    runs: Optional[_Often] = None
    timer: Optional[Literal["auto", "host", "events"]] = None
    cuda_graph: Optional[bool] = None
    wait: Optional[Literal["auto", "spin", "block"]] = None

    def __post_init__(self) -> None:
        """Refuse more cells than anybody measures.

        Raises:
            ValueError: naming the keys.
        """
        axes = (self.deployments, self.backends, self.precisions, self.scopes, self.threads, self.devices)
        if math.prod(map(len, axes)) > MOST_CELLS:
            raise ValueError(f"deployments, backends, precisions, … are more than {MOST_CELLS} combinations")


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
        BadInput: the file cannot be read, is not as described, or asks for what cannot be measured.
    """
    read = read_described if Path(file).suffix == ".json" else read_described_toml
    matrix = read(Matrix, file, "matrix", 'it begins with deployments = ["…"] and sizes = ["…"]')
    sizes = tuple(dict.fromkeys(parse_size(str(size)) for size in matrix.sizes))
    shared = {name: getattr(matrix, name) for name in SHARED if getattr(matrix, name) is not None}
    cells: List[Cell] = []
    axes = itertools.product(matrix.backends, matrix.precisions, matrix.scopes, matrix.threads, matrix.devices)
    for folder, (backend, precision, scope, threads, device) in itertools.product(matrix.deployments, list(axes)):
        path = Path(os.path.abspath(str(Path(file).parent / folder)))
        words = (path.name, backend or "best", precision, scope, threads and f"{threads}threads", device)
        label = "_".join(str(word) for word in words if word)
        # Two folders of one name, in different places.
        twins = sum(cell.label.split("#")[0] == label for cell in cells)
        label += f"#{twins + 1}" if twins else ""
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
        try:
            options_of(request)
        except UsageError as error:
            raise BadInput(
                f"{file} asks for what cannot be measured: {error.found}", error.wanted, "mend the matrix"
            ) from error
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
    files = [cell.request.result_file for cell in cells]
    present = [file for file in files if file is not None and file.exists()]
    if present and not resume:
        raise UsageError(f"{present[0]} is there already", "an empty folder", "go on with --resume, or another -o")
    asked = [dataclasses.replace(cell, request=dataclasses.replace(cell.request, resume=True)) for cell in cells]
    outcomes: List[Outcome] = []
    with locked_file(Path(out) / "sweep"):
        for outcome in (run or _one_after_the_other)(asked):
            outcomes.append(outcome)
            text = (
                outcome.error
                or f"{counted(outcome.points, 'point')}, {outcome.failed} failed, {outcome.invalid} invalid"
            )
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
    return dataclasses.asdict(Outcome(label, len(points), failed, sum(point.invalid is not None for point in points)))


def _one_after_the_other(cells: Sequence[Cell]) -> Iterable[Outcome]:
    for cell in cells:
        yield Outcome(**measure_cell(cell.label, request_to_dict(cell.request)))
