"""Swin transformer blocks on (N, H, W, C) feature maps, traced so that one graph is right at every size.

Facts from JingyunLiang/SwinIR (Swin: Liu 2021, arXiv 2103.14030). The masks of the shifted windows follow from the
traced height and width, and the cyclic shift is slices and a concatenation. A mask has one part per row of windows and
one per column instead of a tensor over all windows, because a graph fixed to 1080x1080 would otherwise carry 300 MB of
it as a constant. Two pixels of the last window that are apart both ways get −200 where the published code gives −100;
the softmax of both is zero in float32 unless a logit that must be ignored is larger by 80 than all that count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import torch
from torch import nn

#: Added to the logit of a pixel pair that the cyclic shift brought together.
BLOCKED = -100.0

#: Masks of the shifted windows: per row (rows, 1, 1, n, n) and per column (columns, 1, n, n) of windows, n = window².
Masks = Tuple[torch.Tensor, torch.Tensor]


def relative_position_index(window: int) -> torch.Tensor:
    """Row of the bias table for each pair of pixels of a window: integers (n, n), n = window²; pixels row by row."""
    position = torch.arange(window * window)
    rows, columns = position // window, position % window
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

    index: torch.Tensor

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
        self.conv = body_convolution(shape.dim, three_convs)

    def forward(self, x: torch.Tensor, masks: Masks) -> torch.Tensor:
        """Run the group."""
        y = self.residual_group(x, masks).permute(0, 3, 1, 2)
        return x + self.conv(y).permute(0, 2, 3, 1)


def body_convolution(dim: int, three_convs: bool) -> nn.Module:
    """The convolution at the end of a group: (N, dim, H, W) in and out, one 3x3 or a bottleneck of three."""
    if not three_convs:
        return nn.Conv2d(dim, dim, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(dim, dim // 4, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim // 4, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim, 3, padding=1),
    )
