"""From a checkpoint to a checked engine on another machine: export, pack, unpack, build, verify."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tarfile

import numpy as np
import pytest

from sr_deploy.core.deployment.manifest import open_deployment, save_manifest
from sr_deploy.pipeline.demo import ASSETS
from sr_deploy.pipeline.export import ExportOptions, export_deployment

DEMO = ASSETS / "demo_x2.safetensors"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The network that ships, for any size, opset 16."""
    options = ExportOptions(DEMO, tmp_path_factory.mktemp("pack") / "net", target="xavier-nx")
    return export_deployment(options).folder


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    """The same for two sizes, opset 17, with 8-bit pixels at both ends."""
    options = ExportOptions(DEMO, tmp_path_factory.mktemp("pack") / "net", sizes=((24, 32), (16, 16)), io="uint8")
    return export_deployment(options).folder


@pytest.fixture
def deployment(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "net")
    return tmp_path / "net"


def names(bundle):
    with tarfile.open(bundle) as archive:
        return [member.name for member in archive.getmembers()]


def test_the_whole_way(srdeploy, deployment, tmp_path):
    bundle, folder = tmp_path / "net.srd", tmp_path / "board" / "net"
    packed = srdeploy("pack", deployment, "-o", bundle, "--backend", "onnxruntime", "--size", "48,24x32", "--json")
    assert packed.code == 0, packed.err
    record = json.loads(packed.out)
    assert record["sha256"] == hashlib.sha256(bundle.read_bytes()).hexdigest() and record["target"] == "xavier-nx"
    golden = [f"golden/{size}_{end}.npy" for size in ("24x32", "40x51") for end in ("lr", "sr")]
    assert names(bundle) == ["bundle.json", *sorted(golden), "manifest.json", "model.onnx", "recipe.toml"]

    facts = json.loads(srdeploy("inspect", bundle, "--json").out)
    assert (facts["kind"], facts["sha256"], facts["files"]) == ("bundle", record["sha256"], record["files"])

    shutil.rmtree(deployment)
    unpacked = srdeploy("unpack", bundle, "-o", folder, "--sha256", record["sha256"])
    assert unpacked.code == 0 and unpacked.out.strip() == str(folder), unpacked.err
    assert f"next: srdeploy build {folder} --backend onnxruntime --size 48x48,24x32" in unpacked.err

    assert srdeploy("build", folder, "--backend", "onnxruntime", "--size", "48,24x32").code == 0
    verified = srdeploy("verify", folder, "--golden", "--json")
    assert verified.code == 0, verified.err
    report = json.loads(verified.out)
    assert [(row["what"], row["size"]) for row in report["golden"]] == [("onnxruntime_24x32.onnx", "24x32")]
    assert report["golden"][0]["difference"] <= report["golden"][0]["tolerance"] == 0.05
    assert list(report["unchecked"]) == ["onnxruntime_48x48.onnx"]
    assert "within 0.05" in srdeploy("verify", folder, "--golden").out


def test_one_command_on_the_board(srdeploy, deployment, tmp_path):
    assert (
        srdeploy("pack", deployment, "-o", tmp_path / "net.srd", "--backend", "onnxruntime", "--size", "24").code == 0
    )
    outcome = srdeploy("unpack", tmp_path / "net.srd", "-o", tmp_path / "out", "--build", "--json")
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    assert record["engines"] == ["onnxruntime_24x24.onnx"] and record["check"]["unchecked"] == {}
    assert record["check"]["golden"][0]["size"] == "24x24"


