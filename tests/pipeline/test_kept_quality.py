"""What verify keeps in a deployment: hashed, found by gate and report, left out where it is of something else."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from sr_deploy.bench.measure import summary
from sr_deploy.bench.result import Point, Result, save_result
from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.contract import SizeRules
from sr_deploy.core.deployment.manifest import GraphFile, Manifest, save_manifest
from sr_deploy.core.media.image import Picture, write_picture
from sr_deploy.pipeline.verify import ImageQuality, QualityReport
from sr_deploy.report.quality_file import QualityFile, hash_of_pictures, read_quality
from sr_deploy.report.submission import read_submission
from sr_deploy.report.table import quality_table, worst_text
from tests.small_network import CONTRACT, small_graphs


@pytest.fixture(scope="module")
def verified(tmp_path_factory):
    """A folder with a deployment that was verified on two pictures, and the pictures."""
    from sr_deploy.pipeline.verify import VerifyOptions, verify_quality

    place = tmp_path_factory.mktemp("verified")
    graph = small_graphs(tmp_path_factory.mktemp("graphs")).dynamic
    net = place / "net"
    net.mkdir()
    shutil.copy(graph, net / "model.onnx")
    file = GraphFile("model.onnx", None, sha256_of(graph), 17, 1100, 10**6, 5 << 20, (24, 32))
    save_manifest(net, Manifest(
        architecture="Small", form="folded", scale=2, contract=CONTRACT, sizes=SizeRules(1, 1), graphs=(file,),
        source={"file": "w.pth", "sha256": "ab" * 32, "path": "w.pth", "load_options": {}}, parameters=1100,
        hyperparameters={}, fold={"blocks": [], "kept": []}, proofs={}, pinned_fp32={}, notes=(), tools={},
    ))  # fmt: skip
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        write_picture(Picture(generator.integers(0, 256, (48, 64, 3), np.uint8)), place / "Set" / "HR" / f"{name}.png")
        write_picture(Picture(generator.integers(0, 256, (24, 32, 3), np.uint8)), place / "Set" / "LR" / f"{name}.png")
    said = []
    options = VerifyOptions(net, place / "Set" / "LR", place / "Set" / "HR", "onnxruntime", against_torch=False)
    verify_quality(options, said.append)
    assert f"kept in {kept_of(net)}" in said
    return place


def kept_of(net):
    (path,) = (net / "results").glob("verify_*.json")
    return path


@pytest.fixture
def net(verified, tmp_path):
    return shutil.copytree(verified / "net", tmp_path / "net")


def timed(net, precision="fp32"):
    """The deployment with a sweep of this precision."""
    samples = tuple(0.001 + 1e-7 * (n % 5) for n in range(60))
    point = Point((8, 8), "compute", "onnxruntime", "CPU", {"precision": precision}, samples_s=samples,
                  **summary(samples))  # fmt: skip
    result = Result("net", {"cpu": "x"}, {"scope": "compute"}, (point,), "2026-05-01T00:00:00+00:00")
    save_result(net / "results" / f"bench_onnxruntime_{precision}_compute.json", result)
    return net


def test_the_record_holds_data_and_the_hash_of_all_it_is_of(verified):
    net = verified / "net"
    kept = read_quality(kept_of(net))
    (ran,) = kept.ran
    assert (ran.runtime, ran.file, ran.sizes) == ("onnxruntime", "model.onnx", ("24x32",))
    assert ran.sha256 == sha256_of(net / "model.onnx")
    assert (kept.precision, kept.pictures.name, kept.pictures.count) == ("fp32", "Set/HR", 2)
    for image in kept.images:
        assert image.lr_sha256 == sha256_of(verified / "Set" / "LR" / f"{image.name}.png")
        assert image.hr_sha256 == sha256_of(verified / "Set" / "HR" / f"{image.name}.png")
    assert kept.worst == min(image.psnr_y for image in kept.images)
    assert kept_of(net).name == f"verify_onnxruntime_fp32_{kept.pictures.sha256[:8]}.json"
    # No sentence for people stands where a program reads a value.
    assert all(" " not in value for one in json.loads(kept_of(net).read_text())["ran"] for key, value in one.items()
               if key in ("runtime", "file", "sha256"))  # fmt: skip


def test_the_picture_that_loses_most_is_told():
    def image(name, lost, structure):
        return ImageQuality(name, {"psnr_y": 30.0 - lost, "torch_psnr_y": 30.0, "ssim_y": 0.9}, 9.0, None, None,
                            0.01, structure)  # fmt: skip

    report = QualityReport("Y", (), (image("a", 0.02, 3.0), image("b", 0.4, 20.0), image("c", 0.0, 1.0)), "int8")
    told = report.to_dict()
    assert told["worst_loss_db"] == pytest.approx(0.4) and told["worst_loss_picture"] == "b"
    assert told["loss_db"] == pytest.approx(0.14) and told["largest_structure"] == 20.0
    assert "worst: 0.4000 dB lost in b" in worst_text(told) and "1.0% off by more than 8" in worst_text(told)
    alone = QualityReport("Y", (), (ImageQuality("a", {"psnr_y": 30.0, "ssim_y": 0.9}),)).to_dict()
    assert alone["worst_loss_db"] is None and alone["largest_off_share"] is None and worst_text(alone) == ""
    caption = quality_table({**told, "tolerance_db": 0.6}).caption
    assert "dB\nworst:" in caption, "a line of its own"


def test_the_gate_finds_it_and_leaves_what_does_not_belong(net, srdeploy, tmp_path):
    budget = tmp_path / "b.toml"
    budget.write_text("[quality]\nmin_psnr_y = 1.0\n")
    asked = ("gate", "--budget", budget, timed(net), "--json")
    outcome = srdeploy(*asked)
    assert outcome.code == 0, outcome.err
    assert [one["what"] for one in json.loads(outcome.out)["findings"]] == ["PSNR-Y against HR"]
    # A result file in the deployment's folder finds it too.
    assert srdeploy(*asked[:3], net / "results" / "bench_onnxruntime_fp32_compute.json").code == 0
    # Of another precision than was timed: not that one.
    (net / "results" / "bench_onnxruntime_fp32_compute.json").unlink()
    outcome = srdeploy(*asked[:3], timed(net, "int8"), "--json")
    assert outcome.code == 2 and "none is known" in json.loads(outcome.out)["error"]
    (net / "results" / "bench_onnxruntime_int8_compute.json").unlink()
    # Of another graph than is here.
    kept = json.loads(kept_of(net).read_text())
    kept["ran"][0]["sha256"] = "0" * 64
    kept_of(net).write_text(json.dumps(kept))
    outcome = srdeploy(*asked[:3], timed(net))
    assert outcome.code == 2 and "it is of another model.onnx than is here; verify again" in outcome.err


def test_the_report_shows_it_without_pictures(net, srdeploy, tmp_path):
    assert srdeploy("report", net, "-o", tmp_path / "r.html").code == 0
    page = (tmp_path / "r.html").read_text()
    mean = read_quality(kept_of(net)).mean
    assert f"{mean.psnr_y:.3f}" in page and "2 pictures of Set/HR" in page and "is left out" not in page
    assert "in FP32: onnxruntime on" in page


@pytest.mark.parametrize("as_json", [True, False])
def test_a_failed_check_is_one_document(net, srdeploy, monkeypatch, as_json):
    """The verdict is in the report, and the exit code says it; no second document follows the first."""
    from sr_deploy.pipeline import verify

    rows = (ImageQuality("a", {"psnr_y": 30.0, "ssim_y": 0.9, "torch_psnr_y": 30.0}, 0.2),)
    monkeypatch.setattr(verify, "verify_quality", lambda options, say: QualityReport("Y", (), rows))
    outcome = srdeploy("verify", net, "--lr", net, "--hr", net, *(["--json"] if as_json else []))
    assert outcome.code == 1 and "a differs from the PyTorch network by 0.2" in outcome.err
    if as_json:
        report = json.loads(outcome.out)
        assert report["problem"].startswith("a differs from the PyTorch network by 0.2 of 255, at most 0.05")


def test_a_deployment_that_cannot_be_written_is_verified_all_the_same(net, verified, srdeploy):
    shutil.rmtree(net / "results")
    (net / "results").write_text("in the way")
    pictures = verified / "Set"
    outcome = srdeploy("verify", net, "--lr", pictures / "LR", "--hr", pictures / "HR", "--no-torch", "--json")
    assert outcome.code == 0 and json.loads(outcome.out)["mean"]["psnr_y"]
    assert "note: the report is not kept in the deployment" in outcome.err


def test_the_hash_of_pictures_is_of_them_alone():
    pair = [("a", "1" * 64, "2" * 64), ("b", "3" * 64, "4" * 64)]
    assert hash_of_pictures(pair) == hash_of_pictures(pair[::-1])
    assert hash_of_pictures(pair) != hash_of_pictures([pair[0], ("b", "3" * 64, "5" * 64)])


def test_described_report_is_what_verify_writes():
    row = ImageQuality("a", {"psnr_y": float("inf"), "ssim_y": 1.0})
    written = QualityReport("Y", (), (row,), "int8").to_dict()
    assert written["images"][0]["psnr_y"] is None, "JSON has no infinity"
    assert set(written) == {field.name for field in dataclasses.fields(QualityFile)}


def test_an_entry_for_a_public_table_is_what_was_measured(net, srdeploy, tmp_path):
    """bench --submit writes what the catalogue takes, with both loads and the quality that was kept."""
    target = tmp_path / "net.entry.json"
    quick = ("--size", "24x32", "--runs", "12", "--threads", "1", "--backend", "onnxruntime", "--pace", "200")
    outcome = srdeploy("bench", net, *quick, "--submit", target)
    assert outcome.code == 0, outcome.err
    entry = read_submission(target)
    (point,) = entry.result.points
    assert [(load.rate_hz, load.burst) for load in point.loads] == [(200.0, 1), (200.0, 4)]
    assert entry.quality == read_quality(kept_of(net)) and entry.network.graph_sha256 == sha256_of(net / "model.onnx")
    outcome = srdeploy("report", "--catalogue", tmp_path, "-o", tmp_path / "c.html")
    assert outcome.code == 0, outcome.err
    assert f"{entry.quality.worst:.3f}" in (tmp_path / "c.html").read_text()
    # Refused before anything is measured.
    assert srdeploy("bench", net, *quick, "--submit", tmp_path / "x.json").code == 2
    kept_of(net).unlink()
    refused = srdeploy("bench", net, *quick, "--submit", target)
    assert refused.code == 2 and "no report of quality in fp32" in refused.err
