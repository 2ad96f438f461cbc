"""Plans in use: on a board, in a bundle, on a DLA, and engines of lower precision in run and verify."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sr_deploy.core.media.image import Picture, read_picture, write_picture

DEMO = Path(__file__).resolve().parents[2] / "sr_deploy" / "demo"
RANGE = ("--min-size", "8", "--opt-size", "8", "--max-size", "9")


#: Runs the command line where what a board does not have cannot be imported.
BOARD = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("onnx", "torch", "scipy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from sr_deploy.cli import main
main(sys.argv[1:])
"""


def on_a_board(*arguments):
    words = [str(word) for word in arguments]
    return subprocess.run([sys.executable, "-c", BOARD, *words], capture_output=True, text=True, timeout=120)


def test_a_board_builds_a_stored_plan_without_onnx_and_says_when_there_is_none(net, plain, srdeploy):
    done = on_a_board("build", net, "--precision", "int8", "--backend", "onnxruntime")
    assert done.returncode == 0, done.stderr
    assert (net / "engines" / "onnxruntime_dynamic_int8.onnx").is_file()
    refused = on_a_board("build", plain, "--precision", "int8", "--backend", "onnxruntime")
    assert refused.returncode == 3 and "srdeploy pack" in refused.stderr and "Traceback" not in refused.stderr
    assert not (plain / "precision").exists()


def test_a_bundle_carries_the_plan_and_its_recipe_builds_it(net, tmp_path, srdeploy):
    (net / "precision" / "int8" / "training.png").write_bytes(b"\x89PNG")
    (net / "precision" / "qat-unfinished").mkdir()
    (net / "precision" / "qat-unfinished" / "state.pt").write_bytes(b"half")
    bundle, out = tmp_path / "net.srd", tmp_path / "out"
    packed = srdeploy("pack", net, "-o", bundle, "--backend", "onnxruntime", "--precision", "int8", "--json")
    assert packed.code == 0, packed.err
    files = set(json.loads(packed.out)["files"])
    assert "golden/40x51_sr_int8.npy" in files, "what the plan's graph makes of the golden picture"
    assert {"precision/int8/plan.json", "precision/int8/model.onnx", "precision/int8/legacy.onnx"} < files
    assert not any("unfinished" in name or name.endswith(".png") for name in files)
    unpacked = srdeploy("unpack", bundle, "-o", out, "--build", "--json")
    assert unpacked.code == 0, unpacked.err
    answer = json.loads(unpacked.out)
    assert answer["engines"] == ["onnxruntime_dynamic_int8.onnx"]
    assert answer["build"][-2:] == ["--plan", str(out / "precision" / "int8")]
    assert {row["precision"] for row in answer["check"]["golden"]} == {"int8"}
    picture = out / "golden" / "40x51_sr_int8.npy"
    array = np.load(picture)
    picture.write_bytes(picture.read_bytes()[: -array.nbytes] + np.clip(array + 0.1 * array.max(), 0, None).tobytes())
    wrong = srdeploy("verify", out, "--golden")
    assert wrong.code == 1 and "root-mean-square" in wrong.err
    refused = srdeploy("pack", net, "-o", tmp_path / "x.srd", "--precision", "fp16")
    assert refused.code == 4 and "precision/fp16" in refused.err and not (tmp_path / "x.srd").exists()
    assert "perhaps int8" in srdeploy("pack", net, "-o", tmp_path / "x.srd", "--precision", "int").err


def test_what_was_built_is_what_runs(net, photographs, tmp_path, srdeploy):
    built = srdeploy("build", net, "--precision", "int8")
    assert built.code == 0 and "int8 is what run, verify and bench take" in built.err
    pictures = ("-i", photographs / "0.png")
    plain = srdeploy("run", net, *pictures, "-o", tmp_path / "plain", "--precision", "fp32")
    assert plain.code == 0 and "runs model.onnx in fp32, asked for" in plain.err
    assert "there are engines of int8" in plain.err
    lower = srdeploy("run", net, *pictures, "-o", tmp_path / "lower")
    assert "engine onnxruntime_dynamic_int8.onnx: int8, the deployment's default" in lower.err
    engine = net / "engines" / "onnxruntime_dynamic_int8.onnx"
    named = srdeploy("run", net, *pictures, "-o", tmp_path / "n", "--engine", engine)
    assert named.code == 0
    a, b, c = (read_picture(tmp_path / name / "0.png").pixels for name in ("plain", "lower", "n"))
    assert not np.array_equal(a, b) and np.array_equal(b, c)
    assert np.sqrt(np.mean((a.astype(float) - b) ** 2)) < 3
    refused = srdeploy("run", net, *pictures, "-o", tmp_path / "x", "--precision", "fp16")
    assert refused.code == 4 and "what runs is fp32, int8" in refused.err and "--precision fp32" in refused.err
    assert srdeploy("run", net, *pictures, "-o", tmp_path / "x", "--precision", "half").code == 2
    contradiction = ("--engine", engine, "--precision", "fp16", "-o", tmp_path / "x")
    assert srdeploy("run", net, *pictures, *contradiction).code == 2


def test_of_several_precisions_none_is_taken_in_silence(net, photographs, tmp_path, srdeploy):
    for precision in ("int8", "fp32"):
        assert srdeploy("build", net, "--precision", precision, "--backend", "onnxruntime", "--no-default").code == 0
        command = ("run", net, "-i", photographs / "0.png", "-o", tmp_path / precision)
        outcome = srdeploy(*command)
        if precision == "int8":
            assert outcome.code == 0 and "int8, the only one that was built" in outcome.err
    assert outcome.code == 2 and "has engines of fp32, int8, and none of them was chosen" in outcome.err
    assert srdeploy(*command, "--precision", "int8").code == 0
    (net / "default.json").write_text('{"precision": "int4", "plan": null, "schema": 1}')
    damaged = srdeploy("run", net, "-i", photographs / "0.png", "-o", tmp_path / "x")
    assert damaged.code == 4 and "default.json" in damaged.err and "precision" in damaged.err


