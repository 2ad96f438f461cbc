"""A matrix on several machines, through Dask.

Dask and not Ray: a job here is a function call that lasts minutes, placed by a named resource. Both engines do that.
Dask's scheduler and workers are pure Python and install on a Jetson's aarch64 and on Python 3.8 as on a PC (Ray is a
binary package per platform and Python), and a worker is one command over SSH.

A worker offers its device as a resource, once, and every job takes all of it, so a device never has two jobs:

    dask scheduler
    dask worker tcp://SCHEDULER:8786 --nthreads 1 --nworkers 1 --resources "device=1 xavier-nx=1"

With several GPUs in one machine, one worker for each, with its own CUDA_VISIBLE_DEVICES. Deployments and results must
be reachable under the same path on every machine: the worker writes each point there as it exists.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterable, Sequence, Set

from sr_deploy.core.errors import EnvironmentFault, MissingPackage
from sr_deploy.core.host.install import pip_install
from sr_deploy.pipeline.measure.matrix import Cell, Outcome, measure_cell
from sr_deploy.pipeline.measure.subprocess_bench import request_to_dict

#: The resource that every job takes one of.
RESOURCE = "device"

#: A worker that dies takes its job with it; the job goes on from its result file on another worker, so many times.
RETRIES = 2

CONNECT_TIMEOUT = "5s"


def run_on_dask(address: str, say: Callable[[str], None]) -> Callable[[Sequence[Cell]], Iterable[Outcome]]:
    """What ``run_matrix`` takes as ``run``.

    Args:
        address: of the scheduler, such as "tcp://host:8786".
        say: told which workers there are.

    Raises:
        MissingPackage: Dask is not installed.
        EnvironmentFault: no scheduler at the address, or no worker offers what a cell needs; it would wait for ever.
    """
    try:
        from dask.distributed import Client, as_completed
    except ImportError as error:
        raise MissingPackage("Dask is not installed", "dask, distributed", pip_install("scale")) from error

    def run(cells: Sequence[Cell]) -> Iterable[Outcome]:
        try:
            client = Client(address, timeout=CONNECT_TIMEOUT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise EnvironmentFault(
                f"no Dask scheduler answers at {address}: {error}", "a running scheduler", "start one: dask scheduler"
            ) from error
        with client:
            offers = _offers(client.scheduler_info(n_workers=-1))
            say(f"{len(offers)} workers: " + ", ".join("+".join(sorted(offer)) for offer in offers.values()))
            labels: Dict[str, str] = {}
            futures = []
            for cell in cells:
                needed = {RESOURCE} | ({cell.device} if cell.device else set())
                if not any(needed <= offer for offer in offers.values()):
                    resources = " ".join(f"{name}=1" for name in sorted(needed))
                    raise EnvironmentFault(
                        f"no worker at {address} offers {' and '.join(sorted(needed))} for {cell.label}",
                        "a worker with this resource",
                        f'dask worker {address} --nthreads 1 --resources "{resources}"',
                    )
                future = client.submit(
                    measure_cell,
                    cell.label,
                    request_to_dict(cell.request),
                    resources=dict.fromkeys(needed, 1),
                    pure=False,
                    retries=RETRIES,
                )
                labels[str(future.key)] = cell.label
                futures.append(future)
            for future in as_completed(futures, loop=client.loop):
                if future.status == "finished":
                    yield Outcome(**future.result())
                else:
                    yield Outcome(labels[str(future.key)], error=f"its worker failed: {future.exception()!r}")

    return run


def _offers(info: Dict) -> Dict[str, Set[str]]:
    """Worker → the names of its resources."""
    return {name: set(worker.get("resources") or {}) for name, worker in info["workers"].items()}
