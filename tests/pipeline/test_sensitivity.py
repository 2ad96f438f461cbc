"""``srdeploy sensitivity``: one figure a layer, as table, JSON and plot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.media.image import Picture, read_picture, write_picture

DEMO = Path(__file__).resolve().parents[2] / "sr_deploy" / "demo"


@pytest.fixture(scope="module")
def net(exported, tmp_path_factory):
    return shutil.copytree(exported, tmp_path_factory.mktemp("sensitivity") / "net")


@pytest.fixture
def photographs(tmp_path):
    pixels = read_picture(DEMO / "demo.png").pixels
    (tmp_path / "photographs").mkdir()
    for index, left in enumerate((0, 90, 180)):
        corner = np.ascontiguousarray(pixels[:64, left : left + 64])
        write_picture(Picture(corner), tmp_path / "photographs" / f"{index}.png")
    return tmp_path / "photographs"


def test_every_convolution_has_a_row(net, photographs, srdeploy):
    done = srdeploy("sensitivity", net, "--images", photographs, "--json")
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    stored = json.loads((net / "precision" / "sensitivity.json").read_text())
    assert stored["layers"] == answer["layers"] and stored["pictures"][:3] == ["0.png", "1.png", "2.png"]
    assert (net / "precision" / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
    import onnx

    names = {node.name for node in onnx.load(net / "model.onnx").graph.node if node.op_type == "Conv"}
    assert {layer["name"] for layer in answer["layers"]} == names
    noises = [layer["noise"] for layer in answer["layers"]]
    assert noises == sorted(noises, reverse=True) and noises[0] > 0
    assert sum(layer["macs_share"] for layer in answer["layers"]) == pytest.approx(1, abs=0.01)
    for layer in answer["layers"]:
        assert (layer["default"] == "int8") == (layer["why_wide"] == ""), layer
        assert np.isfinite(layer["loss_db"])
    assert stored["graph_sha256"] == open_deployment(net).manifest.graphs[0].sha256
    table = srdeploy("sensitivity", net, "--images", photographs, "--content", "photo")
    assert table.code == 0 and "Each layer alone" in table.out and "sensitivity.png" in table.out


def test_what_it_refuses(net, photographs, tmp_path, srdeploy):
    (tmp_path / "empty").mkdir()
    for arguments, code in (
        ((net, "--images", tmp_path / "empty"), 4),
        ((net, "--images", tmp_path / "nowhere"), 4),
        ((tmp_path, "--images", photographs), 4),
        ((net, "--images", photographs, "--lr", photographs), 2),
        ((net, "--images", photographs, "--method", "guess"), 2),
    ):
        assert srdeploy("sensitivity", *arguments).code == code, arguments


def test_the_plot_needs_layers_and_shortens_names(tmp_path):
    from sr_deploy.core.errors import UsageError
    from sr_deploy.report.plots_precision import sensitivity_plot, shortened

    layers = [
        {"name": f"/body/{'x' * 60}/{n}/Conv", "loss_db": 1.0 / (1 + n), "default": ("int8", "float16")[n % 2]}
        for n in range(70)
    ]
    sensitivity_plot(layers, tmp_path / "plot.svg", "title")
    text = (tmp_path / "plot.svg").read_text()
    assert "40 costliest of 70" in text or "<svg" in text
    assert len(shortened(layers[0]["name"])) == 44 and shortened("/a") == "/a"
    with pytest.raises(UsageError):
        sensitivity_plot([], tmp_path / "none.png", "title")
    with pytest.raises(UsageError):
        sensitivity_plot(layers, tmp_path / "none.gif", "title")
