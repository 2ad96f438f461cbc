"""Each command as a user types it, on the network that ships."""

from __future__ import annotations

import json
import re
import shutil

import cv2
import numpy as np
import pytest

from sr_deploy.pipeline.demo import ASSETS

DEMO = ASSETS / "demo_x2.safetensors"


@pytest.fixture
def deployment(demo_export, tmp_path):
    shutil.copytree(demo_export, tmp_path / "net")
    return tmp_path / "net"


def test_version_and_help(srdeploy):
    assert re.fullmatch(r"srdeploy \d+\.\d+\.\d+\n", srdeploy("--version").out)
    for command in ("export", "build", "run", "verify", "bench", "inspect", "doctor", "demo"):
        outcome = srdeploy(command, "--help")
        assert outcome.code == 0 and command in outcome.out
        assert command in srdeploy("--help").out


def test_export_prints_the_folder_and_proves(srdeploy, tmp_path):
    outcome = srdeploy("export", DEMO, "-o", tmp_path / "net")
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == str(tmp_path / "net")
    assert outcome.err.endswith(f"next: srdeploy build {tmp_path / 'net'} --size HxW\n")
    manifest = json.loads((tmp_path / "net" / "manifest.json").read_text())
    assert len(manifest["fold"]["blocks"]) == 20, "SPAN has 20 Conv3XC"
    assert len(manifest["proofs"]) == 4 and max(manifest["proofs"].values()) <= 0.05
    assert manifest["contract"]["value_range"] == 1.0 and manifest["scale"] == 2


def test_export_dry_run_writes_nothing(srdeploy, tmp_path):
    outcome = srdeploy("export", DEMO, "-o", tmp_path / "net", "--dry-run")
    assert outcome.code == 0 and "SPAN x2" in outcome.out
    assert list(tmp_path.iterdir()) == []


def test_export_of_fixed_sizes(srdeploy, tmp_path):
    outcome = srdeploy("export", DEMO, "-o", tmp_path / "net", "--size", "24x32", "--size", "33")
    assert outcome.code == 0, outcome.err
    assert sorted(p.name for p in (tmp_path / "net").glob("*.onnx")) == ["model.onnx", "model_33x33.onnx"]
    refused = srdeploy("build", tmp_path / "net", "--backend", "onnxruntime", "--size", "40")
    assert refused.code == 4 and "40x40" in refused.err and "24x32, 33x33" in refused.err


def test_a_run_that_cannot_fit_in_memory_is_not_begun(deployment):
    from sr_deploy.core.deployment.manifest import open_deployment
    from sr_deploy.core.errors import EnvironmentFault
    from sr_deploy.pipeline.memory import check_memory

    (graph,) = open_deployment(deployment).manifest.graphs
    check_memory(graph, (64, 64))
    with pytest.raises(EnvironmentFault, match="100000x100000 needs at least"):
        check_memory(graph, (100_000, 100_000))


def test_unfolded_export_is_the_same_function(srdeploy, demo_export, tmp_path):
    from sr_deploy.core.deployment.manifest import open_deployment

    assert srdeploy("export", DEMO, "-o", tmp_path / "plain", "--no-fold").code == 0
    plain, folded = (open_deployment(folder).manifest.graphs[0] for folder in (tmp_path / "plain", demo_export))
    assert folded.macs < plain.macs / 2 and folded.parameters < plain.parameters


