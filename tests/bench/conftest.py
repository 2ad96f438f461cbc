"""The shipped x2 network, exported once for all tests of benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Path:
    """A deployment folder; a test that writes into it copies it first."""
    from sr_deploy.pipeline.demo import ASSETS
    from sr_deploy.pipeline.export import ExportOptions, export_deployment

    target = tmp_path_factory.mktemp("x2") / "net"
    return export_deployment(ExportOptions(ASSETS / "demo_x2.safetensors", target)).folder
