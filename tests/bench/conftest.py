"""The shipped x2 network, for all tests of benchmarks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def exported(demo_export, tmp_path_factory) -> Path:
    """A deployment folder; a test that writes into it copies it first."""
    return shutil.copytree(demo_export, tmp_path_factory.mktemp("x2") / "net")