def test_build_and_run_keep_what_a_picture_is(srdeploy, deployment, tmp_path):
    outcome = srdeploy("build", deployment, "--backend", "onnxruntime", "--size", "24x32,16", "--json")
    assert outcome.code == 0, outcome.err
    engines = json.loads(outcome.out)
    assert [engine["profile"][0] for engine in engines] == [[24, 32], [16, 16]]
    assert "exists already" in srdeploy("build", deployment, "--backend", "onnxruntime", "--size", "16").err
    assert srdeploy("build", deployment, "--backend", "onnxruntime", "--size", "16", "--force").code == 0

    generator = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    cases = {
        "rgb.png": generator.integers(0, 256, (24, 32, 3), np.uint8),
        "alpha.png": generator.integers(0, 256, (24, 32, 4), np.uint8),
        "grey.png": generator.integers(0, 256, (16, 16), np.uint8),
        "deep.png": generator.integers(0, 65536, (16, 16, 3), np.uint16),
        "photo.jpg": generator.integers(0, 256, (20, 21, 3), np.uint8),
    }
    for name, pixels in cases.items():
        assert cv2.imwrite(str(tmp_path / "in" / name), pixels)
    outcome = srdeploy("run", deployment, "-i", tmp_path / "in", "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "engine onnxruntime_24x32.onnx" in outcome.err and "runs model.onnx" in outcome.err
    for name, pixels in cases.items():
        result = cv2.imread(str(tmp_path / "out" / name), cv2.IMREAD_UNCHANGED)
        assert result.dtype == pixels.dtype
        assert result.shape == (2 * pixels.shape[0], 2 * pixels.shape[1], *pixels.shape[2:])


def test_build_dry_run_and_backend_choice(srdeploy, deployment):
    outcome = srdeploy("build", deployment, "--dry-run")
    assert outcome.code == 0 and "engines/onnxruntime_dynamic.onnx" in outcome.out
    outcome = srdeploy("build", deployment, "--size", "144", "--compute-capability", "8.6,12.0", "--dry-run")
    assert "engines/tensorrt-rtx_144x144_sm86-sm120.engine" in outcome.out
    assert not (deployment / "engines").exists()
    outcome = srdeploy("build", deployment, "--backend", "tensorrt-rtx", "--compute-capability", "8.6")
    assert outcome.code == 2 and "--size" in outcome.err
    outcome = srdeploy("build", deployment, "--size", "144", "--compute-capability", "9.0")
    assert outcome.code == 2 and "8.6" in outcome.err


def test_tensorrt_rtx_engine_is_built_and_not_run_without_a_gpu(srdeploy, deployment, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    outcome = srdeploy(
        "build", deployment, "--size", "24", "--compute-capability", "8.6", "--compute-capability", "12.0", "--json"
    )
    assert outcome.code == 0, outcome.err
    (engine,) = json.loads(outcome.out)
    assert engine["compute_capabilities"] == ["8.6", "12.0"] and engine["activation_bytes"] > 0
    from sr_deploy.core.host.machine import this_machine

    if this_machine().gpus:
        pytest.skip("this machine has a GPU; the refusal is for machines without one")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((24, 24, 3), np.uint8))
    command = ("run", deployment, "-i", tmp_path / "a.png", "-o", tmp_path / "out")
    refused = srdeploy(*command, "--engine", deployment / "engines" / engine["file"])
    assert refused.code == 4 and "8.6, 12.0" in refused.err and "no GPU" in refused.err
    assert srdeploy(*command, "--backend", "tensorrt-rtx").code == 4
    assert srdeploy(*command).code == 0, "without a GPU the graph runs on ONNX Runtime"


def test_dynamic_tensorrt_rtx_engine(srdeploy, deployment):
    pytest.importorskip("tensorrt_rtx")
    sizes = ("--min-size", "16", "--opt-size", "24x32", "--max-size", "64")
    assert srdeploy("build", deployment, *sizes[:4], "--compute-capability", "8.6").code == 2
    outcome = srdeploy("build", deployment, *sizes, "--compute-capability", "8.6", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)[0]["profile"] == [[16, 16], [24, 32], [64, 64]]


def test_verify_measures_against_hr_and_pytorch(srdeploy, deployment, tmp_path):
    from sr_deploy.core.media.bicubic import resize

    hr = cv2.imread(str(ASSETS / "demo.png"))[:96, :128]
    for folder, pixels in (("hr", hr), ("lr", resize(hr, (48, 64)))):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / ("a.png" if folder == "hr" else "ax2.png")), pixels)
    outcome = srdeploy("verify", deployment, "--lr", tmp_path / "lr", "--hr", tmp_path / "hr", "--json")
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)
    (image,) = report["images"]
    assert image["name"] == "a" and image["psnr_y"] > 25 and 0.5 < image["ssim_y"] < 1
    assert abs(image["psnr_y"] - image["torch_psnr_y"]) < 0.005
    assert 0 < report["largest_difference"] <= report["tolerance"] == 0.05
    table = srdeploy("verify", deployment, "--lr", tmp_path / "lr", "--hr", tmp_path / "hr", "--no-torch")
    assert table.code == 0 and "PSNR-Y" in table.out and "PyTorch" not in table.out

    # Fidelity, to a folder of another network's pictures (here: the originals) and to a deployment, which is itself.
    followed = ("verify", deployment, "--lr", tmp_path / "lr", "--hr", tmp_path / "hr", "--no-torch", "--json")
    (image,) = json.loads(srdeploy(*followed, "--reference", tmp_path / "hr").out)["images"]
    assert image["fidelity"] == pytest.approx(image["psnr_y"], abs=3) and image["fidelity"] != image["psnr_y"]
    itself = srdeploy(*followed, "--reference", deployment)
    assert itself.code == 0 and json.loads(itself.out)["images"][0]["fidelity"] is None, "infinite"
    missing = srdeploy(*followed, "--reference", tmp_path / "lr")
    assert missing.code == 4 and "has no picture a" in missing.err


