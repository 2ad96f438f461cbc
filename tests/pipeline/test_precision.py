"""``build --precision``: plans made, kept, edited, taken back and refused, down to the engines."""

from __future__ import annotations

import dataclasses
import errno
import importlib.util
import json
import shutil
from pathlib import Path

import onnx
import pytest

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.deployment.calibration_cache import read_cache
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.deployment.plan import open_plan
from sr_deploy.core.errors import BadDeployment
from sr_deploy.core.media.image import Picture, read_picture, write_picture
from sr_deploy.core.text import decibels_lost
from sr_deploy.engine.manifest import open_engine
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.pipeline.precision.content import LEAST
from sr_deploy.pipeline.precision.make_plan import _edited
from sr_deploy.pipeline.precision.plan_needs import plannable
from tests.graph.given.given_graphs import given, saved

DEMO = Path(__file__).resolve().parents[2] / "sr_deploy" / "demo"
RTX = ("--backend", "tensorrt-rtx", "--compute-capability", "8.6", "--size", "24x32")
RANGE = ("--min-size", "8", "--opt-size", "8", "--max-size", "9")
needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="no TensorRT-RTX")


def edited(path: Path, change) -> None:
    plan = json.loads(path.read_text())
    change(plan)
    path.write_text(json.dumps(plan))


def nodes_of(path: Path):
    return {node.name: node for node in onnx.load(path).graph.node}


def test_fp16_without_pictures(plain, srdeploy):
    done = srdeploy("build", plain, "--precision", "fp16", "--json")
    assert done.code == 0, done.err
    (engine,) = json.loads(done.out)
    assert engine["precision"] == "fp16" and engine["file"] == "onnxruntime_dynamic_fp16.onnx"
    assert engine["graph_sha256"] == open_deployment(plain).manifest.graphs[0].sha256
    assert "multiply-accumulates: 100.0% float16" in done.err and "against float32" in done.err
    report = json.loads((plain / "precision" / "fp16" / "report.json").read_text())
    assert abs(report["loss_db"]) <= 0.01
    assert report["macs_share"] == {"int8": 0, "float8": 0, "float16": 1, "bfloat16": 0, "float32": 0}
    assert not (plain / "precision" / "fp16" / "weights.npz").exists()
    again = srdeploy("build", plain, "--precision", "fp16", "--force")
    assert again.code == 0 and "made before" in again.err
    assert srdeploy("build", plain, "--precision", "fp16").code == 2, "an engine is not replaced without --force"


def test_int8_fitted_and_auto(plain, photographs, srdeploy):
    done = srdeploy("build", plain, "--precision", "int8", "--images", photographs, "--psnr-budget", "0.3")
    assert done.code == 0, done.err
    plan, weights = open_plan(plain / "precision" / "int8")
    assert plan.precision == "int8" and weights and plan.calibration["pictures"] == 4
    report = json.loads((plain / "precision" / "int8" / "report.json").read_text())
    assert report["narrow_share_outside_pinned"] >= 0.85 and report["worst_loss_db"] <= 0.3
    kinds = [one["kind"] for one in report["judged"]]
    assert kinds.count("shrunk photograph") == 4 and kinds.count("graphics") == report["pictures"] - 4 > 6
    assert max(one["loss"] for one in report["judged"]) == report["worst_loss_db"] >= report["loss_db"]
    assert plan.calibration["graphics"]["count"] == LEAST and decibels_lost(report["worst_loss_db"]) in done.err
    assert report["lint"]["narrow_products"] == sum("Conv" in name for name in plan.nodes_of("int8"))
    assert {path.name for path in (plain / "precision" / "int8").iterdir()} == {
        "plan.json", "weights.npz", "model.onnx", "legacy.onnx", "legacy.json", "calibration.cache", "implicit.onnx",
        "report.json",
    }  # fmt: skip
    cache = read_cache(plain / "precision" / "int8" / "calibration.cache").scales
    implicit = onnx.load(str(plain / "precision" / "int8" / "implicit.onnx"))
    divided = {name for one in implicit.graph.node for name in one.output if name.endswith("/divided")}
    assert len(divided) == len(plan.channel_factors) > 0 and divided <= set(cache)
    asked = ("--precision", "auto", "--psnr-budget", "0.1", "--images", photographs, "--content", "photo")
    done = srdeploy("build", plain, *asked, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)[0]["precision"] == "auto"
    assert "set 1 of at most " in done.err and " s: 19 layers in INT8\n  " in done.err
    plan, _ = open_plan(plain / "precision" / "auto")
    assert plan.precision == "auto" and any("for a budget of 0.1 dB" in note for note in plan.notes)
    assert "gave_up" in json.loads((plain / "precision" / "auto" / "report.json").read_text())
    assert set(plan.reasons) >= {name for name in plan.nodes if "Conv" in name} - set(plan.nodes_of("int8"))
    open_deployment(plain)


