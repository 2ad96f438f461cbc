"""Spectral blocks as users write them, for the tests: own writing after the published descriptions."""

from __future__ import annotations

import io
from typing import Optional, Tuple

import onnx
import torch
import torch.nn.functional as F
from torch import nn


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


class PhaseBlock(nn.Module):
    """Magnitude changed, phase kept, by torch.polar and the whole (not half) transform."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        z = torch.fft.fft2(x, norm="forward")
        z = torch.polar(F.softplus(self.conv(torch.abs(z))), torch.angle(z))
        return torch.fft.ifft2(z, norm="forward").real


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
