"""An ONNX file through the commands, as a checkpoint goes: export, inspect, build, verify, qat's teacher, Python."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import helper

import sr_deploy
from sr_deploy.core.media.image import Picture, write_picture
from sr_deploy.core.media.natural import natural_input
from tests.graph.given.given_graphs import Written, given, saved


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """The small network, deployed from ONNX."""
    folder = tmp_path_factory.mktemp("given")
    path = saved(folder, given(Written(opset=20, axes="NHWC", dtype=np.float16)))
    said = []
    return path, sr_deploy.export(path, folder / "net", say=said.append), said


def test_a_deployment_of_an_onnx_file_is_one_like_any_other(deployed, srdeploy, tmp_path):
    path, net, said = deployed
    manifest = net.deployment.manifest
    assert (manifest.architecture, manifest.scale, manifest.contract.layout) == ("ONNX", 2, "NCHW")
    assert manifest.source["container"] == "onnx" and manifest.source["external"] == {}
    assert len(manifest.proofs) == 4 and max(manifest.proofs.values()) < 0.05
    assert manifest.graphs[0].opset == 17
    nodes = onnx.load(str(net.folder / "model.onnx")).graph.node
    assert len({node.name for node in nodes} - {""}) == len(nodes)
    lr = Picture(natural_input((24, 36), 255.0)[0].transpose(1, 2, 0).astype(np.uint8))
    pixels = net.upscale(lr.pixels)
    for name, shown in (("lr", lr), ("hr", Picture(pixels))):
        (tmp_path / name).mkdir()
        write_picture(shown, tmp_path / name / "cat.png")
    done = srdeploy("verify", net.folder, "--lr", tmp_path / "lr", "--hr", tmp_path / "hr", "--json")
    assert done.code == 0
    assert json.loads(done.out)["largest_difference"] < 0.05


def test_inspect_tells_what_was_found(explored_here, deployed, srdeploy):
    path, _, _ = deployed
    facts = json.loads(srdeploy("inspect", path, "--json").out)
    assert (facts["kind"], facts["scale"], facts["value_range"], facts["opset"]) == ("onnx", 2, 1.0, 20)
    assert facts["input"] == "input (N, H, W, 3)"
    assert any("float16 became float32" in note for note in facts["notes"])


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--arch", "SPAN"), 2, "--arch has no meaning for an ONNX file"),
        (("--model", "a:b"), 2, "--model has no meaning for an ONNX file"),
        (("--size", "24x24"), 2, "this graph takes 30x36 only"),
        ((), 0, "stays fixed to 30x36"),
    ],
)
def test_what_an_onnx_file_cannot_be_asked(explored_here, srdeploy, tmp_path, options, code, message):
    pooled = [helper.make_node("GlobalAveragePool", ["body"], ["p"]),
              helper.make_node("Resize", ["p", "", "", "s"], ["l"]), helper.make_node("Mul", ["l", "k"], ["m"]),
              helper.make_node("Add", ["body", "m"], ["extended"])]  # fmt: skip
    constants = {"s": np.array([1, 3, 60, 72]), "k": np.array(0.1, np.float32)}
    path = saved(tmp_path, given(Written(size=(30, 36), extra=pooled, constants=constants)))
    done = srdeploy("export", path, "-o", tmp_path / "net", *options)
    assert done.code == code, done.err
    assert message in done.err
    if code == 0:
        again = srdeploy("build", tmp_path / "net", "--size", "48x48")
        assert again.code == 4 and "30x36" in again.err


def test_colours_are_for_onnx_files_only(srdeploy, tmp_path):
    (tmp_path / "net.pth").write_bytes(b"")
    done = srdeploy("export", tmp_path / "net.pth", "-o", tmp_path / "net", "--colours", "bgr")
    assert done.code == 2 and "--colours has no meaning for a checkpoint" in done.err
