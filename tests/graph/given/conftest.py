"""First runs of a graph in this process, which takes a tenth of the time of another."""

from __future__ import annotations

import pytest

from sr_deploy.graph.given.explore import explore
from tests.graph.given.given_graphs import run


@pytest.fixture
def here(monkeypatch):
    """In place of the process apart, which test_given_hostile.py has."""

    def explored(model, only=None, too=None):
        return explore(run(model), only, too)

    monkeypatch.setattr("sr_deploy.graph.given.network.explore_apart", explored)
