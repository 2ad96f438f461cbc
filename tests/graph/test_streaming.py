"""Streaming gives an equal graph, also at strip borders, and leaves alone what it cannot prove to be local."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sr_deploy.core.contract import IOContract, parse_bytes
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.errors import CheckFailed, UsageError
from sr_deploy.core.media.sample import sample_input
from sr_deploy.core.tolerance import GRAPH_FP32
from sr_deploy.fold.spectral import FoldedFourierUnit
from sr_deploy.graph.exact import difference_in_float64
from sr_deploy.graph.export import graph_from_model
from sr_deploy.graph.memory import STRIPS, activation_bytes, stream_within
from sr_deploy.graph.rewrite.base import RewriteOptions
from sr_deploy.graph.rewrite.rows import Local
from sr_deploy.graph.rewrite.stages import plan_of
from sr_deploy.graph.rewrite.streaming import _counts, apply_streaming
from sr_deploy.graph.specialise import static_graph
from sr_deploy.graph.target import target_named
from sr_deploy.precision.lower.typed_graph import half_graph

CONTRACT = IOContract(value_range=1.0)


class Local3(nn.Module):
    """Dilation, asymmetric kernels, depthwise, reflection, two shuffles, a long skip."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.dilated = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.tall = nn.Conv2d(8, 8, (5, 1), padding=(2, 0), groups=8)
        self.mirror = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.up = nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(4), nn.Conv2d(4, 12, 3, padding=1),
            nn.PixelShuffle(2), nn.Conv2d(3, 3, 5, padding=2),
        )  # fmt: skip

    def forward(self, x):
        shallow = self.head(x)
        x = torch.cat([self.tall(F.leaky_relu(self.dilated(shallow)))[:, :4], shallow[:, 4:]], 1)
        return self.up(self.mirror(x) + shallow)


