"""Pictures in tiles through the commands and through Python: the same pixels as whole, within memory, or refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
import time
import zlib

import cv2
import numpy as np
import pytest

import sr_deploy
from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.contract import SizeRules
from sr_deploy.core.deployment.manifest import open_deployment, save_manifest
from sr_deploy.core.errors import CheckFailed
from sr_deploy.core.media.image import Picture, read_picture, write_picture
from sr_deploy.core.media.imagefile import PNG_SIGNATURE, png_chunk
from sr_deploy.core.reach import GlobalNode, Reach
from sr_deploy.pipeline.reach import proved_reach
from tests.small_network import CONTRACT, SCALE, small_graphs

#: Memory in which the small network's 24² tiles fit, and a picture of 40x50 does not.
LITTLE = "4MB"


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """The small network as a deployment, with an engine that takes 32x32 only."""
    folder = tmp_path_factory.mktemp("tiles") / "net"
    folder.mkdir()
    graphs = small_graphs(folder)
    graphs.fixed.unlink()
    return deployment_of(folder, graphs.dynamic)


def deployment_of(folder, path):
    from sr_deploy.core.deployment.manifest import GraphFile, Manifest
    from sr_deploy.graph.census import census_of

    census = census_of(path, (32, 32))
    graph = GraphFile(
        path.name, None, sha256_of(path), 17, census.parameters, census.macs, census.peak_activation_bytes, (32, 32)
    )
    save_manifest(folder, Manifest(
        architecture="small", form="folded", scale=SCALE, contract=CONTRACT, sizes=SizeRules(), graphs=(graph,),
        source={"file": "none", "path": "none", "sha256": "0" * 64, "load_options": {}}, parameters=census.parameters,
        hyperparameters={}, fold={}, proofs={}, pinned_fp32={}, notes=(), tools={},
        reach=proved_reach(path, CONTRACT, SCALE, SizeRules()),
    ))  # fmt: skip
    sr_deploy.build(folder, size="32", backend="onnxruntime")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Colour, grey with alpha, 16 bits with alpha; larger than a tile, narrow, and of one pixel."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)

    def save(name, shape, dtype=np.uint8, alpha=False):
        full = np.iinfo(dtype).max + 1
        pixels = rng.integers(0, full, shape, dtype)
        write_picture(Picture(pixels, rng.integers(0, full, shape[:2], dtype) if alpha else None), folder / name)

    save("colour.png", (70, 131, 3))
    save("grey.png", (45, 90, 1), alpha=True)
    save("deep.png", (64, 65, 3), np.uint16, alpha=True)
    save("narrow.png", (9, 150, 3))
    save("photo.jpg", (80, 77, 3))
    save("dot.png", (1, 1, 3))
    return folder


def test_the_small_network_is_local(net):
    reach = open_deployment(net).manifest.reach
    assert (reach.halo, reach.multiple, reach.is_local, reach.proved) == (2, 1, True, 0.0)


def engine(net):
    (path,) = (net / "engines").glob("*.onnx")
    return path


def test_tiles_by_memory_and_by_engine_equal_the_whole(srdeploy, tmp_path, net, photos):
    ways = {"whole": (), "memory": ("--memory", LITTLE), "engine": ("--engine", engine(net))}
    for name, words in ways.items():
        outcome = srdeploy("run", net, "-i", photos, "-o", tmp_path / name, *words)
        assert outcome.code == 0, outcome.err
        if name != "whole":
            assert "colour.png: " in outcome.err and " tiles of " in outcome.err and "about" in outcome.err
        # One line for what runs, one a picture at most, and a summary.
        assert len(outcome.err.splitlines()) <= 3 + len(list(photos.iterdir()))
    for source in photos.iterdir():
        whole, *others = (read_picture(tmp_path / name / source.name) for name in ways)
        assert whole.size == tuple(2 * side for side in read_picture(source).size)
        for name, other in zip(list(ways)[1:], others):
            # What is smaller than the engine's input is filled up by reflection: another picture at its border.
            same = slice(None) if name == "memory" or min(whole.size) >= 64 else slice(0, -6)
            if source.name != "dot.png":
                assert np.array_equal(whole.pixels[same], other.pixels[same]), (name, source.name)
                assert whole.alpha is None or np.array_equal(whole.alpha, other.alpha), (name, source.name)
    assert "1x1 is filled up to 32x32 by reflection" in outcome.err


def test_the_estimate_is_said_before_and_memory_is_kept(srdeploy, tmp_path, net, photos):
    outcome = srdeploy("run", net, "-i", photos / "colour.png", "-o", tmp_path / "a.png", "--memory", "100KB")
    assert outcome.code == 3 and "even tiles of" in outcome.err and "--memory" in outcome.err
    outcome = srdeploy("run", net, "-i", photos / "colour.png", "-o", tmp_path / "a.png", "--memory", "much")
    assert outcome.code == 2 and not (tmp_path / "a.png").exists()


def test_what_cannot_be_decoded_in_the_memory_is_refused_by_its_header(srdeploy, tmp_path, net):
    header = struct.pack(">IIBBBBB", 3000, 3000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(9001) * 3000, 1)
    source = tmp_path / "large.png"
    source.write_bytes(PNG_SIGNATURE + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b""))
    outcome = srdeploy("run", net, "-i", source, "-o", tmp_path / "a.png", "--memory", "20MB")
    assert outcome.code == 4 and "to be decoded" in outcome.err and "--memory" in outcome.err
    huge = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    body = bytes(500_000)  # nobody decodes it
    source.write_bytes(PNG_SIGNATURE + png_chunk(b"IHDR", huge) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b""))
    began = time.process_time()
    outcome = srdeploy("run", net, "-i", source, "-o", tmp_path / "a.png")
    assert outcome.code == 4 and "3,600 million" in outcome.err and time.process_time() - began < 1.0


def globalised(net, folder):
    """A copy whose manifest says that the network is not local."""
    copy = shutil.copytree(net, folder)
    manifest = open_deployment(copy).manifest
    why = Reach(0, 1, (GlobalNode("/fu/MatMul", "MatMul", "mixes places of the whole picture"),))
    save_manifest(copy, dataclasses.replace(manifest, reach=why))
    sr_deploy.build(copy, size="96", backend="onnxruntime", force=True)
    return copy


def test_a_network_that_is_not_local_is_measured_and_refused(srdeploy, tmp_path, net, photos):
    spectral = globalised(net, tmp_path / "net")
    named = ("--engine", next((spectral / "engines").glob("*96x96.onnx")))
    outcome = srdeploy("run", spectral, "-i", photos / "colour.png", "-o", tmp_path / "a.png", *named)
    assert outcome.code == 1 and "MatMul /fu/MatMul" in outcome.err and "--allow-inexact" in outcome.err
    assert "two tiles of it differ by up to 0 of 255" in outcome.err and not (tmp_path / "a.png").exists()
    outcome = srdeploy(
        "run", spectral, "-i", photos / "colour.png", "-o", tmp_path / "a.png", *named, "--allow-inexact"
    )
    assert outcome.code == 0 and "differ by up to 0 of 255 along their borders" in outcome.err
    # Without that engine the graph takes the picture whole.
    assert srdeploy("run", spectral, "-i", photos / "colour.png", "-o", tmp_path / "b.png").code == 0
    outcome = srdeploy("run", spectral, "-i", photos, "-o", tmp_path / "some", *named)
    assert outcome.code == 1 and "6 of 6 pictures were skipped" in outcome.err


def test_verify_and_bench_take_tiles(srdeploy, tmp_path, net, photos):
    lr, hr = tmp_path / "lr", tmp_path / "hr"
    for folder, factor in ((lr, 1), (hr, 2)):
        folder.mkdir()
        pixels = read_picture(photos / "colour.png").pixels[:40, :44].repeat(factor, 0).repeat(factor, 1)
        cv2.imwrite(str(folder / "a.png"), pixels)
    found = []
    for words in ((), ("--engine", engine(net)), ("--memory", "1MB")):
        outcome = srdeploy("verify", net, "--lr", lr, "--hr", hr, "--no-torch", "--json", *words)
        assert outcome.code == 0, outcome.err
        found.append(json.loads(outcome.out)["images"])
        assert ("in tiles of" in outcome.err) == bool(words)
    assert found[0] == found[1] == found[2]
    words = ("--size", "32,40x44", "--runs", "2", "--memory", "1MB", "--out", tmp_path / "times.json")
    outcome = srdeploy("bench", net, *words)
    assert outcome.code == 0, outcome.err
    small, large = (
        point["description"].get("tiles") for point in json.loads((tmp_path / "times.json").read_text())["points"]
    )
    assert small is None and large["count"] > 1 and large["exact"] is True


def test_python_takes_tiles_too(net, photos, tmp_path):
    lr = read_picture(photos / "colour.png").pixels
    with sr_deploy.open(net) as whole, sr_deploy.open(net, memory=LITTLE) as tiled:
        assert np.array_equal(whole.upscale(lr), tiled.upscale(lr))
        assert np.array_equal(whole.upscale(photos / "deep.png"), tiled.upscale(photos / "deep.png"))
    said = []
    with sr_deploy.open(net, engine=engine(net), say=said.append) as fixed:
        assert np.array_equal(whole.upscale(lr), fixed.upscale(lr)) and "in tiles of 32x32" in said[0]
        assert fixed.upscale(lr[:5, :7]).shape == (10, 14, 3)
    spectral = globalised(net, tmp_path / "net")
    named = next((spectral / "engines").glob("*96x96.onnx"))
    with sr_deploy.open(spectral, engine=named) as refusing, pytest.raises(CheckFailed, match="not local"):
        refusing.upscale(lr)
    with sr_deploy.open(spectral, engine=named, allow_inexact=True) as allowed:
        assert allowed.upscale(lr).shape == (140, 262, 3)
