"""RLFN, RFDN and IMDN: widths and blocks from shapes, the range from a picture, IMDN against a plain reading of it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sr_deploy.core.errors import BadCheckpoint
from sr_deploy.models.architectures.imdn import IMDN, IMDNNetwork, Shape
from sr_deploy.models.architectures.rlfn import RLFN, BlockShape, RLFNNetwork
from sr_deploy.models.base import Asked
from sr_deploy.models.registry import model_from_tensors
from sr_deploy.pipeline.load import LoadOptions, load_model
from tests.models.random_weights import random_tensors, renamed


@pytest.mark.parametrize(
    ("weights", "first", "last"),
    [("rlfn_x4.pth", "conv_1.weight", "upsampler.0"), ("rfdn_x4.pkl", "fea_conv.weight", "upsampler.0")],
)
def test_the_range_is_found_by_what_a_picture_becomes(assets, weights, first, last):
    checkpoint, loaded = load_model(assets / "weights" / weights, LoadOptions())
    assert loaded.value_range == 255.0
    tensors = dict(checkpoint.tensors)
    tensors[first] = tensors[first] * 255
    for part in ("weight", "bias"):
        tensors[f"{last}.{part}"] = tensors[f"{last}.{part}"] / 255
    rescaled = model_from_tensors(tensors, Asked(), None)
    assert rescaled.value_range == 1.0
    assert rescaled.notes[0].startswith("0…1: not in the file, told by a picture")
    asked = model_from_tensors(tensors, Asked(value_range=255.0), None)
    assert asked.value_range == 255.0
    assert asked.notes[0].startswith("0…255, as was asked, but a smooth picture comes back")
    lr = torch.rand(1, 3, 15, 16)
    torch.testing.assert_close(255 * rescaled.module(lr), loaded.module(255 * lr), rtol=0, atol=1e-3)


def test_each_block_of_rlfn_has_its_own_pruned_widths():
    shapes = [BlockShape(5, 6, 2), BlockShape(3, 4, 4), BlockShape(4, 4, 2)]
    network = RLFNNetwork(width=4, shapes=shapes, scale=3).eval()
    tensors = random_tensors(network)
    network.load_state_dict(tensors)
    loaded = RLFN.load(tensors, Asked())
    assert loaded.hyperparameters == {"width": 4, "blocks": 3, "inner": [3, 4, 5, 6], "attention": [2, 4]}
    lr = torch.rand(1, 3, 15, 17)
    with torch.no_grad():
        assert torch.equal(loaded.module(lr), network(lr))


@pytest.mark.parametrize("weights", ["rlfn_x4.pth", "rfdn_x4.pkl"])
def test_the_smallest_size_is_the_smallest_that_runs(assets, weights):
    _, loaded = load_model(assets / "weights" / weights, LoadOptions())
    edge = loaded.sizes.minimum
    assert loaded.module(torch.rand(1, 3, edge, edge)).shape == (1, 3, 4 * edge, 4 * edge)
    with pytest.raises(RuntimeError):
        loaded.module(torch.rand(1, 3, edge - 1, edge))


def imdn_by_hand(t, x, blocks, joined):
    """The forward pass of IMDN and of IMDN-RTC written out with functional calls."""

    def conv(name, value):
        return F.conv2d(value, t[f"{name}.weight"], t[f"{name}.bias"], padding=t[f"{name}.weight"].shape[-1] // 2)

    shallow = feature = conv("fea_conv", x)
    outputs = []
    for number in range(1, blocks + 1):
        name = f"IMDB{number}"
        kept = t[f"{name}.c4.weight"].shape[0]
        rest, parts = feature, []
        for step in ("c1", "c2", "c3"):
            part, rest = torch.split(
                F.leaky_relu(conv(f"{name}.{step}", rest), 0.05), [kept, feature.shape[1] - kept], dim=1
            )
            parts.append(part)
        together = torch.cat([*parts, conv(f"{name}.c4", rest)], dim=1)
        if joined:
            contrast = together.std(dim=(2, 3), unbiased=False, keepdim=True) + together.mean((2, 3), keepdim=True)
            inner = F.relu(conv(f"{name}.cca.conv_du.0", contrast))
            together = together * torch.sigmoid(conv(f"{name}.cca.conv_du.2", inner))
        feature = conv(f"{name}.c5", together) + feature
        outputs.append(feature)
    if joined:
        feature = F.leaky_relu(conv("c.0", torch.cat(outputs, dim=1)), 0.05)
    return F.pixel_shuffle(conv("upsampler.0", conv("LR_conv", feature) + shallow), 2)


@pytest.mark.parametrize("variant", ["IMDN", "RTC"])
def test_imdn_equals_a_plain_reading(variant):
    joined = variant == "IMDN"
    shape = Shape(width=12, distilled=3, reduced=2 if joined else 0, blocks=3, joined=joined, scale=2)
    tensors = random_tensors(IMDNNetwork(shape))
    stored = tensors
    if not joined:
        blocks = {f"IMDB{number + 1}.": f"model.1.sub.{number}." for number in range(3)}
        outer = {"fea_conv.": "model.0.", "LR_conv.": "model.1.sub.3.", "upsampler.0.": "model.2."}
        stored = renamed(tensors, {**blocks, **outer})
    loaded = model_from_tensors(stored, Asked(), None)
    assert (loaded.architecture, loaded.scale, loaded.value_range) == ("IMDN", 2, 1.0)
    assert (loaded.hyperparameters["variant"], loaded.hyperparameters["blocks"]) == (variant, 3)
    lr = torch.rand(1, 3, 9, 11)
    torch.testing.assert_close(loaded.module(lr), imdn_by_hand(tensors, lr, 3, joined), rtol=1e-5, atol=1e-5)


def test_the_imdn_that_makes_smaller_first_is_refused():
    shape = Shape(width=8, distilled=2, reduced=2, blocks=1, joined=True, scale=4)
    tensors = random_tensors(IMDNNetwork(shape))
    tensors["fea_conv.0.weight"] = tensors.pop("fea_conv.weight")
    assert IMDN.detect(tensors)
    with pytest.raises(BadCheckpoint, match="IMDN-AS, which makes the picture four times smaller first"):
        model_from_tensors(tensors, Asked(), None)
