"""Blocks of every re-parameterisation style fold to one convolution; what is not exactly one convolution stays."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from sr_deploy.core.tolerance import FOLD_FLOAT32_RELATIVE, FOLD_FLOAT64_RELATIVE
from sr_deploy.fold import fold
from sr_deploy.fold.affine import diagonal_blocks, largest_groups, macs_per_pixel, probe, relative_error, require_affine
from sr_deploy.fold.result import Kept

SOBEL = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
LAPLACIAN = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])


def trained(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in eval mode with random weights and batch statistics, none of them trivial."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.parameters():
            fan_in = tensor[0].numel() if tensor.dim() > 1 else 4
            tensor.copy_(torch.randn(tensor.shape, generator=random) / fan_in**0.5 + 0.05)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.copy_(torch.randn(part.num_features, generator=random))
                part.running_var.copy_(torch.rand(part.num_features, generator=random) + 0.3)
    return module.eval()


class Pad(nn.Module):
    """Zero-pads by one."""

    def forward(self, x):
        return F.pad(x, (1, 1, 1, 1))


class RepVGG(nn.Module):
    """3x3 + BN, 1x1 + BN, identity BN."""

    def __init__(self, c):
        super().__init__()
        self.dense = nn.Sequential(nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c))
        self.pointwise = nn.Sequential(nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c))
        self.identity = nn.BatchNorm2d(c)

    def forward(self, x):
        return self.dense(x) + self.pointwise(x) + self.identity(x)


class BiasPadded(nn.Module):
    """1x1, a border of its bias, then an unpadded 3x3 (``edge`` None) or a scaled fixed depthwise filter."""

    def __init__(self, c, middle, edge=None):
        super().__init__()
        self.first = nn.Conv2d(c, middle, 1)
        self.edge = edge  # a plain attribute, as some published blocks keep it
        if edge is None:
            self.second = nn.Conv2d(middle, c, 3)
        else:
            self.scale = nn.Parameter(torch.ones(c, 1, 1, 1))
            self.shift = nn.Parameter(torch.zeros(c))

    def forward(self, x):
        y = self.first(x)
        padded = F.pad(y, (1, 1, 1, 1))
        border = self.first.bias.view(1, -1, 1, 1)
        padded[:, :, 0:1, :], padded[:, :, -1:, :] = border, border
        padded[:, :, :, 0:1], padded[:, :, :, -1:] = border, border
        if self.edge is None:
            return self.second(padded)
        return F.conv2d(padded, self.scale * self.edge, self.shift, groups=self.scale.shape[0])


class ECB(nn.Module):
    """3x3, 1x1-3x3, 1x1-Sobel, 1x1-Laplacian and the identity."""

    def __init__(self, c):
        super().__init__()
        self.dense = nn.Conv2d(c, c, 3, padding=1)
        edges = [BiasPadded(c, c, edge) for edge in (SOBEL, SOBEL.T, LAPLACIAN)]
        self.branches = nn.ModuleList([BiasPadded(c, 2 * c), *edges])

    def forward(self, x):
        return self.dense(x) + sum(branch(x) for branch in self.branches) + x


class DBB(nn.Module):
    """3x3-BN, 1x1-BN, 1x1-BN-3x3-BN and 1x1-BN-average-BN, the border holding what BN makes of zero."""

    def __init__(self, c):
        super().__init__()
        self.dense = nn.Sequential(nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c))
        self.pointwise = nn.Sequential(nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c))
        self.first = nn.Sequential(nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c))
        self.second = nn.Sequential(nn.Conv2d(c, c, 3, bias=False), nn.BatchNorm2d(c))
        self.third = nn.Sequential(nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c))
        self.fourth = nn.Sequential(nn.AvgPool2d(3, stride=1), nn.BatchNorm2d(c))

    def forward(self, x):
        padded = F.pad(x, (1, 1, 1, 1))  # the same as a border of BN(0) after a 1x1 without bias
        chain = self.second(self.first(padded)) + self.fourth(self.third(padded))
        return self.dense(x) + self.pointwise(x) + chain


class RepSR(nn.Module):
    """Two 3x3-BN-1x1 branches and a skip, the 3x3 called as functions."""

    def __init__(self, c):
        super().__init__()
        self.expand = nn.ParameterList(nn.Parameter(torch.zeros(2 * c, c, 3, 3)) for _ in range(2))
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(2 * c)) for _ in range(2))
        self.norm = nn.ModuleList(nn.BatchNorm2d(2 * c) for _ in range(2))
        self.reduce = nn.ModuleList(nn.Conv2d(2 * c, c, 1) for _ in range(2))

    def forward(self, x):
        out = x
        for weight, bias, norm, reduce in zip(self.expand, self.bias, self.norm, self.reduce):
            out = out + reduce(norm(F.conv2d(x, weight, bias, padding=1)))
        return out


class Conv3XC(nn.Module):
    """Zero-padded first, 1x1, unpadded 3x3, 1x1, and a 1x1 skip."""

    def __init__(self, c_in, c_out):
        super().__init__()
        self.sk = nn.Conv2d(c_in, c_out, 1)
        middle = nn.Conv2d(2 * c_in, 2 * c_out, 3)
        self.conv = nn.Sequential(nn.Conv2d(c_in, 2 * c_in, 1), middle, nn.Conv2d(2 * c_out, c_out, 1))

    def forward(self, x):
        return self.conv(F.pad(x, (1, 1, 1, 1))) + self.sk(x)


class LoRAConv(nn.Conv2d):
    """A convolution with a low-rank branch, a subclass of Conv2d as loralib has it."""

    def __init__(self, c_in, c_out, k, rank):
        super().__init__(c_in, c_out, k, padding=k // 2)
        self.lora_A = nn.Parameter(torch.zeros(rank * k, c_in * k))
        self.lora_B = nn.Parameter(torch.zeros(c_out * k, rank * k))

    def forward(self, x):
        branch = (self.lora_B @ self.lora_A).view(self.weight.shape)
        return F.conv2d(x, self.weight + 0.5 * branch, self.bias, padding=self.padding)


class OtherBorder(nn.Module):
    """A 3x3 that pads in another way than with zeros, and BN."""

    def __init__(self, c, mode):
        super().__init__()
        self.conv, self.norm, self.mode = nn.Conv2d(c, c, 3, padding=1, padding_mode=mode), nn.BatchNorm2d(c), mode

    def forward(self, x):
        return self.norm(self.conv(x))


FOLDABLE = {
    "RepVGG": (RepVGG(5), 5, "Conv2d 5→5 3x3 zeros"),
    "ECB": (ECB(4), 4, "Conv2d 4→4 3x3 zeros"),
    "DBB": (DBB(4), 4, "Conv2d 4→4 3x3 zeros"),
    "RepSR": (RepSR(4), 4, "Conv2d 4→4 3x3 zeros"),
    "Conv3XC": (Conv3XC(3, 6), 3, "Conv2d 3→6 3x3 zeros"),
    "LoRA": (LoRAConv(4, 6, 3, 2), 4, "Conv2d 4→6 3x3 zeros"),
    "BatchNorm": (nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5)), 3, "Conv2d 3→5 3x3 zeros"),
    "unpadded chain": (nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 2, 3)), 4, "Conv2d 4→2 5x5"),
    "padded first": (nn.Sequential(Pad(), nn.Conv2d(4, 6, 3), nn.Conv2d(6, 4, 1)), 4, "Conv2d 4→4 3x3 zeros"),
    "larger output": (nn.Sequential(nn.Conv2d(3, 4, 3, padding=2), nn.BatchNorm2d(4)), 3, "Conv2d 3→4 3x3 zeros"),
    "even kernel": (nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4)), 3, "Conv2d 3→4 2x2"),
    "one row": (nn.Sequential(nn.Conv2d(3, 4, (1, 5), padding=(0, 2)), nn.BatchNorm2d(4)), 3, "Conv2d 3→4 1x5 zeros"),
    "narrowing chain": (nn.Sequential(nn.Conv2d(6, 9, 1), nn.Conv2d(9, 1, 3), nn.BatchNorm2d(1)), 6, "Conv2d 6→1 3x3"),
    "depthwise chain": (
        nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.BatchNorm2d(6)),
        6,
        "Conv2d 6→6 3x3 zeros groups 6",
    ),
    "two groups": (
        nn.Sequential(nn.Conv2d(6, 4, 3, padding=1, groups=2), nn.Conv2d(4, 4, 1, groups=2)),
        6,
        "Conv2d 6→4 3x3 zeros groups 2",
    ),
    "depthwise 1x1 and pointwise": (
        nn.Sequential(nn.Conv2d(6, 6, 1, groups=6, bias=False), nn.Conv2d(6, 4, 1)),
        6,
        "Conv2d 6→4 1x1",
    ),
    "average": (
        nn.Sequential(nn.AvgPool2d(3, 1, padding=1), nn.Conv2d(4, 40, 1), nn.Conv2d(40, 4, 1)),
        4,
        "Conv2d 4→4 3x3 zeros",
    ),
    "dropout": (nn.Sequential(nn.Conv2d(4, 6, 1), nn.Dropout(0.5), nn.Conv2d(6, 4, 1)), 4, "Conv2d 4→4 1x1"),
    "reflect": (OtherBorder(4, "reflect"), 4, "Conv2d 4→4 3x3 reflect"),
    "replicate": (OtherBorder(4, "replicate"), 4, "Conv2d 4→4 3x3 replicate"),
    "circular": (OtherBorder(4, "circular"), 4, "Conv2d 4→4 3x3 circular"),
}


@pytest.mark.parametrize("name", FOLDABLE)
def test_block_becomes_one_convolution(name):
    block, channels, became = FOLDABLE[name]
    block = trained(copy.deepcopy(block))
    result = fold(block, input_size=(13, 16), in_channels=channels)
    (entry,) = result.report.blocks
    assert (entry.became, type(result.module)) == (became, nn.Conv2d)
    assert entry.macs_after == result.module.weight.numel() <= entry.macs_before
    assert entry.error_float64 <= FOLD_FLOAT64_RELATIVE and entry.error_float32 <= FOLD_FLOAT32_RELATIVE
    # Independently of the product's own proof: other sizes, and the outermost pixels by themselves.
    random = torch.Generator().manual_seed(9)
    for size in ((5, 6), (17, 10), (31, 23)):
        x = torch.randn((2, channels, *size), generator=random)
        with torch.no_grad():
            got, wanted = result.module(x), block(x)
        assert got.shape == wanted.shape
        scale = wanted.abs().max()
        for line in (got - wanted, (got - wanted)[:, :, :1], (got - wanted)[..., -1:]):
            assert line.abs().max() <= FOLD_FLOAT32_RELATIVE * scale


def test_batchnorm_weights_are_those_of_the_textbook():
    block = trained(nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5)))
    conv, norm = block
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    folded = fold(block).module
    torch.testing.assert_close(folded.weight, conv.weight * scale.view(-1, 1, 1, 1))
    torch.testing.assert_close(folded.bias, (conv.bias - norm.running_mean) * scale + norm.bias)


class Lambda(nn.Module):
    """A 3x3 convolution with BN, or two without a bias, whose output goes through ``after``."""

    def __init__(self, after, bias=True):
        super().__init__()
        self.conv, self.after = nn.Conv2d(4, 4, 3, padding=1, bias=bias), after
        self.norm = nn.BatchNorm2d(4) if bias else nn.Conv2d(4, 4, 1, bias=False)

    def forward(self, x):
        return self.after(self.norm(self.conv(x)))


def coordinate_ramp(y):
    return y + torch.arange(y.shape[-1], dtype=y.dtype)


def coordinate_gain(y):
    return y * (1 + torch.arange(y.shape[-1], dtype=y.dtype))


def checkerboard(y):
    out = y.clone()
    out[..., ::2, ::2] *= 2
    return out


def leaky_beyond_range(y):
    return y.clamp(-1e5, 1e5)


KEPT = {
    "ReLU": (F.relu, "not affine: relative error"),
    "PReLU": (nn.PReLU(4), "not affine: relative error"),
    "ReLU that is far from its kink": (lambda y: F.relu(y + 100.0), "nearly but not exactly affine"),
    "clamp far out": (leaky_beyond_range, "nearly but not exactly affine"),
    "shrinkage of tiny values": (lambda y: F.softshrink(y, 1e-4), "nearly but not exactly affine"),
    "attention": (lambda y: y * torch.sigmoid(y.mean((2, 3), keepdim=True)), "not affine: relative error"),
    "square": (lambda y: y * y, "not affine: relative error"),
    "instance norm": (lambda y: F.instance_norm(y), "not affine: relative error"),
    "coordinate ramp": (coordinate_ramp, "it depends on the position in the picture"),
    "gain with a bias": (coordinate_gain, "it depends on the position in the picture"),
    "flip": (lambda y: y.flip(-1), "not the same at every position of the picture"),
    "global mean": (lambda y: y + y.mean((2, 3), keepdim=True), "receptive field is larger than 15x15"),
    "mean of the batch": (lambda y: y.mean(0, keepdim=True), "not give one output for each picture of a batch"),
    "pictures of a batch mixed": (lambda y: y + y.mean(0, keepdim=True), "or for every picture of a batch"),
    "fixed size": (lambda y: y + torch.ones(13, 16, dtype=y.dtype), "does not run on an input of"),
    "float32 inside": (lambda y: (y.float() * 1.1).to(y.dtype), "nearly but not exactly affine"),
    "shuffle": (lambda y: F.pixel_shuffle(y, 2), "not its input size less a constant"),
    "stride": (lambda y: y[..., ::2, ::2], "not its input size less a constant"),
}
KEPT_WITHOUT_BIAS = {
    "coordinate gain": (coordinate_gain, "not the same at every position of the picture"),
    "checkerboard": (checkerboard, "not the same at every position of the picture"),
    "0/0": (lambda y: y / y.mean(), "is not finite"),
}


@pytest.mark.parametrize("name", [*KEPT, *KEPT_WITHOUT_BIAS])
def test_block_stays_and_the_report_says_why(name):
    after, reason = {**KEPT, **KEPT_WITHOUT_BIAS}[name]
    block = trained(Lambda(copy.deepcopy(after), bias=name in KEPT))
    network = nn.Sequential(block, nn.Conv2d(1 if name == "shuffle" else 4, 3, 1)).eval()
    result = fold(network, input_size=(13, 16), in_channels=4)
    found = {entry.name: entry.reason for entry in result.report.kept}
    assert reason in found["0"]
    assert not result.report.blocks
    assert type(result.module[0]) is Lambda


def test_nearly_affine_block_is_reported_with_its_measured_error():
    block = trained(Lambda(lambda y: torch.tanh(1e-3 * y)))
    kept = fold(block, in_channels=4).report.kept[0]
    error = float(kept.reason.split("relative error ")[1].split(" at")[0])
    assert "nearly but not exactly affine" in kept.reason and 1e-8 < error < 1e-3


def test_two_padded_convolutions_differ_at_the_border_and_stay():
    block = trained(nn.Sequential(nn.Conv2d(4, 30, 3, padding=1), nn.Conv2d(30, 4, 3, padding=1)))
    report = fold(block, in_channels=4).report
    assert not report.blocks
    assert "differs from it at the border" in report.kept[0].reason


def test_two_padded_convolutions_without_bias_stay_too():
    convs = [nn.Conv2d(4, 30, 3, padding=1, bias=False), nn.Conv2d(30, 4, 3, padding=1, bias=False)]
    report = fold(trained(nn.Sequential(*convs)), in_channels=4).report
    assert not report.blocks and "differs from it at the border" in report.kept[0].reason


def test_depthwise_separable_stays_because_its_macs_would_rise():
    block = trained(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)))
    report = fold(block, in_channels=8).report
    assert not report.blocks
    assert "would raise its MACs per pixel from 136 to 576" in report.kept[0].reason


def test_average_that_leaves_out_its_padding_stays():
    pool = nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
    report = fold(trained(nn.Sequential(pool, nn.Conv2d(4, 40, 1), nn.Conv2d(40, 4, 1))), in_channels=4).report
    assert "(root)" in report.kept[0].name and "at the border" in report.kept[0].reason


def test_receptive_field_beyond_the_limit_stays():
    block = trained(nn.Sequential(nn.Conv2d(2, 2, 9), nn.Conv2d(2, 2, 9)))
    report = fold(block, in_channels=2, input_size=(24, 29)).report
    assert not report.blocks and "15x15" in report.kept[0].reason


def test_macs_leave_out_the_border_and_what_does_not_grow_with_the_picture():
    assert macs_per_pixel(trained(Conv3XC(3, 6)).double(), 3, (0, 0)) == 3 * 6 + 6 * 12 * 9 + 12 * 6 + 3 * 6
    assert macs_per_pixel(trained(LoRAConv(4, 6, 3, 2)).double(), 4, (0, 0)) == 4 * 6 * 9
    chain = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 2, 3))
    assert macs_per_pixel(trained(chain).double(), 4, (4, 4)) == 9 * (24 + 12)


def test_probe_finds_the_kernel_itself():
    conv = trained(nn.Conv2d(3, 4, 5, padding=2)).double()
    kernel = probe(conv, 3, (0, 0))
    torch.testing.assert_close(kernel.weight, conv.weight.detach(), rtol=0, atol=1e-14)
    torch.testing.assert_close(kernel.bias, conv.bias.detach(), rtol=0, atol=1e-14)
    assert (kernel.padding, kernel.groups) == ((2, 2), 1)


def test_probe_of_a_constant_block():
    conv = nn.Conv2d(3, 4, 3, padding=1).double().eval()
    nn.init.zeros_(conv.weight)
    kernel = probe(conv, 3, (0, 0))
    assert kernel.size == (1, 1) and not kernel.weight.any()
    torch.testing.assert_close(kernel.bias, conv.bias.detach())


def test_require_affine_accepts_a_convolution_and_names_the_error_of_a_relu():
    conv = nn.Conv2d(3, 4, 3).double()
    require_affine(conv, (1, 3, 9, 10))
    with pytest.raises(Kept, match=r"not affine: relative error [0-9.]+e"):
        require_affine(nn.Sequential(conv, nn.ReLU()), (1, 3, 9, 10))


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_groups_are_found_in_the_dense_weight(groups):
    conv = nn.Conv2d(6, 12, 3, groups=groups, bias=False).double()
    dense = probe_dense(conv)
    assert largest_groups(dense) == groups
    assert torch.equal(diagonal_blocks(dense, groups), conv.weight)


def probe_dense(conv):
    """(C_out, C_in, 3, 3) of a grouped convolution, zeros outside of its groups."""
    dense = torch.zeros(conv.out_channels, conv.in_channels, 3, 3, dtype=conv.weight.dtype)
    outs, ins = conv.out_channels // conv.groups, conv.in_channels // conv.groups
    for g in range(conv.groups):
        dense[g * outs : (g + 1) * outs, g * ins : (g + 1) * ins] = conv.weight[g * outs : (g + 1) * outs].detach()
    return dense


def test_relative_error():
    a = torch.tensor([1.0, -4.0])
    assert relative_error(a, a) == 0.0
    assert relative_error(a + torch.tensor([0.0, 2.0]), a) == 0.5
    assert relative_error(torch.tensor([float("nan"), 0.0]), a) == float("inf")
    assert relative_error(a, torch.zeros(2)) == float("inf")


class Branches(nn.Module):
    """The sum of a random choice of affine branches, all of which see a zero border of the input."""

    def __init__(self, c_in, c_out, kinds):
        super().__init__()
        self.branches = nn.ModuleList(self.branch(kind, c_in, c_out) for kind in kinds)

    @staticmethod
    def branch(kind, c_in, c_out):
        norm = nn.BatchNorm2d(c_out)
        if kind == "1x1":
            return nn.Sequential(nn.Conv2d(c_in, c_out, 1), norm)
        if kind == "chain":
            return nn.Sequential(Pad(), nn.Conv2d(c_in, 2 * c_out, 1), nn.Conv2d(2 * c_out, c_out, 3), norm)
        if kind == "average":
            return nn.Sequential(nn.AvgPool2d(3, 1, padding=1), nn.Conv2d(c_in, c_out, 1, bias=False), norm)
        if kind == "1x3":
            return nn.Sequential(nn.Conv2d(c_in, c_out, (1, 3), padding=(0, 1)), norm)
        if kind == "3x1":
            return nn.Sequential(nn.Conv2d(c_in, c_out, (3, 1), padding=(1, 0)))
        if kind == "dilated":
            return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=2, dilation=2), norm)
        return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1), norm)

    def forward(self, x):
        return sum(branch(x) for branch in self.branches)


KINDS = st.lists(st.sampled_from(["1x1", "3x3", "chain", "average", "1x3", "3x1"]), max_size=4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(KINDS, st.integers(1, 5), st.integers(1, 5), st.integers(0, 10_000))
def test_any_sum_of_branches_folds_to_an_equal_convolution(kinds, c_in, c_out, seed):
    # With a full 3x3 branch among them, one 3x3 convolution never costs more.
    block = trained(Branches(c_in, c_out, ["3x3", *kinds]), seed)
    result = fold(block, input_size=(8, 11), in_channels=c_in)
    assert [type(result.module), result.report.blocks[0].was] == [nn.Conv2d, "Branches"]
    x = torch.randn((1, c_in, 6, 9), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        assert relative_error(result.module(x), copy.deepcopy(block).double()(x.double())) <= FOLD_FLOAT32_RELATIVE


def test_a_wide_sparse_kernel_stays_when_its_dense_form_costs_more():
    block = trained(Branches(3, 3, ["3x3", "dilated"]))
    report = fold(block, in_channels=3).report
    assert "would raise its MACs per pixel from 162 to 225" in report.kept[0].reason
