"""Fixtures shared by all tests, and the shim that lets spandrel import beside a CPU build of torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import pytest
from filelock import FileLock

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder with weights/, golden/ and images/ (SRDEPLOY_ASSETS, default ../shared); skips where it is absent."""
    if not (ASSETS / "weights").is_dir():
        pytest.skip(
            f"no checkpoints at {ASSETS}: set SRDEPLOY_ASSETS to the folder that holds weights/, golden/, images/"
        )
    return ASSETS


@pytest.fixture(scope="session")
def torchvision_operators() -> None:
    """Define the two operators that torchvision's import wants and a CPU build of torch does not have."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name, schema in (
        ("nms", "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
        ("qnms", "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
    ):
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    torchvision_operators.library = library


@pytest.fixture(scope="session")
def export_once(tmp_path_factory) -> Callable[..., Path]:
    """``export_once(checkpoint, spectral="dft")``: the deployment of a checkpoint with these ExportOptions.

    Made once for all tests of all workers, so it is only read: ``shutil.copytree`` gives one to build and write in.
    """
    from sr_deploy.pipeline.export import ExportOptions, export_deployment

    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exports"
    place.mkdir(exist_ok=True)

    def exported(checkpoint: Path, **options: object) -> Path:
        name = "_".join([checkpoint.name, *(f"{option}-{value}" for option, value in sorted(options.items()))])
        with FileLock(place / f"{name}.lock"):
            if not (place / name).exists():
                export_deployment(ExportOptions(checkpoint, place / name, **options))
        return place / name

    return exported


@pytest.fixture(scope="session")
def shared_export(assets, export_once) -> Callable[..., Path]:
    """``shared_export("efdn_x4.pth", spectral="dft")``: ``export_once`` of a file of weights/; only read, too."""
    return lambda weights, **options: export_once(assets / "weights" / weights, **options)


@pytest.fixture(scope="session")
def demo_export(export_once) -> Path:
    """The deployment of the network that ships, x2, as ``srdeploy export`` makes it; only read."""
    from sr_deploy.pipeline.demo import ASSETS as SHIPPED

    return export_once(SHIPPED / "demo_x2.safetensors")


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def srdeploy(capsys):
    """Run a srdeploy command in this process: ``srdeploy("export", path, "-o", folder) -> Outcome``."""
    from sr_deploy.cli import main

    def run(*arguments) -> Outcome:
        capsys.readouterr()
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def explored_here(monkeypatch):
    """First runs of a given ONNX graph in this process, which takes a tenth of the time of one of its own."""
    from sr_deploy.graph.given.explore import explore, runner_of

    def explored(model, only=None, too=None):
        return explore(runner_of(model), only, too)

    monkeypatch.setattr("sr_deploy.graph.given.network.explore_apart", explored)
