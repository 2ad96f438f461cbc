"""Folding whole networks: what is walked, what is replaced, what is proved, and what a user is told."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sr_deploy.core.errors import BadInput, CheckFailed, UsageError
from sr_deploy.core.tolerance import FOLD_FLOAT32_RELATIVE
from sr_deploy.fold import fold
from sr_deploy.fold.double import copy_as
from sr_deploy.fold.observe import observe
from sr_deploy.fold.prove_network import ROUNDING_ALLOWED
from sr_deploy.models.architectures.efdn import EFDN, EdgeBranches
from sr_deploy.models.architectures.f2srgan import F2SRGAN, FourierUnit
from sr_deploy.models.architectures.span import DSCLORA, SPAN, LowRankConv
from sr_deploy.models.base import Asked, LoadedModel
from sr_deploy.models.blocks.conv3xc import Conv3XC
from tests.synthetic_checkpoints import dsclora, efdn_training, f2srgan, span_training


def trained(module: nn.Module) -> nn.Module:
    """The module in eval mode with random weights, none of them trivial."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in module.parameters():
            fan_in = tensor[0].numel() if tensor.dim() > 1 else 4
            tensor.copy_(torch.randn(tensor.shape, generator=random) / fan_in**0.5)
    return module.eval()


def two_layers(c_in: int = 4, c_out: int = 4) -> nn.Sequential:
    """A 3x3 and a 1x1 convolution: one 3x3 when folded."""
    return nn.Sequential(nn.Conv2d(c_in, 16, 3, padding=1), nn.Conv2d(16, c_out, 1))


class Upscaler(nn.Module):
    """Head, a block called three times, tail and PixelShuffle."""

    def __init__(self):
        super().__init__()
        self.head, self.body, self.act = two_layers(3, 4), two_layers(), nn.PReLU(4)
        self.tail = nn.Sequential(two_layers(4, 12), nn.PixelShuffle(2))

    def forward(self, x):
        x = self.head(x)
        for _ in range(3):
            x = self.act(self.body(x)) + x
        return self.tail(x)


def reasons(report) -> dict:
    return {entry.name: entry.reason for entry in report.kept}


def test_walks_from_the_root_down_and_replaces_the_largest_blocks():
    network = trained(Upscaler())
    before = copy.deepcopy(network.state_dict())
    result = fold(network)
    assert [block.name for block in result.report.blocks] == ["head", "body", "tail.0"]
    assert all(type(result.module.get_submodule(name)) is nn.Conv2d for name in ("head", "body", "tail.0"))
    assert [block.became for block in result.report.blocks] == [
        "Conv2d 3→4 3x3 zeros",
        "Conv2d 4→4 3x3 zeros",
        "Conv2d 4→12 3x3 zeros",
    ]
    assert set(reasons(result.report)) == {"(root)", "tail"}
    # The original is as it was.
    assert type(network.head) is nn.Sequential
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_network_error_is_what_a_comparison_by_hand_gives():
    network = trained(Upscaler())
    result = fold(network, input_size=(24, 29), value_range=255.0)
    assert result.report.sizes == ((24, 29), (24, 30), (25, 29))
    assert 0 < result.report.network_error <= FOLD_FLOAT32_RELATIVE
    assert 0 < result.report.network_error_before <= FOLD_FLOAT32_RELATIVE
    assert result.report.network_error_float64 < 1e-12
    x = torch.rand((2, 3, 19, 33), generator=torch.Generator().manual_seed(1)) * 255
    with torch.no_grad():
        got, wanted = result.module(x), copy.deepcopy(network).double()(x.double())
    assert (got - wanted).abs().max() <= FOLD_FLOAT32_RELATIVE * wanted.abs().max()


def test_report_is_json():
    report = fold(trained(Upscaler())).report
    read = json.loads(json.dumps(report.to_dict()))
    assert read["blocks"][0]["name"] == "head" and read["kept"][0]["reason"].startswith("not affine")
    assert read["network_error"] == report.network_error


