"""SwinIR (Liang 2021, arXiv 2108.10257): shifted-window attention; classical, lightweight and real-world forms.

Facts from the authors' repository JingyunLiang/SwinIR. Takes and gives RGB in 0…1.

The forward pass is written so that one traced graph is right at every size: the masks of the shifted windows follow from
the traced height and width, the cyclic shift is slices and a concatenation, and nothing stored in the file depends on a
size. The mask is one part per row of windows and one per column instead of a tensor over all windows, because a graph
fixed to 1080x1080 would otherwise carry 300 MB of it as a constant. Two pixels of the last window that are apart both ways
get −200 where the published code gives −100; the softmax of both is zero in float32 unless a logit that must be
ignored is larger by 80 than all that count.

Published counts at ×2. Lightweight, 878 K and 195.6 G: the 910,152 weights without the 32,400 of the relative-position
tables, and the ``flops()`` of the authors' code, which takes 3 for the 9 of the last body convolution and for the 12
colours of the upsampling, at an input of 368x520, not 360x640. Mini, 98.8 K: all 98,868 weights, cut off, not rounded.
All convolutions, linear layers and attention products at 360x640 are 240.91 G and 26.76 G.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import nn

from sr_deploy.core.contract import SizeRules
from sr_deploy.core.errors import BadCheckpoint
from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors
from sr_deploy.models.edsr import RGB_MEAN, pixel_shuffle_stages, scale_of_stages
from sr_deploy.models.loading import load_strictly
from sr_deploy.models.shapes import check_asked, shuffle_scale, width_of

#: Added to the logit of a pixel pair that the cyclic shift brought together.
BLOCKED = -100.0
#: Buffers of the published code that depend on the training size; both are computed here.
SIZE_BUFFERS = (".attn_mask", ".relative_position_index")

#: Mask parts of the shifted windows: per row of windows (rows, 1, 1, n, n) and per column (columns, 1, n, n); n = window².
Masks = Tuple[torch.Tensor, torch.Tensor]


def relative_position_index(window: int) -> torch.Tensor:
    """Row of the bias table for each pair of pixels of a window: integers (n, n), n = window²; pixels row by row."""
    rows, columns = (axis.flatten() for axis in torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
    down = rows[:, None] - rows[None, :] + window - 1
    right = columns[:, None] - columns[None, :] + window - 1
    return down * (2 * window - 1) + right


def shifted(x: torch.Tensor, shift: int) -> torch.Tensor:
    """(N, H, W, C) rolled up and left by ``shift`` pixels; a negative shift rolls back."""
    x = torch.cat([x[:, shift:], x[:, :shift]], dim=1)
    return torch.cat([x[:, :, shift:], x[:, :, :shift]], dim=2)


def shift_masks(height: int, width: int, window: int, like: torch.Tensor) -> Masks:
    """Which pixels of a shifted window come from opposite borders of the picture.

    Args:
        height, width: of the feature map, multiples of ``window``; may be traced.
        window: side of a window.
        like: gives type and device.

    Returns:
        Addends of the logits: 0 or ``BLOCKED``, for the rows and for the columns of windows.
    """
    position = torch.arange(window * window, device=like.device)
    apart = []
    for length, inside in ((height, position // window), (width, position % window)):
        # Only the last window along an axis holds pixels of two borders: those that the shift moved there come last.
        wrapped = (inside >= window - window // 2).to(like.dtype)
        differ = (wrapped[:, None] - wrapped[None, :]).abs()
        number = torch.arange(length // window, device=like.device)
        last = (number == length // window - 1).to(like.dtype)
        apart.append(last.view(-1, 1, 1, 1) * differ * BLOCKED)
    return apart[0].unsqueeze(1), apart[1]


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned bias per relative position.

    Args:
        dim: channels.
        window: side of a window, pixels.
        heads: attention heads; divides ``dim``.
        qkv_bias: whether the joint projection has a bias.
    """

    def __init__(self, dim: int, window: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.dim, self.heads, self.pixels = dim, heads, window * window
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("index", relative_position_index(window).flatten(), persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, windows: torch.Tensor, masks: Optional[Masks]) -> torch.Tensor:
        """Attend inside each window.

        Args:
            windows: (N·rows·columns, n, C), n = window².
            masks: for shifted windows; else None.

        Returns:
            (N·rows·columns, n, C).
        """
        n, heads = self.pixels, self.heads
        query, key, value = (
            part.reshape(-1, n, heads, self.dim // heads).transpose(1, 2) for part in self.qkv(windows).chunk(3, dim=-1)
        )
        logits = (query * (self.dim // heads) ** -0.5) @ key.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.index].view(n, n, heads).permute(2, 0, 1)
        if masks is None:
            logits = logits + bias
        else:
            by_row, by_column = masks
            grid = logits.reshape(-1, by_row.shape[0], by_column.shape[0], heads, n, n)
            logits = (grid + (by_row + bias) + by_column).reshape(-1, heads, n, n)
        mixed = logits.softmax(dim=-1) @ value
        return self.proj(mixed.transpose(1, 2).reshape(-1, n, self.dim))


class FeedForward(nn.Module):
    """Linear, GELU, linear over the last axis."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, dim) to (…, dim)."""
        return self.fc2(self.act(self.fc1(x)))


@dataclass(frozen=True)
class SwinShape:
    """Widths shared by all blocks of one group.

    Attributes:
        dim: channels.
        window: side of a window, pixels.
        heads: attention heads.
        hidden: width of the feed-forward part.
        qkv_bias: whether the joint projection has a bias.
    """

    dim: int
    window: int
    heads: int
    hidden: int
    qkv_bias: bool


class SwinBlock(nn.Module):
    """Window attention and feed-forward, each normalised before and added to its input; (N, H, W, C) in and out."""

    def __init__(self, shape: SwinShape, is_shifted: bool) -> None:
        super().__init__()
        self.dim, self.window = shape.dim, shape.window
        self.shift = shape.window // 2 if is_shifted else 0
        self.norm1 = nn.LayerNorm(shape.dim)
        self.attn = WindowAttention(shape.dim, shape.window, shape.heads, shape.qkv_bias)
        self.norm2 = nn.LayerNorm(shape.dim)
        self.mlp = FeedForward(shape.dim, shape.hidden)

    def forward(self, x: torch.Tensor, masks: Masks) -> torch.Tensor:
        """Run the block; H and W are multiples of the window."""
        dim, window = self.dim, self.window
        rows, columns = masks[0].shape[0], masks[1].shape[0]
        y = self.norm1(x)
        if self.shift:
            y = shifted(y, self.shift)
        y = y.reshape(-1, rows, window, columns, window, dim).transpose(2, 3).reshape(-1, window * window, dim)
        y = self.attn(y, masks if self.shift else None)
        y = y.reshape(-1, rows, columns, window, window, dim).transpose(2, 3)
        y = y.reshape(-1, rows * window, columns * window, dim)
        if self.shift:
            y = shifted(y, -self.shift)
        x = x + y
        return x + self.mlp(self.norm2(x))


class SwinBlocks(nn.Module):
    """The Swin blocks of one group, every second one shifted."""

    def __init__(self, depth: int, shape: SwinShape) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SwinBlock(shape, is_shifted=bool(number % 2)) for number in range(depth))

    def forward(self, x: torch.Tensor, masks: Masks) -> torch.Tensor:
        """(N, H, W, C) to (N, H, W, C)."""
        for block in self.blocks:
            x = block(x, masks)
        return x


class SwinGroup(nn.Module):
    """Swin blocks, a convolution, and the group's input added (RSTB): (N, H, W, C) to (N, H, W, C)."""

    def __init__(self, depth: int, shape: SwinShape, three_convs: bool) -> None:
        super().__init__()
        self.residual_group = SwinBlocks(depth, shape)
        self.conv = _body_convolution(shape.dim, three_convs)

    def forward(self, x: torch.Tensor, masks: Masks) -> torch.Tensor:
        """Run the group."""
        y = self.residual_group(x, masks).permute(0, 3, 1, 2)
        return x + self.conv(y).permute(0, 2, 3, 1)


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

    def __init__(self, depths: Sequence[int], shapes: Sequence[SwinShape], three_convs: bool, scale: int) -> None:
        super().__init__()
        dim = shapes[0].dim
        self.window, self.scale = shapes[0].window, scale
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(3, dim, 3, padding=1)
        self.patch_embed = PatchNorm(dim)
        self.layers = nn.ModuleList(SwinGroup(depth, shape, three_convs) for depth, shape in zip(depths, shapes))
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = _body_convolution(dim, three_convs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Upscale a batch; H and W at least window // 2 + 1, since reflection cannot add more than there is."""
        height, width, window = x.shape[2], x.shape[3], self.window
        down, right = (window - height % window) % window, (window - width % window) % window
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


def _body_convolution(dim: int, three_convs: bool) -> nn.Module:
    if not three_convs:
        return nn.Conv2d(dim, dim, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(dim, dim // 4, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim // 4, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim, 3, padding=1),
    )


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
        notes=(f"{tables:,} of the parameters are tables of relative-position biases, which some published counts leave out",),
    )


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
)
