"""An engine runs in a deployment only if both say the same of the tensors at its ends, wherever the folder lies."""

from __future__ import annotations

import json
import os
import shutil

import cv2
import numpy as np
import pytest

from sr_deploy.pipeline.demo import ASSETS

DEMO = ASSETS / "demo_x2.safetensors"


@pytest.fixture(scope="module")
def built(demo_export, tmp_path_factory):
    """A deployment with an engine for 24x24."""
    from sr_deploy.pipeline.engines.build import build_engines
    from sr_deploy.pipeline.engines.request import BuildOptions

    folder = shutil.copytree(demo_export, tmp_path_factory.mktemp("ends") / "net")
    build_engines(BuildOptions(folder, "onnxruntime", ((24, 24),)), print)
    return folder


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8))
    return path


@pytest.mark.parametrize("file", ["manifest.json", "engines/onnxruntime_24x24.json"])
@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("scale",), 4),
        (("contract", "value_range"), 255.0),
        (("contract", "colour"), "BGR"),
        (("contract", "clamped"), False),
    ],
)
def test_other_ends_are_another_picture_and_are_refused(srdeploy, built, picture, tmp_path, file, keys, value):
    folder = tmp_path / "net"
    shutil.copytree(built, folder)
    facts = json.loads((folder / file).read_text())
    (facts if len(keys) == 1 else facts["contract"])[keys[-1]] = value
    (folder / file).write_text(json.dumps(facts))
    engine = folder / "engines" / "onnxruntime_24x24.onnx"
    named = srdeploy("run", folder, "-i", picture, "-o", tmp_path / "out", "--engine", engine)
    assert named.code == 4 and ".".join(keys) + ": the engine's is" in named.err and not (tmp_path / "out").exists()
    unnamed = srdeploy("run", folder, "-i", picture, "-o", tmp_path / "out")
    assert "not used: onnxruntime_24x24.onnx: " + ".".join(keys) in unnamed.err


def test_a_folder_whose_name_is_not_utf8_runs(srdeploy, built, picture, tmp_path):
    folder = tmp_path / os.fsdecode(b"net\xff")
    shutil.copytree(built, folder)
    outcome = srdeploy("run", folder, "-i", picture, "-o", tmp_path / "out")
    assert outcome.code == 0 and (tmp_path / "out" / "p.png").is_file(), outcome.err
    assert srdeploy("build", folder, "--backend", "onnxruntime", "--size", "16").code == 0
