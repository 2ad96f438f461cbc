"""What a killed command leaves does not stand in the way: the same command finishes, and what was there still opens."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from sr_deploy.core import temporary
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.deployment.plan import open_plan
from sr_deploy.core.errors import EnvironmentFault
from sr_deploy.engine.manifest import open_engine
from sr_deploy.graph.specialise import static_graph
from sr_deploy.pipeline.measure import tuned_graph
from sr_deploy.pipeline.ship import unpack

ROOT = Path(__file__).resolve().parents[2]
ONNX = ("--backend", "onnxruntime")


@pytest.fixture(autouse=True)
def nothing_swept_yet(monkeypatch):
    """Every test is a process of its own."""
    monkeypatch.setattr(temporary, "_swept", set())


def moved_aside(folder: Path) -> None:
    """What a process leaves that is killed between the two renames of a folder."""
    place = folder.with_name(f".{folder.name}.srdeploy-00000000")
    place.mkdir(exist_ok=True)
    (place / "lock").write_text(folder.name)
    folder.rename(place / "old")


def test_a_build_goes_on_with_the_engines_that_are_missing(srdeploy, plain):
    assert srdeploy("build", plain, *ONNX, "--size", "24").code == 0
    kept = (plain / "engines" / "onnxruntime_24x24.json").read_bytes()
    outcome = srdeploy("build", plain, *ONNX, "--size", "16,24", "--json")
    assert outcome.code == 0 and "onnxruntime_24x24.onnx was built before" in outcome.err, outcome.err
    assert [engine["profile"][0] for engine in json.loads(outcome.out)] == [[16, 16], [24, 24]]
    assert (plain / "engines" / "onnxruntime_24x24.json").read_bytes() == kept
    refused = srdeploy("build", plain, *ONNX, "--size", "16,24")
    assert refused.code == 2 and "exists already" in refused.err, "nothing is missing: there was no interruption"


def test_engines_of_something_else_are_not_taken_for_finished(srdeploy, plain):
    assert srdeploy("build", plain, *ONNX, "--size", "24").code == 0
    record = plain / "engines" / "onnxruntime_24x24.json"
    told = json.loads(record.read_text())
    changes = ({"graph_sha256": "0" * 64}, {"runtime_version": "1.0"}, {"settings": {"plan_sha256": "0" * 64}}, None)
    for change in changes:
        record.write_text(json.dumps({**told, **change}) if change else "{")
        refused = srdeploy("build", plain, *ONNX, "--size", "16,24")
        assert refused.code == 2 and "24x24.onnx exists already" in refused.err, change
        assert not (plain / "engines" / "onnxruntime_16x16.onnx").exists(), "refused before anything is built"


@pytest.fixture
def bundle(srdeploy, plain, tmp_path):
    packed = srdeploy("pack", plain, "-o", tmp_path / "net.srd", *ONNX, "--size", "16,24")
    assert packed.code == 0, packed.err
    return tmp_path / "net.srd"


def test_unpack_and_build_goes_on(srdeploy, bundle, tmp_path):
    out = tmp_path / "out"
    assert srdeploy("unpack", bundle, "-o", out).code == 0
    assert srdeploy("build", out, *ONNX, "--size", "16").code == 0
    (tmp_path / ".out.srdeploy-00000000").mkdir()
    temporary._swept.clear()
    again = srdeploy("unpack", bundle, "-o", out, "--build")
    assert sorted(os.listdir(tmp_path)) == ["net.srd", "out", "plain"]
    assert again.code == 0 and "unpacked before" in again.err and "16x16.onnx was built before" in again.err, again.err
    assert open_engine(out / "engines" / "onnxruntime_24x24.onnx")
    assert srdeploy("unpack", bundle, "-o", out, "--build").code == 0
    (out / "recipe.toml").write_text("")
    refused = srdeploy("unpack", bundle, "-o", out, "--build")
    assert refused.code == 2 and "exists already" in refused.err


def test_a_folder_stays_until_the_engines_of_the_new_one_are_built(srdeploy, bundle, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert srdeploy("unpack", bundle, "-o", out, "--build").code == 0

    def no_memory(options, say):
        assert options.deployment != out
        raise EnvironmentFault("not enough memory")

    with monkeypatch.context() as patched:
        patched.setattr(unpack, "build_engines", no_memory)
        assert srdeploy("unpack", bundle, "-o", out, "--build", "--force").code == 3
    assert open_engine(out / "engines" / "onnxruntime_24x24.onnx")
    outcome = srdeploy("unpack", bundle, "-o", out, "--build", "--force", "--json")
    assert outcome.code == 0 and json.loads(outcome.out)["folder"] == str(out)
    assert sorted(os.listdir(tmp_path)) == ["net.srd", "out", "plain"]


def test_a_calibration_set_that_is_there_already_is_no_obstacle(srdeploy, plain, photographs, tmp_path):
    words = ("calibrate", plain, "--images", photographs, "--content", "photo")
    words += ("--write-manifest", tmp_path / "set.toml")
    assert srdeploy(*words).code == 0
    calibration = plain / "precision" / "calibration" / "sqnr.json"
    calibration.unlink()
    assert srdeploy(*words).code == 0 and calibration.is_file()
    calibration.unlink()
    text = (tmp_path / "set.toml").read_text().replace("unknown: fill it in", "known: I filled it in")
    (tmp_path / "set.toml").write_text(text)
    refused = srdeploy(*words)
    assert refused.code == 2 and "set.toml exists already" in refused.err, "what someone filled in is not lost"


def kept_variant(net: Path, name: str, folder: Path) -> str:
    """Keep a variant of the graph for 16x16, told apart by its producer alone; gives the file."""
    deployment = open_deployment(net)
    variant = static_graph(net / "model.onnx", (16, 16))
    variant.producer_name = name
    onnx.save(variant, str(folder / "variant.onnx"))
    record = {"tuned": {"variant": name, "backend": "onnxruntime", "from": "model.onnx"}}
    source = deployment.manifest.graphs[0]
    return tuned_graph.keep_graph(deployment, source, folder / "variant.onnx", (16, 16), record, 0.0)


def test_tuning_that_is_killed_leaves_a_deployment_that_opens(plain, tmp_path, monkeypatch):
    first = kept_variant(plain, "a", tmp_path)
    save = tuned_graph.save_manifest

    def killed(*_):
        raise SystemExit

    for dies, there in ((killed, "a"), (lambda *words: (save(*words), killed()), "b")):
        with monkeypatch.context() as patched, pytest.raises(SystemExit):
            patched.setattr(tuned_graph, "save_manifest", dies)
            kept_variant(plain, "b", tmp_path)
        deployment = open_deployment(plain)
        graph = deployment.graph_for((16, 16), "onnxruntime")
        assert onnx.load(str(deployment.path_of(graph))).producer_name == there
    assert graph.file != first
    for name in ("b", "a", "a"):
        kept_variant(plain, name, tmp_path)
        manifest = open_deployment(plain).manifest
        assert {graph.file for graph in manifest.graphs} == {path.name for path in plain.glob("*.onnx")}
        assert len(manifest.graphs) == 2 and set(manifest.rewrite) <= {graph.file for graph in manifest.graphs}
        assert manifest.rewrite[manifest.graphs[1].file]["tuned"]["variant"] == name


def test_what_was_moved_aside_is_opened(prepared, tmp_path):
    net = shutil.copytree(prepared, tmp_path / "net")
    moved_aside(net / "precision" / "int8")
    assert open_plan(net / "precision" / "int8")[0].precision == "int8"
    moved_aside(net / "precision" / "int8")
    assert open_plan(net / "precision" / "int8" / "plan.json")[0].precision == "int8"
    moved_aside(net)
    assert open_deployment(net).manifest.scale == 2


def test_what_a_killed_plan_left_is_neither_packed_nor_listed(srdeploy, prepared, tmp_path):
    net = shutil.copytree(prepared, tmp_path / "net")
    left = net / "precision" / ".int8.srdeploy-00000000" / "new"
    shutil.copytree(net / "precision" / "int8", left)
    assert srdeploy("pack", net, "-o", tmp_path / "net.srd", *ONNX, "--size", "16").code == 0
    assert "srdeploy-00000000" not in srdeploy("inspect", net, "--json").out
    assert left.is_dir(), "reading clears nothing"


def test_a_measuring_process_whose_parent_died_meanwhile_measures_nothing(tmp_path):
    module = "sr_deploy.pipeline.measure.subprocess_bench"
    words = [sys.executable, "-m", module, str(tmp_path / "gone.json"), str(os.getppid())]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stderr) == (1, "")


def test_commands_that_are_killed_anywhere(tmp_path):
    """A few of the deaths of tests/benchmarks/kill_anywhere.py, which has them all."""
    command = [sys.executable, str(ROOT / "tests" / "benchmarks" / "kill_anywhere.py"), "--seed", "1"]
    chosen = ["--kills", "2", "--faults", "1", "--only", "export no-exchange,build,calibrate,pack"]
    done = subprocess.run([*command, *chosen], capture_output=True, text=True, timeout=550, cwd=tmp_path)
    assert done.returncode == 0 and "all" in done.stdout, done.stdout + done.stderr[-2000:]