class WithGlobals(nn.Module):
    """Attention from a strided, pooled, resized map (as EFDN's), from a mean of the picture, and a width matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 4, 3, stride=2)
        self.small = nn.Conv2d(4, 8, 3, padding=1)
        self.squeeze = nn.Conv2d(8, 8, 1)
        self.fourier = FoldedFourierUnit(torch.randn(8, 8) * 0.2, torch.randn(8, 8) * 0.2, None)
        self.body = nn.Sequential(*[nn.Conv2d(8, 8, 3, padding=1) for _ in range(7)])
        self.tail = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x):
        x = self.head(x)
        small = self.small(F.max_pool2d(self.down(x), 5, 2))
        x = x * torch.sigmoid(F.interpolate(small, x.shape[2:], mode="bilinear", align_corners=False))
        x = self.body(x + self.fourier(x)) + x
        return self.tail(x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True))))


def exported(network: nn.Module, folder, size) -> onnx.ModelProto:
    torch.manual_seed(3)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    path = folder / "model.onnx"
    graph_from_model(network.eval(), CONTRACT, path, target_named("any"), None, (24, 32), {})
    return static_graph(path, size)


def outputs(model: onnx.ModelProto, size) -> np.ndarray:
    lr = np.random.default_rng(0).random((1, 3, *size), dtype=np.float32)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"lr": lr})[0]


@pytest.mark.parametrize("strips", [2, 3, 7, 50])
@pytest.mark.parametrize("size", [(24, 30), (31, 17)])
@pytest.mark.parametrize("network", [Local3, WithGlobals])
def test_strips_give_the_same_picture(network, size, strips, tmp_path):
    model = exported(network(), tmp_path, size)
    result = apply_streaming(model, RewriteOptions(size=size, strips=strips))
    assert result.changed >= 1
    onnx.checker.check_model(result.model, full_check=True)
    plain, streamed = outputs(model, size), outputs(result.model, size)
    assert plain.std() > 0.05  # the comparison is not of two clamped pictures
    assert np.abs(plain - streamed).max() * 255 <= GRAPH_FP32.steps
    noise = np.random.default_rng(1).random((1, 3, *size))
    assert difference_in_float64(model, result.model, noise) <= 1e-10


def test_a_missing_halo_would_be_seen(tmp_path, monkeypatch):
    """The comparison above fails when a convolution is given too few rows: it looks at the seams."""
    model = exported(Local3(), tmp_path, (24, 30))
    honest = outputs(model, (24, 30))
    broken = onnx.ModelProto()
    broken.CopyFrom(apply_streaming(model, RewriteOptions(size=(24, 30), strips=4)).model)
    slices = [node for node in broken.graph.node if node.op_type == "Slice" and "rows_" in node.name]
    assert slices
    shifted = {t.name: t for t in broken.graph.initializer}[slices[1].input[1]]
    rows = onnx.numpy_helper.to_array(shifted)
    copy = onnx.numpy_helper.from_array(rows + 1, "shifted")
    end = onnx.numpy_helper.to_array({t.name: t for t in broken.graph.initializer}[slices[1].input[2]])
    broken.graph.initializer.extend([copy, onnx.numpy_helper.from_array(end + 1, "shifted_end")])
    slices[1].input[1], slices[1].input[2] = "shifted", "shifted_end"
    assert np.abs(outputs(broken, (24, 30)) - honest).max() * 255 > GRAPH_FP32.steps


def test_the_picture_is_never_whole_inside(tmp_path):
    """In a local network no tensor of the streamed graph is as high as the picture but the two ends."""
    size = (48, 20)
    result = apply_streaming(exported(Local3(), tmp_path, size), RewriteOptions(size=size, strips=8))
    inferred = onnx.shape_inference.infer_shapes(result.model)
    highest = max(v.type.tensor_type.shape.dim[2].dim_value for v in inferred.graph.value_info)
    assert highest <= 4 * (48 // 8 + 2 * 8)


def test_global_nodes_are_kept_whole(tmp_path):
    plan = plan_of(exported(WithGlobals(), tmp_path, (31, 17)))
    kinds = {node.op_type for node in plan.nodes if node.output[0] not in plan.rules}
    assert kinds == {"Resize", "ReduceMean"}
    for node in plan.nodes:
        if node.output[0] not in plan.rules:
            assert set(node.output) <= plan.whole


def test_pins_survive(tmp_path):
    model = exported(Local3(), tmp_path, (24, 30))
    for node in model.graph.node:
        if node.op_type == "LeakyRelu":
            node.doc_string = "precision: float32 (test)"
    result = apply_streaming(model, RewriteOptions(size=(24, 30), strips=24))
    marked = [node for node in result.model.graph.node if node.op_type == "LeakyRelu"]
    assert len(marked) > 1 and all(node.doc_string.startswith("precision: float32") for node in marked)


def test_the_given_graph_is_not_modified(tmp_path):
    model = exported(Local3(), tmp_path, (24, 30))
    before = model.SerializeToString()
    apply_streaming(model, RewriteOptions(size=(24, 30), strips=4))
    assert model.SerializeToString() == before


def test_without_a_size_or_strips_nothing_happens(tmp_path):
    model = exported(Local3(), tmp_path, (24, 30))
    assert apply_streaming(model, RewriteOptions(size=(24, 30))).changed == 0
    unsized = apply_streaming(model, RewriteOptions(strips=4))
    assert unsized.changed == 0 and "fixed size" in unsized.notes[0]


@pytest.mark.parametrize(
    "rule", [Local((0,), 3, 1, 1, 1), Local((0,), 7, 3, 0, 0), Local((0,), 3, 2, 1, 1), Local((0,), enlarge=4)]
)
def test_what_a_piece_gives_covers_what_was_asked(rule):
    height = 37
    out_height = rule.gives((0, height), height)[1]
    for first in range(out_height):
        for last in range(first + 1, out_height + 1):
            given = rule.gives(rule.needs((first, last), height), height)
            assert given[0] <= first and given[1] >= last


def test_the_fewest_strips_within_the_budget_by_the_builders_word(tmp_path):
    """The count is the builder's answer: here one that says less the more nodes there are."""
    model = exported(Local3(), tmp_path, (96, 16))
    asked = []

    def ask(path):
        nodes = len(onnx.load(str(path)).graph.node)
        asked.append(nodes)
        return 10**9 // nodes

    plain = activation_bytes(model, ask)
    options = RewriteOptions(size=(96, 16), memory_budget=plain)
    assert stream_within(model, options, ask).strips == 1
    asked.clear()
    tighter = stream_within(model, RewriteOptions(size=(96, 16), memory_budget=plain // 10), ask)
    assert tighter.strips > 1 and tighter.bytes <= plain // 10 and len(asked) == len(tighter.asked)
    with pytest.raises(CheckFailed, match="does not stay within"):
        stream_within(model, RewriteOptions(size=(96, 16), memory_budget=1), ask)


def test_narrower_parts_get_more_strips_where_the_first_share_is_not_enough(tmp_path):
    network, size = WithGlobals(), (96, 16)
    network.tail = nn.Sequential(nn.Conv2d(8, 48, 3, padding=1), nn.PixelShuffle(4))
    model = exported(network, tmp_path, size)

    def ask(path):
        """A builder that needs less the more nodes there are."""
        return 10**9 // len(onnx.load(str(path)).graph.node)

    options = RewriteOptions(size=size)
    least = min(
        activation_bytes(apply_streaming(model, replace(options, strips=strips)).model, ask) for strips in STRIPS
    )
    found = stream_within(model, replace(options, memory_budget=least - 1), ask)
    assert found.share == 1.0
    assert found.bytes < least
    assert stream_within(model, replace(options, memory_budget=least), ask).share == 0.5


def test_strips_of_narrower_parts_are_whole_numbers_of_the_widest_parts_strips(tmp_path):
    """So that no strip of the widest part holds two strips of what it reads."""
    network, size = WithGlobals(), (96, 16)
    network.tail = nn.Sequential(nn.Conv2d(8, 48, 3, padding=1), nn.PixelShuffle(4))
    plan = plan_of(exported(network, tmp_path, size))
    working = {tensor: plan.working_bytes(plan.region_of(tensor)) for tensor in plan.rules if tensor in plan.whole}
    for strips in (7, 10, 12, 60):
        counts = _counts(plan, working, strips, 1.0)
        assert max(counts.values()) == strips
        assert all(strips % count == 0 for count in counts.values())
    assert len(set(_counts(plan, working, 60, 1.0).values())) > 2, "else nothing is told apart here"


def test_a_graph_of_two_types_is_cast_in_strips(tmp_path):
    """Not whole: a picture would lie there in float32 and in float16."""
    size = (96, 16)
    half = half_graph(exported(Local3(), tmp_path, size))
    streamed = apply_streaming(half, RewriteOptions(size=size, strips=8)).model
    values = onnx.shape_inference.infer_shapes(streamed).graph.value_info
    rows = {value.name: value.type.tensor_type.shape.dim[2].dim_value for value in values}
    cast = [node for node in streamed.graph.node if node.op_type == "Cast" and node.output[0].startswith("sr")]
    assert [rows[node.output[0]] for node in cast] == [4 * 96 // 8] * 8
    assert all(node.attribute[0].i == onnx.TensorProto.FLOAT for node in cast)
    difference = np.abs(outputs(streamed, size) - outputs(half, size)).max()
    assert difference <= 2 * np.finfo(np.float16).eps * np.abs(outputs(half, size)).max()


def test_amounts_of_memory():
    assert parse_bytes("600MB") == 600_000_000 and parse_bytes("1.3 gb") == 1_300_000_000
    assert parse_bytes("512MiB") == 512 * 2**20
    for text in ("600", "-1MB", "MB", "x MB", "infGB", "nanMB"):
        with pytest.raises(UsageError):
            parse_bytes(text)


@pytest.mark.parametrize("size", [(16, 16), (45, 51), (97, 38)])
@pytest.mark.parametrize(
    "name", ["f2srgan_x4.pt", "efdn_x4.pth", "span_ch26_x4.pth", "light_f2srgan_x4_whole_module.pt"]
)
def test_checkpoints_have_no_seams(name, size, shared_export):
    deployment = open_deployment(shared_export(name))
    value_range = deployment.manifest.contract.value_range
    model = static_graph(deployment.folder / "model.onnx", size)
    streamed = apply_streaming(model, RewriteOptions(size=size, strips=24))
    assert streamed.changed >= 1
    lr = sample_input(size, value_range)
    first, second = (
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"lr": lr})[0] for m in (model, streamed.model)
    )
    assert np.abs(first - second).max() * 255 / value_range <= GRAPH_FP32.steps
    if size == (16, 16):
        noise = np.random.default_rng(1).random((1, 3, *size)) * value_range
        assert difference_in_float64(model, streamed.model, noise) <= 1e-10 * value_range


def test_the_fourier_network_is_within_its_memory(shared_export, tmp_path):
    """F2SRGAN x4 in float16 at 720²: at most 0.3 GB by TensorRT-RTX's builder for SM86, more than 1 GB plain."""
    pytest.importorskip("tensorrt_rtx")
    from sr_deploy.engine.options import EngineOptions
    from sr_deploy.engine.tensorrt import engine_from_graph
    from sr_deploy.precision.lower.typed_graph import half_graph

    model = half_graph(static_graph(shared_export("f2srgan_x4.pt") / "model.onnx", (720, 720)))
    streamed = apply_streaming(model, RewriteOptions(size=(720, 720), strips=24)).model

    def ask(file):
        return engine_from_graph("tensorrt-rtx", file, None, ("8.6",), EngineOptions(precision="fp16")).activation_bytes

    assert activation_bytes(streamed, ask) <= 0.3e9 < 1e9 < activation_bytes(model, ask)
