"""EDSR: both key families agree with each other and with a plain reading of the published forward pass."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from sr_deploy.core.errors import BadCheckpoint, UsageError
from sr_deploy.core.tolerance import TORCH_FP32, largest_difference
from sr_deploy.models.architectures.edsr import EDSR, RGB_MEAN, BasicSREDSR, HeadBodyTailEDSR
from sr_deploy.models.base import Asked


def head_body_tail_tensors(width=8, blocks=3, scale=2, value_range=255.0):
    """A state dict with EDSR-PyTorch's keys and random weights."""
    torch.manual_seed(width + blocks + scale)
    tensors = HeadBodyTailEDSR(width, blocks, scale, 1.0).state_dict()
    for name, sign in (("sub_mean", -1.0), ("add_mean", 1.0)):
        tensors[f"{name}.weight"] = torch.eye(3).view(3, 3, 1, 1)
        tensors[f"{name}.bias"] = sign * value_range * torch.tensor(RGB_MEAN)
    return tensors


def basicsr_tensors(tensors, blocks):
    """The same weights under BasicSR's keys."""
    renamed = {}
    for key, value in tensors.items():
        if key.startswith(("sub_mean", "add_mean")):
            continue
        for old, new in (
            (r"^head\.0\.", "conv_first."),
            (rf"^body\.{blocks}\.", "conv_after_body."),
            (r"^body\.(\d+)\.body\.0\.", r"body.\1.conv1."),
            (r"^body\.(\d+)\.body\.2\.", r"body.\1.conv2."),
            (r"^tail\.0\.", "upsample."),
            (r"^tail\.1\.", "conv_last."),
        ):
            key = re.sub(old, new, key)
        renamed[key] = value
    return renamed


def published_forward(tensors, blocks, stages, factor, res_scale, x):
    """The forward pass of EDSR-PyTorch written out with functional calls."""

    def conv(name, value):
        return F.conv2d(value, tensors[f"{name}.weight"], tensors[f"{name}.bias"], padding="same")

    head = conv("head.0", conv("sub_mean", x))
    y = head
    for block in range(blocks):
        y = y + res_scale * conv(f"body.{block}.body.2", F.relu(conv(f"body.{block}.body.0", y)))
    y = head + conv(f"body.{blocks}", y)
    for stage in range(stages):
        y = F.pixel_shuffle(conv(f"tail.0.{2 * stage}", y), factor)
    return conv("add_mean", conv("tail.1", y))


@pytest.mark.parametrize(("scale", "stages", "factor"), [(2, 1, 2), (3, 1, 3), (4, 2, 2), (8, 3, 2)])
def test_both_families_and_the_published_forward_agree(scale, stages, factor):
    blocks, res_scale = 3, 0.5
    tensors = head_body_tail_tensors(blocks=blocks, scale=scale)
    other = basicsr_tensors(tensors, blocks)
    assert EDSR.detect(tensors)
    assert EDSR.detect(other)
    first, second = (EDSR.load(t, Asked(res_scale=res_scale)) for t in (tensors, other))
    assert (first.scale, first.value_range, second.scale, second.value_range) == (scale, 255.0, scale, 1.0)
    assert first.hyperparameters["blocks"] == second.hyperparameters["blocks"] == blocks
    assert first.parameters == second.parameters
    lr = torch.rand(2, 3, 13, 9) * 255
    expected = published_forward(tensors, blocks, stages, factor, res_scale, lr).numpy()
    assert expected.shape == (2, 3, scale * 13, scale * 9)
    assert np.std(expected) > 1
    assert largest_difference(first.module(lr).numpy(), expected, 255.0) <= TORCH_FP32.steps
    assert largest_difference(255 * second.module(lr / 255).numpy(), expected, 255.0) <= TORCH_FP32.steps


