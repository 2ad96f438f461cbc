"""Prove that a convolution is the block it is to replace: random inputs, odd and tiny sizes, the border included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Tuple

import torch
from typing_extensions import Literal

from sr_deploy.core.tolerance import FOLD_FLOAT32_RELATIVE, FOLD_FLOAT64_RELATIVE
from sr_deploy.fold.affine import Kernel, relative_error
from sr_deploy.fold.double import run_block
from sr_deploy.fold.result import Kept

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
#: What the border is filled with, in the order tried.
PADDING_MODES: Tuple[PaddingMode, ...] = ("zeros", "reflect", "replicate", "circular")
#: Batch, height and width of the proof's inputs, before what the block eats and needs is added.
PROOF_SIZES = ((1, 7, 9), (2, 16, 16), (1, 5, 5), (1, 11, 6), (1, 23, 21))

Cases = List[Tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Candidate:
    """A block that may be one convolution.

    Attributes:
        in_float32, in_float64: the block in both types.
        in_shape, out_shape: (N, C, H, W) of one run of it.
        fixed: whether it runs at that size alone; it is then proved there and nowhere else.
        allowed: the largest relative error in float64.
    """

    in_float32: torch.nn.Module
    in_float64: torch.nn.Module
    in_shape: Tuple[int, ...]
    out_shape: Tuple[int, ...]
    fixed: bool = False
    allowed: float = FOLD_FLOAT64_RELATIVE


@dataclass(frozen=True)
class Proof:
    """A proved replacement: the float64 convolution, and the errors of FoldedBlock."""

    convolution: torch.nn.Conv2d
    error_float64: float
    error_float32: float
    error_original_float32: float


def proved_convolution(block: Candidate, kernel: Kernel) -> Proof:
    """The ``nn.Conv2d`` that equals the block everywhere, with the padding mode that makes it so at the border.

    Args:
        block: the block.
        kernel: what it is far from the border.

    Raises:
        Kept: no padding mode gives the block's output within the tolerances; the text has the measured error and
            whether only the border differs.
    """
    cases = [(x, run_block(block.in_float64, x)) for x in _inputs(block, kernel)]
    modes = PADDING_MODES if max(kernel.padding) > 0 else PADDING_MODES[:1]
    first_failure = ""
    for mode in modes:
        convolution = convolution_of(kernel, mode)
        error64 = _largest_error(convolution, cases)
        if error64 <= block.allowed:
            break
        first_failure = first_failure or _difference(convolution, cases, kernel, error64)
    else:
        raise Kept(first_failure)
    error32 = _largest_error(convolution_of(kernel, mode).float(), cases)
    if error32 > FOLD_FLOAT32_RELATIVE:
        allowed = f"allowed: {FOLD_FLOAT32_RELATIVE:g}"
        raise Kept(f"as one float32 convolution its relative error would be {error32:.1e} ({allowed})")
    return Proof(convolution, error64, error32, _largest_error(block.in_float32, cases))


def convolution_of(kernel: Kernel, padding_mode: PaddingMode) -> torch.nn.Conv2d:
    """A float64 ``nn.Conv2d`` in eval mode with the weights of ``kernel``."""
    out_channels, per_group = kernel.weight.shape[:2]
    convolution = torch.nn.Conv2d(
        per_group * kernel.groups,
        out_channels,
        kernel.size,
        padding=kernel.padding,
        dilation=kernel.dilation,
        groups=kernel.groups,
        padding_mode=padding_mode if max(kernel.padding) > 0 else "zeros",
        dtype=torch.float64,
    )
    convolution.load_state_dict({"weight": kernel.weight, "bias": kernel.bias})
    return convolution.eval()


def _inputs(block: Candidate, kernel: Kernel) -> List[torch.Tensor]:
    """Random float64 inputs that float32 can hold too, of both signs and, every second one, of a picture's range."""
    random = torch.Generator().manual_seed(22)
    inputs = []
    only = (1, block.in_shape[2], block.in_shape[3])
    for i, (batch, *size) in enumerate([only] * len(PROOF_SIZES) if block.fixed else PROOF_SIZES):
        # A reflecting border needs more pixels than it is wide, an unpadded kernel as many as it is large.
        height, width = (max(n, p + 1) + max(0, k - 1 - 2 * p) for n, p, k in zip(size, kernel.padding, kernel.extent))
        x = torch.randn((batch, block.in_shape[1], height, width), generator=random)
        inputs.append((x if i % 2 == 0 else x.abs().clamp(max=1.0)).double())
    return inputs


def _largest_error(block: torch.nn.Module, cases: Cases) -> float:
    """The largest relative error of ``block`` over the cases, run in the type of its weights."""
    dtype = next((t.dtype for t in (*block.parameters(), *block.buffers()) if t.is_floating_point()), torch.float32)
    return max(relative_error(_run_shaped(block, x.to(dtype), y), y) for x, y in cases)


def _run_shaped(block: torch.nn.Module, x: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The block's output, which must have the shape of ``wanted``."""
    out = run_block(block, x)
    if out.shape != wanted.shape:
        given, gave = tuple(x.shape[2:]), tuple(wanted.shape[2:])
        raise Kept(f"its output size does not follow from its input size: {gave} for an input of {given}")
    return out


def _difference(convolution: torch.nn.Conv2d, cases: Cases, kernel: Kernel, error: float) -> str:
    """Why the zero-padded convolution is not the block: at the border only, or everywhere."""
    x, wanted = cases[-1]
    rows, columns = (k // 2 + 1 for k in kernel.extent)
    inside = (slice(None), slice(None), slice(rows, wanted.shape[2] - rows), slice(columns, wanted.shape[3] - columns))
    within = relative_error(run_block(convolution, x)[inside], wanted[inside])
    if within <= FOLD_FLOAT64_RELATIVE:
        return f"one convolution differs from it at the border (it pads between its layers): relative error {error:.1e}"
    everywhere = "at every position of the picture, or for every picture of a batch"
    return f"it is not the same {everywhere}: relative error {error:.1e}"
