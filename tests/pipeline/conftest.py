"""A deployment of the demo's network, as exported and with an INT8 plan, and photographs for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.media.image import Picture, read_picture, write_picture
from sr_deploy.pipeline.engines.plans import planned_for
from sr_deploy.pipeline.precision.deployed_plan import PrecisionOptions

DEMO = Path(__file__).resolve().parents[2] / "sr_deploy" / "demo"


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """Four corners of the demo's photograph, 72x72."""
    folder = tmp_path_factory.mktemp("photographs")
    pixels = read_picture(DEMO / "demo.png").pixels
    for index, corner in enumerate((pixels[:72, :72], pixels[:72, -72:], pixels[-72:, :72], pixels[-72:, -72:])):
        write_picture(Picture(np.ascontiguousarray(corner)), folder / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def exported(demo_export):
    return demo_export


@pytest.fixture(scope="session")
def prepared(exported, photographs, tmp_path_factory):
    """The demo's network with an INT8 plan, without fitted weights."""
    folder = shutil.copytree(exported, tmp_path_factory.mktemp("planned") / "net")
    asked = PrecisionOptions("int8", images=photographs, improve=False, content="photo")
    planned_for(open_deployment(folder), asked, lambda _: None)
    return folder


@pytest.fixture
def plain(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "plain")


@pytest.fixture
def net(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "net")