def test_the_board_builds_what_was_built_last(net, tmp_path, srdeploy):
    assert srdeploy("build", net, "--precision", "int8", "--backend", "onnxruntime").code == 0
    packed = srdeploy("pack", net, "-o", tmp_path / "net.srd", "--backend", "onnxruntime")
    assert packed.code == 0 and "the board builds int8" in packed.err
    assert srdeploy("unpack", tmp_path / "net.srd", "-o", tmp_path / "board", "--build").code == 0
    told = srdeploy("run", tmp_path / "board", "-i", DEMO / "demo.png", "-o", tmp_path / "out").err
    assert "int8, the deployment's default" in told
    plain = srdeploy("pack", net, "-o", tmp_path / "plain.srd", "--precision", "fp32")
    assert plain.code == 0 and "the board builds float32" in plain.err


def test_verify_holds_each_precision_to_its_own_bound(net, tmp_path, srdeploy):
    pixels = read_picture(DEMO / "demo.png").pixels[:96, :80]
    small = pixels.reshape(48, 2, 40, 2, 3).mean((1, 3)).round().astype(np.uint8)
    for folder, array in (("hr", pixels), ("lr", small)):
        (tmp_path / folder).mkdir()
        write_picture(Picture(np.ascontiguousarray(array)), tmp_path / folder / "baby.png")
    pairs = ("--lr", tmp_path / "lr", "--hr", tmp_path / "hr", "--json")
    assert srdeploy("build", net, "--precision", "int8").code == 0
    full = json.loads(srdeploy("verify", net, *pairs, "--precision", "fp32").out)
    assert full["precision"] == "fp32" and full["largest_difference"] <= full["tolerance"] == 0.05
    done = srdeploy("verify", net, *pairs)
    lower = json.loads(done.out)
    assert done.code == 0 and lower["precision"] == "int8" and lower["tolerance"] is None
    assert lower["largest_difference"] > 0.05 and lower["loss_db"] <= lower["tolerance_db"] == 0.6
    engine = net / "engines" / "onnxruntime_dynamic_int8.onnx"
    assert json.loads(srdeploy("verify", net, *pairs, "--engine", engine).out)["precision"] == "int8"
    manifest = json.loads(engine.with_suffix(".json").read_text())
    engine.with_suffix(".json").write_text(json.dumps({**manifest, "precision": "fp16"}))
    assert json.loads(srdeploy("verify", net, *pairs, "--precision", "fp16", "--no-torch").out)["loss_db"] is None


def test_a_dla_is_for_tensorrt_and_a_lower_precision_and_that_is_said_before_a_plan_is_made(plain, srdeploy):
    for arguments, message in (
        (("--precision", "int8", "--images", plain), "--dla is for TensorRT"),
        (("--backend", "tensorrt"), "does not compute in FP32"),
        (("--backend", "tensorrt", "--precision", "fp16", *RANGE), "one size"),
        (("--backend", "tensorrt", "--precision", "fp16", "--size", "8", "--memory-budget", "1MB"), "--memory-budget"),
    ):
        refused = srdeploy("build", plain, "--dla", "0", *arguments)
        assert refused.code == 2 and message in refused.err, refused.err
    assert not (plain / "precision").exists()


@pytest.fixture
def xavier(monkeypatch):
    """A Xavier NX that is not there: machine and TensorRT 8.5 are stand-ins, the rest is real. A byte is free."""
    import sr_deploy.engine.tensorrt
    import sr_deploy.pipeline.engines.build_tensorrt
    import sr_deploy.pipeline.engines.request
    from sr_deploy.core.host.machine import Gpu, Jetson, this_machine
    from sr_deploy.engine.flavour import logger_of
    from tests.engine.standin_8_5 import stand_in

    gpu = Gpu("NVIDIA Jetson Xavier NX (integrated)", "7.2", None, None)
    jetson = Jetson("NVIDIA Jetson Xavier NX", "35.4.1", 8, "")
    board = dataclasses.replace(this_machine(), gpus=(gpu,), jetson=jetson, memory_available_bytes=4 * 10**9)
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in())
    engines = sr_deploy.pipeline.engines
    for module in (sr_deploy.engine.tensorrt, engines.build_tensorrt, engines.request):
        monkeypatch.setattr(module, "this_machine", lambda: board)
    logger_of.cache_clear()
    yield
    logger_of.cache_clear()


def test_the_room_for_an_engine_is_judged_by_its_own_precision(net, xavier, srdeploy):
    needed = []
    for precision in ("fp32", "int8"):
        refused = srdeploy("build", net, "--backend", "tensorrt", "--size", "6000x8000", "--precision", precision)
        assert refused.code == 3 and "MB for activations" in refused.err, refused.err
        needed.append(int(re.search(r"(\d+) MB for activations", refused.err).group(1)))
    assert needed[0] == pytest.approx(2 * needed[1], abs=2), "the census counts float32; lower ones take half"


def test_a_dla_takes_its_int8_scales_from_the_cache(net, xavier, srdeploy):
    arguments = ("--backend", "tensorrt", "--size", "24x32", "--precision", "int8", "--dla", "0")
    refused = srdeploy("build", net, *arguments)
    assert refused.code == 2 and "--implicit with --dla" in refused.err
    (net / "precision" / "int8" / "calibration.cache").unlink()
    refused = srdeploy("build", net, *arguments, "--implicit")
    assert refused.code == 2 and "has no calibration cache" in refused.err