@needs_rtx
def test_engines_of_tensorrt_rtx(net, srdeploy):
    for precision in ("fp16", "int8"):
        done = srdeploy("build", net, *RTX, "--precision", precision, "--json")
        assert done.code == 0, done.err
        engine = open_engine(net / "engines" / json.loads(done.out)[0]["file"])
        assert engine.precision == precision and engine.profile == ((24, 32),) * 3
        assert precision in engine.file and engine.settings["typing"] == "strongly_typed"
    assert srdeploy("build", net, *RTX, "--precision", "int8", "--implicit", "--force").code == 2
    assert srdeploy("build", net, "--precision", "int8", "--implicit").code == 2


def test_a_plan_edited_by_hand_is_taken_back(net, srdeploy):
    folder = net / "precision" / "int8"
    name = next(iter(open_plan(folder)[0].nodes_of("int8")))
    before = nodes_of(folder / "model.onnx")[name].input[0]
    assert before.endswith("/dequantized")
    edited(folder / "plan.json", lambda plan: plan["nodes"].update({name: "float16"}))

    refused = srdeploy("build", net, "--precision", "int8")
    assert refused.code == 4 and "changed after its graphs were made" in refused.err and "--plan" in refused.err

    done = srdeploy("build", net, "--plan", folder / "plan.json", "--json")
    assert done.code == 0, done.err
    (engine,) = json.loads(done.out)
    assert engine["precision"] == "int8"
    typed = nodes_of(folder / "model.onnx")[name]
    assert not any("dequantized" in one or "int8" in one for one in typed.input)
    types = {t.name: t.data_type for t in onnx.load(folder / "model.onnx").graph.initializer}
    assert types[typed.input[1]] == onnx.TensorProto.FLOAT16
    plan, _ = open_plan(folder)
    assert plan.nodes[name] == "float16" and plan.reasons[name] == "set by hand"
    again = srdeploy("build", net, "--precision", "int8", "--force")
    assert again.code == 0 and "made before" in again.err


def test_a_plan_from_elsewhere_keeps_its_name(net, tmp_path, srdeploy):
    mine = tmp_path / "mine.json"
    shutil.copy(net / "precision" / "int8" / "plan.json", mine)
    edited(mine, lambda plan: plan["nodes"].update(dict.fromkeys(list(plan["nodes"])[-1:], "float32")))
    done = srdeploy("build", net, "--plan", mine)
    assert done.code == 0, done.err
    assert open_plan(net / "precision" / "mine")[0].nodes_of("float32")
    assert not open_plan(net / "precision" / "int8")[0].nodes_of("float32")
    for name in ("calibration.json", "my plan.json"):
        shutil.copy(mine, tmp_path / name)
        refused = srdeploy("build", net, "--plan", tmp_path / name, "--force")
        assert refused.code == 2 and "under the name" in refused.err
    assert (net / "precision" / "calibration" / "sqnr.json").is_file()
    refused = srdeploy("build", net, "--plan", mine, "--precision", "fp16")
    assert refused.code == 2 and "is a plan for int8" in refused.err