def test_folding_twice_changes_nothing_more():
    once = fold(trained(Upscaler())).module
    again = fold(once)
    assert not again.report.blocks
    assert all(torch.equal(a, b) for a, b in zip(once.state_dict().values(), again.module.state_dict().values()))


def test_module_in_two_places_is_replaced_in_both_by_the_same_convolution():
    shared = two_layers()
    network = nn.Sequential(nn.Sequential(shared, nn.PReLU(4)), nn.Sequential(shared, nn.PReLU(4)), nn.Conv2d(4, 3, 1))
    result = fold(trained(network), in_channels=4)
    assert [block.name for block in result.report.blocks] == ["0.0"]
    assert type(result.module[0][0]) is nn.Conv2d and result.module[0][0] is result.module[1][0]


class Signatures(nn.Module):
    """Blocks that one convolution cannot stand in for because of how they are called."""

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = two_layers()

        def forward(self, x):
            return self.conv(x), x

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = two_layers()

        def forward(self, x, y):
            return self.conv(x + y)

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = two_layers()

        def forward(self, x, factor=1.0):
            return self.conv(x) * factor

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return self.linear(x)

    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = two_layers()

        def forward(self, x):
            return self.conv(x.mul_(2.0))

    def __init__(self):
        super().__init__()
        self.pair, self.sum, self.scaled = self.Pair(), self.Sum(), self.Scaled()
        self.tokens, self.in_place, self.relu = self.Tokens(), self.InPlace(), nn.ReLU()
        self.unused = two_layers()
        self.partly = two_layers()
        self.only_weights = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        a, b = self.pair(x)
        c = self.relu(self.scaled(self.sum(a, b), factor=0.5))
        c = self.tokens(c.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(c.shape)
        c = self.relu(self.in_place(c.clone()) + self.partly(c))
        return F.conv2d(c, self.only_weights.weight) + F.conv2d(c, self.partly[1].weight[:, :4])


def test_signatures_that_a_convolution_does_not_have():
    result = fold(trained(Signatures()), in_channels=4)
    found = reasons(result.report)
    assert found["pair"] == "it gives a tuple, not one tensor"
    assert found["sum"] == "it takes 2 tensors, not one tensor alone"
    assert found["scaled"] == "it takes 1 tensors and other arguments, not one tensor alone"
    assert found["tokens"] == "its input has 3 dimensions, not 4"
    assert found["in_place"] == "it changes its input in place, which the rest of the network may rely on"
    assert found["unused"] == "the network never runs it: its weights are dead"
    assert found["partly"].startswith("its weights are also used outside of its forward pass")
    assert "only_weights" not in found
    # What is inside of them is still one convolution.
    assert [block.name for block in result.report.blocks] == ["pair.conv", "sum.conv", "scaled.conv", "in_place.conv"]


def test_wrapper_of_one_convolution_is_no_fold():
    report = fold(trained(nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), nn.ReLU()))).report
    assert not report.blocks and set(reasons(report)) == {"(root)"}


