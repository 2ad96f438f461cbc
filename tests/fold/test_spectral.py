"""Fourier units without a Fourier transform: found, proved, refused, and in graphs of fixed and of dynamic size."""

from __future__ import annotations

import copy
import io

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from sr_deploy.core.tolerance import FOLD_FLOAT32_RELATIVE, FOLD_FLOAT64_RELATIVE
from sr_deploy.fold.spectral import (
    FoldedFourierUnit,
    SpectralFold,
    fold_fourier_unit,
    uses_fft,
    width_matrix,
    width_vector,
)
from sr_deploy.fold.traced_size import fixed_size
from sr_deploy.models.architectures.f2srgan import FourierUnit

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")

WIDTHS = (1, 2, 3, 4, 5, 7, 8, 45, 51, 64, 144, 331, 1079, 1080)


class SpectralConvolution(nn.Module):
    """rfft2, one complex matrix at every frequency, back, plus what the arguments ask for."""

    def __init__(self, c_in, c_out, bias=False, norm="ortho", inside=None, before=None, column=False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, dtype=torch.complex64))
        self.bias = nn.Parameter(torch.randn(c_out, 1, 1)) if bias else None
        self.norm, self.inside, self.before, self.column = norm, inside, before, column

    def forward(self, x):
        x = self.before(x) if self.before else x
        axes = (-1, -2) if self.column else (-2, -1)
        z = torch.fft.rfftn(x, dim=axes, norm=self.norm)
        z = torch.einsum("oi,nihw->nohw", self.weight, z)
        z = self.inside(z) if self.inside else z
        y = torch.fft.irfftn(z, s=[x.shape[axis] for axis in axes], dim=axes, norm=self.norm)
        return y if self.bias is None else y + self.bias


def unit_of(kind, *arguments, **options):
    torch.manual_seed(3)
    unit = kind(*arguments, **options)
    if kind is FourierUnit:
        nn.init.normal_(unit.complex_weight)
    return unit.eval()


def reference_matrix(width):
    """Q of the definition: irfft(m · j · rfft(I))."""
    spectrum = 1j * np.fft.rfft(np.eye(width))
    spectrum[:, 0] = 0
    if width % 2 == 0:
        spectrum[:, -1] = 0
    return np.fft.irfft(spectrum, n=width) if width > 1 else np.zeros((1, 1))


