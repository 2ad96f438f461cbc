"""Function calls on several machines, through Dask: what sweep and run do with ``--cluster``.

Dask and not Ray: a job here is a function call that lasts minutes, placed by a named resource. Both engines do that.
Dask's scheduler and workers are pure Python and install on a Jetson's aarch64 and on Python 3.8 as on a PC (Ray is a
binary package per platform and Python), and a worker is one command over SSH.

A worker offers its device as a resource, once, and every job takes all of it, so a device never has two jobs:

    dask scheduler
    dask worker tcp://SCHEDULER:8786 --nthreads 1 --nworkers 1 --resources "device=1 xavier-nx=1"

With several GPUs in one machine, one worker for each, with its own CUDA_VISIBLE_DEVICES. Deployments and inputs must be
reachable under the same path on every machine.

A worker that dies takes its job with it, and the job begins again on another one, until so many have died of it as the
scheduler allows (``distributed.scheduler.allowed-failures``, 3). The scheduler counts the death against every job that
was waiting at that worker, so none waits there: no more are handed out than there are workers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Callable, Dict, FrozenSet, Iterator, Sequence, Set, Tuple, Union

from sr_deploy.core.errors import EnvironmentFault, MissingPackage
from sr_deploy.core.host.install import pip_install

#: The resource that every job takes one of.
RESOURCE = "device"
CONNECT_TIMEOUT = "5s"


@dataclass(frozen=True)
class Job:
    """One call.

    Attributes:
        label: for errors.
        function: of a module that workers have.
        arguments: what it is given; they travel.
        needs: resources besides RESOURCE.
    """

    label: str
    function: Callable[..., Any]
    arguments: Tuple[Any, ...]
    needs: FrozenSet[str] = frozenset()


@dataclass(frozen=True)
class Failed:
    """A job without a result: what its function raised, or that its workers died."""

    error: BaseException


def on_dask(address: str, jobs: Sequence[Job], say: Callable[[str], None]) -> Iterator[Tuple[Job, Union[Any, Failed]]]:
    """Every job with what it returned, as they end.

    Args:
        address: of the scheduler, such as "tcp://host:8786".
        jobs: what to do.
        say: told which workers there are.

    Raises:
        MissingPackage: Dask is not installed.
        EnvironmentFault: no scheduler at the address, or no worker offers what a job needs; it would wait for ever.
    """
    try:
        from dask.distributed import Client, as_completed
    except ImportError as error:
        raise MissingPackage("Dask is not installed", "dask, distributed", pip_install("scale")) from error
    try:
        client = Client(address, timeout=CONNECT_TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise EnvironmentFault(
            f"no Dask scheduler answers at {address}: {error}", "a running scheduler", "start one: dask scheduler"
        ) from error
    with client:
        offers = _offers(client)
        say(f"{len(offers)} workers: " + ", ".join("+".join(sorted(offer)) for offer in offers.values()))
        for job in jobs:
            if not _able(offers, job):
                raise _no_offer(address, _needed(job), job.label)
        waiting = list(jobs)
        running: Dict[str, Job] = {}
        done = as_completed(loop=client.loop)
        while waiting or running:
            for job in _next(waiting, list(running.values()), offers):
                waiting.remove(job)
                resources = dict.fromkeys(_needed(job), 1)
                future = client.submit(job.function, *job.arguments, resources=resources, pure=False)
                running[str(future.key)] = job
                done.add(future)
            future = next(done)
            good = future.status == "finished"
            yield running.pop(str(future.key)), future.result() if good else Failed(future.exception())
            future.release()
            offers = _offers(client)


def _next(waiting: Sequence[Job], running: Sequence[Job], offers: Dict[str, Set[str]]) -> Iterator[Job]:
    """The jobs to hand out: of those with the same needs no more than workers meet them; one at least runs."""
    count = Counter(job.needs for job in running)
    for job in waiting:
        if count[job.needs] < max(1, _able(offers, job)):
            count[job.needs] += 1
            yield job


def _needed(job: Job) -> Set[str]:
    return {RESOURCE, *job.needs}


def _able(offers: Dict[str, Set[str]], job: Job) -> int:
    """How many workers offer what a job needs."""
    return sum(_needed(job) <= offer for offer in offers.values())


def _no_offer(address: str, needed: Set[str], label: str) -> EnvironmentFault:
    resources = " ".join(f"{name}=1" for name in sorted(needed))
    return EnvironmentFault(
        f"no worker at {address} offers {' and '.join(sorted(needed))} for {label}",
        "a worker with this resource",
        f'dask worker {address} --nthreads 1 --resources "{resources}"',
    )


def _offers(client: Any) -> Dict[str, Set[str]]:
    """Worker → the names of its resources."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return {name: set(worker.get("resources") or {}) for name, worker in workers.items()}