def test_wrapper_that_scales_its_one_convolution_is_folded():
    class Scaling(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            return self.conv(x) * 0.1 + 1.0

    network = trained(nn.Sequential(Scaling(), nn.ReLU()))
    folded = fold(network).module
    torch.testing.assert_close(folded[0].weight, network[0].conv.weight * 0.1)
    torch.testing.assert_close(folded[0].bias, network[0].conv.bias * 0.1 + 1.0)


def test_weight_norm_of_both_kinds_is_folded():
    old = torch.nn.utils.weight_norm(nn.Conv2d(3, 4, 3, padding=1))
    new = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3, padding=1))
    network = nn.Sequential(old, nn.ReLU(), new, nn.ReLU()).eval()
    network(torch.zeros(1, 3, 8, 8))  # the old kind keeps a computed tensor, which deepcopy refuses
    result = fold(network)
    assert [block.name for block in result.report.blocks] == ["0", "2"]
    assert set(result.module.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_fourier_unit_is_replaced_unless_told_not_to():
    network = trained(nn.Sequential(FourierUnit(4), nn.PReLU(4), two_layers()))
    report = fold(network, in_channels=4).report
    assert [block.became for block in report.blocks] == ["1x1 convolutions + width matrix", "Conv2d 4→4 3x3 zeros"]
    assert report.network_error <= FOLD_FLOAT32_RELATIVE
    report = fold(network, in_channels=4, spectral=False).report
    assert [block.name for block in report.blocks] == ["2"]
    assert "receptive field is larger" in reasons(report)["0"]


def test_spectral_block_with_another_kernel_per_frequency_stays():
    class Filter(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.zeros(24, 15))

        def forward(self, x):
            return torch.fft.irfft2(torch.fft.rfft2(x) * self.gain, s=x.shape[-2:])

    report = fold(trained(nn.Sequential(Filter(), nn.Conv2d(3, 3, 1)))).report
    assert "it uses a Fourier transform and is no unit that folds" in reasons(report)["0"]


def test_network_with_a_size_rule_is_proved_at_the_given_size():
    class Multiple(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = two_layers(), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            x = self.head(x)
            return self.body(F.relu(F.interpolate(F.pixel_unshuffle(x, 4)[:, :4], scale_factor=4)))

    report = fold(trained(Multiple()), input_size=(24, 32)).report
    assert report.sizes == ((24, 32),)
    assert [block.name for block in report.blocks] == ["body"]


def test_network_that_insists_on_float32_is_still_folded_and_proved():
    class Single(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.last = two_layers(3, 4), nn.Conv2d(4, 3, 1)

        def forward(self, x):
            return self.last(F.relu(self.body(x)).float())

    report = fold(trained(Single())).report
    assert [block.name for block in report.blocks] == ["body"]
    assert report.network_error_float64 is None and 0 < report.network_error <= FOLD_FLOAT32_RELATIVE


class Picky(nn.Module):
    """Gives something else when ``second`` is no longer what it was."""

    def __init__(self, trick):
        super().__init__()
        self.first, self.second, self.trick = two_layers(3, 4), two_layers(4, 3), trick

    def forward(self, x):
        y = self.second(F.relu(self.first(x)))
        return self.trick(self, y)


def test_the_block_that_brings_a_difference_is_named():
    network = trained(Picky(lambda net, y: y * 1.001 if isinstance(net.second, nn.Conv2d) else y))
    with pytest.raises(CheckFailed, match=r"differs from the original by 1\.0e-03 .*second alone brings 1\.0e-03"):
        fold(network)


def test_the_block_whose_absence_breaks_the_network_is_named():
    network = trained(Picky(lambda net, y: y * net.second[1].out_channels))
    with pytest.raises(CheckFailed, match=r"does not run .*the block second alone brings inf"):
        fold(network)


def test_a_network_that_magnifies_rounding_beyond_use_is_explained():
    class Chaos(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = two_layers(3, 3)

        def forward(self, x):
            y = torch.sigmoid(self.body(x))
            for _ in range(12):
                y = 4 * y * (1 - y)  # the logistic map doubles a difference each time
            return y

    network = trained(Chaos())
    report = fold(network).report
    assert FOLD_FLOAT32_RELATIVE < report.network_error < ROUNDING_ALLOWED * report.network_error_before
    assert report.network_error_float64 < 1e-9


def test_training_mode_is_an_error_that_names_the_part():
    network = trained(Upscaler())
    network.body[1].train()
    with pytest.raises(UsageError, match=r"body\.1 is in training mode"):
        fold(network)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Conv2d(4, 4, 3), "does not run on 3 channels of 24x29"),
        (Picky(lambda net, y: y / 0.0), "not finite"),
        (Picky(lambda net, y: (y, y)), "gives a tuple"),
        (Picky(lambda net, y: y + torch.rand_like(y)), "two runs of the network"),
    ],
)
def test_unusable_networks_are_bad_input(network, message):
    with pytest.raises(BadInput, match=message):
        fold(trained(network))


def test_copies_reach_plain_attributes_and_keep_complex_weights():
    conv = nn.Conv2d(3, 3, 1)
    conv.masks = [torch.ones(2), {"mean": torch.ones(1)}]
    conv.computed = conv.weight * 2
    conv.phase = nn.Parameter(torch.tensor([1 + 2j]))
    conv.register_buffer("index", torch.tensor([3]))
    twin = copy_as(conv, torch.float64)
    converted = (twin.masks[0], twin.masks[1]["mean"], twin.computed, twin.weight)
    assert all(tensor.dtype == torch.float64 for tensor in converted)
    assert twin.phase.dtype == torch.complex128 and twin.phase.item() == 1 + 2j
    assert twin.index.dtype == torch.int64
    assert conv.weight.dtype == conv.masks[0].dtype == torch.float32


def test_observation_counts_calls_and_leaves_no_hooks():
    network = trained(Upscaler())
    seen = observe(network, torch.zeros(1, 3, 8, 9)).seen
    assert (seen["body"].calls, seen["body"].in_shape, seen["body"].out_shape) == (3, (1, 4, 8, 9), (1, 4, 8, 9))
    assert seen[""].out_shape == (1, 3, 16, 18)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def assert_one_convolution_each(model: LoadedModel, kind: type) -> None:
    """Every block of ``kind`` became one convolution, proved to 1e-5 with the border, and so is the whole network."""
    wanted = {path for path, part in model.module.named_modules() if isinstance(part, kind)}
    result = fold(model.module, value_range=model.value_range)
    blocks = {block.name: block for block in result.report.blocks}
    assert wanted
    # A low-rank convolution alone inside a Conv3XC: the Conv3XC is the largest block.
    assert len(wanted) == len(blocks)
    assert all(any(f"{path}.".startswith(f"{name}.") for name in blocks) for path in wanted)
    for path, block in blocks.items():
        assert type(result.module.get_submodule(path)) is nn.Conv2d
        assert block.error_float32 <= FOLD_FLOAT32_RELATIVE
        assert block.macs_after <= block.macs_before
    assert not any(isinstance(part, kind) for part in result.module.modules())
    assert result.report.network_error <= FOLD_FLOAT32_RELATIVE
    x = torch.rand((1, 3, 23, 37), generator=torch.Generator().manual_seed(3)) * model.value_range
    with torch.no_grad():
        got, wanted_picture = result.module(x), copy.deepcopy(model.module).double()(x.double())
    assert (got - wanted_picture).abs().max() <= FOLD_FLOAT32_RELATIVE * wanted_picture.abs().max()


def test_efdn_training_form():
    assert_one_convolution_each(EFDN.load(efdn_training(24, 4, seed=1), Asked()), EdgeBranches)


def test_span_training_form():
    assert_one_convolution_each(SPAN.load(span_training(26, 4, seed=1), Asked()), Conv3XC)


def test_dsclora_training_form():
    model = DSCLORA.load(dsclora(26, 4, rank=2, seed=1), Asked(lora_alpha="2r"))
    assert_one_convolution_each(model, LowRankConv)


def test_f2srgan_keeps_its_separable_convolutions_and_loses_its_transforms():
    model = F2SRGAN.load(f2srgan(32, 1, 2, seed=1), Asked())
    report = fold(model.module, value_range=255.0).report
    became = {block.name: block.became for block in report.blocks}
    inside = "residual.0.block1.0.convg2g"
    assert set(became) == {f"{inside}.{name}" for name in ("conv1.0", "conv2", "fu", "lfu")}
    assert became[f"{inside}.fu"] == became[f"{inside}.lfu"] == "1x1 convolutions + width matrix"
    assert "would raise its MACs" in reasons(report)["residual.1.block1.0"]
    assert report.network_error <= FOLD_FLOAT32_RELATIVE