def test_a_plan_of_another_graph_is_refused(net, srdeploy):
    edited(net / "precision" / "int8" / "plan.json", lambda plan: plan.update(graph_sha256="0" * 64))
    for arguments in (("--plan", net / "precision" / "int8"), ("--precision", "int8")):
        refused = srdeploy("build", net, *arguments)
        assert refused.code == 4 and "another graph" in refused.err
    assert not (net / "engines").exists()


def test_a_plan_that_breaks_the_budget_writes_nothing(net, tmp_path, srdeploy):
    bad = tmp_path / "coarse.json"
    shutil.copy(net / "precision" / "int8" / "plan.json", bad)
    edited(bad, lambda plan: plan.update(activation_scales={n: 40 * s for n, s in plan["activation_scales"].items()}))
    refused = srdeploy("build", net, "--plan", bad, "--psnr-budget", "0.05")
    assert refused.code == 1 and "at most 0.05 dB" in refused.err
    assert not (net / "precision" / "coarse").exists() and not (net / "engines").exists()
    assert sorted(path.name for path in (net / "precision").iterdir()) == ["calibration", "int8"]


def test_a_budget_is_held_on_a_plan_that_is_there(net, srdeploy):
    report = net / "precision" / "int8" / "report.json"
    told = json.loads(report.read_text())
    assert srdeploy("build", net, "--plan", net / "precision" / "int8", "--psnr-budget", "5").code == 0
    report.write_text(json.dumps({**told, "worst_loss_db": 9.0}))
    judged = srdeploy("build", net, "--plan", net / "precision" / "int8", "--psnr-budget", "5", "--force")
    assert judged.code == 0 and "made before" not in judged.err, "it was judged again"


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (("--precision", "int8"), 2, "photographs"),
        (("--precision", "int8", "--images", "EMPTY"), 4, "no pictures"),
        (("--precision", "int8", "--images", "MISSING"), 4, "MISSING"),
        (("--precision", "auto"), 2, "--psnr-budget"),
        (("--precision", "int8", "--psnr-budget", "inf"), 2, "--psnr-budget inf"),
        (("--precision", "int8", "--mean-budget", "nan"), 2, "--mean-budget nan"),
        (("--precision", "int8", "--method", "sqr"), 2, "perhaps sqnr"),
        (("--precision", "auto", "--images", "EMPTY"), 2, "--psnr-budget"),
        (("--precision", "int4"), 2, "int4"),
        (("--size", "9" * 11), 2, "is not a size"),
        (("--precision", "int8", "--psnr-budget", "-1"), 2, "--psnr-budget -1"),
        (("--precision", "int8", "--lr", "EMPTY"), 2, "--hr"),
        (("--psnr-budget", "0.1"), 2, "--precision fp16, bf16, int8, fp8 or auto"),
        (("--precision", "fp32", "--images", "EMPTY"), 2, "--precision fp16, bf16, int8, fp8 or auto"),
        (
            ("--precision", "fp32", "--remake-plan", "--no-fit"),
            2,
            "--no-fit and --remake-plan: only for lower precisions",
        ),
        (("--precision", "fp16", "--method", "mse"), 2, "--method: only for types of 8 bits"),
        (("--plan", "MISSING"), 4, "there is no plan"),
    ],
)
def test_what_it_refuses(plain, tmp_path, monkeypatch, srdeploy, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    refused = srdeploy("build", plain, *arguments)
    assert refused.code == code and message in refused.err, refused.err
    assert not (plain / "precision").exists() and not (plain / "engines").exists()


def test_int8_without_pictures_takes_a_calibration_when_nothing_is_fitted(net, srdeploy):
    shutil.rmtree(net / "precision" / "int8")
    refused = srdeploy("build", net, "--precision", "int8")
    assert refused.code == 2 and "photographs" in refused.err and "judging" not in refused.err
    done = srdeploy("build", net, "--precision", "int8", "--no-fit", "--content", "photo")
    assert done.code == 0, done.err


def test_a_graph_of_one_size_is_judged_on_pictures_of_that_size(explored_here, tmp_path, photographs, srdeploy):
    folder = tmp_path / "fixed"
    export_deployment(ExportOptions(saved(tmp_path, given()), folder, sizes=((20, 24),)))
    for precision, most, words in (("fp16", 0.01, ()), ("int8", 0.5, ("--no-fit",))):
        done = srdeploy("build", folder, "--images", photographs, "--precision", precision, *words)
        assert done.code == 0, done.err
        assert "judging on 23 pictures, 19 of them graphics" in done.err
        assert f"onnxruntime_20x24_{precision}.onnx" in done.out
        assert json.loads((folder / "precision" / precision / "report.json").read_text())["loss_db"] <= most
    refused = srdeploy("build", folder, "--precision", "fp16", "--force", "--lr", photographs, "--hr", photographs)
    assert refused.code == 2 and "takes 20x24 only" in refused.err
    refused = srdeploy("qat", folder, "--images", photographs, "--minutes", "1")
    assert refused.code == 4 and "takes 20x24 only, and is trained on patches" in refused.err
    deployment = open_deployment(folder)
    (graph,) = deployment.manifest.graphs
    several = dataclasses.replace(deployment.manifest, graphs=(graph, dataclasses.replace(graph, file="b.onnx")))
    with pytest.raises(BadDeployment, match="holds graphs of several fixed sizes"):
        plannable(dataclasses.replace(deployment, manifest=several))


def test_dry_runs(plain, net, photographs, tmp_path, srdeploy):
    auto = ("build", plain, "--precision", "auto", "--psnr-budget", "0.1", "--dry-run")
    outcome = srdeploy(*auto, "--images", photographs)
    assert outcome.code == 0 and "precision/auto, to be made" in outcome.out and "dynamic_auto.onnx" in outcome.out
    outcome = srdeploy("build", net, "--precision", "int8", "--dry-run")
    assert srdeploy("build", net, "--plan", net / "precision" / "int8", "--no-fit", "--dry-run").code == 2
    assert outcome.code == 0 and "made before" in outcome.out and "dynamic_int8.onnx" in outcome.out
    mine = shutil.copy(net / "precision" / "int8" / "plan.json", tmp_path / "mine.json")
    outcome = srdeploy("build", net, "--plan", mine, "--dry-run")
    assert f"precision/mine, to be proved and lowered from {mine}\n" in outcome.out
    outcome = srdeploy("build", net, "--plan", net / "precision" / "int8", "--remake-plan", "--dry-run")
    assert "lowered from" in outcome.out and "in place of the one that is there" in outcome.out
    assert not (plain / "precision").exists() and not (net / "engines").exists()
    (net / "engines").mkdir()
    (net / "engines" / "onnxruntime_dynamic_int8.onnx").touch()
    for words, told in (((), "exists already: --force"), (("--force",), "replaced")):
        assert f"({told})" in srdeploy("build", net, "--precision", "int8", "--dry-run", *words).out


def test_a_dry_run_refuses_what_the_build_would(net, plain, photographs, tmp_path, srdeploy):
    """Before any work, too: nothing is judged on, and nothing is left."""
    mine = json.loads((net / "precision" / "int8" / "plan.json").read_text())
    mine["nodes"]["nowhere"] = "float16"
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    (tmp_path / "times.json").write_text("[]")
    auto = ("build", plain, "--precision", "auto", "--psnr-budget", "0.1")
    times = ("--fp16-times", tmp_path / "times.json", "--int8-times", tmp_path / "times.json")
    small = ("--size", "24x32", "--memory-budget", "1MB")
    for code, found, command in (
        (4, "no node 'nowhere'", ("build", net, "--force", "--plan", tmp_path / "mine.json")),
        (2, "photographs", auto),
        (4, "does not exist", (*auto, "--images", tmp_path / "none")),
        (4, "no sqnr calibration", (*auto, "--no-fit")),
        (4, "times.json", (*auto, "--images", photographs, *times)),
        (2, "--memory-budget needs a builder", ("build", plain, "--precision", "fp16", *small)),
    ):
        for words in ((), ("--dry-run",)):
            refused = srdeploy(*command, *words)
            assert refused.code == code and found in refused.err and "judging" not in refused.err, refused.err
    assert not (plain / "precision").exists() and not (net / "precision" / "mine").exists()


def test_a_full_disk_leaves_the_old_plan(net, monkeypatch, srdeploy):
    folder = net / "precision" / "int8"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("onnx.save", full)
        asked = ("--precision", "int8", "--no-fit", "--remake-plan", "--content", "photo")
        refused = srdeploy("build", net, *asked)
    assert refused.code == 3 and "no space left" in refused.err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in (net / "precision").iterdir()) == ["calibration", "int8"]
    assert not (net / "engines").exists()


