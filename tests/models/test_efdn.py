"""EFDN: the published files, the training form against a formula of its own, and files that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sr_deploy.core.errors import BadCheckpoint, UsageError
from sr_deploy.core.tolerance import TORCH_FP32, largest_difference
from sr_deploy.models.architectures.efdn import EFDN, EdgeBranches
from sr_deploy.models.base import Asked
from tests.synthetic_checkpoints import efdn_training


@pytest.mark.parametrize(("name", "scale", "parameters"), [("efdn_x4", 4, 276_192), ("efdn_x2", 2, 260_604)])
def test_published_files_give_the_published_output(assets, name, scale, parameters):
    tensors = torch.load(assets / "weights" / f"{name}.pth", weights_only=True, map_location="cpu")
    assert EFDN.detect(tensors)
    model = EFDN.load(tensors, Asked())
    assert (model.scale, model.parameters, model.form, model.notes) == (scale, parameters, "folded", ())
    assert model.hyperparameters["width"] == 48
    golden = np.load(assets / "golden" / f"{name}.npz")
    for kind in ("even", "odd"):
        lr = torch.from_numpy(golden[f"input_{kind}"].transpose(2, 0, 1)[None].astype(np.float32) / 255)
        sr = model.module(lr).numpy() * 255
        assert largest_difference(sr, golden[f"output_{kind}"], 255.0) <= TORCH_FP32.steps


def folded_by_formula(block: EdgeBranches):
    """Weight and bias of the one convolution, by hand, in float64."""
    w = {key: value.double() for key, value in block.state_dict().items()}
    weight, bias = w["rep_conv.weight"].clone(), w["rep_conv.bias"] + w["conv1x1.bias"]
    width = weight.shape[0]
    weight[:, :, 1, 1] += w["conv1x1.weight"][:, :, 0, 0] + torch.eye(width, dtype=torch.float64)
    for name in ("sbx", "sby", "lpl"):
        filters = (w[f"conv1x1_{name}.scale"] * w[f"conv1x1_{name}.mask"])[:, 0]
        weight += filters[:, None] * w[f"conv1x1_{name}.k0"]
        bias = bias + filters.sum((1, 2)) * w[f"conv1x1_{name}.b0"] + w[f"conv1x1_{name}.bias"]
    if "conv1x1_3x3.k1" in w:
        weight += torch.einsum("omhw,mi->oihw", w["conv1x1_3x3.k1"], w["conv1x1_3x3.k0"][:, :, 0, 0])
        bias = bias + w["conv1x1_3x3.k1"].sum((2, 3)) @ w["conv1x1_3x3.b0"] + w["conv1x1_3x3.b1"]
    return weight, bias


@pytest.mark.parametrize("expanding", [True, False])
def test_training_form_sums_its_branches_border_included(expanding):
    tensors = efdn_training(width=16, scale=2, seed=1)
    if not expanding:
        tensors = {key: value for key, value in tensors.items() if "conv1x1_3x3" not in key}
    assert EFDN.detect(tensors)
    model = EFDN.load(tensors, Asked())
    assert model.form == "training"
    assert model.hyperparameters["expanding_branch"] == (32 if expanding else 0)
    assert "identity" in model.notes[0]
    x = torch.rand(1, 16, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for cell in model.module.cells:
        block = cell.conv3.rep_conv
        weight, bias = folded_by_formula(block)
        torch.testing.assert_close(block.double()(x), F.conv2d(x, weight, bias, padding=1), rtol=1e-12, atol=1e-12)


def test_training_form_equals_the_folded_file_made_from_it():
    tensors = efdn_training(width=16, scale=3, seed=3)
    training = EFDN.load(tensors, Asked())
    folded = {key: value for key, value in tensors.items() if ".conv1x1" not in key or ".conv1.conv1x1" in key}
    for path, block in training.module.named_modules():
        if isinstance(block, EdgeBranches):
            weight, bias = folded_by_formula(block)
            folded.update({f"{path}.weight": weight.float(), f"{path}.bias": bias.float()})
    model = EFDN.load(folded, Asked())
    assert model.form == "folded"
    x = torch.rand(2, 3, 15, 18, generator=torch.Generator().manual_seed(4))
    got, wanted = model.module(x), training.module(x)
    assert wanted.shape == (2, 3, 45, 54)
    assert wanted.std() > 0.01
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


def test_the_stored_mask_is_used_even_when_it_is_no_edge_filter():
    tensors = efdn_training(width=16, scale=2, seed=5)
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(6))
    before = EFDN.load(tensors, Asked()).module(x)
    for key in list(tensors):
        if key.endswith("conv1x1_lpl.mask"):
            tensors[key] = tensors[key] + 1.0
    assert (EFDN.load(tensors, Asked()).module(x) - before).abs().max() > 1e-3


def test_the_smallest_input_is_as_stated():
    model = EFDN.load(efdn_training(width=16, scale=2, seed=1), Asked())
    smallest = model.sizes.minimum
    assert model.module(torch.rand(1, 3, smallest, smallest)).shape[-1] == 2 * smallest
    for height, width in ((smallest - 1, smallest), (smallest, smallest - 1)):
        with pytest.raises(RuntimeError):
            model.module(torch.rand(1, 3, height, width))


def damaged(tensors, change):
    """A copy with one kind of damage."""
    tensors = dict(tensors)
    key = "cells.2.conv3.conv1x1_sby.k0"
    if change == "missing":
        del tensors[key]
    elif change == "extra":
        tensors["cells.2.conv3.conv1x1_sbz.k0"] = tensors[key]
    elif change == "NaN":
        tensors[key] = torch.full_like(tensors[key], float("nan"))
    elif change == "wrong shape":
        tensors[key] = tensors[key][:3]
    elif change == "no head":
        del tensors["head.weight"]
    elif change == "colours":
        tensors["tail.0.weight"] = tensors["tail.0.weight"][:5]
    return tensors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"missing cells\.2\.conv3\.conv1x1_sby\.k0$"),
        ("extra", r"unexpected cells\.2\.conv3\.conv1x1_sbz\.k0$"),
        ("NaN", r"NaN or infinite weights in cells\.2\.conv3\.conv1x1_sby\.k0$"),
        ("wrong shape", r"cells\.2\.conv3\.conv1x1_sby\.k0 is \(3, 16, 1, 1\), the network has \(16, 16, 1, 1\)$"),
        ("no head", r"missing head\.weight$"),
        ("colours", r"tail\.0\.weight has 5 output channels"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_the_names_it_uses(change, message):
    tensors = damaged(efdn_training(width=16, scale=2, seed=1), change)
    with pytest.raises(BadCheckpoint, match="(?m)" + message) as caught:
        EFDN.load(tensors, Asked())
    assert caught.value.exit_code == 4
    assert caught.value.todo


@pytest.mark.parametrize(
    ("asked", "option"),
    [(Asked(scale=4), "--scale 4"), (Asked(lora_alpha="2r"), "--lora-alpha"), (Asked(res_scale=1), "--res-scale")],
)
def test_what_the_file_contradicts_is_refused(asked, option):
    with pytest.raises(UsageError, match=option):
        EFDN.load(efdn_training(width=16, scale=2, seed=1), asked)
