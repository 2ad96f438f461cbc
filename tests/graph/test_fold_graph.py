"""The fold on the graph: blocks as published networks train them, and what must stay as it is."""

from __future__ import annotations

import io
import json
import warnings
from collections import Counter
from typing import Tuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from sr_deploy.core.errors import UsageError
from sr_deploy.core.tolerance import FOLD_FLOAT32_RELATIVE
from sr_deploy.graph.rewrite import PassResult, RewriteOptions, passes_named
from tests.graph.training_blocks import BLOCKS, CHANNELS, DBB, ECB, Chain, CostsMore, RepVGG, network, randomised

#: The size that blocks are traced at; what they become must hold at these too.
TRACED = (12, 13)
C = CHANNELS
SIZES = (TRACED, (3, 4), (7, 9), (16, 20))


def graph_of(
    block: nn.Module, channels: int = CHANNELS, dynamic: bool = True, dtype: torch.dtype = torch.float32
) -> onnx.ModelProto:
    stream, axes = io.BytesIO(), {2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            block, (torch.rand((1, channels, *TRACED), dtype=dtype),), stream, dynamo=False, opset_version=17,
            input_names=["x"], output_names=["y"], dynamic_axes={"x": axes, "y": {2: "h", 3: "w"}} if dynamic else None,
        )  # fmt: skip
    return onnx.load_from_string(stream.getvalue())


def folded(model: onnx.ModelProto) -> PassResult:
    (fold,) = passes_named("fold")
    return fold.apply(model, RewriteOptions(traced=TRACED))


def count(model: onnx.ModelProto) -> Counter:
    return Counter(node.op_type for node in model.graph.node if node.op_type != "Constant")


def largest_error(model: onnx.ModelProto, block: nn.Module, sizes: Tuple = SIZES, channels: int = CHANNELS) -> float:
    """Of the graph in float32 from the block in float64, relative to the largest value, the border included."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name, worst = model.graph.input[0].name, 0.0
    for size in sizes:
        x = torch.randn((1, channels, *size), generator=torch.Generator().manual_seed(sum(size)))
        with torch.no_grad():
            wanted = block.double()(x.double()).numpy()
            block.float()
        got = session.run(None, {name: x.numpy()})[0]
        assert got.shape == wanted.shape
        worst = max(worst, float(np.abs(got - wanted).max() / np.abs(wanted).max()))
    return worst


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_becomes_one_convolution(name):
    block = randomised(BLOCKS[name]())
    result = folded(graph_of(block))
    counted = count(result.model)
    assert counted["Conv"] == 1 and not counted["BatchNormalization"] and not counted["Pad"] and not result.kept
    assert result.folded[0].macs_after <= result.folded[0].macs_before
    assert largest_error(result.model, block) <= FOLD_FLOAT32_RELATIVE


class RingOfOutsideSizes(nn.Module):
    """The ring around the 1×1 is joined on; its lengths are read from the picture, as the newer exporter reads all."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.first, self.second = nn.Conv2d(C, C, 3, 1, 1), nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 3)

    def forward(self, x):
        y = torch.relu(x)
        row = self.first.bias.view(1, C, 1, 1).expand(1, C, 1, x.shape[3])
        column = self.first.bias.view(1, C, 1, 1).expand(1, C, x.shape[2] + 2, 1)
        inside = torch.cat([row, self.first(y), row], 2)
        return torch.relu(self.dense(y) + self.second(torch.cat([column, inside, column], 3)))


def test_sizes_that_are_read_outside_of_the_region():
    block = randomised(RingOfOutsideSizes())
    model = graph_of(block)
    assert count(model)["Shape"] > 0
    result = folded(model)
    assert count(result.model) == {"Relu": 2, "Conv": 1}
    assert largest_error(result.model, block) <= FOLD_FLOAT32_RELATIVE


