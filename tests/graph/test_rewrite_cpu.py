"""The passes for ONNX Runtime on a CPU: each gives an equal graph, at borders and odd sizes too."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from sr_deploy.core.contract import SizeRules
from sr_deploy.graph.reach import reach_of
from sr_deploy.graph.rewrite import RewriteOptions, passes_named, rewrite
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

    def __init__(self, edge: str = "reflect", pads: tuple[int, ...] = (1, 2, 1, 0)) -> None:
        super().__init__()
        self.head, self.edge, self.pads = conv(3, 8), edge, pads
        self.near, self.far, self.reduced = nn.Conv2d(4, 3, 3), nn.Conv2d(4, 3, 3), nn.Conv2d(4, 3, 1)

    def forward(self, x):
        x = self.head(x)
        near, far = x[:, :4], x[:, 4:]
        padded = [functional.pad(part, self.pads, mode=self.edge) for part in (near, far)]
        right, below = self.pads[1] - 1, self.pads[3] - 1
        return self.near(padded[0]) + self.far(padded[1]) + self.reduced(functional.pad(far, (0, right, 0, below)))


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


def test_a_crop_reaches_as_far_as_the_slice(tmp_path):
    """A Pad with negative numbers is understood where graphs are read: how far an output pixel looks stays known."""
    model = graph_of(Halves(pads=(1, 1, 1, 1)))
    found = []
    for names in ("share", "share,crop"):
        onnx.save(rewrite(model, passes_named(names), RewriteOptions())[0], str(tmp_path / "model.onnx"))
        found.append(reach_of(tmp_path / "model.onnx", SizeRules()))
    assert found[0] == found[1]
    assert found[0].halo > 0
