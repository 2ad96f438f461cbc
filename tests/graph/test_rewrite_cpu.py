"""The passes for ONNX Runtime on a CPU: each gives an equal graph, at borders and odd sizes too."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from sr_deploy.graph.rewrite import RewriteOptions, passes_named
from sr_deploy.graph.rewrite.editor import PIN_MARK
from tests.graph.rewriting import conv, graph_of, rewritten


class Wide(nn.Module):
    """Few channels, many with PReLU between, few: where the way around PReLU is short."""

    def __init__(self, padding: int, middle: int = 16) -> None:
        super().__init__()
        self.depthwise, self.wide, self.act = conv(3, 3, groups=3), conv(3, middle, 1), nn.PReLU(middle)
        self.last = nn.Conv2d(middle, 3, 3, padding=padding)

    def forward(self, x):
        return self.last(self.act(self.wide(self.depthwise(x))))


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_a_short_way_around_prelu(padding):
    operators, changed = rewritten(graph_of(Wide(padding)), "around")
    assert changed == {"around": 1}
    assert (operators["Conv"], operators["Relu"], operators["PRelu"]) == (5 if padding else 4, 1, 0)
    assert operators["ConstantOfShape"] == bool(padding)  # zeros around the picture do not see the first bias


def test_a_long_way_around_is_not_taken():
    assert rewritten(graph_of(Wide(1, middle=5)), "around")[1] == {"around": 0}


def test_a_way_around_does_not_leave_float32():
    model = graph_of(Wide(1))
    next(node for node in model.graph.node if node.op_type == "PRelu").doc_string = PIN_MARK
    assert passes_named("around")[0].apply(model, RewriteOptions()).changed == 0


class Upsampled(nn.Module):
    """A convolution, PReLU and PixelShuffle, and a convolution that reads it."""

    def __init__(self, block: int, channels: int = 16) -> None:
        super().__init__()
        self.head, self.act = conv(3, channels * block**2), nn.PReLU(channels * block**2)
        self.shuffle, self.last = nn.PixelShuffle(block), conv(channels, 3)

    def forward(self, x):
        return self.last(self.shuffle(self.act(self.head(x))))


@pytest.mark.parametrize("block, mode", [(2, b"CRD"), (2, b"DCR"), (3, b"CRD")])
def test_depth_to_space_by_rows(block, mode):
    model = graph_of(Upsampled(block))
    for attribute in next(node for node in model.graph.node if node.op_type == "DepthToSpace").attribute:
        if attribute.name == "mode":
            attribute.s = mode
    operators, changed = rewritten(model, "lanes")
    assert changed == {"lanes": 1}
    assert (operators["DepthToSpace"], operators["PRelu"], operators["Transpose"]) == (0, block, block + 1)


def test_depth_to_space_of_few_channels_stays():
    assert rewritten(graph_of(Upsampled(2, channels=4)), "lanes")[1] == {"lanes": 0}


class Halves(nn.Module):
    """Near channels reflected, far ones reflected and reduced, as in F2SRGAN's FFC."""

    def __init__(self, edge: str = "reflect") -> None:
        super().__init__()
        self.head, self.edge = conv(3, 8), edge
        self.near, self.far, self.reduced = nn.Conv2d(4, 3, 3), nn.Conv2d(4, 3, 3), nn.Conv2d(4, 3, 1)

    def forward(self, x):
        x = self.head(x)
        near, far = x[:, :4], x[:, 4:]
        padded = functional.pad(near, (1, 2, 1, 0), mode=self.edge), functional.pad(far, (1, 2, 1, 0), mode=self.edge)
        return self.near(padded[0]) + self.far(padded[1]) + self.reduced(functional.pad(far, (0, 1, 0, -1)))


@pytest.mark.parametrize("edge", ["reflect", "constant", "replicate"])
def test_slices_become_part_of_what_reads_them(edge):
    operators, changed = rewritten(graph_of(Halves(edge)), "share,crop")
    assert changed["crop"] == 2
    assert operators["Slice"] == 0


def test_a_slice_that_something_else_reads_stays():
    class Read(Halves):
        def forward(self, x):
            x = self.head(x)
            return self.near(functional.pad(x[:, :4], (1,) * 4)) + torch.tanh(x[:, :4])[:, :3]

    operators, changed = rewritten(graph_of(Read()), "share,crop")
    assert changed["crop"] == 0
    assert operators["Slice"] > 0
