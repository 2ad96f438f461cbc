"""Is a block affine, and which single convolution is it? Both answered by running it in float64.

A block f that is affine and shift-equivariant is y = K * x + b. Its bias is f(0) far from the border, its kernel the
response f(e) - f(0) to an impulse e in each input channel. What it does at the border is not assumed: the padding modes
of ``nn.Conv2d`` are tried in turn by ``prove.py``.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Iterator, List, Optional, Tuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from sr_deploy.core.tolerance import FOLD_FLOAT64_RELATIVE
from sr_deploy.fold.double import run_block
from sr_deploy.fold.result import Kept

#: The largest kernel that folding makes, pixels a side.
LARGEST_KERNEL = 15
#: Kernel entries below this part of the largest one are rounding of the probe, not weights.
ROUNDING = 1e-13
#: A block with a larger relative defect is called not affine, one with a smaller nearly affine.
FAR_FROM_AFFINE = 1e-3
#: Height and width of the picture that blocks are tested on first, where they take one so small.
SMALL_EDGE = 16
#: Inputs of these magnitudes are tried: a nonlinearity may hide at any of them.
MAGNITUDES = (1.0, 1e-3, 1e3, 1e6)

Pair = Tuple[int, int]


@dataclass(frozen=True)
class Kernel:
    """The convolution that a block is, far from the border.

    Attributes:
        weight: (C_out, C_in / groups, height, width), float64.
        bias: (C_out,), float64.
        padding: rows and columns that the block adds on each side to give the output size it gives.
        groups: the largest number of groups that the weights allow.
        dilation: the distance of neighbouring taps in rows and columns.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    padding: Pair
    groups: int
    dilation: Pair = (1, 1)

    @property
    def macs(self) -> int:
        """Multiply-accumulates per output pixel, all output channels together."""
        return self.weight.numel()

    @property
    def size(self) -> Pair:
        """Height and width of the kernel, in taps."""
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def extent(self) -> Pair:
        """Height and width of the kernel, in pixels: larger than ``size`` where it is dilated."""
        rows, columns = (distance * (taps - 1) + 1 for distance, taps in zip(self.dilation, self.size))
        return rows, columns

    def dilated(self) -> Kernel:
        """The same convolution with the most distant taps that hold all its weights, of this undilated kernel."""
        rows, columns = (_distance_of_taps(self.weight, axis) for axis in (2, 3))
        weight = self.weight[:, :, ::rows, ::columns].contiguous()
        return dataclasses.replace(self, weight=weight, dilation=(rows, columns))


def _distance_of_taps(weight: torch.Tensor, axis: int) -> int:
    """The largest distance of taps, beginning with the first one, between which ``weight`` is zero along ``axis``."""
    strength = weight.abs().amax([other for other in range(4) if other != axis])
    used = strength > ROUNDING * strength.max()
    for distance in range(len(used) - 1, 1, -1):
        between = torch.arange(len(used)) % distance != 0
        if (len(used) - 1) % distance == 0 and not used[between].any():
            return distance
    return 1


