"""``srdeploy qat`` on a whole deployment: what it writes, what it refuses, and how it goes on."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from sr_deploy.core.deployment.manifest import UNFINISHED_FOLDER, open_deployment
from sr_deploy.core.deployment.plan import open_plan, save_plan
from sr_deploy.core.media.image import Picture, write_picture
from sr_deploy.graph.census import work_by_node
from sr_deploy.graph.specialise import load_graph
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.precision.calibrate.collect import ranges_of
from sr_deploy.precision.calibrate.ranges import scale_of
from sr_deploy.precision.choose.islands import kinds_of
from sr_deploy.precision.choose.plan_from_ranges import NarrowChoice, Scales, narrow_plan
from tests import synthetic_checkpoints
from tests.precision import small_plans

QUICK = ("--steps", "12", "--batch", "2", "--patch", "16", "--device", "cpu")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Six low-resolution pictures of 48x52."""
    folder = tmp_path_factory.mktemp("photographs")
    for index, array in enumerate(small_plans.pictures(6, (48, 52))):
        pixels = np.rint(array[0].transpose(1, 2, 0) * 255).astype(np.uint8)
        write_picture(Picture(np.ascontiguousarray(pixels)), folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A SPAN of 8 channels with an INT8 plan."""
    folder = tmp_path_factory.mktemp("deployment")
    torch.save(synthetic_checkpoints.span_folded(8, 2, 0), folder / "net.pth")
    deployment = export_deployment(ExportOptions(folder / "net.pth", folder / "net"))
    path = deployment.folder / "model.onnx"
    model = load_graph(path)
    kinds = kinds_of(model, {name: work.macs for name, work in work_by_node(path, (32, 32)).items()})
    ranges = ranges_of(model, small_plans.pictures())
    scales = {name: scale_of(stats) for name, stats in ranges.tensors.items()}
    choice = NarrowChoice(list(kinds.candidates)[1:-1])
    plan = narrow_plan(model, kinds, deployment.graph_for().sha256, Scales(scales), choice)
    (deployment.folder / "precision" / "int8").mkdir(parents=True)
    save_plan(deployment.folder / "precision" / "int8", plan)
    return deployment.folder


@pytest.fixture
def net(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "net")


def test_it_writes_a_plan_that_fits_its_report_and_its_plot(net, photographs, srdeploy):
    done = srdeploy("qat", net, "--images", photographs, *QUICK, "--json")
    assert done.code == 0, done.err
    folder = net / "precision" / "qat"
    written = {path.name for path in folder.iterdir()}
    assert {"plan.json", "weights.npz", "training.json", "training.png", "model.onnx", "report.json"} <= written
    assert (folder / "training.png").read_bytes().startswith(b"\x89PNG")
    plan, weights = open_plan(folder)
    before, _ = open_plan(net / "precision" / "int8")
    assert plan.nodes == before.nodes and set(plan.weight_scales) <= set(weights)
    report = json.loads((folder / "training.json").read_text())
    assert json.loads(done.out)["loss_db"] == report["loss_db"]
    assert [point["step"] for point in report["points"]] == [0, 12] and report["options"]["steps"] == 12
    assert not (net / "precision" / UNFINISHED_FOLDER).exists()
    open_deployment(net)
    built = srdeploy("build", net, "--plan", folder, "--backend", "onnxruntime")
    assert built.code == 0 and "made before" in built.err, built.err
    assert (net / "engines" / "onnxruntime_dynamic_int8.onnx").is_file()

    refused = srdeploy("qat", net, "--images", photographs, *QUICK)
    assert refused.code == 2 and "--force begins again" in refused.err


def test_an_interrupted_one_goes_on_only_when_asked(net, photographs, srdeploy, monkeypatch):
    from sr_deploy.train import loop

    class Gone(Exception):
        pass

    keep = loop.keep

    def keep_and_go(keeping, state):
        keep(keeping, state)
        raise Gone

    with monkeypatch.context() as patched:
        patched.setattr(loop, "keep", keep_and_go)
        with pytest.raises(Gone):
            srdeploy("qat", net, "--images", photographs, *QUICK)
    assert not (net / "precision" / "qat").exists()
    refused = srdeploy("qat", net, "--images", photographs, *QUICK)
    assert refused.code == 2 and "--resume" in refused.err
    done = srdeploy("qat", net, "--images", photographs, *QUICK, "--resume")
    assert done.code == 0 and "going on after step 1\n" in done.err
    assert (net / "precision" / "qat" / "plan.json").is_file()


def test_originals_and_a_teacher(net, photographs, tmp_path, srdeploy):
    originals = tmp_path / "hr"
    originals.mkdir()
    for index, array in enumerate(small_plans.pictures(6, (96, 104))):
        pixels = np.rint(array[0].transpose(1, 2, 0) * 255).astype(np.uint8)
        write_picture(Picture(np.ascontiguousarray(pixels)), originals / f"{index}.png")
    torch.save(synthetic_checkpoints.span_folded(12, 2, 1), tmp_path / "teacher.pth")
    done = srdeploy(
        "qat", net, "--images", photographs, "--hr", originals, "--teacher", tmp_path / "teacher.pth", *QUICK
    )
    assert done.code == 0, done.err
    notes = " ".join(open_plan(net / "precision" / "qat")[0].notes)
    assert "with originals" in notes or "brought nothing" in notes

    (originals / "0.png").unlink()
    refused = srdeploy("qat", net, "--images", photographs, "--hr", originals, *QUICK, "--force")
    assert refused.code == 4 and "no partner" in refused.err


def test_what_it_refuses(net, photographs, tmp_path, srdeploy):
    cases = (
        (("--images", tmp_path / "missing"), 4, "does not exist"),
        (("--images", photographs, "--steps", "0"), 2, "--steps 0"),
        (("--images", photographs, "--minutes", "0"), 2, "--minutes 0"),
        (("--images", photographs, "--rate", "2"), 2, "--rate 2"),
        (("--images", photographs, "--device", "tpu"), 2, "'tpu'"),
        (("--images", photographs, "--resume"), 2, "no unfinished fine-tuning"),
        (
            ("--images", photographs, "--patch", "80"),
            4,
            "0.png of 48x52, as 5 more are, is smaller than",
        ),
        (("--images", photographs, "--teacher", tmp_path / "missing.pth"), 2, "does not exist"),
    )
    for arguments, code, message in cases:
        refused = srdeploy("qat", net, *arguments)
        assert refused.code == code and message in refused.err, (arguments, refused)
        assert "judging" not in refused.err, "nothing long comes before it"
    torch.save(synthetic_checkpoints.span_folded(8, 3, 0), tmp_path / "three.pth")
    refused = srdeploy("qat", net, "--images", photographs, "--teacher", tmp_path / "three.pth", *QUICK)
    assert refused.code == 2 and "scale 3" in refused.err

    plan_file = net / "precision" / "int8" / "plan.json"
    plan = json.loads(plan_file.read_text())
    plan_file.write_text(json.dumps({**plan, "graph_sha256": "0" * 64}))
    refused = srdeploy("qat", net, "--images", photographs)
    assert refused.code == 4 and "another graph" in refused.err
    plan_file.unlink()
    refused = srdeploy("qat", net, "--images", photographs)
    assert refused.code == 4 and "--precision int8" in refused.err
    assert not (net / "precision" / "qat").exists()
