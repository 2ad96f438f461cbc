"""torch.fft as real matrix products: eager, in graphs of fixed and of dynamic size, and accepted by TensorRT-RTX."""

from __future__ import annotations

import io
from typing import Optional, Tuple

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sr_deploy.core.errors import CheckFailed
from sr_deploy.fold.dft import real_dft, scope_pattern, spectral_modules
from sr_deploy.fold.dft_matrix import direct_cost, split_cost, two_stages
from sr_deploy.fold.spectral import FoldedFourierUnit
from sr_deploy.models.architectures.f2srgan import FourierUnit

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:Constant folding:UserWarning")

SIZE = (20, 24)
OTHER_SIZES = ((7, 9), (45, 51), (32, 50), (13, 11))
#: Operators that a graph may hold: real ones that TensorRT 8.5 has (its table lists all of them).
# fmt: off
ALLOWED = frozenset((
    "Add", "Atan", "Cast", "Concat", "Constant", "ConstantOfShape", "Conv", "Cos", "Div", "Einsum", "Equal", "Expand",
    "Floor", "Gather", "Greater", "Identity", "LeakyRelu", "Less", "MatMul", "Mul", "Neg", "Pad", "Range",
    "Reciprocal", "Relu", "Reshape", "Shape", "Sigmoid", "Sin", "Slice", "Softplus", "Split", "Sqrt", "Squeeze", "Sub",
    "Transpose", "Unsqueeze", "Where",
))
# fmt: on


class ComplexFourierUnit(nn.Module):
    """F2SRGAN's: rfftn, shift over all axes, one complex 1x1 convolution, back."""

    def __init__(self, channels: int, norm: str = "ortho"):
        super().__init__()
        self.norm = norm
        self.complex_weight = nn.Parameter(torch.randn(channels, channels, 1, 1, 2))

    def forward(self, x):
        z = torch.fft.fftshift(torch.fft.rfftn(x, dim=(-2, -1), norm=self.norm))
        w = torch.view_as_complex(self.complex_weight)
        re = F.conv2d(z.real, w.real) - F.conv2d(z.imag, w.imag)
        im = F.conv2d(z.real, w.imag) + F.conv2d(z.imag, w.real)
        z = torch.fft.ifftshift(torch.complex(re, im))
        return torch.fft.irfftn(z, s=x.shape[-2:], dim=(-2, -1), norm=self.norm)