def test_packing_twice_gives_the_same_bytes(srdeploy, deployment, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "net"
    shutil.copytree(deployment, elsewhere)
    (elsewhere / "results").mkdir()
    (elsewhere / "results" / "bench.json").write_text("{}")
    assert srdeploy("build", elsewhere, "--backend", "onnxruntime", "--size", "16").code == 0
    assert srdeploy("pack", deployment, "-o", tmp_path / "a.srd").code == 0
    assert srdeploy("pack", elsewhere, "-o", tmp_path / "b.srd").code == 0
    assert (tmp_path / "a.srd").read_bytes() == (tmp_path / "b.srd").read_bytes(), "engines and results stay behind"


def test_a_newer_opset_is_refused_with_the_command_that_helps(srdeploy, pixels, tmp_path):
    outcome = srdeploy("pack", pixels, "-o", tmp_path / "net.srd", "--target", "xavier-nx")
    assert outcome.code == 4 and "opset 17" in outcome.err and "opset 16" in outcome.err
    command = next(line for line in outcome.err.splitlines() if "next:" in line).split("srdeploy ")[1].split()
    out = command.index("-o") + 1
    assert command[out] == f"{pixels}-xavier-nx"
    command[out] = str(tmp_path / "other")
    assert srdeploy(*command).code == 0, "the command that the message names works"
    before, after = (open_deployment(folder).manifest for folder in (pixels, tmp_path / "other"))
    assert after.target == "xavier-nx" and [g.size for g in after.graphs] == [g.size for g in before.graphs]
    assert after.contract == before.contract and after.scale == before.scale
    assert srdeploy("pack", tmp_path / "other", "-o", tmp_path / "net.srd").code == 0


def test_an_older_opset_fits_a_newer_target(srdeploy, deployment, tmp_path):
    assert srdeploy("pack", deployment, "-o", tmp_path / "net.srd", "--target", "orin").code == 0
    outcome = srdeploy("pack", deployment, "-o", tmp_path / "x.srd", "--target", "nano")
    assert outcome.code == 2 and "xavier-nx" in outcome.err


def test_an_operator_that_the_target_lacks_is_refused(srdeploy, deployment, tmp_path):
    import onnx

    model = onnx.load(deployment / "model.onnx")
    last = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["before" if name == last else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("HardSwish", ["before"], [last]))
    onnx.save(model, deployment / "model.onnx")
    manifest = open_deployment_unchecked(deployment)
    save_manifest(deployment, manifest)
    outcome = srdeploy("pack", deployment, "-o", tmp_path / "x.srd")
    assert outcome.code == 4 and "HardSwish, which xavier-nx cannot parse" in outcome.err


def open_deployment_unchecked(folder):
    """The manifest with the hash of the graph as it is now: what an editor of graphs would write."""
    raw = json.loads((folder / "manifest.json").read_text())
    raw["graphs"][0]["sha256"] = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(raw))
    return open_deployment(folder).manifest


def test_precision_files_are_carried_and_nothing_else(srdeploy, deployment, tmp_path):
    for name in ("plan.json", "plan_int8.json", "weights.npz", "set5.calibration", "calibration-x.cache"):
        (deployment / name).write_text(name)
    (deployment / "precision").mkdir()
    (deployment / "precision" / "ranges.json").write_text("{}")
    (deployment / "notes.txt").write_text("private")
    assert srdeploy("pack", deployment, "-o", tmp_path / "net.srd").code == 0
    carried = set(names(tmp_path / "net.srd"))
    assert {"plan.json", "plan_int8.json", "weights.npz", "set5.calibration", "calibration-x.cache"} < carried
    assert "precision/ranges.json" in carried and "notes.txt" not in carried
    assert srdeploy("unpack", tmp_path / "net.srd", "-o", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "precision" / "ranges.json").read_text() == "{}"
    (deployment / "precision" / "tool.sh").write_text("#!")
    outcome = srdeploy("pack", deployment, "-o", tmp_path / "x.srd")
    assert outcome.code == 4 and "tool.sh" in outcome.err and not (tmp_path / "x.srd").exists()


def test_a_damaged_plan_is_found_before_it_travels(srdeploy, deployment, tmp_path):
    (deployment / "precision" / "int8").mkdir(parents=True)
    (deployment / "precision" / "int8" / "plan.json").write_text('{"a": 1')
    outcome = srdeploy("pack", deployment, "-o", tmp_path / "x.srd")
    assert outcome.code == 4 and "is no precision plan" in outcome.err and not (tmp_path / "x.srd").exists()


def test_dry_run_writes_nothing(srdeploy, deployment, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    outcome = srdeploy(
        "pack", deployment, "-o", tmp_path / "x.srd", "--size", "144", "--triton", tmp_path / "r", "--dry-run"
    )
    assert outcome.code == 0 and "golden:  144x144 with model.onnx" in outcome.out
    assert "srdeploy build DIR --size 144x144" in outcome.out and "net_onnx" in outcome.out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments, code, said",
    [
        ((), 2, "-o net.srd"),
        (("-o", "x.srd", "--backend", "tflite"), 2, "no backend"),
        (("-o", "x.srd", "--size", "8", "--min-size", "8", "--opt-size", "8", "--max-size", "8"), 2, "without --size"),
        (("-o", "x.srd", "--min-size", "8"), 2, "three sizes"),
        (("-o", "x.srd", "--min-size", "9", "--opt-size", "8", "--max-size", "9"), 2, "not in order"),
        (("-o", "x.srd", "--memory-budget", "1GB"), 2, "--memory-budget"),
        (("-o", "x.srd", "--golden-size", "100000"), 3, "100000x100000 needs"),
        (("-o", "x.srd", "--name", "sr"), 2, "--triton"),
        (("--triton", "models", "--target", "orin"), 2, "--target describes a bundle"),
    ],
)
def test_recipes_that_the_board_would_refuse_are_refused_here(
    srdeploy, deployment, tmp_path, monkeypatch, arguments, code, said
):
    monkeypatch.chdir(tmp_path)
    outcome = srdeploy("pack", deployment, *arguments)
    assert outcome.code == code and said in outcome.err, outcome.err
    assert not (tmp_path / "x.srd").exists()


