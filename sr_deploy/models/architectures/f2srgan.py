"""F2SRGAN, its QAT file, and the distilled student with its pruned Light form.

Facts from the authors' repositories bibom108/F2SRGAN and khanhhungvu1508/Light-F2SRGAN. Takes and gives RGB in 0…255;
two stored 1x1 convolutions subtract and add the mean.
"""

from __future__ import annotations

from typing import Dict, List, Tuple

import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import Literal

from sr_deploy.core.contract import SizeRules
from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors, Training
from sr_deploy.models.loading import load_strictly
from sr_deploy.models.shapes import check_asked, width_of

#: How often the student's forward pass runs its second group of blocks; the groups 3 and 4 are never run.
SECOND_GROUP_RUNS = 3
#: What fake-quantisation observers store; theirs was switched off, the network is FP32.
OBSERVED = ("x_min", "x_max", "beta", "beta_t")
DEAD_GROUPS = ("residual3.", "residual4.")


Border = Literal["zeros", "reflect"]


class SeparableConv(nn.Sequential):
    """A depthwise convolution, then a 1x1 convolution with bias.

    Args:
        c_in, c_out: channels.
        kernel: of the depthwise convolution, odd; the size is kept.
        bias: of the depthwise convolution.
        padding_mode: "zeros" or "reflect".
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 3,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect"] = "zeros",
    ) -> None:
        super().__init__(
            nn.Conv2d(c_in, c_in, kernel, padding=kernel // 2, groups=c_in, bias=bias, padding_mode=padding_mode),
            nn.Conv2d(c_in, c_out, 1),
        )


class FourierUnit(nn.Module):
    """The published complex Fourier unit: a 1x1 complex convolution between a real FFT and its inverse.

    The shifts run over every axis, so the channels are rotated too; the checkpoints depend on it.

    Args:
        channels: in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.complex_weight = nn.Parameter(torch.zeros(channels, channels, 1, 1, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C, H, W), real."""
        kernel = torch.view_as_complex(self.complex_weight)[:, :, 0, 0]
        spectrum = torch.fft.fftshift(torch.fft.rfft2(x, norm="ortho"))
        spectrum = torch.fft.ifftshift(torch.einsum("oi,nihw->nohw", kernel, spectrum))
        return torch.fft.irfft2(spectrum, s=x.shape[-2:], norm="ortho")


class SpectralTransform(nn.Module):
    """Fourier unit of the whole picture and of its four quarters side by side, between two 1x1 stages."""

    def __init__(self, c_in: int, c_out: int, middle: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(SeparableConv(c_in, middle, kernel=1, bias=False), nn.ReLU())
        self.fu = FourierUnit(middle)
        self.lfu = FourierUnit(middle)
        self.conv2 = SeparableConv(middle, c_out, kernel=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, c_in, H, W) to (N, c_out, H, W)."""
        x = self.conv1(x)
        return self.conv2(x + self.fu(x) + self._of_quarters(x))

    def _of_quarters(self, x: torch.Tensor) -> torch.Tensor:
        """The local unit: quarters of the first quarter of the channels, transformed as one, laid out four times.

        The last row (column) of an odd height (width) belongs to no quarter and gets zeros. Half of a length is read
        off a strided slice instead of divided, because a traced graph then holds no integer division, which
        TensorRT's older parsers do badly on shapes.
        """
        part = x[:, : x.shape[1] // 4]
        height, width = part[:, :, 1::2].shape[2], part[:, :, :, 1::2].shape[3]
        halves = torch.cat([part[:, :, :height], part[:, :, height : 2 * height]], dim=1)
        quarters = torch.cat([halves[..., :width], halves[..., width : 2 * width]], dim=1)
        local = self.lfu(quarters)
        local = torch.cat([local, local], dim=2)
        local = torch.cat([local, local], dim=3)
        return F.pad(local, (0, x.shape[3] - 2 * width, 0, x.shape[2] - 2 * height))


class FourierConv(nn.Module):
    """FFC: the first channels are local, the others global; each part is made from both.

    Args:
        width: channels in.
        out: channels out.
        local_in, local_out: how many of them are local.
        middle: channels inside the spectral transform.
    """

    def __init__(self, width: int, out: int, local_in: int, local_out: int, middle: int) -> None:
        super().__init__()
        self.local_in = local_in
        self.convl2l = SeparableConv(local_in, local_out, padding_mode="reflect")
        self.convl2g = SeparableConv(local_in, out - local_out, padding_mode="reflect")
        self.convg2l = SeparableConv(width - local_in, local_out, padding_mode="reflect")
        self.convg2g = SpectralTransform(width - local_in, out - local_out, middle)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, width, H, W) to (N, out, H, W); H and W at least 2, for the reflection and the quarters."""
        near, far = x[:, : self.local_in], x[:, self.local_in :]
        return torch.cat([self.convl2l(near) + self.convg2l(far), self.convl2g(near) + self.convg2g(far)], dim=1)


class ResidualBlock(nn.Module):
    """Two convolution blocks; a tenth of their output is added to the input."""

    def __init__(self, first: nn.Module, middle: int, width: int) -> None:
        super().__init__()
        self.block1 = nn.Sequential(first, nn.PReLU(middle))
        self.block2 = nn.Sequential(SeparableConv(middle, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        return self.block2(self.block1(x)) * 0.1 + x


class _Frame(nn.Module):
    """What the full network and the student share: mean, first convolution, upsampling, last convolution."""

    def __init__(self, width: int, stages: int) -> None:
        super().__init__()
        self.initial = nn.Sequential(SeparableConv(3, width))
        upsampling: List[nn.Module] = []
        for _ in range(stages):
            upsampling += [SeparableConv(width, 4 * width), nn.PixelShuffle(2), nn.PReLU(width)]
        self.upsampler = nn.Sequential(*upsampling)
        self.final_conv = SeparableConv(width, 3)
        self.sub_mean = nn.Conv2d(3, 3, 1)
        self.add_mean = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) in 0…255 to (N, 3, scale·H, scale·W), which may leave that range."""
        shallow = self.initial(self.sub_mean(x))
        return self.add_mean(self.final_conv(self.upsampler(self.body(shallow) + shallow)))

    def body(self, x: torch.Tensor) -> torch.Tensor:
        """The residual blocks, (N, C, H, W) to (N, C, H, W)."""
        raise NotImplementedError


class F2SRGANNetwork(_Frame):
    """The full generator.

    Args:
        width: channels of the body.
        stages: x2 upsampling stages.
        blocks: the residual blocks, in order.
    """

    def __init__(self, width: int, stages: int, blocks: List[ResidualBlock]) -> None:
        super().__init__(width, stages)
        self.residual = nn.Sequential(*blocks)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        """Every block once."""
        return self.residual(x)


class StudentNetwork(_Frame):
    """The distilled generator, pruned or not: its second group of blocks runs three times with the same weights.

    Args:
        width: channels of the body.
        stages: x2 upsampling stages.
        first, second: the two groups' residual blocks, in order.
    """

    def __init__(self, width: int, stages: int, first: List[ResidualBlock], second: List[ResidualBlock]) -> None:
        super().__init__(width, stages)
        self.residual1 = nn.Sequential(*first)
        self.residual2 = nn.Sequential(*second)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        """The first group once, the second ``SECOND_GROUP_RUNS`` times."""
        x = self.residual1(x)
        for _ in range(SECOND_GROUP_RUNS):
            x = self.residual2(x)
        return x


def _blocks(tensors: Tensors, group: str, width: int, name: str) -> List[ResidualBlock]:
    """A group's residual blocks, each as wide as its own shapes say, with an FFC where its keys say so."""
    indices = {key.split(".")[1] for key in tensors if key.startswith(f"{group}.")}
    out = []
    for index in range(len(indices)):
        prefix = f"{group}.{index}.block1"
        middle = width_of(tensors, f"{prefix}.1.weight", name)
        if f"{prefix}.0.convl2l.0.weight" in tensors:
            local_in = width_of(tensors, f"{prefix}.0.convl2l.0.weight", name)
            local_out = width_of(tensors, f"{prefix}.0.convl2l.1.weight", name)
            spectral = width_of(tensors, f"{prefix}.0.convg2g.fu.complex_weight", name)
            first: nn.Module = FourierConv(width, middle, local_in, local_out, spectral)
        else:
            first = SeparableConv(width, middle)
        out.append(ResidualBlock(first, middle, width))
    return out


def _stages(tensors: Tensors) -> int:
    """How many x2 upsampling stages are stored."""
    stages = 0
    while f"upsampler.{3 * stages}.0.weight" in tensors:
        stages += 1
    return stages


def _without_observers(tensors: Tensors) -> Tuple[Dict[str, torch.Tensor], Tuple[str, ...]]:
    """The weights, and a note when observers were dropped."""
    kept = {key: value for key, value in tensors.items() if key.rpartition(".")[2] not in OBSERVED}
    dropped = len(tensors) - len(kept)
    if not dropped:
        return kept, ()
    note = (
        f"{dropped} observers ({', '.join(OBSERVED)}) are dropped: their fake quantisation is switched off "
        "in the published forward pass, so this is a fine-tuned FP32 network"
    )
    return kept, (note,)


def _count(tensors: Tensors) -> int:
    return sum(value.numel() for value in tensors.values())


def _load_full(tensors: Tensors, asked: Asked) -> LoadedModel:
    """Build the full generator. Raises BadCheckpoint, UsageError."""
    name = "F2SRGAN"
    live, notes = _without_observers(tensors)
    width, stages = width_of(live, "initial.0.1.weight", name), _stages(live)
    check_asked(asked, name, 2**stages)
    blocks = _blocks(live, "residual", width, name)
    fourier = [index for index, block in enumerate(blocks) if isinstance(block.block1[0], FourierConv)]
    return LoadedModel(
        module=load_strictly(F2SRGANNetwork(width, stages, blocks), live, name),
        architecture=name,
        form="folded",
        scale=2**stages,
        value_range=255.0,
        sizes=SizeRules(minimum=2 if fourier else 1),
        hyperparameters={"width": width, "blocks": len(blocks), "fourier_blocks": fourier},
        parameters=_count(live),
        notes=notes,
    )


def _load_student(tensors: Tensors, asked: Asked) -> LoadedModel:
    """Build the student or its pruned form. Raises BadCheckpoint, UsageError.

    ``parameters`` counts the dead weights too, as published (113,145 and 77,865); without them it is what the
    hyperparameter ``used_parameters`` says.
    """
    name = "F2SRGAN-student"
    stored, notes = _without_observers(tensors)
    live = {key: value for key, value in stored.items() if not key.startswith(DEAD_GROUPS)}
    width, stages = width_of(live, "initial.0.1.weight", name), _stages(live)
    check_asked(asked, name, 2**stages)
    first, second = (_blocks(live, group, width, name) for group in ("residual1", "residual2"))
    dead = _count(stored) - _count(live)
    if dead:
        notes += (
            f"residual3 and residual4 ({dead} weights) are stored and never used: the published forward pass runs "
            f"residual1 once and residual2 {SECOND_GROUP_RUNS} times; the published parameter count includes them",
        )
    return LoadedModel(
        module=load_strictly(StudentNetwork(width, stages, first, second), live, name),
        architecture=name,
        form="folded",
        scale=2**stages,
        value_range=255.0,
        sizes=SizeRules(minimum=2 if any(isinstance(block.block1[0], FourierConv) for block in first + second) else 1),
        hyperparameters={
            "width": width,
            "inner_widths": [block.block1[1].num_parameters for block in first + second],
            "second_group_runs": SECOND_GROUP_RUNS,
            "used_parameters": _count(live),
        },
        parameters=_count(stored),
        notes=notes,
    )


def _detect_full(tensors: Tensors) -> bool:
    return all(key in tensors for key in F2SRGAN.signature)


def _detect_student(tensors: Tensors) -> bool:
    return all(key in tensors for key in F2SRGAN_STUDENT.signature)


#: The mean shifts.
_FIXED = ("sub_mean.", "add_mean.")

F2SRGAN = Architecture(
    name="F2SRGAN",
    detect=_detect_full,
    load=_load_full,
    signature=("initial.0.1.weight", "residual.0.block1.1.weight", "upsampler.0.0.weight", "sub_mean.weight"),
    about="fast Fourier convolutions; x2, x4 and the QAT file",
    training=Training(features=r"residual\.\d+", deep=("residual.",), fixed=_FIXED),
)

F2SRGAN_STUDENT = Architecture(
    name="F2SRGAN-student",
    detect=_detect_student,
    load=_load_student,
    signature=("initial.0.1.weight", "residual1.0.block1.1.weight", "residual2.0.block1.1.weight", "sub_mean.weight"),
    about="distilled F2SRGAN, and Light: the same with pruned widths",
    training=Training(features=r"residual[12]\.\d+", deep=("residual1.", "residual2."), fixed=_FIXED),
)
