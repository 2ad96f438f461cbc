"""SwinIR (Liang 2021, arXiv 2108.10257): shifted-window attention; classical, lightweight and real-world forms.

Facts from the authors' repository JingyunLiang/SwinIR. Takes and gives RGB in 0…1. Nothing that the file stores for one
size (attention masks, position indices) is used.

Published counts at ×2. Lightweight, 878 K and 195.6 G: the 910,152 weights without the 32,400 of the relative-position
tables, and the ``flops()`` of the authors' code, which takes 3 for the 9 of the last body convolution and 3 for the 12
outputs of the upsampling, at an input of 368x520, not 360x640. Mini, 98.8 K: all 98,868 weights, cut off, not rounded;
its 22.0 G follows from neither size (``flops()`` gives 21.3 G and 25.6 G). All convolutions, linear layers and
attention products at 360x640 are 240.91 G and 26.76 G.
"""

from __future__ import annotations

import math
from typing import List, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import nn

from sr_deploy.core.contract import SizeRules
from sr_deploy.core.errors import BadCheckpoint
from sr_deploy.models.architectures.edsr import RGB_MEAN, pixel_shuffle_stages, scale_of_stages
from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors, Training
from sr_deploy.models.blocks.swin import SwinGroup, SwinShape, body_convolution, shift_masks
from sr_deploy.models.loading import load_strictly
from sr_deploy.models.shapes import check_asked, shuffle_scale, width_of
from sr_deploy.models.start import pass_colours, repeat_colours, silence_colours

#: Buffers of the published code; the masks are for the training size. Both are computed here, never taken from a file.
SIZE_BUFFERS = (".attn_mask", ".relative_position_index")


class PatchNorm(nn.Module):
    """The LayerNorm over channels after the first convolution, under its published name; (N, H, W, C) in and out."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise."""
        return self.norm(x)


