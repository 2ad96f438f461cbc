"""A worker that dies loses nothing: its job begins again, and one that kills every worker is told, not waited for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sr_deploy.pipeline.dask_jobs import Failed, Job, on_dask

#: Deaths of one job that the scheduler of this test allows.
ALLOWED = 1


def dies_at_first(deaths: Path, times: int, value: int) -> int:
    """Ends its process as the kernel's killer would, so many times; then gives the value."""
    before = len(list(deaths.glob("*")))
    if before < times:
        (deaths / str(before)).touch()
        os._exit(137)
    return value


@pytest.fixture(scope="module")
def address():
    distributed = pytest.importorskip("distributed", reason="dask is not installed (the extra scale)")
    import cloudpickle
    import dask

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with dask.config.set({"distributed.scheduler.allowed-failures": ALLOWED}), distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None, resources={"device": 1}, silence_logs=50
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.parametrize(("times", "good"), [(1, True), (ALLOWED + 1, False)])
def test_a_worker_that_dies_loses_nothing(address, tmp_path, times, good):
    deaths = [tmp_path / "a", tmp_path / "b"]
    for folder in deaths:
        folder.mkdir()
    jobs = [Job("first", dies_at_first, (deaths[0], times, 1)), Job("second", dies_at_first, (deaths[1], 0, 2))]
    found = {job.label: result for job, result in on_dask(address, jobs, lambda text: None)}
    assert found["second"] == 2
    if good:
        assert found["first"] == 1
    else:
        assert isinstance(found["first"], Failed) and "KilledWorker" in repr(found["first"].error)
    assert len(list(deaths[0].glob("*"))) == times