# --- the width matrix ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
def test_the_closed_form_is_the_definition(width):
    wanted = reference_matrix(width)
    exact = width_matrix(torch.zeros(1, 1, 1, width, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(exact, wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(exact, -exact.T, rtol=0, atol=1e-12)
    if width % 2 == 0:
        assert not exact[0, ::2].any(), "even columns depend on odd ones only"


@pytest.mark.parametrize("width", WIDTHS)
def test_the_closed_form_in_float32(width):
    distance = torch.arange(2 * width - 1) - (width - 1)
    vector = width_vector(distance.to(torch.float32), torch.tensor(float(width)), torch)
    column = np.arange(width)
    matrix = vector.numpy()[column[None, :] - column[:, None] + width - 1]
    np.testing.assert_allclose(matrix, reference_matrix(width), rtol=0, atol=1e-7)


# --- folding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit",
    (
        unit_of(FourierUnit, 16),
        unit_of(FourierUnit, 1),
        unit_of(SpectralConvolution, 3, 5, bias=True),
        unit_of(SpectralConvolution, 4, 2, norm="backward"),
        unit_of(SpectralConvolution, 3, 3, inside=lambda z: torch.fft.ifftshift(2j * torch.fft.fftshift(z))),
        unit_of(SpectralConvolution, 3, 3, before=nn.Conv2d(3, 3, 1)),
    ),
    ids=("published", "one channel", "bias", "backward norm", "shifted", "behind a 1x1 convolution"),
)
def test_a_unit_folds(unit):
    c_in = (unit.complex_weight if isinstance(unit, FourierUnit) else unit.weight).shape[1]
    before = copy.deepcopy(unit.state_dict())
    assert uses_fft(unit, (1, c_in, 8, 9))
    found = fold_fourier_unit(unit, (1, c_in, 40, 56))
    assert isinstance(found, SpectralFold), found
    assert found.error_float64 <= 1e-13 <= FOLD_FLOAT64_RELATIVE
    assert found.error_float32 <= 3e-6 <= FOLD_FLOAT32_RELATIVE
    assert not uses_fft(found.module, (1, c_in, 8, 9))
    assert all(parameter.dtype == torch.float32 for parameter in found.module.parameters())
    for size in ((1, 1), (2, 1), (1, 2), (3, 5), (6, 6), (45, 51), (48, 130)):
        x = torch.randn(2, c_in, *size)
        with torch.no_grad():
            wanted, got = unit(x), found.module(x)
        assert float((got - wanted).abs().max()) <= 3e-6 * float(wanted.abs().max())
    assert all(torch.equal(value, before[key]) for key, value in unit.state_dict().items()), "the unit is not touched"


class FixedFilter(nn.Module):
    """A factor for each frequency of 12x14."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 12, 8, dtype=torch.complex64))

    def forward(self, x):
        return torch.fft.irfft2(torch.fft.rfft2(x) * self.weight, s=x.shape[-2:])


@pytest.mark.parametrize(
    "unit, c_in, why",
    (
        (lambda: SpectralConvolution(2, 2, inside=lambda z: torch.complex(z.real.relu(), z.imag)), 2, "relative error"),
        (lambda: SpectralConvolution(2, 2, inside=lambda z: z * (z.abs() < 50)), 2, "relative error"),
        (lambda: SpectralConvolution(2, 2, column=True), 2, "relative error"),
        (lambda: SpectralConvolution(2, 2, before=nn.Conv2d(2, 2, 3, padding=1)), 2, "relative error"),
        (lambda: nn.Sequential(SpectralConvolution(2, 2), nn.PReLU()), 2, "relative error"),
        (lambda: nn.Sequential(SpectralConvolution(2, 2), nn.AvgPool2d(2)), 2, "changes the size of its input"),
        (lambda: SpectralConvolution(2, 2, inside=lambda z: z * torch.arange(z.shape[-1])), 2, "relative error"),
        (FixedFilter, 2, "does not run on an input of 3x2x6x8"),
    ),
    ids=("relu", "threshold", "half spectrum of the height", "3x3", "prelu", "pooled", "frequency", "fixed size"),
)
def test_what_is_not_of_this_form_is_refused_with_a_reason(unit, c_in, why):
    torch.manual_seed(0)
    found = fold_fourier_unit(unit().eval(), (1, c_in, 12, 14))
    assert isinstance(found, str)
    assert why in found


def test_shifting_a_spectrum_is_not_a_transform():
    class Shift(nn.Module):
        def forward(self, x):
            return torch.fft.fftshift(x) + torch.fft.fftfreq(x.shape[-1])

    assert not uses_fft(Shift(), (1, 2, 6, 6))


# --- graphs --------------------------------------------------------------------------------------------------------


def exported(module, x, dynamic):
    stream = io.BytesIO()
    axes = {"x": {2: "height", 3: "width"}} if dynamic else None
    with fixed_size(not dynamic):
        torch.onnx.export(module, (x,), stream, opset_version=17, input_names=["x"], dynamic_axes=axes, dynamo=False)
    return onnx.load_from_string(stream.getvalue())


def relative_to(module, model, size):
    x = torch.randn(1, 16, *size)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        wanted = module(x).numpy()
    return np.abs(session.run(None, {"x": x.numpy()})[0] - wanted).max() / np.abs(wanted).max()


def test_a_fixed_graph_holds_the_matrix_as_a_constant():
    unit = unit_of(FourierUnit, 16)
    model = exported(fold_fourier_unit(unit, (1, 16, 20, 25)).module, torch.randn(1, 16, 20, 25), dynamic=False)
    operators = [node.op_type for node in model.graph.node if node.op_type != "Constant"]
    assert sorted(operators) == ["Add", "Conv", "Conv", "MatMul"]
    assert relative_to(unit, model, (20, 25)) <= 1e-6


def test_a_dynamic_graph_is_right_at_every_size():
    unit = unit_of(FourierUnit, 16)
    model = exported(fold_fourier_unit(unit, (1, 16, 20, 24)).module, torch.randn(1, 16, 20, 24), dynamic=True)
    operators = {node.op_type for node in model.graph.node}
    assert operators <= {
        "Add", "Cast", "Constant", "Conv", "Cos", "Div", "Floor", "Gather", "MatMul", "Mul", "Range", "Reciprocal",
        "Shape", "Sin", "Sub", "Unsqueeze",
    }  # fmt: skip
    for size in ((20, 24), (1, 1), (7, 2), (45, 51), (6, 1079), (5, 1080)):
        assert relative_to(unit, model, size) <= 2e-6, size


@pytest.mark.parametrize("dynamic", (False, True), ids=("fixed", "dynamic"))
def test_tensorrt_rtx_builds_the_folded_unit(dynamic):
    trt = pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    unit = FoldedFourierUnit(torch.randn(16, 16), torch.randn(16, 16), torch.randn(16))
    model = exported(unit, torch.randn(1, 16, 20, 24), dynamic)
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    assert parser.parse(model.SerializeToString()), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 2
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    config.set_compute_capability(trt.ComputeCapability.SM120, 1)
    if dynamic:
        profile = builder.create_optimization_profile()
        profile.set_shape("x", (1, 16, 2, 2), (1, 16, 144, 144), (1, 16, 1080, 1080))
        config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None


# --- the published network -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ("f2srgan_x4.pt", "f2srgan_x2.pt"))
def test_the_published_units_fold(assets, name):
    stored = torch.load(assets / "weights" / name, map_location="cpu", weights_only=True)["model"]
    keys = [key for key in stored if key.endswith("complex_weight")]
    assert len(keys) == 16
    for key in keys:
        unit = FourierUnit(stored[key].shape[0]).eval()
        unit.complex_weight.data.copy_(stored[key])
        found = fold_fourier_unit(unit, (1, stored[key].shape[1], 24, 29))
        assert isinstance(found, SpectralFold), found
        assert found.error_float64 <= 1e-13
        assert found.error_float32 <= 3e-6
