"""The networks that ship and the script that made them: small, better than bicubic, able to go on after a stop."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import sr_deploy.demo
from sr_deploy.core.errors import BadImage
from sr_deploy.core.media.bicubic import crop_to_multiple, resize
from sr_deploy.core.media.image import read_picture, write_picture
from sr_deploy.core.quality.pairing import pair_images
from sr_deploy.core.quality.psnr_ssim import psnr_y
from sr_deploy.demo import train
from sr_deploy.models.architectures.span import SPAN
from sr_deploy.models.base import Asked
from sr_deploy.train import loop
from sr_deploy.train.state import keep

FOLDER = Path(sr_deploy.demo.__file__).parent
#: The most a file that ships may have.
LARGEST = 300_000


@pytest.mark.parametrize("scale", [2, 4])
def test_shipped_network_is_a_small_span_in_training_form(scale):
    file = FOLDER / f"demo_x{scale}.safetensors"
    assert file.stat().st_size <= LARGEST
    tensors = load_file(str(file))
    assert SPAN.detect(tensors)
    model = SPAN.load(tensors, Asked())
    assert (model.scale, model.form, model.hyperparameters["width"]) == (scale, "training", train.WIDTH)
    assert not model.notes


@pytest.mark.parametrize(("scale", "gain"), [(2, 3.0), (4, 1.5)])
def test_shipped_network_beats_bicubic_on_set5(assets, scale, gain):
    lr, hr = assets / "images" / "Set5" / "LR_bicubic" / f"X{scale}", assets / "images" / "Set5" / "HR"
    bicubic = [
        psnr_y(resize(read_picture(low).pixels, read_picture(high).size), read_picture(high).pixels, scale)
        for _, low, high in pair_images(lr, hr, scale)
    ]
    model = SPAN.load(load_file(str(FOLDER / f"demo_x{scale}.safetensors")), Asked())
    assert train.validate(model.module, scale, lr, hr) > np.mean(bicubic) + gain


@pytest.mark.parametrize("scale", [2, 4])
def test_shipped_picture_is_a_pair_for_both_scales(scale):
    """Held to a loose bound: the network must be better than bicubic on it, or the demo shows nothing."""
    file = FOLDER / "demo.png"
    assert file.stat().st_size <= 150_000
    picture = read_picture(file)
    assert picture.kind == "rgb"
    assert picture.alpha is None
    high = picture.pixels
    assert crop_to_multiple(high, 4).shape == high.shape
    low = resize(high, (high.shape[0] // scale, high.shape[1] // scale))
    model = SPAN.load(load_file(str(FOLDER / f"demo_x{scale}.safetensors")), Asked())
    with torch.no_grad():
        out = model.module(torch.from_numpy(low.transpose(2, 0, 1)[None]).float() / 255.0)[0].numpy()
    upscaled = np.rint(np.clip(out.transpose(1, 2, 0) * 255.0, 0, 255)).astype(np.uint8)
    assert psnr_y(upscaled, high, scale) > psnr_y(resize(low, high.shape[:2]), high, scale) + 0.2


def test_training_through_one_convolution_is_the_same_function_and_reaches_every_branch():
    torch.manual_seed(3)
    plain = train.SPANNetwork(train.WIDTH, 2, train.GAIN)
    folded = train.SPANNetwork(train.WIDTH, 2, train.GAIN)
    folded.load_state_dict(plain.state_dict())
    train.train_folded(folded)
    low = torch.rand(2, 3, 9, 11)
    outputs = plain(low), folded(low)
    assert (outputs[0] - outputs[1]).abs().max() <= 1e-5 * outputs[0].abs().max()
    for output in outputs:
        output.square().mean().backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), folded.named_parameters()):
        assert (a.grad - b.grad).abs().max() <= 1e-3 * a.grad.abs().max(), name


@pytest.mark.parametrize("scale", [2, 4])
def test_a_fresh_network_is_nearest_neighbour(scale):
    low, _ = train.batch_of([(np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8),) * 2], 0, 0)
    with torch.no_grad():
        high = train.fresh_network(scale, 0)(low)
    nearest = low.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    assert (high - nearest).abs().mean() < 0.05


def test_patches_of_both_sizes_show_the_same_place():
    grid = np.arange(60 * 60 * 3, dtype=np.uint32).reshape(60, 60, 3) % 251
    low = grid.astype(np.uint8)
    high = low.repeat(2, 0).repeat(2, 1)
    first = train.batch_of([(low, high)], 0, 5)
    assert torch.equal(first[0], first[1][:, :, ::2, ::2])
    again, other = train.batch_of([(low, high)], 0, 5), train.batch_of([(low, high)], 0, 6)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def training_folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 56), Image.Resampling.BICUBIC).save(folder / "a.png")
    return folder


def test_a_stopped_training_goes_on_to_the_bit(tmp_path, monkeypatch, capsys):
    folder, target = training_folder(tmp_path), tmp_path / "net.safetensors"
    arguments = ["--scale", "2", "--images", str(folder), "--minutes", "0.01", "-o", str(target)]
    # The rates follow from the time; here from the steps, so that two runs can be compared.
    monkeypatch.setattr(train.Schedule, "done", lambda schedule, step, seconds: step / 6)
    monkeypatch.setattr(train.Schedule, "is_over", lambda schedule, step, seconds: step >= 6)
    whole = tmp_path / "whole.safetensors"
    assert train.main([*arguments[:-1], str(whole)]) == 0
    learn, state = train.DemoLearner.learn, tmp_path / "net.safetensors.state"

    def learn_until_stopped(learner, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return learn(learner, step)

    with monkeypatch.context() as stopping:
        stopping.setattr(train.DemoLearner, "learn", learn_until_stopped)
        with pytest.raises(KeyboardInterrupt):
            train.main(arguments)
    assert "interrupted after step 4, started again with the same arguments it goes on" in capsys.readouterr().out
    assert state.exists() and not target.exists()
    assert train.main(["--seed", "7", *arguments]) == 2
    assert "is of another run: seed 0, now 7" in capsys.readouterr().err
    assert train.main(arguments) == 0
    assert "going on after step 4" in capsys.readouterr().out
    assert SPAN.detect(load_file(str(target)))
    expected = load_file(str(whole))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_file(str(target)).items())
    assert not state.exists()


def test_the_state_is_there_after_the_first_step_and_twice_a_minute(tmp_path, monkeypatch, capsys):
    kept = []
    ticks = itertools.count()
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(ticks)))
    monkeypatch.setattr(loop, "keep", lambda keeping, state: kept.append(state.step) or keep(keeping, state))
    pairs = train.training_pairs(training_folder(tmp_path), 2)
    train.train_network(train.Plan(2, 2.0, 0, len(pairs)), pairs, tmp_path / "net.safetensors")
    # Every look at the clock is a second later, and every step looks a few times.
    assert kept[0] == 1 and len(kept) >= 4
    assert all(later - earlier <= 15 for earlier, later in zip(kept, kept[1:]))
    assert f"{kept[-1]} steps" in capsys.readouterr().out


def test_a_state_of_the_form_before_is_refused_clearly(tmp_path, capsys):
    folder, target = training_folder(tmp_path), tmp_path / "net.safetensors"
    state = tmp_path / "net.safetensors.state"
    torch.save({"plan": {"scale": 2}, "network": {}, "adam": {}, "step": 3, "spent": 1.0}, str(state))
    assert train.main(["--scale", "2", "--images", str(folder), "--minutes", "0.01", "-o", str(target)]) == 4
    said = capsys.readouterr().err
    assert "net.safetensors.state was kept by another version of srdeploy" in said and "delete it" in said
    assert state.exists()


def test_pictures_that_cannot_be_trained_on_are_named(tmp_path):
    folder = training_folder(tmp_path)
    with pytest.raises(BadImage, match=r"a\.png is too small"):
        train.training_pairs(folder, 4)
    grey = read_picture(folder / "a.png")
    write_picture(type(grey)(grey.pixels[..., :1]), folder / "b.png")
    with pytest.raises(BadImage, match=r"b\.png is grey, 8 bit"):
        train.training_pairs(folder, 2)
