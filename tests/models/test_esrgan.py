"""ESRGAN: against spandrel's, under all three families of keys, and as a graph for all sizes."""

from __future__ import annotations

import re

import pytest
import torch

from sr_deploy.core.errors import BadCheckpoint
from sr_deploy.core.tolerance import GRAPH_FP32, largest_difference
from sr_deploy.models.architectures.esrgan import ESRGAN, RRDBNetwork, Shape
from sr_deploy.models.base import Asked
from sr_deploy.models.registry import model_from_tensors
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.run.base import upscale
from sr_deploy.run.onnxruntime import runner_from_graph
from tests.models.random_weights import random_tensors, renamed

#: spandrel's options, the scale they make, and the smallest height and width.
FORMS = {
    "x4": ({"scale": 4}, 4, 1),
    "x2": ({"scale": 2}, 2, 1),
    "x1": ({"scale": 1}, 1, 1),
    "x8": ({"scale": 8}, 8, 1),
    "plus": ({"scale": 4, "plus": True}, 4, 1),
    "unshuffle x2": ({"scale": 4, "in_nc": 12, "shuffle_factor": 2}, 2, 2),
    "unshuffle x1": ({"scale": 4, "in_nc": 48, "shuffle_factor": 4}, 1, 4),
}


@pytest.mark.parametrize("form", FORMS)
def test_equals_spandrels(form, torchvision_operators):
    from spandrel.architectures.ESRGAN import ESRGAN as Theirs

    options, scale, smallest = FORMS[form]
    torch.manual_seed(4)
    theirs = Theirs(num_filters=6, num_blocks=2, **options).eval()
    loaded = model_from_tensors(theirs.state_dict(), Asked(), None)
    assert (loaded.architecture, loaded.scale, loaded.value_range) == ("ESRGAN", scale, 1.0)
    assert (loaded.sizes.minimum, loaded.sizes.multiple) == (smallest, 1)
    assert (loaded.hyperparameters["blocks"], loaded.hyperparameters["growth"]) == (2, 32)
    for height, width in ((8, 12), (smallest, 7), (9, 10)):
        lr = torch.rand(1, 3, height, width)
        with torch.no_grad():
            expected = theirs(lr)
        assert expected.shape == (1, 3, height * scale, width * scale)
        assert expected.std() > 0.01
        torch.testing.assert_close(loaded.module(lr), expected, rtol=0, atol=1e-6)


def keys_of_esrgan(tensors):
    """The names of ESRGAN's and BSRGAN's files."""
    dense = {f"body.{b}.rdb{d}.": f"RRDB_trunk.{b}.RDB{d}." for b in range(2) for d in (1, 2, 3)}
    outer = {"conv_body.": "trunk_conv.", "conv_up1.": "upconv1.", "conv_up2.": "upconv2.", "conv_hr.": "HRconv."}
    return renamed(tensors, {**dense, **outer})


def keys_of_the_first_release(tensors):
    """Numbers of layers, x4."""
    inner = {
        f"body.{b}.rdb{d}.conv{c}.": f"model.1.sub.{b}.RDB{d}.conv{c}.0."
        for b in range(2)
        for d in (1, 2, 3)
        for c in range(1, 6)
    }
    outer = {"conv_first.": 0, "conv_up1.": 3, "conv_up2.": 6, "conv_hr.": 8, "conv_last.": 10}
    numbers = {name: f"model.{number}." for name, number in outer.items()}
    return renamed(tensors, {**inner, **numbers, "conv_body.": "model.1.sub.2."})


def tiny(doublings=2, unshuffle=1):
    shape = Shape(width=4, growth=2, blocks=2, doublings=doublings, unshuffle=unshuffle, plus=False)
    return random_tensors(RRDBNetwork(shape))


@pytest.mark.parametrize("keys", [keys_of_esrgan, keys_of_the_first_release])
def test_all_families_of_keys_are_one_network(keys):
    tensors = tiny()
    named = keys(tensors)
    assert not set(named) & {key for key in tensors if key.startswith(("body.", "conv_body."))}
    one, other = model_from_tensors(tensors, Asked(), None), model_from_tensors(named, Asked(), None)
    assert (one.architecture, one.scale) == (other.architecture, other.scale) == ("ESRGAN", 4)
    lr = torch.rand(1, 3, 5, 6)
    assert torch.equal(one.module(lr), other.module(lr))


@pytest.mark.parametrize("keys", [keys_of_esrgan, keys_of_the_first_release])
def test_a_missing_key_has_the_files_name(keys):
    named = keys(tiny())
    missing = next(key for key in named if "RDB2.conv3" in key and key.endswith("bias"))
    with pytest.raises(BadCheckpoint, match=f"missing {re.escape(missing)}\n"):
        ESRGAN.load({key: value for key, value in named.items() if key != missing}, Asked())


def test_the_unshuffled_form_is_exported_for_all_sizes(tmp_path):
    tensors = tiny(unshuffle=4)
    torch.save(tensors, tmp_path / "net.pth")
    deployment = export_deployment(ExportOptions(tmp_path / "net.pth", tmp_path / "net"))
    loaded = ESRGAN.load(tensors, Asked())
    assert (deployment.manifest.architecture, deployment.manifest.scale) == ("ESRGAN", 1)
    runner = runner_from_graph(deployment.folder / "model.onnx", deployment.manifest.contract, 1)
    for size in ((12, 16), (4, 9), (17, 8), (11, 11)):
        lr = torch.rand(1, 3, *size)
        expected = loaded.module(lr).clamp(0, 1).numpy()
        assert largest_difference(upscale(runner, lr.numpy()), expected, 1.0) <= GRAPH_FP32.steps
    runner.close()


def test_channels_that_are_no_rgb_are_refused():
    tensors = tiny()
    with pytest.raises(BadCheckpoint, match=r"conv_first\.weight takes 1 channel: this ESRGAN is no RGB network"):
        ESRGAN.load({**tensors, "conv_first.weight": torch.zeros(4, 1, 3, 3)}, Asked())
    with pytest.raises(BadCheckpoint, match=r"gives 1 channels and enlarges 4/1 times"):
        ESRGAN.load({**tensors, "conv_last.weight": torch.zeros(1, 4, 3, 3)}, Asked())
    with pytest.raises(BadCheckpoint, match=r"enlarges 1/2 times"):
        ESRGAN.load(tiny(doublings=0, unshuffle=2), Asked())
