"""Every kind of bad input: its message, its exit code, and nothing lost or half-written."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.pipeline.demo import ASSETS

DEMO = ASSETS / "demo_x2.safetensors"


@pytest.fixture(scope="module")
def weights():
    from safetensors.torch import load_file

    return load_file(str(DEMO))


@pytest.fixture(scope="module")
def deployment(demo_export, tmp_path_factory):
    return shutil.copytree(demo_export, tmp_path_factory.mktemp("bad") / "net")


def refused(outcome, code, *words):
    """The command failed as it should: this exit code, these words, and no traceback."""
    assert outcome.code == code, outcome.err
    assert "Traceback" not in outcome.err
    assert "next:" in outcome.err or "wanted:" in outcome.err
    for word in words:
        assert word in outcome.err, f"{word!r} not in: {outcome.err}"


def nothing_left(folder):
    assert [path.name for path in folder.iterdir() if "net" in path.name] == []


def test_missing_checkpoint(srdeploy, tmp_path):
    refused(srdeploy("export", tmp_path / "no.pth", "-o", tmp_path / "net"), 4, "no.pth")
    nothing_left(tmp_path)


def test_truncated_checkpoint(srdeploy, tmp_path, weights):
    torch.save(weights, tmp_path / "whole.pth")
    data = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: len(data) // 2])
    refused(srdeploy("export", tmp_path / "cut.pth", "-o", tmp_path / "net"), 4, "cut.pth")
    nothing_left(tmp_path)


class RunsACommand:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def test_pickle_with_code_is_refused_and_not_run(srdeploy, tmp_path, weights):
    canary = tmp_path / "canary"
    torch.save({"state_dict": weights, "extra": RunsACommand(canary)}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(RunsACommand(canary)))
    refused(srdeploy("export", tmp_path / "evil.pth", "-o", tmp_path / "net"), 4, "system", "nothing was run")
    refused(srdeploy("export", tmp_path / "plain.pth", "-o", tmp_path / "net"), 4)
    assert not canary.exists()
    nothing_left(tmp_path)


def test_unknown_architecture_shows_keys_and_the_nearest(srdeploy, tmp_path):
    tensors = {"stem.weight": torch.zeros(8, 3, 3, 3), "conv_cat.weight": torch.zeros(8, 32, 1, 1)}
    torch.save(tensors, tmp_path / "x.pth")
    outcome = srdeploy("export", tmp_path / "x.pth", "-o", tmp_path / "net")
    refused(outcome, 4, "stem.weight", "--model", "SPAN")
    torch.save({"stem.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "y.pth")
    refused(srdeploy("export", tmp_path / "y.pth", "-o", tmp_path / "net"), 4, "none of the typical keys")
    nothing_left(tmp_path)


def test_wrong_architecture_asked(srdeploy, tmp_path):
    refused(srdeploy("export", DEMO, "-o", tmp_path / "net", "--arch", "EFDN"), 4, "EFDN")
    refused(srdeploy("export", DEMO, "-o", tmp_path / "net", "--arch", "NoSuchNet"), 2, "NoSuchNet", "EFDN")
    nothing_left(tmp_path)


def test_missing_keys_are_named(srdeploy, tmp_path, weights):
    first = sorted(weights)[0]
    torch.save({key: value for key, value in weights.items() if key != first}, tmp_path / "x.pth")
    refused(srdeploy("export", tmp_path / "x.pth", "-o", tmp_path / "net", "--arch", "SPAN"), 4, first)
    nothing_left(tmp_path)


def test_unexpected_keys_are_named(srdeploy, tmp_path, weights):
    torch.save({**weights, "surprise.weight": torch.zeros(3)}, tmp_path / "x.pth")
    refused(srdeploy("export", tmp_path / "x.pth", "-o", tmp_path / "net"), 4, "surprise.weight")


def test_nan_weights_are_named(srdeploy, tmp_path, weights):
    key = "conv_cat.weight"
    sick = {**weights, key: torch.full_like(weights[key], float("nan"))}
    save_file(sick, str(tmp_path / "x.safetensors"))
    refused(srdeploy("export", tmp_path / "x.safetensors", "-o", tmp_path / "net"), 4, key, "NaN")
    nothing_left(tmp_path)


def test_existing_deployment_is_kept_without_force(srdeploy, deployment):
    before = (deployment / "manifest.json").read_bytes()
    refused(srdeploy("export", DEMO, "-o", deployment), 2, "--force")
    assert (deployment / "manifest.json").read_bytes() == before


def test_failed_export_with_force_keeps_the_old_one(srdeploy, tmp_path, deployment):
    import shutil

    shutil.copytree(deployment, tmp_path / "net")
    refused(srdeploy("export", tmp_path / "no.pth", "-o", tmp_path / "net", "--force"), 4)
    assert open_deployment(tmp_path / "net").manifest.scale == 2


def test_option_that_has_no_meaning_is_refused(srdeploy, tmp_path):
    refused(srdeploy("export", DEMO, "-o", tmp_path / "net", "--lora-alpha", "2r"), 2, "lora")
    refused(srdeploy("export", DEMO, "-o", tmp_path / "net", "--res-scale", "1"), 2, "res")
    refused(srdeploy("export", DEMO, "-o", tmp_path / "net", "--scale", "3"), 2, "3")
    refused(srdeploy("export", DEMO, "-o", tmp_path / "net", "--size", "144", "--dynamic"), 2, "--dynamic")
    refused(srdeploy("export", DEMO, "-o", tmp_path / "net", "--size", "14a"), 2, "14a", "HxW")
    refused(srdeploy("export", DEMO, "-o", tmp_path / "net", "--target", "toaster"), 2, "toaster", "xavier-nx")
    nothing_left(tmp_path)


def test_unknown_flag_is_a_usage_error(srdeploy, tmp_path):
    assert srdeploy("export", DEMO, "-o", tmp_path / "net", "--no-such-flag").code == 2


def test_not_a_deployment(srdeploy, tmp_path):
    for command in (("build", tmp_path), ("bench", tmp_path), ("verify", tmp_path, "--lr", tmp_path, "--hr", tmp_path)):
        refused(srdeploy(*command), 4, "manifest.json", "srdeploy export")
    for name, verb in (("net.pth", "export"), ("net.srd", "unpack")):
        (tmp_path / name).write_bytes(b"0")
        refused(srdeploy("build", tmp_path / name), 4, f"srdeploy {verb} {tmp_path / name} -o net")


def test_altered_graph_is_refused(srdeploy, tmp_path, deployment):
    import shutil

    shutil.copytree(deployment, tmp_path / "net")
    with open(tmp_path / "net" / "model.onnx", "ab") as stream:
        stream.write(b"\0")
    refused(srdeploy("build", tmp_path / "net"), 4, "model.onnx", "sha256")


def test_manifest_of_another_schema_is_refused(srdeploy, tmp_path, deployment):
    import shutil

    shutil.copytree(deployment, tmp_path / "net")
    manifest = json.loads((tmp_path / "net" / "manifest.json").read_text())
    (tmp_path / "net" / "manifest.json").write_text(json.dumps({**manifest, "schema": 99}))
    refused(srdeploy("inspect", tmp_path / "net"), 4, "schema 99")
    (tmp_path / "net" / "manifest.json").write_text("{")
    refused(srdeploy("inspect", tmp_path / "net"), 4, "manifest.json")


def picture(path, shape, dtype=np.uint8):
    import cv2

    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
    assert cv2.imwrite(str(path), values)
    return path


def test_bad_pictures(srdeploy, tmp_path, deployment):
    out = tmp_path / "out"
    (tmp_path / "text.png").write_text("not a picture")
    refused(srdeploy("run", deployment, "-i", tmp_path / "text.png", "-o", out), 4, "text.png")
    whole = picture(tmp_path / "whole.png", (32, 32, 3)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    refused(srdeploy("run", deployment, "-i", tmp_path / "cut.png", "-o", out), 4, "cut.png")
    (tmp_path / "empty").mkdir()
    refused(srdeploy("run", deployment, "-i", tmp_path / "empty", "-o", out), 4, "empty")
    refused(srdeploy("run", deployment, "-i", tmp_path / "none.png", "-o", out), 4, "none.png")
    assert not out.exists() or not list(out.iterdir())


def test_results_are_not_overwritten(srdeploy, tmp_path, deployment):
    source = picture(tmp_path / "a.png", (24, 24, 3))
    assert srdeploy("run", deployment, "-i", source, "-o", tmp_path / "out").code == 0
    before = (tmp_path / "out" / "a.png").read_bytes()
    refused(srdeploy("run", deployment, "-i", source, "-o", tmp_path / "out"), 2, "--force")
    assert (tmp_path / "out" / "a.png").read_bytes() == before
    assert srdeploy("run", deployment, "-i", source, "-o", tmp_path / "out", "--force").code == 0


def test_verify_refuses_pictures_that_do_not_belong_together(srdeploy, tmp_path, deployment):
    (tmp_path / "lr").mkdir()
    (tmp_path / "hr").mkdir()
    refused(srdeploy("verify", deployment, "--lr", tmp_path / "lr", "--hr", tmp_path / "hr"), 4)
    picture(tmp_path / "lr" / "a.png", (20, 20, 3))
    picture(tmp_path / "hr" / "b.png", (40, 40, 3))
    refused(srdeploy("verify", deployment, "--lr", tmp_path / "lr", "--hr", tmp_path / "hr"), 4, "a")
    (tmp_path / "hr" / "b.png").unlink()
    picture(tmp_path / "hr" / "a.png", (30, 30, 3))
    refused(srdeploy("verify", deployment, "--lr", tmp_path / "lr", "--hr", tmp_path / "hr"), 4, "a.png", "40")


def test_verify_says_when_the_checkpoint_is_another_one(srdeploy, tmp_path, deployment, weights):
    for folder, shape in (("lr", (20, 20, 3)), ("hr", (40, 40, 3))):
        (tmp_path / folder).mkdir()
        picture(tmp_path / folder / "a.png", shape)
    save_file(weights, str(tmp_path / "other.safetensors"), metadata={"changed": "yes"})
    command = ("verify", deployment, "--lr", tmp_path / "lr", "--hr", tmp_path / "hr", "--checkpoint")
    refused(srdeploy(*command, tmp_path / "other.safetensors"), 4, "sha256", "--checkpoint")
    refused(srdeploy(*command, tmp_path / "gone.safetensors"), 4, "gone", "--no-torch")


def test_foreign_engine_is_refused_with_the_difference(srdeploy, tmp_path, deployment):
    import shutil

    shutil.copytree(deployment, tmp_path / "net")
    assert srdeploy("build", tmp_path / "net", "--backend", "onnxruntime", "--size", "24").code == 0
    (engine,) = (tmp_path / "net" / "engines").glob("*.onnx")
    sidecar = engine.with_suffix(".json")
    manifest = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**manifest, "runtime_version": "0.0.1"}))
    source = picture(tmp_path / "a.png", (24, 24, 3))
    outcome = srdeploy("run", tmp_path / "net", "-i", source, "-o", tmp_path / "out", "--engine", engine)
    refused(outcome, 4, "0.0.1", "srdeploy build")
    sidecar.write_text(json.dumps(manifest))
    with open(engine, "ab") as stream:
        stream.write(b"\0")
    refused(srdeploy("run", tmp_path / "net", "-i", source, "-o", tmp_path / "out", "--engine", engine), 4, "sha256")


def test_engine_of_another_size_names_what_it_takes(srdeploy, tmp_path, deployment):
    import shutil

    shutil.copytree(deployment, tmp_path / "net")
    assert srdeploy("build", tmp_path / "net", "--backend", "onnxruntime", "--size", "24x32").code == 0
    (engine,) = (tmp_path / "net" / "engines").glob("*.onnx")
    source = picture(tmp_path / "a.png", (40, 40, 3))
    outcome = srdeploy("run", tmp_path / "net", "-i", source, "-o", tmp_path / "out", "--engine", engine)
    refused(outcome, 4, "24x32", "40x40")


def test_unknown_backend(srdeploy, deployment):
    refused(srdeploy("build", deployment, "--backend", "openvino"), 2, "openvino", "onnxruntime")
    refused(srdeploy("bench", deployment, "--backend", "openvino", "--size", "24"), 2, "openvino")


def test_full_disk_leaves_nothing_half_written(tmp_path):
    """The kernel itself refuses the write: no file of this process may pass 20 kB."""

    def limit():
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "sr_deploy.cli", "export", str(DEMO), "-o", str(tmp_path / "net")]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, env=environment)
    assert done.returncode == 3, done.stderr
    assert "no space left" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place(srdeploy, tmp_path):
    (tmp_path / "file").write_text("in the way")
    refused(srdeploy("export", DEMO, "-o", tmp_path / "file" / "net"), 3, "cannot write")


def test_json_errors_for_machines(srdeploy, tmp_path):
    outcome = srdeploy("inspect", tmp_path / "nothing", "--json")
    assert outcome.code == 4
    assert json.loads(outcome.out)["exit_code"] == 4
