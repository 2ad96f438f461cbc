"""ECBSR: its branches against their fold by formula, its older keys, and switches that leave no trace."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sr_deploy.core.errors import BadCheckpoint
from sr_deploy.core.tolerance import FOLD_FLOAT32_RELATIVE
from sr_deploy.fold import fold
from sr_deploy.models.architectures.ecbsr import ECBSR, ECBSRNetwork, EdgeBranches
from sr_deploy.models.base import Asked
from sr_deploy.models.registry import model_from_tensors
from tests.models.random_weights import random_tensors, renamed
from tests.synthetic_checkpoints import LAPLACIAN, SOBEL_X, SOBEL_Y


def training_tensors(widths=(3, 6, 6, 12), activation="prelu"):
    """Keys of the authors' training, with their edge filters."""
    middles = tuple(2 * width for width in widths[1:])
    network = ECBSRNetwork(widths, 2, activation, middles, identity=False)
    tensors = renamed(random_tensors(network, gain=0.5), {f"backbone.{n}.conv3x3.": f"backbone.{n}." for n in range(3)})
    for key, value in tensors.items():
        for name, mask in (("sbx", SOBEL_X), ("sby", SOBEL_Y), ("lpl", LAPLACIAN)):
            if key.endswith(f"{name}.mask"):
                tensors[key] = torch.tensor(mask).expand(value.shape).clone()
    return tensors


def plain_tensors(tensors):
    """The deployed form: each block as the one convolution that its branches are."""
    plain = {key: value for key, value in tensors.items() if ".act." in key}
    for block in sorted({key.rsplit(".conv3x3", 1)[0] for key in tensors if ".conv3x3." in key}):
        w = {key[len(block) + 1 :]: value.double() for key, value in tensors.items() if key.startswith(f"{block}.")}
        weight, bias = w["conv3x3.weight"].clone(), w["conv3x3.bias"].clone()
        weight += torch.einsum("omhw,mi->oihw", w["conv1x1_3x3.k1"], w["conv1x1_3x3.k0"][:, :, 0, 0])
        bias += w["conv1x1_3x3.k1"].sum((2, 3)) @ w["conv1x1_3x3.b0"] + w["conv1x1_3x3.b1"]
        for name in ("sbx", "sby", "lpl"):
            filters = (w[f"conv1x1_{name}.scale"] * w[f"conv1x1_{name}.mask"])[:, 0]
            weight += filters[:, None] * w[f"conv1x1_{name}.k0"]
            bias += filters.sum((1, 2)) * w[f"conv1x1_{name}.b0"] + w[f"conv1x1_{name}.bias"]
        plain[f"{block}.conv3x3.weight"], plain[f"{block}.conv3x3.bias"] = weight.float(), bias.float()
    return plain


def test_the_training_form_equals_the_plain_network_and_folds_to_it():
    tensors = training_tensors()
    training, plain = (model_from_tensors(t, Asked(), None) for t in (tensors, plain_tensors(tensors)))
    assert (training.architecture, training.form, plain.form) == ("ECBSR", "training", "folded")
    assert (training.scale, training.hyperparameters["widths"], training.hyperparameters["blocks"]) == (2, [6, 6], 3)
    lr = torch.rand(1, 3, 6, 7)
    expected = plain.module(lr)
    assert expected.std() > 0.1
    torch.testing.assert_close(training.module(lr), expected, rtol=0, atol=1e-5)
    result = fold(training.module)
    assert {block.name for block in result.report.blocks} == {"backbone.0.conv3x3", "backbone.1.conv3x3", "backbone.2"}
    assert result.report.network_error <= FOLD_FLOAT32_RELATIVE
    assert not any(isinstance(part, EdgeBranches) for part in result.module.modules())


def test_the_plain_network_is_a_row_of_convolutions_and_the_enlarged_input():
    t = plain_tensors(training_tensors())
    x = lr = torch.rand(1, 3, 5, 6)
    for number in range(3):
        name = f"backbone.{number}"
        x = F.conv2d(x, t[f"{name}.conv3x3.weight"], t[f"{name}.conv3x3.bias"], padding=1)
        x = F.prelu(x, t[f"{name}.act.weight"]) if number < 2 else x
    shortcut = torch.repeat_interleave(lr, 4, dim=1)
    torch.testing.assert_close(ECBSR.load(t, Asked()).module(lr), F.pixel_shuffle(x + shortcut, 2), rtol=0, atol=1e-6)


def test_the_older_keys_are_the_same_network():
    tensors = training_tensors()
    older = renamed(tensors, {"backbone.0.": "head.0.", "backbone.1.": "body.0.", "backbone.2.": "tail.0."})
    lr = torch.rand(1, 3, 6, 7)
    assert torch.equal(model_from_tensors(older, Asked(), None).module(lr), ECBSR.load(tensors, Asked()).module(lr))
    del older["body.0.conv1x1_sby.b0"]
    with pytest.raises(BadCheckpoint, match=r"missing body\.0\.conv1x1_sby\.b0\n"):
        ECBSR.load(older, Asked())


def test_an_identity_shows_on_a_picture():
    # The middle block is the identity less itself; the last one spoils the picture with whatever is left of it.
    tensors = {key: torch.zeros_like(value) for key, value in training_tensors().items()}
    for channel in range(6):
        tensors["backbone.0.conv3x3.weight"][channel, channel % 3, 1, 1] = 1.0
        tensors["backbone.1.conv3x3.weight"][channel, channel, 1, 1] = -1.0
    tensors["backbone.1.act.weight"].fill_(1.0)
    tensors["backbone.2.conv3x3.weight"][:, 0, 1, 1] = 1.0
    loaded = ECBSR.load(tensors, Asked())
    assert loaded.hyperparameters["switches"] == "prelu, with identity"
    lr = torch.rand(1, 3, 4, 5)
    assert torch.equal(loaded.module(lr), F.interpolate(lr, scale_factor=2.0, mode="nearest"))


def test_an_activation_without_weights_and_a_range_that_nothing_tells_are_said():
    tensors = plain_tensors(training_tensors(activation="relu"))
    loaded = ECBSR.load(tensors, Asked())
    assert loaded.hyperparameters["switches"] == "relu"
    assert loaded.value_range == 1.0
    assert "not in the file, nor told by a picture" in loaded.notes[0]


def test_the_authors_own_files_which_have_one_channel_are_refused():
    tensors = training_tensors(widths=(1, 6, 6, 4))
    with pytest.raises(BadCheckpoint, match=r"takes 1 channel: this ECBSR is no RGB network"):
        model_from_tensors(tensors, Asked(), None)
