"""Every pass gives an equal graph, borders included, at even and odd sizes, and does what it is for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import UsageError
from sr_deploy.fold import fold
from sr_deploy.fold.spectral import FoldedFourierUnit
from sr_deploy.graph.export import graph_from_model
from sr_deploy.graph.rewrite import PASSES, RewriteOptions, passes_named, rewrite
from sr_deploy.graph.rewrite.report import pinned_nodes, rewrite_file
from sr_deploy.graph.rewrite.shuffle import small_convolution
from sr_deploy.graph.target import target_named
from sr_deploy.models.architectures.f2srgan import F2SRGANNetwork, FourierConv, ResidualBlock
from tests.graph.rewriting import run

SIZES = ((2, 2), (4, 6), (7, 5), (16, 16), (19, 24), (24, 19), (33, 31))
EVERY = "default,prelu,parity"


def randomised(network: nn.Module) -> nn.Module:
    """Weights, biases and slopes of every sign, so that nothing cancels by chance."""
    generator = torch.Generator().manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.dtype == torch.float32:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.4)
    return network.eval()


class Tail(nn.Module):
    """A convolution, PixelShuffle, PReLU, and after it a depthwise or dense convolution and two 1x1 ones."""

    def __init__(self, block: int, kernel: int, slopes: int = 8, groups: int = 8) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 8 * block**2, 3, padding=1)
        self.act = nn.PReLU(slopes)
        self.shuffle = nn.PixelShuffle(block)
        self.depthwise = nn.Conv2d(8, 8, kernel, padding=kernel // 2, groups=groups)
        self.pointwise = nn.Conv2d(8, 3, 1)
        self.mean = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.mean(self.pointwise(self.depthwise(self.act(self.shuffle(self.head(x))))))


class Cell(nn.Module):
    """Reduced features joined and fused, a 3x3 and a 1x1 convolution in a row, a scaled residual."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.branches = nn.ModuleList(nn.Conv2d(8, 4, 1) for _ in range(2))
        self.fuse = nn.Conv2d(8, 8, 1)
        self.tail, self.mean = nn.Conv2d(8, 3, 3, padding=1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        first = self.first(x)
        second = torch.relu(self.second(first))
        fused = self.fuse(torch.cat([self.branches[0](first), self.branches[1](second)], 1))
        return self.mean(self.tail(torch.relu(fused) * 0.1 + first))


def fourier_network() -> nn.Module:
    """Two small FFC blocks and a x2 tail, folded."""
    blocks = [ResidualBlock(FourierConv(8, 8, 4, 4, 4), 8, 8) for _ in range(2)]
    network = randomised(F2SRGANNetwork(8, 1, blocks))
    return fold(network, input_size=(10, 12), value_range=1.0).module


def exported(network: nn.Module, path, size=None) -> onnx.ModelProto:
    pins = {
        name: "Fourier unit, folded"
        for name, module in network.named_modules()
        if isinstance(module, FoldedFourierUnit)
    }
    graph_from_model(network, IOContract(value_range=1.0), path, target_named("any"), size, (10, 12), pins)
    model = onnx.load(str(path))
    # The clamp at the end would hide differences.
    clip = next(node for node in model.graph.node if node.op_type == "Clip")
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] in clip.input:
            bound = -1e6 if node.output[0] == clip.input[1] else 1e6
            node.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(np.float32(bound)))
    return model


def assert_equal_graphs(before: onnx.ModelProto, after: onnx.ModelProto, sizes) -> None:
    for size in sizes:
        lr = np.random.default_rng(size).standard_normal((1, 3, *size)).astype(np.float32)
        expected, actual = run(before, lr), run(after, lr)
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * np.abs(expected).max(), err_msg=str(size))


def rewritten(model: onnx.ModelProto, names: str, size=None):
    after, steps = rewrite(model, passes_named(names), RewriteOptions(size=size))
    return after, {one.name: result.changed for one, result in steps}


@pytest.mark.parametrize(
    ("block", "kernel", "groups"), [(2, 3, 8), (2, 5, 8), (2, 3, 1), (2, 1, 1), (3, 3, 1), (3, 5, 1)]
)
def test_convolutions_after_a_shuffle_move_before_it(tmp_path, block, kernel, groups):
    model = exported(randomised(Tail(block, kernel, groups=groups)), tmp_path / "a.onnx")
    after, changed = rewritten(model, "compose,shuffle")
    assert changed == {"compose": 1 if groups > 1 else 2, "shuffle": 2}
    operators = [node.op_type for node in after.graph.node]
    assert operators.index("DepthToSpace") > operators.index("PRelu")
    assert operators.count("Conv") == 2
    assert_equal_graphs(model, after, SIZES)


