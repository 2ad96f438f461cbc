"""The small network's graphs, exported once for this folder's tests."""

from __future__ import annotations

import pytest

from tests.small_network import SmallGraphs, small_graphs


@pytest.fixture(scope="session")
def graphs(tmp_path_factory) -> SmallGraphs:
    return small_graphs(tmp_path_factory.mktemp("graphs"))
