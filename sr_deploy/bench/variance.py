"""How much of a latency's spread comes from runs, from processes, from builds of the engine. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

from sr_deploy.bench.interval import batch_medians
from sr_deploy.bench.result import Point, VarianceRecord
from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.errors import UsageError

#: A process's samples are cut into so many equal parts in the order taken; the median of each is one run.
RUNS = 10


@dataclass(frozen=True)
class VarianceTable:
    """The components of variance of one size.

    Attributes:
        size: input (height, width).
        scope: see SCOPES of options.py.
        median_s: the median of the processes' medians.
        builds, processes, runs: how many builds, processes of each build, and runs of each process went in.
        run_s, process_s, build_s: standard deviation from run to run, process to process and build to build, seconds;
            None where there was only one. A component whose estimate is negative is given as 0.
        process_medians_s: every process's median, build after build.
        left_out: processes that failed or are invalid, with the reason; they are in no figure.
    """

    size: Size
    scope: str
    median_s: float
    builds: int
    processes: int
    runs: int
    run_s: float
    process_s: Optional[float]
    build_s: Optional[float]
    process_medians_s: Tuple[float, ...]
    left_out: Tuple[str, ...] = ()

    def record(self) -> VarianceRecord:
        """The same for a result file."""
        return VarianceRecord(
            size=self.size,
            scope=self.scope,
            median_s=self.median_s,
            builds=self.builds,
            processes=self.processes,
            runs=self.runs,
            run_s=self.run_s,
            process_s=self.process_s,
            build_s=self.build_s,
            process_medians_s=self.process_medians_s,
            left_out=self.left_out,
        )


def nested_variance(runs: Sequence[Sequence[Sequence[float]]]) -> Tuple[float, Optional[float], Optional[float]]:
    """The variance components of a balanced nested design: (runs, processes, builds).

    The model is y(b, p, r) = μ + build(b) + process(b, p) + run(b, p, r), all three random. The estimates come from
    the analysis of variance (Searle, Casella and McCulloch, Variance Components, Wiley 1992, chapter 3): with R runs
    in each of P processes of each build, σ²(run) = MS(run), σ²(process) = (MS(process) − MS(run)) / R and
    σ²(build) = (MS(build) − MS(process)) / (P·R). A negative estimate means "too small to be seen" and is given as 0.

    Args:
        runs: builds, of processes, of values; every process has as many runs, every build as many processes.

    Returns:
        Variances in the square of the unit. The second is None with one process a build, the third with one build.

    Raises:
        UsageError: fewer than two runs, or unequal counts.
    """
    builds, processes, count = len(runs), len(runs[0]), len(runs[0][0])
    if count < 2 or any(len(build) != processes or any(len(p) != count for p in build) for build in runs):
        raise UsageError(
            f"{builds} builds of {processes} processes with {count} runs are not a balanced design",
            "two runs at least, equal counts",
        )
    process_means = [[statistics.fmean(process) for process in build] for build in runs]
    build_means = [statistics.fmean(means) for means in process_means]
    mean = statistics.fmean(build_means)
    within = sum(
        (value - process_means[b][p]) ** 2
        for b, build in enumerate(runs)
        for p, process in enumerate(build)
        for value in process
    ) / (builds * processes * (count - 1))
    between_processes = between_builds = None
    if processes > 1:
        spread = sum((m - build_means[b]) ** 2 for b, means in enumerate(process_means) for m in means)
        mean_square = count * spread / (builds * (processes - 1))
        between_processes = max(0.0, (mean_square - within) / count)
    if builds > 1:
        upper = processes * count * sum((m - mean) ** 2 for m in build_means) / (builds - 1)
        lower = mean_square if processes > 1 else within
        between_builds = max(0.0, (upper - lower) / (processes * count))
    return within, between_processes, between_builds


def variance_table(points: Sequence[Sequence[Point]]) -> Optional[VarianceTable]:
    """The table of one size.

    Invalid and failed processes are left out and named. To keep the design balanced, each build gives as many
    processes as the one with the fewest usable ones.

    Args:
        points: builds, of the points that each process measured at this size.

    Returns:
        None when no build has a usable process with samples enough for two runs.
    """
    left_out = tuple(
        f"build {b + 1} process {p + 1}: {point.failure or point.invalid}"
        for b, build in enumerate(points)
        for p, point in enumerate(build)
        if not point.usable
    )
    usable = [[point for point in build if point.usable] for build in points]
    usable = [build for build in usable if build]
    if not usable:
        return None
    fewest = min(len(build) for build in usable)
    balanced = [build[:fewest] for build in usable]
    count = min(RUNS, *(len(point.samples_s) for build in balanced for point in build))
    if count < 2:
        return None
    runs = [[batch_medians(point.samples_s, count) for point in build] for build in balanced]
    medians: List[float] = [point.median_s or 0.0 for build in balanced for point in build]
    run, process, build = nested_variance(runs)
    return VarianceTable(
        size=balanced[0][0].size,
        scope=balanced[0][0].scope,
        median_s=statistics.median(medians),
        builds=len(balanced),
        processes=fewest,
        runs=count,
        run_s=math.sqrt(run),
        process_s=None if process is None else math.sqrt(process),
        build_s=None if build is None else math.sqrt(build),
        process_medians_s=tuple(medians),
        left_out=left_out,
    )


def typical_point(points: Sequence[Point]) -> Point:
    """The usable point whose median is in the middle (the lower one of two); the first where none is usable."""
    usable = sorted((point for point in points if point.usable), key=lambda point: point.median_s or 0.0)
    return usable[(len(usable) - 1) // 2] if usable else points[0]


def variance_lines(tables: Sequence[VarianceTable]) -> List[str]:
    """The tables as lines for people, standard deviations in microseconds and in percent of the median."""
    lines = [f"{'input':>11}{'median ms':>12}{'run to run':>20}{'process to process':>22}{'build to build':>20}"]
    for table in tables:
        cells = [_cell(value, table.median_s) for value in (table.run_s, table.process_s, table.build_s)]
        lines.append(
            f"{format_size(table.size):>11}{table.median_s * 1e3:>12.3f}{cells[0]:>20}{cells[1]:>22}{cells[2]:>20}"
        )
        lines += [f"{'':>11}  left out: {reason}" for reason in table.left_out]
    return lines


def _cell(deviation: Optional[float], median: float) -> str:
    return "–" if deviation is None else f"{deviation * 1e6:.1f} µs ({100 * deviation / median:.2f} %)"