def test_shuffle_keeps_one_slope_for_all_channels(tmp_path):
    model = exported(randomised(Tail(2, 3, slopes=1)), tmp_path / "a.onnx")
    assert_equal_graphs(model, rewritten(model, "shuffle")[0], SIZES)


def test_slopes_with_a_batch_axis_are_slopes_of_channels(tmp_path):
    """The newer exporter of torch writes (1, C, 1, 1); (C,) alone would be slopes of columns."""
    model = exported(randomised(Tail(2, 3)), tmp_path / "a.onnx")
    (prelu,) = [node for node in model.graph.node if node.op_type == "PRelu"]
    (slope,) = [tensor for tensor in model.graph.initializer if tensor.name == prelu.input[1]]
    for names in ("shuffle", "prelu"):
        assert rewritten(model, names)[1] == {names: 2 if names == "shuffle" else 1}
        slope.dims[:] = [1, 8, 1, 1]
        after, changed = rewritten(model, names)
        assert changed == {names: 2 if names == "shuffle" else 1}
        assert_equal_graphs(model, after, SIZES[1:4])
        slope.dims[:] = [8]
        assert rewritten(model, names)[1] == {names: 0}
        slope.dims[:] = [8, 1, 1]


@pytest.mark.parametrize("mode", [b"CRD", b"DCR"])
@pytest.mark.parametrize(("block", "kernel"), [(2, 1), (2, 3), (2, 5), (2, 7), (3, 3), (3, 7), (4, 3), (4, 5)])
def test_a_small_convolution_is_one_after_depth_to_space(block, kernel, mode):
    generator = np.random.default_rng(0)
    weight, bias = generator.standard_normal((2, 5, kernel, kernel)), generator.standard_normal(2)
    x = torch.from_numpy(generator.standard_normal((1, 5 * block**2, 6, 7)))
    small, small_bias, pads, ring = small_convolution(weight, bias, block, mode)

    def depth_to_space(t):
        n, c, h, w = t.shape
        if mode == b"CRD":
            return torch.nn.functional.pixel_shuffle(t, block)
        t = t.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return t.reshape(n, c // block**2, block * h, block * w)

    padding = kernel // 2
    expected = torch.conv2d(depth_to_space(x), torch.from_numpy(weight), torch.from_numpy(bias), padding=padding)
    padded = torch.nn.functional.pad(x, (pads[1], pads[3], pads[0], pads[2]))
    actual = depth_to_space(torch.conv2d(padded, torch.from_numpy(small), torch.from_numpy(small_bias)))
    if ring:
        actual = actual[:, :, ring : ring - block, ring : ring - block]
    torch.testing.assert_close(actual, expected)


def test_a_shuffle_that_two_read_is_left_alone(tmp_path):
    class Both(Tail):
        def forward(self, x):
            y = self.shuffle(self.head(x))
            return self.pointwise(self.act(y) + self.depthwise(y))

    model = exported(randomised(Both(2, 3)), tmp_path / "a.onnx")
    assert rewritten(model, "shuffle")[1] == {"shuffle": 0}


def test_linear_operations_in_a_row_become_one(tmp_path):
    model = exported(randomised(Cell()), tmp_path / "a.onnx")
    after, changed = rewritten(model, "compose")
    assert changed == {"compose": 2}  # the branches, the last two convolutions; relu stands before the scaling
    operators = Counter(node.op_type for node in after.graph.node)
    assert operators["Concat"] == 0
    assert operators["Conv"] == 5
    assert_equal_graphs(model, after, SIZES)


def test_a_padded_convolution_is_not_composed_with_the_one_before(tmp_path):
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.head = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return self.head(self.mean(x))

    model = exported(randomised(Mean()), tmp_path / "a.onnx")
    assert rewritten(model, "compose")[1] == {"compose": 0}


class Separable(nn.Module):
    """Depthwise and 1x1 convolutions in a row: plain, two results a channel, without padding, and read by two."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.ReLU()
        self.rows = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, deep, k, padding=p, groups=8, bias=bias), nn.Conv2d(deep, 8, 1))
            for deep, k, p, bias in ((8, 3, 1, True), (16, 3, 1, False), (8, 5, 0, True))
        )
        self.shared, self.after = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
        self.tail = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        x = self.act(self.head(x))
        for row in self.rows:
            x = self.act(row(x))
        x = self.shared(x)
        return self.tail(self.act(self.after(x) + x))


def test_depthwise_and_pointwise_become_one_dense_convolution(tmp_path):
    model = exported(randomised(Separable()), tmp_path / "a.onnx")
    result = passes_named("dense")[0].apply(model, RewriteOptions())
    assert result.changed == 3  # not the one that is read by two
    assert_equal_graphs(model, result.model, [(h + 4, w + 4) for h, w in SIZES])
    convolutions = [node for node in result.model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 10 - 3
    groups = [next(a.i for a in node.attribute if a.name == "group") for node in convolutions]
    assert groups.count(8) == 1
    assert "dense" not in [one.name for one in passes_named("default")]


def test_prelu_is_equal_for_every_slope(tmp_path):
    network = randomised(Tail(2, 3))
    with torch.no_grad():
        network.act.weight.copy_(torch.tensor([-3.0, -1.0, 0.0, 0.2, 0.999, 1.0, 1.5, 40.0]))
    model = exported(network, tmp_path / "a.onnx")
    after, changed = rewritten(model, "prelu")
    assert changed == {"prelu": 1}
    assert "PRelu" not in [node.op_type for node in after.graph.node]
    assert_equal_graphs(model, after, SIZES)


def test_the_width_matrix_is_made_once_for_all_blocks(tmp_path):
    model = exported(fourier_network(), tmp_path / "a.onnx")
    after, _ = rewritten(model, "share")
    made = [sum(node.op_type == "Sin" for node in graph.graph.node) for graph in (model, after)]
    assert made == [4, 2]  # the whole picture's and the quarters'
    assert len({node.input[1] for node in after.graph.node if node.op_type == "MatMul"}) == 2
    assert_equal_graphs(model, after, SIZES)


@pytest.mark.parametrize("size", [(12, 16), (9, 15), (8, 18)])
def test_the_width_matrix_is_split_where_its_width_is_even(tmp_path, size):
    model = exported(fourier_network(), tmp_path / "a.onnx", size)
    after, changed = rewritten(model, "share,parity", size)
    products = [node for node in after.graph.node if node.op_type == "MatMul"]
    even = sum(width % 2 == 0 for width in (size[1], size[1] // 2))
    assert changed["parity"] == 2 * even
    assert len(products) == 4 + 2 * even
    stored = [t for t in after.graph.initializer if len(t.dims) == 2 and t.dims[0] == t.dims[1]]
    assert len(stored) == 2 + even  # shared by both blocks
    assert_equal_graphs(model, after, [size])


def test_all_passes_together(tmp_path):
    for number, network in enumerate((fourier_network(), randomised(Cell()), randomised(Tail(2, 3)))):
        model = exported(network, tmp_path / f"{number}.onnx")
        assert_equal_graphs(model, rewritten(model, EVERY)[0], SIZES[1:])
    model = exported(fourier_network(), tmp_path / "static.onnx", (14, 20))
    assert_equal_graphs(model, rewritten(model, EVERY, (14, 20))[0], [(14, 20)])


def test_pinned_nodes_stay_pinned(tmp_path):
    path = tmp_path / "a.onnx"
    onnx.save(exported(fourier_network(), path, (12, 16)), str(path))
    before = pinned_nodes(path)
    report = rewrite_file(path, passes_named(EVERY), RewriteOptions(size=(12, 16)), (12, 16))
    after = pinned_nodes(path)
    assert set(before.values()) == set(after.values()) == {"Fourier unit, folded"}
    products = [node.name for node in onnx.load(str(path)).graph.node if node.op_type == "MatMul"]
    assert len(products) == 8
    assert set(products) <= set(after)
    assert report["passes"]["parity"]["places"] > 0 and report["after"]["macs"] != report["before"]["macs"]
    assert report["before"]["nodes"] > report["passes"]["share"]["nodes"]


def test_a_pass_that_finds_nothing_gives_the_graph_back(tmp_path):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return self.conv(x)

    model = exported(randomised(Plain()), tmp_path / "a.onnx")
    for one in passes_named("compose,shuffle,prelu,parity"):
        result = one.apply(model, RewriteOptions())
        assert result.changed == 0
        assert result.model is model


def test_names_of_passes():
    assert [one.name for one in passes_named("none")] == []
    assert passes_named("default") == tuple(one for one in PASSES if one.default)
    assert [one.name for one in passes_named("prelu, share")] == ["share", "prelu"]
    with pytest.raises(UsageError, match="no pass 'fast'"):
        passes_named("fast")
    with pytest.raises(UsageError, match="none excludes"):
        passes_named("none,share")