def test_an_existing_bundle_needs_force(srdeploy, deployment, tmp_path):
    (tmp_path / "x.srd").write_text("mine")
    assert srdeploy("pack", deployment, "-o", tmp_path / "x.srd").code == 2
    assert (tmp_path / "x.srd").read_text() == "mine"
    assert srdeploy("pack", deployment, "-o", tmp_path / "x.srd", "--force").code == 0


def test_a_wrong_engine_fails_the_check(srdeploy, deployment, tmp_path):
    """The engine is right and the golden picture is of something else: to the check that is the same."""
    assert srdeploy("pack", deployment, "-o", tmp_path / "x.srd").code == 0
    assert srdeploy("unpack", tmp_path / "x.srd", "-o", tmp_path / "out").code == 0
    assert srdeploy("verify", tmp_path / "out", "--golden").code == 0, "the graph itself, without an engine"
    path = tmp_path / "out" / "golden" / "40x51_sr.npy"
    picture = np.load(path)
    picture[0, 1, 3, 5] += 0.06 / 255
    path.write_bytes(path.read_bytes()[: -picture.nbytes] + picture.tobytes())
    outcome = srdeploy("verify", tmp_path / "out", "--golden")
    assert outcome.code == 1 and "OUTSIDE 0.05" in outcome.out and "differs from the golden picture" in outcome.err
    assert srdeploy("verify", tmp_path / "out", "--golden", "--tolerance", "0.1").code == 0


def test_engines_of_other_machines_and_precisions(srdeploy, deployment, tmp_path):
    from sr_deploy.engine.manifest import open_engine, save_engine

    assert srdeploy("pack", deployment, "-o", tmp_path / "x.srd").code == 0
    out = tmp_path / "out"
    assert srdeploy("unpack", tmp_path / "x.srd", "-o", out).code == 0
    assert srdeploy("build", out, "--backend", "onnxruntime", "--size", "40x51").code == 0
    engine = out / "engines" / "onnxruntime_40x51.onnx"
    manifest, data = open_engine(engine), engine.read_bytes()
    save_engine(engine, data, dataclasses.replace(manifest, runtime_version="0.0.1"))
    outcome = srdeploy("verify", out, "--golden")
    assert outcome.code == 4 and "0.0.1" in outcome.err, "it does not fall back to the graph without a word"
    save_engine(engine, data, dataclasses.replace(manifest, precision="fp16"))
    outcome = srdeploy("verify", out, "--golden")
    assert outcome.code == 0 and "root-mean-square difference" in outcome.out and "within 0.5" in outcome.out
    assert srdeploy("verify", out, "--golden", "--precision", "fp16").code == 0
    refused = srdeploy("verify", out, "--golden", "--precision", "int8")
    assert refused.code == 4 and "none of int8" in refused.err
    assert srdeploy("verify", out, "--golden", "--precision", "int4").code == 2
    assert srdeploy("verify", out, "--golden", "--backend", "tensorrt").code == 4


def test_verify_golden_needs_golden_pictures(srdeploy, deployment, tmp_path):
    outcome = srdeploy("verify", deployment, "--golden")
    assert outcome.code == 4 and "srdeploy pack" in outcome.err
    assert srdeploy("verify", deployment).code == 2
    assert srdeploy("verify", deployment, "--golden", "--lr", tmp_path).code == 2


def test_fixed_sizes_and_pixels(srdeploy, pixels, tmp_path):
    assert srdeploy("pack", pixels, "-o", tmp_path / "x.srd", "--backend", "onnxruntime").code == 0
    carried = names(tmp_path / "x.srd")
    assert [name for name in carried if name.endswith("_sr.npy")] == ["golden/16x16_sr.npy"], "of the smallest graph"
    assert [name for name in carried if name.endswith(".onnx")] == ["model.onnx", "model_16x16.onnx"]
    outcome = srdeploy("unpack", tmp_path / "x.srd", "-o", tmp_path / "out", "--build")
    assert outcome.code == 0, outcome.err
    assert np.load(tmp_path / "out" / "golden" / "16x16_lr.npy").dtype == np.uint8


def test_a_damaged_bundle_is_bad_input(srdeploy, deployment, tmp_path):
    assert srdeploy("pack", deployment, "-o", tmp_path / "x.srd").code == 0
    raw = bytearray((tmp_path / "x.srd").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "x.srd").write_bytes(raw)
    outcome = srdeploy("unpack", tmp_path / "x.srd", "-o", tmp_path / "out")
    assert outcome.code == 4 and "was altered" in outcome.err and not (tmp_path / "out").exists()
    assert srdeploy("unpack", tmp_path / "x.srd", "-o", tmp_path / "out", "--sha256", "12").code == 2
