"""The one convolution that an affine block is: probed, bounded in its cost, proved; for modules and parts of graphs."""

from __future__ import annotations

from typing import Tuple

import torch

from sr_deploy.fold.affine import Kernel, macs_per_pixel, macs_per_traced_pixel, probe
from sr_deploy.fold.prove import Candidate, proved_convolution
from sr_deploy.fold.result import FoldedBlock, Kept


def one_convolution(name: str, was: str, block: Candidate) -> Tuple[torch.nn.Conv2d, FoldedBlock]:
    """The float64 convolution that an affine block is, proved, and its report.

    Args:
        name, was: for the report, see FoldedBlock.
        block: known to be affine.

    Raises:
        Kept: it is no such convolution, or one that costs more.
    """
    channels, size = block.in_shape[1], (block.in_shape[2], block.in_shape[3])
    shrink = (size[0] - block.out_shape[2], size[1] - block.out_shape[3])
    kernel = probe(block.in_float64, channels, shrink, size if block.fixed else None)
    before = _macs_at_its_size(block) if block.fixed else macs_per_pixel(block.in_float64, channels, shrink)
    if kernel.macs > before:
        dilated = kernel.dilated()
        if dilated.macs > before:
            taps = f"{kernel.size[0]}x{kernel.size[1]}"
            more = f"from {before} to {kernel.macs}"
            raise Kept(f"affine, but one {taps} convolution would raise its MACs per pixel {more}")
        kernel = dilated
    proof = proved_convolution(block, kernel)
    entry = FoldedBlock(
        name=name,
        was=was,
        became=_described(kernel, proof.convolution),
        macs_before=before,
        macs_after=kernel.macs,
        error_float64=proof.error_float64,
        error_float32=proof.error_float32,
        error_original_float32=proof.error_original_float32,
    )
    return proof.convolution, entry


def _macs_at_its_size(block: Candidate) -> int:
    """Multiply-accumulates per pixel at the one size that the block takes, the ring that it may add not counted."""
    per_output = macs_per_traced_pixel(block.in_float32, block.in_shape)
    (rows, columns), (out_rows, out_columns) = block.in_shape[2:], block.out_shape[2:]
    return round(per_output * max(1.0, out_rows * out_columns / (rows * columns)))


def _described(kernel: Kernel, convolution: torch.nn.Conv2d) -> str:
    """For example "Conv2d 26→26 3x3 zeros": channels, kernel, what the border is filled with."""
    border = f" {convolution.padding_mode}" if max(kernel.padding) > 0 else ""
    groups = f" groups {kernel.groups}" if kernel.groups > 1 else ""
    dilation = f" dilation {kernel.dilation[0]}x{kernel.dilation[1]}" if max(kernel.dilation) > 1 else ""
    height, width = kernel.size
    return f"Conv2d {convolution.in_channels}→{convolution.out_channels} {height}x{width}{border}{groups}{dilation}"
