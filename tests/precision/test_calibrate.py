"""``srdeploy calibrate``: real pictures through the real pre-processing, a file that is only used where it belongs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.errors import BadImage, BadInput, UsageError
from sr_deploy.core.media.image import Picture, write_picture
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.pipeline.precision.calibrate import CalibrateOptions, calibrate_deployment, open_calibration
from sr_deploy.precision.calibrate.picture_set import CalibrationSet, Crop, open_set, save_set
from sr_deploy.precision.calibrate.ranges import scale_of

DEMO = Path(__file__).resolve().parents[2] / "sr_deploy" / "demo" / "demo_x2.safetensors"
SHIPPED = Path(__file__).resolve().parents[2] / "calibration" / "div2k-test-lrx4.toml"


@pytest.fixture
def folder(demo_export, tmp_path):
    return Path(shutil.copytree(demo_export, tmp_path / "net"))


def draw(path: Path, size=(40, 50), seed=0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    write_picture(Picture(pixels), path)
    return path


@pytest.fixture
def photos(tmp_path):
    place = tmp_path / "photos"
    place.mkdir()
    for number in range(4):
        draw(place / f"{number}.png", seed=number)
    return place


def test_ranges_scales_and_provenance(folder, photos):
    calibration = calibrate_deployment(CalibrateOptions(folder, (photos,), content="photo"))
    deployment = open_deployment(folder)
    assert calibration.path == folder / "precision" / "calibration" / "sqnr.json"
    again = open_calibration(deployment, "sqnr", [photos])
    assert again.scales == calibration.scales and again.provenance["pictures"] == 4
    assert again.ranges.graph_sha256 == deployment.manifest.graphs[0].sha256
    contract = deployment.manifest.contract
    lr = again.ranges.tensors[contract.input_name]
    # The pictures are smaller than a patch, so every pixel has been seen, in the network's own range.
    assert lr.count == 4 * 3 * 40 * 50 and lr.amax == pytest.approx(contract.value_range)
    for name, stats in again.ranges.tensors.items():
        assert again.scales[name] == scale_of(stats, "sqnr")
    assert again.provenance["tools"]["onnxruntime"] and again.provenance["files"] == [f"{n}.png" for n in range(4)]


def test_a_second_method_takes_the_ranges_of_the_first(folder, photos):
    first = calibrate_deployment(CalibrateOptions(folder, (photos,)))
    told = []
    second = calibrate_deployment(CalibrateOptions(folder, (photos,), "minmax"), told.append)
    assert any("sqnr.json" in line for line in told)
    for name, stats in first.ranges.tensors.items():
        assert np.array_equal(stats.histogram, second.ranges.tensors[name].histogram)
        assert second.scales[name] == scale_of(stats, "minmax")
    draw(photos / "0.png", seed=99)
    told.clear()
    calibrate_deployment(CalibrateOptions(folder, (photos,), "percentile"), told.append)
    assert not told


def test_same_pictures_same_file(folder, photos):
    options = CalibrateOptions(folder, (photos,), count=2, seed=5)
    calibrate_deployment(options)
    path = folder / "precision" / "calibration" / "sqnr.json"
    before = path.read_text()
    calibrate_deployment(CalibrateOptions(folder, (photos,), count=2, seed=5, force=True))
    assert path.read_text() == before
    assert len(json.loads(before)["provenance"]["files"]) == 2


def test_another_graph_other_pictures_or_none_are_refused(folder, photos, tmp_path):
    deployment = open_deployment(folder)
    with pytest.raises(BadInput, match="has no minmax calibration"):
        open_calibration(deployment, "minmax")
    path = calibrate_deployment(CalibrateOptions(folder, (photos,))).path
    other = tmp_path / "other"
    other.mkdir()
    draw(other / "0.png", seed=7)
    with pytest.raises(BadInput, match="of other pictures"):
        open_calibration(deployment, "sqnr", [other])
    with pytest.raises(UsageError, match="minmax"):
        open_calibration(deployment, "max")
    raw = json.loads(path.read_text())
    raw["graph_sha256"] = "0" * 64
    path.write_text(json.dumps(raw))
    with pytest.raises(BadInput, match="of another graph"):
        open_calibration(deployment, "sqnr")


def test_a_tensor_without_scale_is_refused(folder, photos):
    path = calibrate_deployment(CalibrateOptions(folder, (photos,))).path
    raw = json.loads(path.read_text())
    raw["provenance"]["scales"].popitem()
    path.write_text(json.dumps(raw))
    with pytest.raises(BadInput, match="no scales"):
        open_calibration(open_deployment(folder), "sqnr")


def test_no_pictures_unreadable_or_too_small_ones(folder, photos, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadImage, match="no pictures"):
        calibrate_deployment(CalibrateOptions(folder, (empty,)))
    small = draw(photos / "small.png", (40, 10))
    with pytest.raises(BadImage, match="small.png is 40x10 pixels"):
        calibrate_deployment(CalibrateOptions(folder, (photos,)))
    small.write_bytes(small.read_bytes()[:60])
    with pytest.raises(BadImage, match="small.png"):
        calibrate_deployment(CalibrateOptions(folder, (photos,)))
    assert not (folder / "precision").exists()


@pytest.mark.parametrize(
    "changes",
    [{"count": 5}, {"count": 0}, {"method": "max"}, {"method": "percentile", "percentile": 0.0}],
    ids=["too many", "none", "method", "percentile"],
)
def test_impossible_options(folder, photos, changes):
    with pytest.raises(UsageError):
        calibrate_deployment(CalibrateOptions(folder, (photos,), **changes))


def test_nothing_is_replaced_without_force(folder, photos):
    calibrate_deployment(CalibrateOptions(folder, (photos,)))
    with pytest.raises(UsageError, match="--force"):
        calibrate_deployment(CalibrateOptions(folder, (photos,)))


def test_a_static_deployment_is_calibrated_at_its_size(tmp_path, photos):
    export_deployment(ExportOptions(DEMO, tmp_path / "fixed", sizes=((24, 32),)))
    calibration = calibrate_deployment(CalibrateOptions(tmp_path / "fixed", (photos,), content="photo"))
    assert calibration.ranges.tensors["lr"].count == 4 * 3 * 24 * 32
    draw(photos / "flat.png", (20, 90))
    with pytest.raises(BadImage, match="at least 24x32"):
        calibrate_deployment(CalibrateOptions(tmp_path / "fixed", (photos,), "minmax"))


def test_manifests_go_round_and_are_enforced(folder, photos, tmp_path):
    manifest = tmp_path / "mine.toml"
    first = calibrate_deployment(CalibrateOptions(folder, (photos,), count=3, write_manifest=manifest))
    chosen = open_set(manifest)
    assert chosen.images == {name: sha256_of(photos / name) for name in first.provenance["files"]}
    assert chosen.sha256 == first.provenance["images_sha256"] and "fill it in" in chosen.licence
    draw(photos / "9.png", seed=9)
    same = calibrate_deployment(CalibrateOptions(folder, (photos,), "minmax", manifest=manifest))
    assert same.provenance["images_sha256"] == chosen.sha256 and same.provenance["set"] == "mine.toml"
    altered = next(iter(chosen.images))
    draw(photos / altered, seed=77)
    with pytest.raises(BadImage, match=f"not the files of .*{altered}"):
        calibrate_deployment(CalibrateOptions(folder, (photos,), "entropy", manifest=manifest))
    (photos / altered).unlink()
    with pytest.raises(BadImage, match=f"not there: {altered}"):
        calibrate_deployment(CalibrateOptions(folder, (photos,), "entropy", manifest=manifest))
    with pytest.raises(UsageError, match="--seed 4"):
        calibrate_deployment(CalibrateOptions(folder, (photos,), "entropy", manifest=manifest, seed=4))


def test_texts_of_a_manifest_survive(tmp_path):
    chosen = CalibrationSet({'a "b".png': "0" * 64}, Crop(64, 2, 3), 65535, "ünï\n", "s\\", "l", "\x7f")
    save_set(tmp_path / "set.toml", chosen)
    assert open_set(tmp_path / "set.toml") == chosen


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("schema = 1\nimage = 3\n", "key image is unknown"),
        ("schema = 1\n[crop]\nsize = 3\n", "key crop.size is unknown"),
        ("schema = 2\n", "schema 2"),
        ("schema = 1\n[images]\n", "images is"),
        ('schema = 1\n[images]\n"a.png" = "12"\n', "images.a.png is"),
        (f'schema = 1\nwhite = "x"\n[images]\n"a.png" = "{"0" * 64}"\n', "white is"),
        (f'schema = 1\n[crop]\nside = 0\n[images]\n"a.png" = "{"0" * 64}"\n', "crop.side is"),
        ("schema = ", "valid TOML"),
    ],
)
def test_bad_manifests(tmp_path, text, complaint):
    (tmp_path / "set.toml").write_text(text)
    with pytest.raises(BadInput, match=complaint):
        open_set(tmp_path / "set.toml")


def test_the_shipped_set_is_the_shared_photographs(assets):
    chosen = open_set(SHIPPED)
    place = assets / "images" / "calibration" / "DIV2K_test_LRx4"
    assert len(chosen.images) == 100 and "academic research" in chosen.licence and chosen.how_to_get
    assert all(sha256_of(place / name) == digest for name, digest in chosen.images.items())


def test_the_command(srdeploy, folder, photos, tmp_path):
    outcome = srdeploy("calibrate", folder, "--images", photos, "--method", "entropy", "--dry-run", "--json")
    plan = json.loads(outcome.out)
    assert outcome.code == 0 and plan["path"].endswith("entropy.json") and plan["ranges_from"] == "the pictures"
    assert not (folder / "precision").exists()
    outcome = srdeploy("calibrate", folder, "--images", photos, "--method", "entropy", "--count", 2, "--json")
    summary = json.loads(outcome.out)
    assert outcome.code == 0 and summary["pictures"] == 2 and summary["method"] == "entropy" and summary["tensors"] > 3
    outcome = srdeploy("calibrate", folder, "--images", photos)
    assert outcome.code == 0 and "sqnr" in outcome.out
    (tmp_path / "empty").mkdir()
    for images in (tmp_path / "empty", tmp_path / "nowhere"):
        assert srdeploy("calibrate", folder, "--images", images, "--force").code == 4
    assert srdeploy("calibrate", folder, "--images", photos, "--method", "best").code == 2
