"""SPANF, SPANV2, DSCF and DISP: training forms against their folds by formula, and what each is made of.

Their folded forms are held against the published code in test_ntire.py.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sr_deploy.core.tolerance import FOLD_FLOAT32_RELATIVE
from sr_deploy.fold import fold
from sr_deploy.models.architectures.disp import DISPNetwork
from sr_deploy.models.architectures.dscf import DSCFNetwork
from sr_deploy.models.architectures.spanf import SPANFNetwork
from sr_deploy.models.architectures.spanv2 import SPANV2Network
from sr_deploy.models.base import Asked
from sr_deploy.models.blocks.conv3xc import Conv3XC
from sr_deploy.models.registry import model_from_tensors
from tests.models.random_weights import folded_conv3xc, random_tensors
from tests.synthetic_checkpoints import span_training

#: Each in training form, and how many Conv3XC it has.
TRAINING = {
    "SPANF": (lambda: SPANFNetwork(width=6, blocks=2, scale=2, gain=2), 7),
    "DSCF": (lambda: DSCFNetwork(width=6, blocks=2, scale=2, gain=2), 6),
    "DISP": (lambda: DISPNetwork(width=6, blocks=1, between=1, scale=2, gain=2), 5),
}


def picture(height, width, seed=3):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", TRAINING)
def test_the_training_form_equals_the_folded_one_and_folds_to_it(name):
    make, count = TRAINING[name]
    tensors = random_tensors(make(), gain=0.7)
    folded = folded_conv3xc(tensors)
    stale = {key: torch.full_like(value, 0.1) for key, value in folded.items() if ".eval_conv." in key}
    one, other = model_from_tensors({**tensors, **stale}, Asked(), None), model_from_tensors(folded, Asked(), None)
    assert (one.architecture, one.form, one.hyperparameters["gain"]) == (name, "training", 2)
    assert (other.architecture, other.form, other.notes) == (name, "folded", ())
    assert one.notes == ("stored eval_conv is stale, the branches are used (everywhere)",)
    assert one.parameters == sum(value.numel() for value in tensors.values())
    lr = picture(7, 9)
    expected = other.module(lr)
    assert expected.std() > 0.01
    torch.testing.assert_close(one.module(lr), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    result = fold(one.module)
    assert len(result.report.blocks) == count
    assert not any(isinstance(part, Conv3XC) for part in result.module.modules())
    assert result.report.network_error <= FOLD_FLOAT32_RELATIVE


def test_folds_that_agree_with_the_branches_are_no_note():
    tensors = random_tensors(TRAINING["SPANF"][0](), gain=0.7)
    loaded = model_from_tensors({**folded_conv3xc(tensors), **tensors}, Asked(), None)
    assert (loaded.form, loaded.notes) == ("training", ())


def joined(outer, inner, bias):
    """5x5 weight and bias of a 3x3 convolution ``inner`` with ``bias`` behind a 3x3 ``outer``, without its border."""
    return F.conv2d(inner, outer.transpose(0, 1).flip(2, 3), padding=2), inner.sum((2, 3)) @ bias


def test_dscf_is_span_with_two_pairs_joined_but_for_the_border():
    span = folded_conv3xc(span_training(width=6, scale=2, seed=2))
    span = {key: value for key, value in span.items() if not key.startswith("block_1.c1_r.")}
    made = folded_conv3xc(span_training(width=6, scale=2, seed=2))
    weight, bias = joined(
        made["conv_1.eval_conv.weight"], made["block_1.c1_r.eval_conv.weight"], made["conv_1.eval_conv.bias"]
    )
    cat = made["conv_cat.weight"]
    part = cat[:, 6:12, 0, 0]
    dscf = {key: value for key, value in span.items() if not key.startswith(("conv_2.", "conv_cat."))}
    dscf["conv_fused.weight"], dscf["conv_fused.bias"] = weight, bias + made["block_1.c1_r.eval_conv.bias"]
    dscf["conv_cat_other.weight"] = torch.cat([cat[:, :6], cat[:, 12:]], dim=1)
    dscf["conv_cat_other.bias"] = made["conv_cat.bias"] + part @ made["conv_2.eval_conv.bias"]
    dscf["conv2_fused.weight"] = torch.einsum("om,mihw->oihw", part, made["conv_2.eval_conv.weight"])
    one, other = model_from_tensors(dscf, Asked(), None), model_from_tensors(made, Asked(), None)
    assert (one.architecture, other.architecture) == ("DSCF", "SPAN")
    lr = picture(56, 56)
    difference = (one.module(lr) - other.module(lr)).abs()
    size = float(other.module(lr).abs().max())
    # 22 convolutions carry the border's difference 22 pixels inwards.
    assert difference[:, :, 44:-44, 44:-44].max() <= 1e-5 * size
    assert difference.max() > 1e-3 * size


@pytest.mark.parametrize("bias", [False, True])
def test_spanv2_equals_a_plain_reading(bias):
    network = SPANV2Network(width=5, blocks=3, scale=3, bias=bias)
    t = random_tensors(network)
    loaded = model_from_tensors(t, Asked(), None)
    assert (loaded.architecture, loaded.scale) == ("SPANV2", 3)
    assert loaded.hyperparameters == {"width": 5, "blocks": 3, "bias": bias}

    def conv(name, value, groups=1):
        weight = t[f"{name}.weight"]
        return F.conv2d(value, weight, t.get(f"{name}.bias"), padding=weight.shape[-1] // 2, groups=groups)

    x = lr = picture(6, 8)
    for number in range(1, 4):
        name = f"block_{number}"
        feature = conv(f"{name}.c3.conv", F.relu(conv(f"{name}.c2.conv", F.relu(conv(f"{name}.c1.conv", x)))))
        guided = F.relu(feature) if number == 1 else (x + feature) * conv(f"{name}.guidance_map_conv", feature)
        x = guided
    both = torch.cat([conv("conv_near", lr, groups=3), x], dim=1)
    expected = F.pixel_shuffle(conv("pointwise_conv", conv("depthwise_conv", both, groups=both.shape[1])), 3)
    torch.testing.assert_close(loaded.module(lr), expected, rtol=0, atol=1e-5)