class SwinIR(nn.Module):
    """Body of all forms; the three below add their upsampling. (N, 3, H, W) to (N, 3, scale·H, scale·W), both in 0…1.

    Args:
        depths: Swin blocks of each group.
        shapes: widths of each group; dim and window are the same in all.
        three_convs: bottlenecks of three convolutions in the body instead of single ones.
        scale: output size over input size.
    """

    mean: torch.Tensor

    def __init__(self, depths: Sequence[int], shapes: Sequence[SwinShape], three_convs: bool, scale: int) -> None:
        super().__init__()
        dim = shapes[0].dim
        self.window, self.scale = shapes[0].window, scale
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(3, dim, 3, padding=1)
        self.patch_embed = PatchNorm(dim)
        self.layers = nn.ModuleList(SwinGroup(depth, shape, three_convs) for depth, shape in zip(depths, shapes))
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = body_convolution(dim, three_convs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Upscale a batch; H and W at least window // 2 + 1, since reflection cannot add more than there is."""
        height, width, window = x.shape[2], x.shape[3], self.window
        # Without %, which the exporter writes as Mod: TensorRT 8.5 has no such operator. And nothing negative is
        # divided: ONNX's Div of integers rounds towards zero.
        down, right = ((length + window - 1) // window * window - length for length in (height, width))
        padded = F.pad(x, (0, right, 0, down), mode="reflect")
        shallow = self.conv_first(padded - self.mean)
        masks = shift_masks(shallow.shape[2], shallow.shape[3], window, shallow)
        y = self.patch_embed(shallow.permute(0, 2, 3, 1))
        for layer in self.layers:
            y = layer(y, masks)
        deep = self.conv_after_body(self.norm(y).permute(0, 3, 1, 2)) + shallow
        return (self.upsampled(deep) + self.mean)[:, :, : height * self.scale, : width * self.scale]

    def upsampled(self, deep: torch.Tensor) -> torch.Tensor:
        """Features (N, C, H, W) to colours (N, 3, scale·H, scale·W), mean subtracted; each form has its own."""
        raise NotImplementedError


class LightweightSwinIR(SwinIR):
    """``pixelshuffledirect``: one convolution and one pixel shuffle."""

    def __init__(self, depths: Sequence[int], shapes: Sequence[SwinShape], three_convs: bool, scale: int) -> None:
        super().__init__(depths, shapes, three_convs, scale)
        self.upsample = nn.Sequential(nn.Conv2d(shapes[0].dim, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def upsampled(self, deep: torch.Tensor) -> torch.Tensor:
        """See ``SwinIR``."""
        return self.upsample(deep)


class ClassicalSwinIR(SwinIR):
    """``pixelshuffle``: EDSR's upsampling between two convolutions; ``features`` channels."""

    def __init__(
        self, depths: Sequence[int], shapes: Sequence[SwinShape], three_convs: bool, scale: int, features: int
    ) -> None:
        super().__init__(depths, shapes, three_convs, scale)
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(shapes[0].dim, features, 3, padding=1), nn.LeakyReLU(0.01))
        self.upsample = pixel_shuffle_stages(features, scale)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    def upsampled(self, deep: torch.Tensor) -> torch.Tensor:
        """See ``SwinIR``."""
        return self.conv_last(self.upsample(self.conv_before_upsample(deep)))


class RealWorldSwinIR(SwinIR):
    """``nearest+conv``: ×4 by doubling pixels twice, each time followed by a convolution; ``features`` channels."""

    def __init__(
        self, depths: Sequence[int], shapes: Sequence[SwinShape], three_convs: bool, scale: int, features: int
    ) -> None:
        super().__init__(depths, shapes, three_convs, scale)
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(shapes[0].dim, features, 3, padding=1), nn.LeakyReLU(0.01))
        self.conv_up1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up2 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)
        self.lrelu = nn.LeakyReLU(0.2)

    def upsampled(self, deep: torch.Tensor) -> torch.Tensor:
        """See ``SwinIR``."""
        y = self.conv_before_upsample(deep)
        for convolution in (self.conv_up1, self.conv_up2):
            y = self.lrelu(convolution(F.interpolate(y, scale_factor=2.0, mode="nearest")))
        return self.conv_last(self.lrelu(self.conv_hr(y)))


def _block(group: int, number: int) -> str:
    """Prefix of the keys of a Swin block."""
    return f"layers.{group}.residual_group.blocks.{number}."


def _depths(tensors: Tensors) -> List[int]:
    """Number of Swin blocks of each group."""
    depths: List[int] = []
    while f"{_block(len(depths), 0)}norm1.weight" in tensors:
        group, number = len(depths), 1
        while f"{_block(group, number)}norm1.weight" in tensors:
            number += 1
        depths.append(number)
    return depths


def _group_shape(tensors: Tensors, group: int) -> SwinShape:
    """Widths of one group, read off its first block.

    Raises:
        BadCheckpoint: a key is missing, the bias table is not of a square window, or heads do not divide the channels.
    """
    prefix = _block(group, 0)
    table = f"{prefix}attn.relative_position_bias_table"
    positions, heads = width_of(tensors, table, "SwinIR"), width_of(tensors, table, "SwinIR", axis=1)
    dim = width_of(tensors, "conv_first.weight", "SwinIR")
    side = math.isqrt(positions)
    if side * side != positions or side % 2 == 0 or heads == 0 or dim % heads:
        raise BadCheckpoint(
            f"{table} is {positions}x{heads}, which is no SwinIR with {dim} channels",
            "(2·window − 1)² rows and as many columns as heads, which divide the channels",
            "check that the file is whole and not of a variant; srdeploy inspect FILE lists its shapes",
        )
    hidden = width_of(tensors, f"{prefix}mlp.fc1.weight", "SwinIR")
    return SwinShape(dim, (side + 1) // 2, heads, hidden, f"{prefix}attn.qkv.bias" in tensors)


def _detect(tensors: Tensors) -> bool:
    keys = ("conv_first.weight", f"{_block(0, 0)}attn.relative_position_bias_table", f"{_block(0, 0)}mlp.fc1.weight")
    return all(key in tensors for key in keys)


def _network(tensors: Tensors, depths: List[int], shapes: List[SwinShape], three_convs: bool) -> Tuple[SwinIR, str]:
    """The form that the keys of the upsampling show, and its published name.

    Raises:
        BadCheckpoint: no upsampling (denoising, JPEG), or one that is not known.
    """
    if "conv_before_upsample.0.weight" in tensors:
        features = width_of(tensors, "conv_before_upsample.0.weight", "SwinIR")
        if "conv_up1.weight" in tensors:
            return RealWorldSwinIR(depths, shapes, three_convs, 4, features), "nearest+conv"
        scale = scale_of_stages(tensors, "upsample.", "SwinIR")
        return ClassicalSwinIR(depths, shapes, three_convs, scale, features), "pixelshuffle"
    if "upsample.0.weight" in tensors:
        scale = shuffle_scale(tensors, "upsample.0.weight", "SwinIR")
        return LightweightSwinIR(depths, shapes, three_convs, scale), "pixelshuffledirect"
    raise BadCheckpoint(
        "this SwinIR has no upsampling: it is for denoising or JPEG artefacts",
        "a super-resolution network: keys upsample.* or conv_up1.*",
        "take a super-resolution checkpoint, or hand in your own network with --model pkg.module:factory",
    )


def _load(tensors: Tensors, asked: Asked) -> LoadedModel:
    kept = {key: value for key, value in tensors.items() if not key.endswith(SIZE_BUFFERS)}
    depths = _depths(kept)
    shapes = [_group_shape(kept, group) for group in range(max(len(depths), 1))]
    three_convs = "layers.0.conv.0.weight" in kept
    network, upsampler = _network(kept, depths, shapes, three_convs)
    check_asked(asked, "SwinIR", network.scale)
    module = load_strictly(network, kept, "SwinIR")
    parameters = {name: value.numel() for name, value in module.named_parameters()}
    tables = sum(count for name, count in parameters.items() if name.endswith("relative_position_bias_table"))
    return LoadedModel(
        module=module,
        architecture="SwinIR",
        form="folded",
        scale=network.scale,
        value_range=1.0,
        sizes=SizeRules(minimum=network.window // 2 + 1),
        hyperparameters={
            "width": shapes[0].dim,
            "depths": depths,
            "heads": [shape.heads for shape in shapes],
            "window": network.window,
            "mlp_ratio": shapes[0].hidden / shapes[0].dim,
            "upsampler": upsampler,
            "resi_connection": "3conv" if three_convs else "1conv",
        },
        parameters=sum(parameters.values()),
        notes=(f"{tables:,} parameters are tables of relative-position biases, which some published counts leave out",),
    )


def fresh_swinir(
    scale: int,
    width: int = 60,
    depths: Sequence[int] = (6, 6, 6, 6),
    heads: int = 6,
    window: int = 8,
    mlp_ratio: float = 2,
) -> LightweightSwinIR:
    """The lightweight form as its training begins, see ``start.py``; linear layers and tables as the authors draw them.

    Args:
        scale: upscaling.
        width: channels of the body, a multiple of ``heads``.
        depths: Swin blocks of each group.
        heads, window: of the attention.
        mlp_ratio: width of the feed-forward parts over ``width``.
    """
    shape = SwinShape(width, window, heads, int(width * mlp_ratio), True)
    network = LightweightSwinIR(depths, [shape] * len(depths), False, scale)
    for name, parameter in network.named_parameters():
        if name.endswith("relative_position_bias_table"):
            nn.init.trunc_normal_(parameter, std=0.02)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    last = network.upsample[0]
    assert isinstance(last, nn.Conv2d) and isinstance(network.conv_after_body, nn.Conv2d)
    pass_colours(network.conv_first)
    silence_colours(network.conv_after_body)
    repeat_colours(last, scale)
    return network


SWINIR = Architecture(
    name="SwinIR",
    detect=_detect,
    load=_load,
    signature=(
        "conv_first.weight",
        "patch_embed.norm.weight",
        "layers.0.residual_group.blocks.0.attn.relative_position_bias_table",
        "layers.0.residual_group.blocks.0.attn.qkv.weight",
        "layers.0.residual_group.blocks.0.mlp.fc1.weight",
        "layers.0.conv.weight|layers.0.conv.0.weight",
    ),
    about="SwinIR classical, lightweight, real-world, SwinIRmini; any width, depth and window",
    training=Training(fresh_swinir, features=r"layers\.\d+\.conv", deep=("layers.",)),
)