def test_verify_fails_when_the_graph_is_another_function(deployment, tmp_path):
    """A wrong picture must not pass: the verdict is made from the measured difference."""
    from sr_deploy.core.errors import CheckFailed
    from sr_deploy.pipeline.verify import ImageQuality, QualityReport

    figures = {"psnr_y": 30.0, "ssim_y": 0.9, "torch_psnr_y": 30.0}
    rows = (ImageQuality("a", figures, 0.01), ImageQuality("b", figures, 0.2))
    with pytest.raises(CheckFailed, match="b differs from the PyTorch network by 0.2 of 255"):
        QualityReport("convention", (), rows).raise_on_failure()
    QualityReport("convention", (), rows[:1]).raise_on_failure()


def test_bench_writes_table_json_and_plot(srdeploy, deployment, tmp_path):
    command = ("bench", deployment, "--size", "16,24x32", "--seconds", "0", "--iterations", "3")
    outcome = srdeploy(*command, "--out", tmp_path / "out.json")
    assert outcome.code == 0, outcome.err
    assert "median" in outcome.out and "24x32" in outcome.out
    result = json.loads((tmp_path / "out.json").read_text())
    assert [point["size"] for point in result["points"]] == [[16, 16], [24, 32]]
    for point in result["points"]:
        assert len(point["samples_s"]) >= 3 and 0 < point["min_s"] <= point["median_s"] <= point["p99_s"]
    assert result["environment"]["cpu"]
    plots = list((deployment / "results").glob("*.png"))
    assert len(plots) == 1 and cv2.imread(str(plots[0])) is not None


def test_bench_fails_when_no_size_fits(srdeploy, tmp_path):
    assert srdeploy("export", DEMO, "-o", tmp_path / "net", "--size", "24").code == 0
    outcome = srdeploy("bench", tmp_path / "net", "--size", "40", "--seconds", "0")
    assert outcome.code == 1 and "does not take an input of 40x40" in outcome.err


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda d: d, "deployment", ("SPAN", "value_range")),
        (lambda d: d / "model.onnx", "onnx", ("Conv", "operators")),
        (lambda d: DEMO, "checkpoint", ("training", "SPAN")),
    ],
)
def test_inspect(srdeploy, deployment, make, kind, words):
    as_json = srdeploy("inspect", make(deployment), "--json")
    assert as_json.code == 0, as_json.err
    assert json.loads(as_json.out)["kind"] == kind
    table = srdeploy("inspect", make(deployment))
    assert table.code == 0
    for word in words:
        assert word in as_json.out


