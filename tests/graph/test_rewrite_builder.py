"""The passes for builders: each gives an equal graph, at borders and odd sizes too, and does what it is for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from sr_deploy.graph.rewrite import PASSES, TARGETS, RewriteOptions, passes_named, rewrite
from sr_deploy.graph.rewrite.editor import PIN_MARK
from sr_deploy.graph.rewrite.ways import factored
from tests.graph.rewriting import conv, graph_of, rewritten


class Tail(nn.Module):
    """Mean, depthwise and 1×1 convolution, PReLU, PixelShuffle, and what reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.rand(1, 3, 1, 1))
        self.depthwise, self.pointwise = conv(3, 3, groups=3), conv(3, 32, 1)
        self.act, self.shuffle, self.last = nn.PReLU(8), nn.PixelShuffle(2), conv(8, 8)

    def forward(self, x):
        return self.last(self.act(self.shuffle(self.pointwise(self.depthwise(x - self.mean)))))


def test_a_shuffled_convolution_becomes_a_transposed_one():
    operators, changed = rewritten(graph_of(Tail()), "shuffle,fewest,deconvolve,maxmin")
    assert changed["deconvolve"] == changed["fewest"] == changed["maxmin"] == 1
    assert operators["ConvTranspose"] == operators["Pad"] == 1  # a bias for each of four pixels: channels of ones
    assert operators["DepthToSpace"] == operators["PRelu"] == 0
    assert (operators["Max"], operators["Min"], operators["Conv"]) == (1, 1, 1)


class Join(nn.Module):
    """Two features joined for a 1×1 convolution, a sum for another, a skip; all with biases."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3, 16), conv(16, 16)
        self.fuse, self.narrow, self.wide = conv(32, 16, 1), conv(4, 4, 1), conv(4, 16, 1)
        self.head, self.last = conv(16, 4, 1), conv(16, 3)

    def forward(self, x):
        first = torch.sigmoid(self.first(x))
        second = torch.sigmoid(self.second(first))
        fused = torch.sigmoid(self.fuse(torch.cat([first, second], 1)) + first)
        small = torch.relu(self.head(fused))
        mask = self.wide(self.narrow(small) + functional.interpolate(small[:, :, ::2, ::2], small.shape[2:]))
        return self.last(torch.sigmoid(mask) * fused)


def test_a_join_becomes_a_sum_and_a_sum_a_join():
    operators, changed = rewritten(graph_of(Join()), "fewest")
    assert changed == {"fewest": 2}
    assert operators["Concat"] >= 1  # beside those of shapes: the sum's two summands
    assert operators["Conv"] == 7  # the join became two convolutions, narrow and wide one


class Mirrored(nn.Module):
    """F2SRGAN's block in small: halves padded by reflection, a branch of the whole width, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.first = conv(3, 8)
        self.local = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), conv(4, 4, 1)) for _ in range(3))
        self.reduce, self.expand = conv(4, 4, 1), conv(4, 4, 1)
        self.act, self.last = nn.PReLU(8), conv(8, 3)

    def forward(self, x):
        x = self.first(x).relu()
        left, right = x[:, :4], x[:, 4:]
        padded = [functional.pad(half, (1, 1, 1, 1), mode="reflect") for half in (left, right)]
        low = self.local[0](padded[0]) + self.local[1](padded[1])
        high = self.local[2](padded[0]) + self.expand(self.reduce(right).relu())
        return self.last(self.act(torch.cat([low, high], 1)) + x)


def test_a_block_of_slices_and_reflections_becomes_one_padded_convolution():
    operators, changed = rewritten(graph_of(Mirrored()), "share,fewest")
    assert changed["fewest"] >= 1
    assert operators["Pad"] == 1
    assert operators["Slice"] == 0
    assert operators["Conv"] == 4  # the first, the branch's, the block's, the last


def test_pinned_nodes_are_not_composed_with_others():
    model = graph_of(Mirrored())
    for node in model.graph.node:
        if "expand" in node.name:
            node.doc_string = f"{PIN_MARK} (by hand)"
    after, _ = rewrite(model, passes_named("fewest"), RewriteOptions())
    (kept,) = [node for node in after.graph.node if node.doc_string]
    assert kept.op_type == "Conv"
    weight = next(t for t in after.graph.initializer if t.name == kept.input[1])
    assert list(weight.dims) == [4, 4, 1, 1]


class Narrow(nn.Module):
    """1×1 convolutions to few channels that are joined: what ``compose`` makes sums of, and ``fewest`` takes back."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([conv(3, 24), conv(24, 24), conv(24, 24), conv(24, 24)])
        self.branches = nn.ModuleList(conv(24, 12, 1) for _ in range(4))
        self.fuse, self.last = conv(48, 24, 1), conv(24, 3)

    def forward(self, x):
        features = [x]
        for layer in self.layers:
            features.append(torch.sigmoid(layer(features[-1])))
        joined = torch.cat([one(x) for one, x in zip(self.branches, features[1:])], 1)
        return self.last(self.fuse(joined).sigmoid())


def test_a_sum_of_low_rank_goes_through_few_channels():
    operators, changed = rewritten(graph_of(Narrow()), "compose,fewest")
    assert changed == {"compose": 1, "fewest": 1}
    assert (operators["Concat"], operators["Add"], operators["Conv"]) == (1, 0, 10)
    generator = np.random.default_rng(0)
    matrix = generator.standard_normal((24, 8)) @ generator.standard_normal((8, 24))
    first, second = factored(matrix.astype(np.float32).astype(np.float64))
    assert first.shape == (8, 24)
    np.testing.assert_allclose(second @ first, matrix, atol=1e-5)


class Product(nn.Module):
    """A product along the width, and one channel between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = conv(3, 3, 1)
        self.head, self.one, self.act, self.back = conv(3, 8), conv(8, 1), nn.PReLU(1), conv(1, 3)

    def forward(self, x):
        x = self.head(self.mean(x))
        steps = torch.arange(x.shape[3], dtype=torch.float32)
        return self.back(self.act(self.one(torch.tanh(x @ torch.sin(steps[:, None] * steps[None] + 1)))))


def test_products_turn_and_single_channels_become_pairs():
    model = graph_of(Product())
    for tensor in model.graph.initializer:
        if tensor.name == "mean.weight":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32)[:, :, None, None], tensor.name))
    operators, changed = rewritten(model, "affine,columns,pairs,maxmin")
    assert changed == {"affine": 1, "columns": 1, "pairs": 1, "maxmin": 1}
    assert (operators["Transpose"], operators["Conv"]) == (3, 3)


def test_every_target_has_its_passes():
    known = [one.name for one in PASSES]
    for target in TARGETS:
        asked = [one.name for one in passes_named(target)]
        assert asked == sorted(asked, key=known.index)
    assert passes_named("default") == passes_named("tensorrt")
    assert {"around", "lanes", "crop", "prelu"} <= {one.name for one in passes_named("cpu")}
    assert "maxmin" in [one.name for one in passes_named("tensorrt-rtx")]
    assert passes_named("tensorrt-rtx,default") == passes_named("tensorrt-rtx")


@pytest.mark.parametrize("name", [one.name for one in passes_named("tensorrt-rtx,cpu") if not one.default])
def test_a_pass_that_finds_nothing_gives_the_graph_back(name):
    model = graph_of(nn.Sequential(conv(3, 3)))
    result = passes_named(name)[0].apply(model, RewriteOptions())
    assert result.changed == 0
    assert result.model is model