def relative_error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference over the largest magnitude of ``wanted``; infinity where it is not a number."""
    difference = (got.double() - wanted.double()).abs().max().item()
    magnitude = wanted.double().abs().max().item()
    if not math.isfinite(difference):
        return math.inf
    if difference == 0.0:
        return 0.0
    return difference / magnitude if magnitude > 0.0 else math.inf


def require_affine(block: torch.nn.Module, shape: Tuple[int, ...]) -> None:
    """Raise Kept unless the float64 ``block`` is affine on random inputs of ``shape`` (N, C, H, W), or of fewer pixels.

    f(a) + f(-a) = 2 f(0) finds ReLU-like kinks, f(2a) - 2 f(a) + f(0) = 0 odd functions such as tanh, and
    f(a + b) - f(a) - f(b) + f(0) = 0 products of channels or pixels; each over the largest output magnitude.
    """
    shape = _affordable(block, shape)
    random = torch.Generator().manual_seed(20)
    at_zero = run_block(block, torch.zeros(shape, dtype=torch.float64))
    defects = []
    for magnitude in MAGNITUDES:
        a = torch.randn(shape, generator=random, dtype=torch.float64) * magnitude
        b = torch.randn(shape, generator=random, dtype=torch.float64) * magnitude
        at_a = run_block(block, a)
        worst = _defect(at_a + run_block(block, -a), 2 * at_zero, at_a)
        if worst <= FAR_FROM_AFFINE:
            at_2a = run_block(block, 2 * a)
            worst = max(worst, _defect(at_2a + at_zero, 2 * at_a, at_2a))
        if worst <= FOLD_FLOAT64_RELATIVE:
            at_b, at_sum = run_block(block, b), run_block(block, a + b)
            worst = max(worst, _defect(at_sum + at_zero, at_a + at_b, at_sum))
        defects.append(worst)
        if worst > FAR_FROM_AFFINE:
            break  # most blocks of a network end here: no need to know how far at other magnitudes
    if max(defects) <= FOLD_FLOAT64_RELATIVE:
        return
    if defects[0] > FAR_FROM_AFFINE:
        raise Kept(f"not affine: relative error {defects[0]:.1e}")
    found = ", ".join(f"{d:.1e} at inputs of magnitude {m:g}" for d, m in zip(defects, MAGNITUDES))
    raise Kept(f"nearly but not exactly affine: relative error {found} (allowed: {FOLD_FLOAT64_RELATIVE:g})")


def _affordable(block: torch.nn.Module, shape: Tuple[int, ...]) -> Tuple[int, ...]:
    """``shape`` with few pixels where ``block`` takes so small a picture: what it does on more, its proof tells."""
    small = (*shape[:2], *(min(edge, SMALL_EDGE) for edge in shape[2:]))
    try:
        run_block(block, torch.zeros(small, dtype=torch.float64))
    except Kept:
        return shape
    return small


def _defect(left: torch.Tensor, right: torch.Tensor, output: torch.Tensor) -> float:
    """The largest of |left - right|, which should be equal, over the largest magnitude in the three tensors."""
    difference = (left - right).abs().max().item()
    return difference / max(t.abs().max().item() for t in (left, right, output)) if difference else 0.0


def macs_per_pixel(block: torch.nn.Module, channels: int, shrink: Pair) -> int:
    """Multiply-accumulates of ``block`` per output pixel of a large picture, by PyTorch's own operation counter.

    The count of a local block is a polynomial of degree two in the side of a square input; the second difference over
    three sides leaves the part that grows with the area, so neither the border nor computing weights counts.
    """
    step, first = 4, 13 + 2 * max(0, *shrink)
    counts = []
    for side in (first, first + step, first + 2 * step):
        with FlopCounterMode(display=False) as counter:
            run_block(block, torch.zeros((1, channels, side, side), dtype=torch.float64))
        counts.append(counter.get_total_flops() // 2)
    return (counts[2] - 2 * counts[1] + counts[0]) // (2 * step * step)


def macs_per_traced_pixel(block: torch.nn.Module, shape: Tuple[int, ...]) -> int:
    """Multiply-accumulates per output pixel of one run on ``shape`` (N, C, H, W), rounded; transforms do not count."""
    with FlopCounterMode(display=False) as counter:
        out = run_block(block, torch.zeros(shape))
    return round(counter.get_total_flops() / 2 / (out.shape[0] * out.shape[2] * out.shape[3]))


def probe(block: torch.nn.Module, channels: int, shrink: Pair, fixed: Optional[Pair] = None) -> Kernel:
    """The convolution that the float64, affine ``block`` is, far from the border.

    Args:
        block: takes (N, ``channels``, H, W).
        channels: input channels.
        shrink: input height and width less output height and width (negative where the block pads more than it eats).
        fixed: the only input (height, width) that the block takes; None: it takes any.

    Raises:
        Kept: no such convolution up to ``LARGEST_KERNEL``, or the output size is not the input's less ``shrink``.
    """
    random = torch.Generator().manual_seed(21)
    values = torch.randn((1, channels, 1, 1), generator=random, dtype=torch.float64)
    for canvas, limit in _canvases(shrink, fixed):
        centre = (canvas[0] // 2, canvas[1] // 2)
        impulse = torch.zeros((1, channels, *canvas), dtype=torch.float64)
        impulse[:, :, centre[0] : centre[0] + 1, centre[1] : centre[1] + 1] = values
        at_zero = _checked_run(block, torch.zeros_like(impulse))
        if tuple(at_zero.shape[2:]) != (canvas[0] - shrink[0], canvas[1] - shrink[1]):
            raise Kept("its output size is not its input size less a constant (stride, shuffle or resize)")
        extents = _extents((_checked_run(block, impulse) - at_zero)[0], centre, shrink, limit)
        if extents:
            break
    else:
        raise Kept(f"its receptive field is larger than {LARGEST_KERNEL}x{LARGEST_KERNEL}")
    pad_rows, pad_columns = (max(0, -low, high - less) for (low, high), less in zip(extents, shrink))
    padding = (pad_rows, pad_columns)
    size = (2 * pad_rows + 1 + shrink[0], 2 * pad_columns + 1 + shrink[1])
    if max(size) > LARGEST_KERNEL:
        raise Kept(f"its kernel would be {size[0]}x{size[1]}, larger than {LARGEST_KERNEL}x{LARGEST_KERNEL}")
    rows, columns = at_zero.shape[2:]
    inside = at_zero[:, :, rows // 2 - 1 : rows // 2 + 2, columns // 2 - 1 : columns // 2 + 2]
    bias = inside[0, :, 1, 1].clone()
    if relative_error(inside, bias.reshape(1, -1, 1, 1).expand_as(inside)) > FOLD_FLOAT64_RELATIVE:
        raise Kept("it depends on the position in the picture: its output for a zero input is not constant")
    places = [centre] if fixed is None else _places(canvas, size) or [centre]
    weight = _weight(block, at_zero, (channels, *canvas), places, (size, padding))
    groups = largest_groups(weight)
    return Kernel(diagonal_blocks(weight, groups), bias, padding, groups)


def _canvases(shrink: Pair, fixed: Optional[Pair]) -> Iterator[Tuple[Pair, int]]:
    """Input sizes to try, each with the furthest tap from the middle of the kernel that the border does not reach."""
    most = max(abs(shrink[0]), abs(shrink[1]))
    if fixed is not None:
        yield fixed, min((min(fixed) - 1) // 2 - most, LARGEST_KERNEL + 1) // 2
        return
    for half in (5, 9, LARGEST_KERNEL + 1):
        side = 2 * (half + most) + 1
        yield (side, side), half // 2


def _checked_run(block: torch.nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """The output, which must have a picture for each one given."""
    out = run_block(block, pictures)
    if out.shape[0] != pictures.shape[0]:
        raise Kept("it does not give one output for each picture of a batch")
    return out


def _places(canvas: Pair, size: Pair) -> List[Pair]:
    """Pixels of one picture that are so far apart, and from the border, that responses to impulses do not meet."""
    rows, columns = (range(2 * taps, side - 2 * taps, taps + 1) for side, taps in zip(canvas, size))
    return [(row, column) for row in rows for column in columns]


def _weight(
    block: torch.nn.Module,
    at_zero: torch.Tensor,
    shape: Tuple[int, int, int],
    places: List[Pair],
    kernel: Tuple[Pair, Pair],
) -> torch.Tensor:
    """The dense weight (C_out, C_in, h, w): the responses to an impulse in each channel, several in one picture.

    Args:
        block: in float64.
        at_zero: its output for zeros.
        shape: C_in, height and width of its input.
        places: where impulses of one picture go.
        kernel: its size and its padding.
    """
    channels, (size, padding) = shape[0], kernel
    parts: List[torch.Tensor] = []
    for first in range(0, channels, 32 * len(places)):
        chunk = range(first, min(channels, first + 32 * len(places)))
        pictures = torch.zeros((-(-len(chunk) // len(places)), *shape), dtype=torch.float64)
        spots = [
            (number // len(places), channel, *places[number % len(places)]) for number, channel in enumerate(chunk)
        ]
        for spot in spots:
            pictures[spot] = 1.0
        responses = _checked_run(block, pictures) - at_zero
        for picture, _, row, column in spots:
            # An impulse in row c lands in output row o with weight K[c - o + padding]: the kernel, read backwards.
            top, left = row + padding[0] - size[0] + 1, column + padding[1] - size[1] + 1
            parts.append(responses[picture, :, top : top + size[0], left : left + size[1]].flip(1, 2))
    return torch.stack(parts, 1).contiguous()


def _extents(response: torch.Tensor, centre: Pair, shrink: Pair, limit: int) -> Tuple[Pair, ...]:
    """First and last tap of the kernel per axis, relative to the output pixel; () where it passes ``limit``.

    Args:
        response: (C_out, H_out, W_out), to an impulse at ``centre``.
        centre: where the impulse was.
        shrink: rows and columns that the output lacks.
        limit: the furthest tap from the middle of the kernel that leaves the border out of the answer.
    """
    strength = response.abs().amax(0)
    found = strength > ROUNDING * strength.max()
    extents = []
    for axis, less in enumerate(shrink):
        hit = torch.nonzero(found.any(1 - axis)).flatten()
        first, last = (int(hit.min()), int(hit.max())) if hit.numel() else (centre[axis] - less // 2,) * 2
        low, high = centre[axis] - last, centre[axis] - first
        if max(abs(low - less / 2), abs(high - less / 2)) > limit:
            return ()
        extents.append((low, high))
    return tuple(extents)


def largest_groups(weight: torch.Tensor) -> int:
    """The largest number of groups of a dense ``weight`` (C_out, C_in, h, w): what lies outside them is zero."""
    out_channels, in_channels = weight.shape[:2]
    strength = weight.abs().amax((2, 3))
    common = math.gcd(out_channels, in_channels)
    for groups in range(common, 1, -1):
        if common % groups == 0:
            mask = torch.block_diag(*[torch.ones(out_channels // groups, in_channels // groups)] * groups)
            if (strength * (1 - mask)).max() <= ROUNDING * strength.max():
                return groups
    return 1


def diagonal_blocks(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """The weights of a grouped convolution, (C_out, C_in / groups, h, w), out of the dense (C_out, C_in, h, w)."""
    width = weight.shape[1] // groups
    blocks = weight.chunk(groups, 0)
    return torch.cat([block[:, i * width : (i + 1) * width] for i, block in enumerate(blocks)])
