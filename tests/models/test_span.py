"""SPAN and DSCLoRA: the published files, training and low-rank forms against formulas of their own, bad files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sr_deploy.core.errors import BadCheckpoint, UsageError
from sr_deploy.core.tolerance import TORCH_FP32, largest_difference
from sr_deploy.models.architectures.span import DSCLORA, SPAN, alpha_of
from sr_deploy.models.base import Asked
from tests.synthetic_checkpoints import LOW_RANK, dsclora, span_folded, span_training


def picture(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize(
    ("name", "width", "parameters"),
    [("span_ch26_x4", 26, 130_828), ("span_ch28_x4", 28, 150_688), ("dsclora_x4", 26, 130_828)],
)
def test_published_files_give_the_published_output(assets, name, width, parameters):
    tensors = torch.load(assets / "weights" / f"{name}.pth", weights_only=True, map_location="cpu")
    assert SPAN.detect(tensors)
    assert not DSCLORA.detect(tensors)
    model = SPAN.load(tensors, Asked())
    assert (model.scale, model.parameters, model.form, model.notes) == (4, parameters, "folded", ())
    assert model.hyperparameters["width"] == width
    golden = np.load(assets / "golden" / f"{name}.npz")
    for kind in ("even", "odd"):
        lr = torch.from_numpy(golden[f"input_{kind}"].transpose(2, 0, 1)[None].astype(np.float32) / 255)
        sr = model.module(lr).numpy() * 255
        assert largest_difference(sr, golden[f"output_{kind}"], 255.0) <= TORCH_FP32.steps


def chain_by_formula(tensors, path, x):
    """A Conv3XC in float64, the other way round: convolve first, then pad with what zero input gives."""
    w = {key[len(path) + 1 :]: value.double() for key, value in tensors.items() if key.startswith(f"{path}.")}
    first = F.conv2d(x, w["conv.0.weight"], w["conv.0.bias"])
    padded = w["conv.0.bias"].view(1, -1, 1, 1).expand(x.shape[0], -1, x.shape[2] + 2, x.shape[3] + 2).clone()
    padded[:, :, 1:-1, 1:-1] = first
    second = F.conv2d(padded, w["conv.1.weight"], w["conv.1.bias"])
    return F.conv2d(second, w["conv.2.weight"], w["conv.2.bias"]) + F.conv2d(x, w["sk.weight"], w["sk.bias"])


@pytest.mark.parametrize(("width", "scale"), [(8, 2), (13, 3)])
def test_training_form_uses_its_branches_border_included(width, scale):
    tensors = span_training(width, scale, seed=1)
    assert SPAN.detect(tensors)
    model = SPAN.load(tensors, Asked())
    assert (model.form, model.scale) == ("training", scale)
    assert model.hyperparameters == {"width": width, "blocks": 6, "gain": 2}
    network = model.module.double()
    x = torch.rand(1, width, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for path, block in (("block_3.c2_r", network.block_3.c2_r), ("conv_2", network.conv_2)):
        torch.testing.assert_close(block(x), chain_by_formula(tensors, path, x), rtol=1e-12, atol=1e-12)
    assert network(picture(5, 6).double()).shape == (1, 3, 5 * scale, 6 * scale)


def fresh_folds(tensors):
    """The same file with every eval_conv folded from the branches by convolving unit impulses."""
    out = dict(tensors)
    for key in tensors:
        if not key.endswith(".sk.weight"):
            continue
        path = key[: -len(".sk.weight")]
        channels = tensors[key].shape[1]
        zeros = torch.zeros(channels, channels, 5, 5, dtype=torch.float64)
        constant = chain_by_formula(tensors, path, zeros[:1])
        zeros[torch.arange(channels), torch.arange(channels), 2, 2] = 1.0
        response = (chain_by_formula(tensors, path, zeros) - constant)[:, :, 1:4, 1:4]
        out[f"{path}.eval_conv.weight"] = response.flip(2, 3).transpose(0, 1).float()
        out[f"{path}.eval_conv.bias"] = constant[0, :, 2, 2].float()
    return out


def test_a_stale_stored_fold_is_noted_and_a_good_one_is_not():
    stale = span_training(8, 2, seed=1)
    good = fresh_folds(stale)
    one = {**good, "block_4.c1_r.eval_conv.bias": good["block_4.c1_r.eval_conv.bias"] + 0.1}
    none = {key: value for key, value in stale.items() if ".eval_conv." not in key}
    results = [SPAN.load(tensors, Asked()) for tensors in (stale, good, one, none)]
    assert results[0].notes == ("stored eval_conv is stale, the branches are used (everywhere)",)
    assert results[1].notes == ()
    assert results[2].notes == ("stored eval_conv is stale, the branches are used (in block_4.c1_r)",)
    assert results[3].notes == ()
    wanted = results[0].module(picture(6, 5))
    for result in results[1:]:
        assert torch.equal(result.module(picture(6, 5)), wanted)
        assert result.parameters == sum(value.numel() for value in none.values())


def test_training_form_equals_the_folded_file_made_from_it():
    tensors = span_training(8, 2, seed=3)
    folded = {key: value for key, value in fresh_folds(tensors).items() if ".sk." not in key and ".conv." not in key}
    model = SPAN.load(folded, Asked())
    assert model.form == "folded"
    wanted = SPAN.load(tensors, Asked()).module(picture(7, 9))
    assert wanted.std() > 0.01
    torch.testing.assert_close(model.module(picture(7, 9)), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("alpha", "alphas"), [("2r", (4.0, 16.0)), ("16", (16.0, 16.0)), ("0.5r", (1.0, 4.0))])
def test_low_rank_branches_are_added_with_the_alpha_given(alpha, alphas):
    tensors = dsclora(12, 2, rank=2, seed=4)
    assert DSCLORA.detect(tensors)
    assert not SPAN.detect(tensors)
    model = DSCLORA.load(tensors, Asked(lora_alpha=alpha))
    assert (model.architecture, model.form) == ("DSCLoRA", "training")
    assert model.parameters == sum(value.numel() for value in tensors.values())
    assert model.hyperparameters["lora_rank"] == {path: 2 if path.startswith("block") else 8 for path in LOW_RANK}
    assert f"alpha {alpha}" in model.notes[0]
    merged = {key: value for key, value in tensors.items() if "lora_" not in key}
    for path in LOW_RANK:
        rank, own = (2, alphas[0]) if path.startswith("block") else (8, alphas[1])
        product = tensors[f"{path}.lora_B"].double() @ tensors[f"{path}.lora_A"].double()
        weight = merged[f"{path}.weight"]
        merged[f"{path}.weight"] = (weight + product.reshape(weight.shape) * (own / rank)).float()
    plain = SPAN.load({key: value for key, value in tensors.items() if "lora_" not in key}, Asked())
    wanted = SPAN.load(merged, Asked()).module(picture(6, 7))
    torch.testing.assert_close(model.module(picture(6, 7)), wanted, rtol=0, atol=1e-5)
    assert (plain.module(picture(6, 7)) - wanted).abs().max() > 1e-2


def test_low_rank_branches_on_training_branches_are_used_too():
    tensors = fresh_folds(span_training(8, 2, seed=5))
    base = SPAN.load(tensors, Asked()).module(picture(6, 6))
    tensors["block_2.c1_r.conv.1.lora_A"] = torch.full((3, 48), 0.1)
    tensors["block_2.c1_r.conv.1.lora_B"] = torch.full((48, 3), 0.1)
    assert DSCLORA.detect(tensors)
    model = DSCLORA.load(tensors, Asked(lora_alpha="1"))
    assert model.hyperparameters["lora_rank"] == {"block_2.c1_r.conv.1": 1}
    assert (model.module(picture(6, 6)) - base).abs().max() > 1e-4
    assert "stale, the branches are used (in block_2.c1_r)" in model.notes[0]


def test_alpha_is_asked_for_with_the_ranks_and_the_published_recipe():
    with pytest.raises(UsageError) as caught:
        DSCLORA.load(dsclora(12, 2, rank=2, seed=4), Asked())
    assert "rank 2, 8 on 20 convolutions" in caught.value.found
    assert "alpha is not stored" in caught.value.found
    assert "--lora-alpha 2r" in caught.value.todo


@pytest.mark.parametrize("text", ["", "r2", "two", "-1", "0", "0r", "nan", "2r2", "1e3"])
def test_a_malformed_alpha_is_refused(text):
    with pytest.raises(UsageError, match="is no alpha"):
        alpha_of(text, 2)


@pytest.mark.parametrize(
    ("row", "asked", "option"),
    [
        (SPAN, Asked(lora_alpha="2r"), "--lora-alpha 2r was given"),
        (DSCLORA, Asked(lora_alpha="2r"), "--lora-alpha 2r was given"),
        (SPAN, Asked(scale=3), "--scale 3"),
        (SPAN, Asked(res_scale=0.1), "--res-scale"),
    ],
)
def test_what_the_file_has_no_use_for_is_refused(row, asked, option):
    with pytest.raises(UsageError, match=option):
        row.load(span_folded(8, 2, seed=1), asked)


def test_one_pixel_is_enough():
    model = SPAN.load(span_training(8, 2, seed=1), Asked())
    assert model.sizes.minimum == 1
    assert model.module(picture(1, 1)).shape == (1, 3, 2, 2)


def test_a_variant_without_the_mean_is_left_to_others():
    assert not SPAN.detect({**span_folded(8, 2, seed=1), "no_norm": torch.zeros(1)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_5.c2_r.sk.bias": None}, r"missing block_5\.c2_r\.sk\.bias$"),
        ({"conv_1.conv.0.weight": None}, r"missing conv_1\.conv\.0\.weight$"),
        ({"block_7.c1_r.sk.bias": torch.zeros(8)}, r"unexpected block_7\.c1_r\.sk\.bias$"),
        ({"conv_cat.bias": torch.full((8,), float("inf"))}, r"NaN or infinite weights in conv_cat\.bias$"),
        ({"conv_2.sk.bias": torch.zeros(9)}, r"conv_2\.sk\.bias is \(9,\), the network has \(8,\)$"),
        ({"conv_cat.weight": torch.tensor(1.0)}, r"conv_cat\.weight is \(\)$"),
        ({"upsampler.0.weight": torch.zeros(10, 8, 3, 3)}, r"10 output channels"),
        ({"conv_2.eval_conv.lora_A": torch.zeros(3, 24)}, r"conv_2\.eval_conv is no convolution of this network"),
        ({"conv_2.conv.1.lora_A": torch.zeros(4, 24)}, r"4 rows, which is no multiple of the kernel size 3"),
        ({"conv_2.conv.1.lora_A": torch.zeros(3, 24)}, r"missing conv_2\.conv\.1\.lora_B; wrong shape: .*\(3, 48\)$"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(change, message):
    tensors = {**span_training(8, 2, seed=1), **change}
    tensors = {key: value for key, value in tensors.items() if value is not None}
    low_rank = any("lora_" in key for key in tensors)
    with pytest.raises(BadCheckpoint, match="(?m)" + message):
        SPAN.load(tensors, Asked(lora_alpha="2r" if low_rank else None))
