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
from sr_deploy.models.efdn import EdgeBranches, EFDNNetwork
from sr_deploy.models.f2srgan import FourierUnit
from sr_deploy.models.span import Conv3XC, LowRankConv, SPANNetwork


def trained(module: nn.Module, seed: int = 0, gain: float = 1.0) -> nn.Module:
    """The module in eval mode with random weights, none of them trivial."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.parameters():
            fan_in = tensor[0].numel() if tensor.dim() > 1 else 4
            tensor.copy_(torch.randn(tensor.shape, generator=random) * gain / fan_in**0.5)
    return module.eval()


def two_layers(c_in: int = 4, c_out: int = 4) -> nn.Sequential:
    """A 3x3 and a 1x1 convolution: one 3x3 when folded."""
    return nn.Sequential(nn.Conv2d(c_in, 6, 3, padding=1), nn.Conv2d(6, c_out, 1))


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
    assert type(network.head) is nn.Sequential and not network.head._forward_hooks and not network.head[0]._forward_hooks
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
    with pytest.raises(CheckFailed, match=r"differs from the original by 1\.0e-03 .*the block second alone brings 1\.0e-03"):
        fold(network)


def test_the_block_whose_absence_breaks_the_network_is_named():
    network = trained(Picky(lambda net, y: y * net.second[1].out_channels))
    with pytest.raises(CheckFailed, match=r"does not run .*the block second alone brings inf"):
        fold(network)


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
    assert twin.masks[0].dtype == twin.masks[1]["mean"].dtype == twin.computed.dtype == twin.weight.dtype == torch.float64
    assert twin.phase.dtype == torch.complex128 and twin.phase.item() == 1 + 2j
    assert twin.index.dtype == torch.int64
    assert conv.weight.dtype == conv.masks[0].dtype == torch.float32


def test_observation_counts_calls_and_leaves_no_hooks():
    network = trained(Upscaler())
    seen = observe(network, torch.zeros(1, 3, 8, 9)).seen
    assert (seen["body"].calls, seen["body"].in_shape, seen["body"].out_shape) == (3, (1, 4, 8, 9), (1, 4, 8, 9))
    assert seen[""].out_shape == (1, 3, 16, 18)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def one_convolution_each(network: nn.Module, kind: type, **options) -> None:
    """Every block of ``kind`` becomes one convolution, proved to 1e-5, and none is left."""
    wanted = [path for path, part in network.named_modules() if isinstance(part, kind)]
    result = fold(network, **options)
    folded = {block.name: block for block in result.report.blocks}
    assert wanted and set(wanted) == set(folded)
    for path in wanted:
        assert type(result.module.get_submodule(path)) is nn.Conv2d
        assert folded[path].error_float32 <= FOLD_FLOAT32_RELATIVE and folded[path].macs_after <= folded[path].macs_before
    assert result.report.network_error <= FOLD_FLOAT32_RELATIVE


def test_efdn_training_form():
    one_convolution_each(trained(EFDNNetwork(24, 4, 12, 8, branches=True, middle=48), gain=0.5), EdgeBranches)


def test_span_training_form():
    one_convolution_each(trained(SPANNetwork(26, 4, gain=2), gain=0.7), Conv3XC)


def test_dsclora_training_form():
    network = SPANNetwork(26, 4)
    for part in list(network.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(part, name, LowRankConv(child, rank=4, alpha=8.0))
    result = fold(trained(network, gain=0.7))
    # Conv3XC around one low-rank convolution is the largest block of which one convolution is left.
    left = [part for part in result.module.modules() if isinstance(part, (LowRankConv, Conv3XC))]
    assert not left and len(result.report.blocks) == 22
    assert all(block.error_float32 <= FOLD_FLOAT32_RELATIVE for block in result.report.blocks)
    assert result.report.network_error <= FOLD_FLOAT32_RELATIVE