def test_inspect_engine_and_what_needs_a_value(srdeploy, deployment, tmp_path):
    import torch

    assert srdeploy("build", deployment, "--backend", "onnxruntime", "--size", "24").code == 0
    facts = json.loads(srdeploy("inspect", deployment / "engines" / "onnxruntime_24x24.onnx", "--json").out)
    assert facts["kind"] == "engine" and facts["profile"][0] == [24, 24]
    (tmp_path / "alone.engine").write_bytes(b"plan")
    assert srdeploy("inspect", tmp_path / "alone.engine").code == 4
    from tests.synthetic_checkpoints import dsclora

    torch.save(dsclora(8, 2, 2, 0), tmp_path / "lora.pth")
    facts = json.loads(srdeploy("inspect", tmp_path / "lora.pth", "--json").out)
    assert facts["architecture"] == "DSCLoRA" and "--lora-alpha" in facts["next"]


def test_lora_alpha_is_asked_for_and_used(srdeploy, tmp_path):
    import torch

    from tests.synthetic_checkpoints import dsclora

    torch.save(dsclora(8, 2, 2, 0), tmp_path / "lora.pth")
    refused = srdeploy("export", tmp_path / "lora.pth", "-o", tmp_path / "net")
    assert refused.code == 2 and "--lora-alpha" in refused.err
    assert srdeploy("export", tmp_path / "lora.pth", "-o", tmp_path / "net", "--lora-alpha", "2r").code == 0
    manifest = json.loads((tmp_path / "net" / "manifest.json").read_text())
    assert manifest["source"]["load_options"]["lora_alpha"] == "2r"
    assert all(block["became"].startswith("Conv2d") for block in manifest["fold"]["blocks"])


def test_own_network(srdeploy, tmp_path, monkeypatch):
    import torch

    (tmp_path / "mynet.py").write_text(
        "import torch.nn as nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))\n"
    )
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(
        {"state_dict": {"module.0.weight": torch.randn(12, 3, 3, 3) / 9, "module.0.bias": torch.rand(12)}}, "own.ckpt"
    )
    command = ("export", "own.ckpt", "-o", "net", "--model", "mynet:build")
    assert srdeploy(*command).code == 2, "the value range is asked for"
    outcome = srdeploy(*command, "--value-range", "1")
    assert outcome.code == 0, outcome.err
    assert json.loads((tmp_path / "net" / "manifest.json").read_text())["scale"] == 2


def test_doctor(srdeploy):
    outcome = srdeploy("doctor", "--json")
    assert outcome.code == 0
    report = json.loads(outcome.out)
    assert {finding["level"] for finding in report["findings"]} <= {"ok", "missing", "warning"}
    assert report["environment"]["packages"]["torch"]
    assert "ONNX Runtime" in srdeploy("doctor").out or "onnxruntime" in srdeploy("doctor").out


@pytest.mark.parametrize("scale", [2, 4])
def test_demo_ends_in_two_pictures(srdeploy, tmp_path, scale):
    outcome = srdeploy("demo", "-o", tmp_path / "demo", "--scale", scale)
    assert outcome.code == 0, outcome.err
    assert f"kept in {tmp_path}/demo/deployment/results" in outcome.err, "places are named as they will be"
    pictures = [line for line in outcome.out.splitlines() if line.endswith(".png")]
    assert len(pictures) == 2
    for picture in pictures:
        assert cv2.imread(picture).shape[1] > 600
    assert srdeploy("demo", "-o", tmp_path / "demo").code == 2
    assert srdeploy("demo", "-o", tmp_path / "other", "--scale", "3").code == 2
