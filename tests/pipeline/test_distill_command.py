"""``srdeploy distill`` and ``density`` as a user types them, on networks and pictures of a few pixels."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sr_deploy.core.media.bicubic import resize
from sr_deploy.models.architectures.edsr import fresh_edsr
from sr_deploy.models.architectures.span import fresh_span
from sr_deploy.train.distill import DistillLearner

TRAINING = ("--steps", 4, "--judge-every", 2, "--batch", 2, "--patch", 16, "--device", "cpu")
NEW = ("--arch", "EDSR", "--arch-arg", "width=4,blocks=1", "--res-scale", 1)


def write(folder, pictures):
    folder.mkdir()
    for index, pixels in enumerate(pictures):
        cv2.imwrite(str(folder / f"{index}.png"), pixels)
    return folder


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Folders of pictures, a teacher x2, a student x2."""
    folder, rng = tmp_path_factory.mktemp("given"), np.random.default_rng(1)
    highs = [cv2.GaussianBlur(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), (5, 5), 1.2) for _ in range(3)]
    write(folder / "hr", highs)
    write(folder / "lr", [resize(high, (24, 32)) for high in highs])
    torch.manual_seed(5)
    teacher = fresh_span(2, width=4, gain=1)
    for parameter in teacher.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    save_file(teacher.state_dict(), str(folder / "teacher.safetensors"))
    save_file(fresh_edsr(2, width=4, blocks=1).state_dict(), str(folder / "edsr.safetensors"))
    return folder