class PadsAndCuts(nn.Module):
    """Runs at multiples of four, and cuts off what was added: at multiples the cut takes all there is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(C, C, 3, 1, 1), nn.Conv2d(C, C, 3, 1, 1)

    def forward(self, x):
        height, width = x.shape[2], x.shape[3]
        down, right = ((length + 3) // 4 * 4 - length for length in (height, width))
        y = torch.relu(self.first(torch.nn.functional.pad(x, (0, right, 0, down), mode="replicate")))
        return self.last(y)[:, :, :height, :width]


def test_what_is_cut_off_at_other_sizes_than_multiples_stays():
    block = randomised(PadsAndCuts())
    result = folded(graph_of(block))
    assert count(result.model)["Slice"]
    assert largest_error(result.model, block) <= FOLD_FLOAT32_RELATIVE


@pytest.mark.parametrize("block", (RepVGG, DBB))
def test_batch_normalisation_that_the_exporter_left_alone(block):
    block, stream = randomised(block()), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            block, (torch.rand(1, CHANNELS, *TRACED),), stream, dynamo=False, opset_version=17, input_names=["x"],
            training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
        )  # fmt: skip
    model = onnx.load_from_string(stream.getvalue())
    assert count(model)["BatchNormalization"] >= 3
    result = folded(model)
    assert count(result.model)["Conv"] == 1 and not count(result.model)["BatchNormalization"]
    assert largest_error(result.model, block, (TRACED,)) <= FOLD_FLOAT32_RELATIVE


def test_a_graph_of_one_size_is_folded_at_that_size():
    block = randomised(ECB())
    result = folded(graph_of(block, dynamic=False))
    assert count(result.model) == {"Conv": 1, "PRelu": 1}
    assert largest_error(result.model, block, (TRACED,)) <= FOLD_FLOAT32_RELATIVE


class InARow(nn.Module):
    """Layers in a row; ``also`` reads what the first one gives a second time."""

    def __init__(self, *layers: nn.Module, also: bool = False) -> None:
        super().__init__()
        self.layers, self.also, self.act = nn.ModuleList(layers), also, nn.ReLU()

    def forward(self, x):
        inside = self.layers[0](x)
        y = inside
        for layer in self.layers[1:]:
            y = layer(y)
        return self.act(y) + torch.sigmoid(inside) if self.also else self.act(y)


STAYS = {
    "zeros between two padded convolutions": InARow(nn.Conv2d(C, C, 3, 1, 1), nn.Conv2d(C, C, 3, 1, 1)),
    "zeros beside a bias": InARow(nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 3, 1, 1)),
    "more multiplications, depthwise": InARow(nn.Conv2d(C, C, 3, 1, 1, groups=C), nn.Conv2d(C, C, 1)),
    "more multiplications, bottleneck": InARow(nn.Conv2d(C, 1, 1, bias=False), nn.Conv2d(1, C, 3, 1, 1)),
    "read elsewhere": InARow(nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 1), also=True),
    "an activation between": InARow(nn.Conv2d(C, C, 1), nn.LeakyReLU(0.9), nn.Conv2d(C, C, 1)),
    "a stride": InARow(nn.Conv2d(C, C, 3, 2, 1), nn.Conv2d(C, C, 1)),
}


@pytest.mark.parametrize("why", STAYS)
def test_what_is_not_one_convolution_stays(why):
    model = graph_of(randomised(STAYS[why]))
    result = folded(model)
    assert result.model is model and not result.folded and not result.kept


def test_without_a_bias_the_same_chain_folds():
    chain = randomised(InARow(nn.Conv2d(C, 2 * C, 1, bias=False), nn.Conv2d(2 * C, C, 3, 1, 1)))
    result = folded(graph_of(chain))
    assert count(result.model)["Conv"] == 1 and largest_error(result.model, chain) <= FOLD_FLOAT32_RELATIVE


#: Of CostsMore: the 1×1 and the identity as one, and the 1×1 in front of the fixed filter with the padding behind it.
KEPT_BRANCHES = ["Conv2d 8→8 1x1", "Conv2d 8→8 1x1 zeros"]


def test_branches_that_would_cost_more_stay_but_for_those_that_do_not_and_are_named():
    block = randomised(CostsMore())
    result = folded(graph_of(block, 2 * C))
    assert count(result.model)["Conv"] == 3 and [one.became for one in result.folded] == KEPT_BRANCHES
    assert len(result.kept) == 1 and "would raise its MACs per pixel" in result.kept[0].reason


class Reflecting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense, self.point = nn.Conv2d(C, C, 3, 1, 1, padding_mode="reflect"), nn.Conv2d(C, C, 1)

    def forward(self, x):
        return torch.relu(self.dense(x) + self.point(x))


class Halves(nn.Module):
    """Each half of the channels by a convolution of its own, then joined: one of two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(C // 2, C // 2, 3, 1, 1), nn.Conv2d(C // 2, C // 2, 3, 1, 1)

    def forward(self, x):
        first, second = x.chunk(2, 1)
        return torch.relu(torch.cat([self.one(first), self.two(second)], 1))


class TwoSources(nn.Module):
    """Branches of two sources in one sum."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(C, C, size, 1, size // 2) for size in (3, 1, 1, 3))

    def forward(self, x):
        one, two = torch.relu(x), torch.sigmoid(x)
        a, b, c, d = self.layers
        return torch.relu(a(one) + c(two) - b(one) - d(two))


@pytest.mark.parametrize(
    ("block", "became"),
    (
        (Reflecting, [f"Conv2d {C}→{C} 3x3 reflect"]),
        (Halves, [f"Conv2d {C}→{C} 3x3 zeros groups 2"]),
        (TwoSources, [f"Conv2d {C}→{C} 3x3 zeros"] * 2),
    ),
)
def test_borders_groups_and_sources(block, became):
    block = randomised(block())
    result = folded(graph_of(block))
    assert [one.became for one in result.folded] == became
    assert count(result.model)["Conv"] == len(became)
    assert largest_error(result.model, block) <= FOLD_FLOAT32_RELATIVE


def test_what_is_pinned_to_float32_or_held_in_float16_stays():
    model = graph_of(randomised(RepVGG()))
    for node in model.graph.node:
        node.doc_string = "precision: float32 (a test)" if node.op_type == "Conv" else ""
    assert not folded(model).folded
    half = graph_of(randomised(RepVGG()).half(), dtype=torch.float16)
    assert not folded(half).folded


def test_a_border_that_is_nearly_the_bias_is_no_rounding():
    block = randomised(Chain())
    with torch.no_grad():
        model = graph_of(nn.Sequential(block, nn.ReLU()).eval(), dynamic=False)
    assert count(folded(model).model) == {"Conv": 1, "Relu": 1}
    (first,) = [node for node in model.graph.node if node.op_type == "Conv"][:1]
    (bias,) = [tensor for tensor in model.graph.initializer if tensor.name == first.input[2]]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) * np.float32(1.0001), bias.name))
    assert not folded(model).folded


def test_no_fold_leaves_the_pass_out():
    assert "fold" in [one.name for one in passes_named("default")]
    assert "fold" not in [one.name for one in passes_named("default", folding=False)]
    with pytest.raises(UsageError, match="--no-fold"):
        passes_named("default,fold", folding=False)


@pytest.fixture(scope="module")
def training_form(tmp_path_factory):
    path = tmp_path_factory.mktemp("training") / "net.pth"
    torch.save(network().state_dict(), path)
    return path


def test_export_folds_says_it_and_names_what_stays(training_form, srdeploy, tmp_path):
    outcome = srdeploy(
        "export", training_form, "-o", tmp_path / "net", "--model", "tests.graph.training_blocks:network",
        "--value-range", "1",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    manifest = json.loads((tmp_path / "net" / "manifest.json").read_text())
    became = [block["became"] for block in manifest["fold"]["blocks"] if block["name"].startswith("/network")]
    assert became == [*KEPT_BRANCHES, *["Conv2d 8→8 3x3 zeros"] * 2]
    stays = [one for one in manifest["fold"]["kept"] if "raise its MACs" in one["reason"]]
    assert any(one["name"].startswith("/network/network.4") for one in stays)
    assert "parallel branches stay at /network/network.4" in outcome.err
    assert "4 parts of the graph became one convolution each" in outcome.err
    assert "folded" not in manifest["rewrite"]["model.onnx"]["passes"]["fold"]
    # head, tail, one for each block that folds, and of the last one the two 1×1 and the fixed filter
    assert count(onnx.load(str(tmp_path / "net" / "model.onnx")))["Conv"] == 2 + 2 + 3


def test_the_case_of_an_activation_inside_the_block(assets, srdeploy, tmp_path):
    cases = assets / "cases"
    outcome = srdeploy(
        "export", cases / "build.pth", "-o", tmp_path / "net", "--model", f"{cases / 'fused_act.py'}:build",
        "--value-range", "1",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert count(onnx.load(str(tmp_path / "net" / "model.onnx")))["Conv"] == 3