class LamaFourierUnit(nn.Module):
    """FFC's and LaMa's: real and imaginary parts as channels, convolution, BatchNorm and ReLU in the spectrum."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, 2 * channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(2 * channels)
        self.bn.running_mean.normal_()
        self.bn.running_var.uniform_(0.5, 2.0)

    def forward(self, x):
        z = torch.fft.rfftn(x, dim=(-2, -1), norm="ortho")
        z = torch.stack((z.real, z.imag), dim=-1).permute(0, 1, 4, 2, 3).contiguous()
        z = z.view((x.shape[0], -1) + z.size()[3:])
        z = F.relu(self.bn(self.conv(z)))
        z = z.view((x.shape[0], -1, 2) + z.size()[2:]).permute(0, 1, 3, 4, 2).contiguous()
        z = torch.complex(z[..., 0], z[..., 1])
        return torch.fft.irfftn(z, s=x.shape[-2:], dim=(-2, -1), norm="ortho")


class SwinFirBlock(nn.Module):
    """SwinFIR's spectral branch: two 1x1 stages around an activated spectrum, a residual."""

    def __init__(self, channels: int):
        super().__init__()
        self.before = nn.Conv2d(channels, channels // 2, 1)
        self.spectrum = nn.Conv2d(channels, channels, 1)
        self.after = nn.Conv2d(channels // 2, channels, 1)

    def forward(self, x):
        y = F.leaky_relu(self.before(x), 0.2)
        z = torch.fft.rfft2(y, norm="ortho")
        z = F.leaky_relu(self.spectrum(torch.cat([z.real, z.imag], dim=1)), 0.2)
        re, im = torch.chunk(z, 2, dim=1)
        return self.after(y + torch.fft.irfft2(torch.complex(re, im), s=y.shape[-2:], norm="ortho"))


class GlobalFilter(nn.Module):
    """GFNet's: a learned factor for each frequency of one size, channels last."""

    def __init__(self, channels: int, size: Tuple[int, int]):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size[0], size[1] // 2 + 1, channels, 2))

    def forward(self, x):
        y = x.permute(0, 2, 3, 1)
        z = torch.fft.rfft2(y, dim=(1, 2), norm="ortho") * torch.view_as_complex(self.weight)
        return torch.fft.irfft2(z, s=y.shape[1:3], dim=(1, 2), norm="ortho").permute(0, 3, 1, 2)


class AdaptiveFilter(nn.Module):
    """AFNO's: a small complex network on blocks of channels at each frequency, with soft shrinkage."""

    def __init__(self, channels: int, blocks: int = 2):
        super().__init__()
        width = channels // blocks
        self.blocks = blocks
        self.w1 = nn.Parameter(torch.randn(2, blocks, width, width))
        self.w2 = nn.Parameter(torch.randn(2, blocks, width, width))

    def forward(self, x):
        n, c, h, w = x.shape
        z = torch.fft.rfft2(x.permute(0, 2, 3, 1), dim=(1, 2), norm="ortho")
        z = z.reshape(n, h, z.shape[2], self.blocks, c // self.blocks)
        mix = "...bi,bio->...bo"
        re = F.relu(torch.einsum(mix, z.real, self.w1[0]) - torch.einsum(mix, z.imag, self.w1[1]))
        im = F.relu(torch.einsum(mix, z.imag, self.w1[0]) + torch.einsum(mix, z.real, self.w1[1]))
        z = torch.einsum(mix, torch.complex(re, im), torch.view_as_complex(self.w2.permute(1, 2, 3, 0).contiguous()))
        z = torch.view_as_complex(F.softshrink(torch.stack([z.real, z.imag], dim=-1), 0.01))
        z = z.reshape(n, h, z.shape[2], c)
        return torch.fft.irfft2(z, s=(h, w), dim=(1, 2), norm="ortho").permute(0, 3, 1, 2)


class ComplexParameter(nn.Module):
    """A weight that is stored as complex numbers."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, dtype=torch.complex64))

    def forward(self, x):
        z = torch.einsum("oi,nihw->nohw", self.weight, torch.fft.rfft2(x))
        return torch.fft.irfft2(z * torch.sigmoid(z.abs()), s=x.shape[-2:])


class PhaseBlock(nn.Module):
    """Magnitude changed, phase kept, by torch.polar and the whole (not half) transform."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        z = torch.fft.fft2(x, norm="forward")
        z = torch.polar(F.softplus(self.conv(torch.abs(z))), torch.angle(z))
        return torch.fft.ifft2(z, norm="forward").real


PUBLISHED = (ComplexFourierUnit, FourierUnit, LamaFourierUnit, SwinFirBlock, AdaptiveFilter, GlobalFilter)
BLOCKS = (*PUBLISHED, ComplexParameter, PhaseBlock)


def block_of(kind, size=SIZE, dtype=torch.float32):
    torch.manual_seed(1)
    block = kind(8, size) if kind is GlobalFilter else kind(8)
    if kind is FourierUnit:
        torch.nn.init.normal_(block.complex_weight)
    if kind is ComplexParameter:  # module.to(float32) would drop the imaginary part
        block.weight.data = block.weight.data.to(torch.complex128 if dtype == torch.float64 else torch.complex64)
        return block.eval()
    return block.eval().to(dtype)


def exported(module: nn.Module, x: torch.Tensor, dynamic: bool) -> onnx.ModelProto:
    """The TorchScript exporter's graph, opset 17, input "x", output "y"."""
    stream = io.BytesIO()
    axes = {"x": {2: "height", 3: "width"}, "y": {2: "height", 3: "width"}} if dynamic else None
    torch.onnx.export(
        module, (x,), stream, opset_version=17, input_names=["x"], output_names=["y"], dynamic_axes=axes, dynamo=False
    )
    model = onnx.load_from_string(stream.getvalue())
    onnx.checker.check_model(model, full_check=True)
    return model


def relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference over the largest magnitude."""
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max())


def ran(model: onnx.ModelProto, x: torch.Tensor) -> torch.Tensor:
    """The graph's output in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def accepted_by_tensorrt_rtx(model: onnx.ModelProto, profile: Optional[Tuple[Tuple[int, ...], ...]] = None) -> str:
    """Parse and build for SM86 and SM120; "" when it works, else what the parser said."""
    try:
        import tensorrt_rtx as trt
    except ImportError:
        import tensorrt_rtx_bindings as trt
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        return "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 2
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    config.set_compute_capability(trt.ComputeCapability.SM120, 1)
    if profile:
        shapes = builder.create_optimization_profile()
        shapes.set_shape(network.get_input(0).name, *profile)
        config.add_optimization_profile(shapes)
    return "" if builder.build_serialized_network(network, config) is not None else "the builder gave nothing"


# --- eager ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ((1, 1), (2, 3), (20, 24), (7, 13), (72, 100), (30, 97)), ids=str)
@pytest.mark.parametrize("kind", BLOCKS)
def test_a_block_is_the_same_with_real_matrices(kind, size):
    for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        block = block_of(kind, size, dtype)
        x = torch.randn(2, 8, *size, dtype=dtype)
        with torch.no_grad():
            wanted = block(x)
            with real_dft():
                got = block(x)
        assert got.dtype == dtype
        assert relative(got, wanted) <= bound


@pytest.mark.parametrize("norm", (None, "backward", "ortho", "forward"))
@pytest.mark.parametrize("n", (1, 2, 5, 8, 12, 64, 97, 144))
def test_each_transform_of_one_axis(n, norm):
    x = torch.randn(3, n, 4, dtype=torch.float64)
    z = torch.complex(x, torch.randn(3, n, 4, dtype=torch.float64))
    for name, value in (("fft", z), ("ifft", z), ("fft", x), ("rfft", x)):
        wanted = getattr(torch.fft, name)(value, dim=1, norm=norm)
        with real_dft():
            pair = torch.complex(value.real, value.imag) if value.is_complex() else value
            got = torch.view_as_real(getattr(torch.fft, name)(pair, dim=1, norm=norm))
        torch.testing.assert_close(torch.view_as_complex(got.contiguous()), wanted, rtol=0, atol=1e-11)
    if n > 1:
        wanted = torch.fft.irfft(z, dim=1, norm=norm)
        with real_dft():
            got = torch.fft.irfft(torch.complex(z.real, z.imag), dim=1, norm=norm)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-11)


@pytest.mark.parametrize("s", ((6, 10), (9, 7), (5, 16), (6, -1)), ids=str)
def test_s_crops_and_pads(s):
    x = torch.randn(2, 6, 10, dtype=torch.float64)
    z = torch.fft.rfft2(x)
    wanted, back = torch.fft.rfft2(x, s=s), torch.fft.irfft2(z, s=s)
    whole = torch.fft.fft2(x, s=s)
    with real_dft():
        got = torch.view_as_real(torch.fft.rfft2(x, s=s))
        got_back = torch.fft.irfft2(torch.complex(z.real, z.imag), s=s)
        got_whole = torch.view_as_real(torch.fft.fftn(x, s=s))
    torch.testing.assert_close(got, torch.view_as_real(wanted), rtol=0, atol=1e-11)
    torch.testing.assert_close(got_back, back, rtol=0, atol=1e-11)
    torch.testing.assert_close(got_whole, torch.view_as_real(whole), rtol=0, atol=1e-11)


def test_rfftn_of_all_axes_and_shifts():
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    wanted = torch.fft.rfftn(x)
    shifted, back = torch.fft.fftshift(x), torch.fft.ifftshift(x, dim=(1, 2))
    with real_dft():
        got = torch.view_as_real(torch.fft.rfftn(x))
        torch.testing.assert_close(torch.fft.fftshift(x), shifted)
        torch.testing.assert_close(torch.fft.ifftshift(x, dim=(1, 2)), back)
        torch.testing.assert_close(torch.fft.irfftn(torch.view_as_complex(got), s=x.shape), x)
    torch.testing.assert_close(got, torch.view_as_real(wanted), rtol=0, atol=1e-10)


def complex_arithmetic(z, w, r):
    """One of each operation on complex numbers, all of them read back as real tensors."""
    weight = torch.tensor([[1 + 2j, -0.5j], [0.25, 3.0]], dtype=torch.complex128)
    results = [
        z + w,
        z - r,
        r - z,
        2 - z,
        r + z,
        z * w,
        r * z,
        z * (1 + 2j),
        z / w,
        r / z,
        -z,
        z / 2,
        torch.add(z, w, alpha=3),
        z.conj().resolve_conj(),
        torch.square(z),
        z @ w,
        weight @ z,
        torch.einsum("ij,jk->ik", weight, z),
        torch.einsum("ij->ji", z),
        torch.cat([z, w], 1),
        torch.stack([z, r], 0),
        z.reshape(-1),
        z.transpose(0, 1),
        z[0],
        z[:, 1:],
        torch.roll(z, 1, 0),
        torch.flip(z, (0,)),
        z.sum(1),
        z.mean(),
        F.pad(z, (1, 2)),
        z.unsqueeze(0).expand(3, 2, 2),
        torch.where(r > 0, z, w),
        torch.view_as_complex(torch.view_as_real(z)),
        torch.chunk(z, 2, 1)[1],
        z.split(1)[0],
        F.linear(z, weight, weight[0]),
        F.conv2d(z[None, None], weight[None, None], weight[:1, 0]),
        torch.polar(r.abs(), r),
        z + torch.ones(4, 2, 2).to(r),
    ]
    return [torch.view_as_real(result) for result in results] + [z.abs(), torch.angle(z), torch.real(z), z.imag]


def test_arithmetic_on_complex_numbers():
    a, b, r = (torch.randn(2, 2, 2, dtype=torch.float64) for _ in range(3))
    z, w, r = torch.view_as_complex(a), torch.view_as_complex(b), r[0]
    wanted = complex_arithmetic(z, w, r)
    with real_dft():
        got = complex_arithmetic(torch.view_as_complex(a), torch.view_as_complex(b), r)
    for index, (one, other) in enumerate(zip(got, wanted)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12, msg=lambda m, i=index: f"result {i}: {m}")


@pytest.mark.parametrize(
    "operation, name",
    (
        (lambda z: torch.exp(z), "torch.exp"),
        (lambda z: z.mul_(2), "torch.mul_"),
        (lambda z: F.relu(z), "torch.relu"),
        (lambda z: z.T, "Tensor.T"),
        (lambda z: F.pad(z, (1, 1), value=3.0), "torch.pad"),
        (lambda z: torch.fft.hfft(z), "torch.fft.hfft"),
        (lambda z: z.to(torch.float32), "torch.to"),
    ),
)
def test_what_is_not_supported_is_named(operation, name):
    with real_dft(), pytest.raises(CheckFailed, match=f"{name}.*on complex numbers is not supported by --spectral dft"):
        operation(torch.fft.rfft(torch.randn(4, 6)))


def test_two_stages_are_chosen_by_their_multiplications():
    assert two_stages(144, real=True) == two_stages(144, real=False) == (12, 12)
    assert two_stages(1080, real=True) == (30, 36)
    assert two_stages(97, real=True) is None
    assert two_stages(48, real=False) is None
    for n in range(1, 400):
        for real in (True, False):
            pair = two_stages(n, real)
            if pair:
                assert pair[0] * pair[1] == n
                assert 2 * split_cost(*pair, real) <= direct_cost(n, real)


# --- graphs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("dynamic", (False, True), ids=("fixed", "dynamic"))
def test_the_graph_is_real_and_right_at_every_size(kind, dynamic):
    if dynamic and kind is GlobalFilter:
        pytest.skip("a filter with one factor for each frequency has one size")
    block = block_of(kind)
    with real_dft(fixed=not dynamic):
        model = exported(block, torch.randn(1, 8, *SIZE), dynamic)
    operators = {node.op_type for node in model.graph.node}
    assert operators <= ALLOWED
    if not dynamic:
        assert "Range" not in operators, "a graph of one size holds its matrices as constants"
    for size in (SIZE, *(OTHER_SIZES if dynamic else ())):
        x = torch.randn(1, 8, *size)
        with torch.no_grad():
            assert relative(ran(model, x), block(x)) <= 1e-5
    profile = ((1, 8, 8, 8), (1, 8, *SIZE), (1, 8, 64, 64)) if dynamic else None
    assert accepted_by_tensorrt_rtx(model, profile) == ""


def test_two_stages_in_a_graph_of_fixed_size():
    block = block_of(ComplexFourierUnit)
    x = torch.randn(1, 8, 100, 144)
    with real_dft(fixed=True):
        model = exported(block, x, dynamic=False)
    largest = max(max(a.t.dims, default=0) for node in model.graph.node for a in node.attribute if a.name == "value")
    assert largest == 73, "no matrix of 100x100 or 144x144, only the weight of the half spectrum"
    with torch.no_grad():
        assert relative(ran(model, x), block(x)) <= 1e-5


def test_a_large_dynamic_graph_stays_exact():
    block = ComplexFourierUnit(1).eval()
    with real_dft():
        model = exported(block, torch.randn(1, 1, 6, 8), dynamic=True)
    for width in (1920, 2047):
        x = torch.randn(1, 1, 3, width)
        with torch.no_grad():
            assert relative(ran(model, x), block(x)) <= 1e-5


# --- which modules are spectral ------------------------------------------------------------------------------------


class Nested(nn.Module):
    """Spectral units called, in an iterated list, twice, and in containers."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(4, 4, 1)
        self.body = nn.Sequential(nn.Sequential(SwinFirBlock(4), nn.ReLU()), FourierUnit(4))
        self.each = nn.ModuleList([nn.Sequential(FourierUnit(4)), FourierUnit(4)])
        self.again = nn.Sequential(nn.Conv2d(4, 4, 1), FourierUnit(4))
        self.folded = FoldedFourierUnit(torch.randn(4, 4), torch.randn(4, 4), None)
        for parameter in self.parameters():  # equal weights would be shared in the graph, through Identity nodes
            torch.nn.init.normal_(parameter)

    def forward(self, x):
        x = self.body(self.head(x))
        for part in self.each:
            x = part(x)
        return self.folded(self.again(self.again(x)))


def test_spectral_modules_and_their_nodes():
    network = Nested().eval()
    names = spectral_modules(network, (1, 4, 8, 8))
    assert names == ("body.0.0", "body.1", "each.0.0", "each.1", "again.1", "folded")
    with real_dft(fixed=True):
        model = exported(network, torch.randn(1, 4, 8, 8), dynamic=False)
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    taken = {name: [node for node in nodes if scope_pattern(name).match(node.name)] for name in names}
    for name in ("body.1", "each.0.0", "each.1"):
        assert sum(node.op_type == "MatMul" for node in taken[name]) == 12, name
    assert sum(node.op_type == "MatMul" for node in taken["again.1"]) == 24, "both runs"
    assert sum(node.op_type == "MatMul" for node in taken["folded"]) == 1
    pinned = {node.name for found in taken.values() for node in found}
    left = [node for node in nodes if node.name not in pinned]
    assert sorted(node.op_type for node in left) == ["Conv", "Conv", "Conv", "Relu"], "head, again.0 twice, body.0.1"
    assert sum(len(found) for found in taken.values()) == len(pinned), "no node belongs to two modules"


def test_a_network_that_calls_a_transform_itself():
    assert spectral_modules(block_of(PhaseBlock), (1, 8, 6, 6)) == ("",)
    assert spectral_modules(nn.Sequential(nn.Conv2d(3, 3, 1)), (1, 3, 6, 6)) == ()
    assert scope_pattern("network.").match("/network/conv/Conv")
    assert not scope_pattern("network.fu").match("/network/fu2/Conv")
