"""Compact: equal to spandrel's without spandrel, in each activation, and what is refused."""

from __future__ import annotations

import sys

import pytest
import torch

from sr_deploy.core.errors import BadCheckpoint
from sr_deploy.models.architectures.compact import COMPACT, CompactNetwork
from sr_deploy.models.base import Asked
from sr_deploy.pipeline.load import LoadOptions, load_model
from tests.models.random_weights import random_tensors


def test_the_shared_file_loads_without_spandrel_and_equals_spandrels(assets, torchvision_operators, monkeypatch):
    from spandrel.architectures.Compact import Compact

    monkeypatch.setitem(sys.modules, "spandrel", None)
    checkpoint, loaded = load_model(assets / "weights" / "realesr_animevideov3_x4.pth", LoadOptions())
    assert (loaded.architecture, loaded.scale, loaded.value_range) == ("Compact", 4, 1.0)
    assert (loaded.parameters, loaded.notes) == (621_424, ())
    assert loaded.hyperparameters == {"width": 64, "convolutions": 16, "activation": "prelu"}
    theirs = Compact(num_feat=64, num_conv=16, upscale=4).eval()
    theirs.load_state_dict(checkpoint.tensors)
    for size in ((12, 20), (13, 9)):
        lr = torch.rand(1, 3, *size)
        with torch.no_grad():
            assert torch.equal(loaded.module(lr), theirs(lr))


@pytest.mark.parametrize("activation", ["relu", "leakyrelu"])
def test_activations_without_weights_equal_spandrels(activation, torchvision_operators):
    from spandrel.architectures.Compact import Compact

    theirs = Compact(num_feat=4, num_conv=2, upscale=3, act_type=activation).eval()
    ours = CompactNetwork(width=4, convolutions=2, scale=3, activation=activation).eval()
    tensors = random_tensors(ours)
    ours.load_state_dict(tensors)
    theirs.load_state_dict(tensors)
    lr = torch.rand(1, 3, 5, 7)
    assert torch.equal(ours(lr), theirs(lr))


def test_which_activation_without_weights_it_is_shows_on_a_picture():
    # One channel is the leak of what is negative, another what cancels it: without the leak the picture is doubled.
    tensors = {key: torch.zeros_like(value) for key, value in CompactNetwork(6, 0, 2, "leakyrelu").state_dict().items()}
    for colour in range(3):
        tensors["body.0.weight"][colour, colour, 1, 1] = -1.0
        tensors["body.0.weight"][3 + colour, colour, 1, 1] = 1.0
        tensors["body.2.weight"][4 * colour : 4 * colour + 4, colour, 1, 1] = 10.0
        tensors["body.2.weight"][4 * colour : 4 * colour + 4, 3 + colour, 1, 1] = 1.0
    assert COMPACT.detect(tensors)
    loaded = COMPACT.load(tensors, Asked())
    assert loaded.hyperparameters["activation"] == "leakyrelu"
    assert "0…1, leakyrelu: not in the file, told by a picture" in loaded.notes[0]


def test_networks_that_are_none_of_rgb_or_not_whole_are_refused():
    tensors = random_tensors(CompactNetwork(4, 2, 2, "prelu"))
    grey = {**tensors, "body.0.weight": torch.zeros(4, 1, 3, 3)}
    with pytest.raises(BadCheckpoint, match=r"body\.0\.weight takes 1 channel: this Compact is no RGB network"):
        COMPACT.load(grey, Asked())
    cut = {key: value for key, value in tensors.items() if not key.startswith("body.6.")}
    with pytest.raises(BadCheckpoint, match=r"body\.4\.weight has 4 output channels"):
        COMPACT.load(cut, Asked())
    far = {**cut, "body.1000000000.weight": tensors["body.6.weight"]}
    with pytest.raises(BadCheckpoint, match=r"the last one is body\.1000000000"):
        COMPACT.load(far, Asked())
    odd = {f"body.{int(key.split('.')[1]) + 1}.{key.split('.')[2]}": value for key, value in tensors.items()}
    with pytest.raises(BadCheckpoint, match=r"has 5 convolutions, and the last one is body\.7"):
        COMPACT.load({**odd, "body.0.weight": tensors["body.0.weight"]}, Asked())