def test_a_new_network_follows_a_teacher_and_becomes_a_checkpoint(given, tmp_path, srdeploy):
    out = tmp_path / "net.safetensors"
    words = ("distill", *NEW, "--teacher", given / "teacher.safetensors", "--images", given / "lr", "-o", out)
    planned = srdeploy(*words, *TRAINING, "--dry-run")
    assert planned.code == 0 and "new: EDSR x2" in planned.out and not list(tmp_path.iterdir())
    done = srdeploy(*words, *TRAINING, "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert json.loads((tmp_path / "net.json").read_text()) == record
    assert record["export"] == ["srdeploy", "export", str(out), "--res-scale", "1.0"] and record["finished"]
    assert [point["step"] for point in record["points"]] == [0, 2, 4] and len(record["pictures"]["sha256"]) == 3
    assert record["best"]["fidelity"] > record["points"][0]["fidelity"] and record["best"]["psnr"] is None
    assert {path.name for path in tmp_path.iterdir()} == {"net.safetensors", "net.json", "net.png"}
    assert set(load_file(str(out))) == set(load_file(str(given / "edsr.safetensors")))
    refused = srdeploy(*words, *TRAINING)
    assert refused.code == 2 and "exists already" in refused.err


def test_branches_are_trained_and_folded_by_export(given, tmp_path, srdeploy):
    """An EDBB student; then its deployment teaches another network."""
    out, deployed = tmp_path / "efdn.safetensors", tmp_path / "net"
    new = ("--arch", "efdn", "--arch-arg", "width=6,half=3", "--arch-arg", "attention=2,expanded=4")
    pictures = ("--images", given / "lr", "--hr", given / "hr")
    done = srdeploy("distill", *new, "--scale", 2, *pictures, "--preset", "efdn", "-o", out, *TRAINING)
    assert done.code == 0 and "l1@hr=1,gradient-variance@hr=1" in done.err, done.err
    assert "to originals" in done.err and "cells.0.conv2.conv1x1_sbx.mask" in load_file(str(out))
    assert srdeploy("export", out, "-o", deployed).code == 0
    manifest = json.loads((deployed / "manifest.json").read_text())
    assert manifest["form"] == "training" and len(manifest["fold"]["blocks"]) >= 8, "two in each of four cells"
    assert max(manifest["proofs"].values()) <= 0.05
    words = ("distill", *NEW, "--teacher", deployed, "--images", given / "lr", "-o", tmp_path / "next.safetensors")
    taught = srdeploy(*words, *TRAINING)
    assert taught.code == 0 and "net: EFDN x2, a graph" in taught.err, taught.err
    features = srdeploy(*words, *TRAINING, "--force", "--loss", "l1,at")
    assert features.code == 2 and "of the teacher to compare" in features.err


def test_low_rank_changes_leave_the_size(given, tmp_path, srdeploy):
    out = tmp_path / "tuned.safetensors"
    student = given / "teacher.safetensors"
    done = srdeploy("distill", student, "--hr", given / "hr", "--lora", "r=2,alpha=2r", "-o", out, *TRAINING)
    assert done.code == 0 and "all else is frozen" in done.err, done.err
    before, after = load_file(str(student)), load_file(str(out))
    assert {name: value.shape for name, value in after.items()} == {name: v.shape for name, v in before.items()}
    assert any(not torch.equal(after[name], before[name]) for name in after)
    assert all(torch.equal(after[name], before[name]) for name in after if name.endswith("bias"))
    new = (*NEW, "--scale", 2, "--hr", given / "hr", "--lora", "r=2", "-o", tmp_path / "a.safetensors")
    fresh = srdeploy("distill", *new)
    assert fresh.code == 2 and "has learnt nothing yet" in fresh.err


def test_interrupted_it_keeps_the_best_and_goes_on_to_the_bit(given, tmp_path, srdeploy, monkeypatch):
    words = ("distill", *NEW, "--teacher", given / "teacher.safetensors", "--images", given / "lr", *TRAINING)
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    assert srdeploy(*words, "-o", whole).code == 0
    learn = DistillLearner.learn

    def interrupted(learner, step):
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return learn(learner, step)

    with monkeypatch.context() as patched:
        patched.setattr(DistillLearner, "learn", interrupted)
        stopped = srdeploy(*words, "-o", broken)
    assert stopped.code == 130 and "--resume goes on" in stopped.err
    assert not json.loads(broken.with_suffix(".json").read_text())["finished"] and load_file(str(broken))
    refused = srdeploy(*words, "-o", broken)
    assert refused.code == 2 and "unfinished training" in refused.err
    other = srdeploy(*words, "-o", broken, "--resume", "--seed", 1)
    assert other.code == 2 and "of another run: seed 0, now 1" in other.err
    done = srdeploy(*words, "-o", broken, "--resume")
    assert done.code == 0 and "going on after step 3" in done.err
    assert broken.read_bytes() == whole.read_bytes()
    assert not Path(f"{broken}.state").exists()


def test_a_network_of_ones_own(given, tmp_path, srdeploy, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import torch\n\n\ndef build():\n    last = torch.nn.Conv2d(3, 12, 3, padding=1)\n"
        "    torch.nn.init.dirac_(last.weight[:3])\n    return torch.nn.Sequential(last, torch.nn.PixelShuffle(2))\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ("--model", "mine.py:build", "--value-range", 1)
    done = srdeploy("distill", *words, "--hr", given / "hr", "-o", "mine.safetensors", "--plot", "c.svg", *TRAINING)
    assert done.code == 0 and Path("c.svg").read_text().startswith("<?xml"), done.err
    assert srdeploy("export", "mine.safetensors", *words, "-o", "net").code == 0


def test_what_cannot_be_is_refused_and_nothing_is_written(given, tmp_path, srdeploy):
    teacher, lr, hr = given / "teacher.safetensors", given / "lr", given / "hr"
    few = write(tmp_path / "few", [np.zeros((40, 40, 3), np.uint8)])
    dots = write(tmp_path / "dots", [np.zeros((1, 40, 3), np.uint8)] * 2)
    before = set(tmp_path.iterdir())
    taught = ("--teacher", teacher, "--images", lr)
    for words, code, found in (
        ((*NEW, "--teacher", teacher, "--images", lr, "--scale", 4), 2, "the teacher enlarges x2, the student x4"),
        ((*NEW, *taught, "--loss", "l3=1"), 2, "no loss 'l3'"),
        ((*NEW, *taught, "--preset", "best"), 2, "no preset 'best'"),
        ((*NEW, *taught, "--optimiser", "sgd", "--dry-run"), 2, "no optimiser 'sgd'"),
        ((*NEW, *taught, "--schedule", "cosin", "--dry-run"), 2, "perhaps cosine"),
        ((*NEW, *taught, "--loss", "laplacian", "--patch", 17), 2, "--patch 24"),
        ((*NEW, *taught, "--loss", "l1,afd", "--batch", 1), 2, "--batch 2 or more"),
        ((*NEW, "--scale", 2, "--images", lr), 2, "alone teach nothing"),
        ((*NEW, "--scale", 2), 2, "nothing to train on"),
        ((*NEW, "--scale", 2, "--hr", few), 4, "1 picture to train on"),
        ((*NEW, "--scale", 2, "--hr", dots), 4, "2 pixels or more each way"),
        ((*NEW, *taught, "--patch", 28), 4, "lr/0.png of 24x32, as 2 more are, is smaller"),
        ((*NEW, *taught, "--patch", 40), 4, "smaller than the squares of 40"),
        (("--arch", "RFDN", *taught), 2, "no new network of it can be made"),
        (("--arch", "SPAN", "--arch-arg", "depth=3", *taught), 2, "SPAN has no depth"),
        (("--arch", "SwinIR", "--arch-arg", "width=7", *taught), 2, "cannot be built so"),
        (("--arch", "EDSR", "--arch-arg", "width=9000000", *taught), 2, "GB is the most here"),
        (("--arch", "EDSR", "--arch-arg", "width=4,blocks=99999999", *taught), 2, "more than 5,000 tensors"),
        (("--arch", "SwinIR", "--arch-arg", "window=100000", *taught), 2, "GB is the most here"),
        *(((*NEW, *taught, "--minutes", word), 2, "no time to train") for word in ("inf", "nan", "0")),
        (taught, 2, "no student is given"),
        ((teacher, "--arch-arg", "width=4", *taught), 2, "no meaning beside a checkpoint"),
        ((*NEW, *taught, "--features", "a=b"), 2, "without a loss of features"),
        ((*NEW, *taught, "--mixed", "--device", "cpu"), 2, "CUDA only"),
        ((*NEW, "--teacher", given / "edsr.safetensors", "--images", lr), 2, "srdeploy export"),
        ((*NEW, "--teacher", given / "gone.pth", "--images", lr), 2, "does not exist"),
        ((*NEW, *taught, "--resume"), 2, "no state to resume"),
        ((*NEW, "--images", lr, "--hr", few, "--scale", 2), 4, "no partner"),
        ((*NEW, "--hr", hr, "--scale", 2, "--rate", 3), 2, "not a learning rate"),
        ((*NEW, *taught, "--seed", -1), 2, "--seed"),
        (("--model", "net.py:make", "--arch", "EDSR", *taught), 2, "--arch has no meaning beside --model"),
        (("--model", "net.py:make", "--arch-arg", "width=4", *taught), 2, "--arch-arg has no meaning beside --model"),
    ):
        outcome = srdeploy("distill", *words, "-o", tmp_path / "net.safetensors")
        assert (outcome.code, found in outcome.err) == (code, True), (words, outcome.err)
    assert srdeploy("distill", *NEW, *taught, "-o", tmp_path / "net.pth").code == 2
    assert set(tmp_path.iterdir()) == before


def test_files_beside_it_and_what_it_learns_from_are_not_lost(given, tmp_path, srdeploy):
    """The record, the plot and the student are files of the user's own, too."""
    out, own = tmp_path / "net.safetensors", tmp_path / "own.png"
    taught = ("--teacher", given / "teacher.safetensors", "--images", given / "lr")
    own.write_text("mine")
    drawn = srdeploy("distill", *NEW, *taught, "-o", out, "--plot", own)
    assert drawn.code == 2 and f"{own} exists already" in drawn.err
    out.with_suffix(".json").write_text("mine")
    for words in (("distill", *NEW, *taught), ("density", given / "edsr.safetensors", "--images", given / "lr")):
        kept = srdeploy(*words, "-o", out)
        assert kept.code == 2 and "net.json exists already" in kept.err, kept.err
    student = shutil.copy(given / "edsr.safetensors", tmp_path / "edsr.safetensors")
    for words in (("distill", student, *taught), ("density", student, "--images", given / "lr")):
        itself = srdeploy(*words, "--res-scale", 1, "-o", student, "--force")
        assert itself.code == 2 and "while it is read" in itself.err, itself.err
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir() if path != student} == {
        "own.png": 4, "net.json": 4,
    }  # fmt: skip
    assert student.read_bytes() == (given / "edsr.safetensors").read_bytes()


def test_density_makes_a_network_sparse(given, tmp_path, srdeploy):
    out, student = tmp_path / "sparse.safetensors", given / "edsr.safetensors"
    words = ("density", student, "--res-scale", 1, "--images", given / "lr", "-o", out, "--steps", 20, "--batch", 2,
             "--patch", 16, "--penalty", 0.1, "--rate", 0.05, "--root", "square", "--device", "cpu")  # fmt: skip
    done = srdeploy(*words, "--json")
    assert done.code == 0, done.err
    record, tensors = json.loads(done.out), load_file(str(out))
    deep = [value for name, value in tensors.items() if name.startswith("body.") and name.endswith("weight")]
    share = sum(int(value.count_nonzero()) for value in deep) / sum(value.numel() for value in deep)
    assert record["density"] == share and 0 < share < 0.9
    assert record["original"] == {"blocks": 1, "layers": 1, "channels": 4}
    assert {way["root"] for shape in record["shapes"] for way in shape["readings"]} == {"square"}
    assert not Path(f"{out}.state").exists()
    words = ("density", given / "teacher.safetensors", "--images", given / "lr", "-o", tmp_path / "b.safetensors")
    unknown = srdeploy(*words, "--deep", "tail.")
    assert unknown.code == 2 and "--deep PREFIX" in unknown.err
    for wrong in (("--judge-every", 0), ("--penalty", "nan"), ("--rate", 0), ("--seed", -1)):
        refused = srdeploy(*words, *wrong)
        assert refused.code == 2 and wrong[0] in refused.err, refused.err


def test_density_alone_is_a_calculator(srdeploy):
    words = ("density", "--density", 0.089, "--of", "blocks=4,layers=6,channels=60")
    every = srdeploy(*words)
    assert every.code == 0 and "(24 channels, 4 layers, 3 blocks)" in every.out and "33 channels" in every.out
    assert max(map(len, every.out.splitlines())) <= 80
    one = srdeploy(*words, "--root", "square", "--round", "blocks=nearest,layers=nearest,channels=nearest", "--json")
    (shape,) = json.loads(one.out)["shapes"]
    assert (shape["channels"], shape["layers"], shape["blocks"]) == (24, 4, 3)
    edsr = srdeploy("density", "--density", 0.03, "--of", "blocks=16,layers=1,channels=64", "--root", "square",
                    "--round", "blocks=floor,layers=ceil,channels=nearest")  # fmt: skip
    assert edsr.out.count(" blocks)") == 2 and "(16 channels, 1 layers, 8 blocks)" in edsr.out
    idle = srdeploy(*words, "--images", "photos", "--force")
    assert idle.code == 2 and "takes no --images, --force" in idle.err
    for wrong in (("--density", 0.5), ("--density", 2, "--of", "blocks=1,layers=1,channels=1"), (),
                  (*words[1:3], "--of", "blocks=4"), (*words[1:], "--root", "third")):  # fmt: skip
        assert srdeploy("density", *wrong).code == 2
