"""A matrix on several machines, through Dask: see pipeline/dask_jobs.py for how workers are started.

The worker writes each point where the results are, as it exists, so a job that is begun again goes on from there.
"""

from __future__ import annotations

from typing import Callable, Iterable, Sequence

from sr_deploy.pipeline.dask_jobs import Failed, Job, on_dask
from sr_deploy.pipeline.measure.matrix import Cell, Outcome, measure_cell
from sr_deploy.pipeline.measure.subprocess_bench import request_to_dict


def run_on_dask(address: str, say: Callable[[str], None]) -> Callable[[Sequence[Cell]], Iterable[Outcome]]:
    """What ``run_matrix`` takes as ``run``.

    Args:
        address: of the scheduler, such as "tcp://host:8786".
        say: told which workers there are.

    Raises:
        MissingPackage, EnvironmentFault: see ``on_dask``.
    """

    def run(cells: Sequence[Cell]) -> Iterable[Outcome]:
        jobs = [
            Job(
                cell.label,
                measure_cell,
                (cell.label, request_to_dict(cell.request)),
                frozenset({cell.device} if cell.device else ()),
            )
            for cell in cells
        ]
        for job, found in on_dask(address, jobs, say):
            if isinstance(found, Failed):
                yield Outcome(job.label, error=f"its worker failed: {found.error!r}")
            else:
                yield Outcome(**found)

    return run