def test_damaged_plans_say_what_to_do(net, srdeploy):
    folder = net / "precision" / "int8"
    (folder / "report.json").write_text("[]")
    assert srdeploy("build", net, "--precision", "int8").code == 4
    (folder / "report.json").unlink()
    refused = srdeploy("build", net, "--precision", "int8")
    assert refused.code == 4 and "report" in refused.err
    assert srdeploy("build", net, "--plan", folder).code == 0, "a plan alone, as qat writes it, is lowered"
    (folder / "model.onnx").unlink()
    refused = srdeploy("build", net, "--precision", "int8", "--force")
    assert refused.code == 4 and "model.onnx is missing" in refused.err


def test_a_plan_from_elsewhere_takes_no_name_that_is_taken(net, tmp_path, srdeploy):
    folder = net / "precision" / "int8"
    before = (folder / "plan.json").read_text()
    other = shutil.copytree(folder, tmp_path / "int8")
    name = next(iter(open_plan(folder)[0].nodes_of("int8")))
    edited(other / "plan.json", lambda plan: plan["nodes"].update({name: "float16"}))
    refused = srdeploy("build", net, "--plan", other)
    assert refused.code == 2 and "holds another plan" in refused.err and "--remake-plan" in refused.err
    assert (folder / "plan.json").read_text() == before
    renamed = other.rename(tmp_path / "mine")
    assert _edited(renamed) and not _edited(folder)
    done = srdeploy("build", net, "--plan", renamed, "--json")
    assert done.code == 0, done.err
    settings = json.loads(done.out)[0]["settings"]
    assert settings["plan"] == "mine" and settings["plan_sha256"] == sha256_of(net / "precision" / "mine" / "plan.json")

    edited(renamed / "plan.json", lambda plan: plan["nodes"].update(dict.fromkeys(plan["nodes"], "float16")))
    refused = srdeploy("build", net, "--plan", renamed, "--force", "--remake-plan")
    assert refused.code == 4 and "a plan for int8, and its nodes are FP16" in refused.err
    edited(renamed / "plan.json", lambda plan: plan["nodes"].update({name: "int8"}) or plan.update(precision="fp8"))
    refused = srdeploy("build", net, "--plan", renamed, "--force", "--remake-plan")
    assert refused.code == 4 and 'write "precision": "int8" in it' in refused.err


def test_photographs_of_16_bits_are_judged_in_8(plain, photographs, tmp_path, srdeploy):
    for path in sorted(photographs.iterdir()):
        deep = Picture(read_picture(path).pixels.astype("uint16") * 257)
        (tmp_path / "deep").mkdir(exist_ok=True)
        write_picture(deep, tmp_path / "deep" / path.name)
    done = srdeploy(
        "build", plain, "--precision", "int8", "--no-fit", "--images", tmp_path / "deep", "--content", "photo"
    )
    assert done.code == 0, done.err