def test_value_range_is_read_off_the_stored_mean():
    assert EDSR.load(head_body_tail_tensors(value_range=1.0), Asked(res_scale=1.0)).value_range == 1.0
    with_deviation = {**head_body_tail_tensors(), "sub_mean.weight": 4 * torch.eye(3).view(3, 3, 1, 1)}
    without_mean = {**head_body_tail_tensors(), "sub_mean.bias": torch.zeros(3)}
    for odd in (with_deviation, without_mean):
        with pytest.raises(BadCheckpoint, match="value range of this EDSR does not follow"):
            EDSR.load(odd, Asked(res_scale=1.0))


@pytest.mark.parametrize(
    ("blocks", "width", "name", "value"),
    [
        (16, 64, "EDSR-baseline", "1"),
        (32, 256, "EDSR", "0.1"),
        (8, 16, "EDSRmini", "2"),
    ],
)
def test_res_scale_is_asked_for_and_the_fitting_value_is_named(blocks, width, name, value):
    shapes = {key: torch.empty(1).expand(t.shape) for key, t in _meta_tensors(width, blocks).items()}
    with pytest.raises(UsageError) as caught:
        EDSR.load(shapes, Asked())
    assert f"it has the size of {name}" in caught.value.found
    assert caught.value.todo.startswith(f"--res-scale {value} ")
    assert all(published in caught.value.wanted for published in ("1 for", "0.1 for", "2 for"))


def _meta_tensors(width, blocks):
    with torch.device("meta"):
        return BasicSREDSR(width, blocks, 2, 1.0).state_dict()


def test_res_scale_of_an_unpublished_size():
    with pytest.raises(UsageError, match="size of none of these"):
        EDSR.load(head_body_tail_tensors(), Asked())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(res_scale=0.0), "not a scaling"),
        (Asked(res_scale=float("nan")), "not a scaling"),
        (Asked(res_scale=1.0, scale=4), "x2 by its shapes"),
        (Asked(res_scale=1.0, lora_alpha="16"), "--lora-alpha 16"),
    ],
)
def test_values_that_do_not_fit_are_refused(asked, message):
    with pytest.raises(UsageError, match=message):
        EDSR.load(head_body_tail_tensors(), asked)


@pytest.mark.parametrize("missing", ["sub_mean.bias", "body.1.body.2.weight", "tail.1.bias"])
def test_a_missing_tensor_is_named(missing):
    tensors = head_body_tail_tensors()
    del tensors[missing]
    with pytest.raises(BadCheckpoint, match=missing):
        EDSR.load(tensors, Asked(res_scale=1.0))


def test_unknown_upsampling_is_refused():
    tensors = head_body_tail_tensors()
    tensors["tail.0.0.weight"] = torch.zeros(8 * 25, 8, 3, 3)
    with pytest.raises(BadCheckpoint, match=r"tail\.0\.0\.weight"):
        EDSR.load(tensors, Asked(res_scale=1.0))


@pytest.mark.parametrize(
    ("width", "blocks", "parameters", "macs", "published"),
    [
        (64, 16, 1_369_859, 316.25, 316.3),
        (16, 8, 49_603, 11.65, 11.7),
    ],
)
def test_counts_equal_the_published_ones(width, blocks, parameters, macs, published):
    tensors = head_body_tail_tensors(width, blocks)
    totals = []
    for family in (basicsr_tensors(tensors, blocks), tensors):
        loaded = EDSR.load(family, Asked(res_scale=1.0))
        assert loaded.parameters == parameters
        with FlopCounterMode(display=False) as counter:
            loaded.module(torch.zeros(1, 3, 9, 16))
        # Everything is convolution, so the count is proportional to the pixels: 360x640 is 40x40 times 9x16.
        totals.append(counter.get_total_flops() / 2 * 1600 / 1e9)
    assert totals[0] == pytest.approx(macs, abs=0.006)
    # The published digit counts the mean shifts as convolutions.
    assert round(totals[1], 1) == published
