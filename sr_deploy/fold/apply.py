"""Walk a network from the root down, replace each block that is one convolution, and prove the whole."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

import torch

from sr_deploy.core.contract import Size
from sr_deploy.core.errors import BadInput, CheckFailed, UsageError
from sr_deploy.core.tolerance import FOLD_FLOAT32_RELATIVE
from sr_deploy.fold.affine import macs_per_pixel, probe, relative_error, require_affine
from sr_deploy.fold.double import copy_as, run_block
from sr_deploy.fold.observe import Observation, Seen, observe
from sr_deploy.fold.prove import proved_convolution
from sr_deploy.fold.result import FoldedBlock, FoldReport, FoldResult, Kept, KeptBlock

Replacements = Dict[str, torch.nn.Module]


def fold(
    module: torch.nn.Module,
    *,
    input_size: Size = (24, 29),
    in_channels: int = 3,
    value_range: float = 1.0,
    spectral: bool = True,
) -> FoldResult:
    """Replace every affine, shift-equivariant block of ``module`` by one convolution, each one proved.

    Args:
        module: any network in eval mode that takes (N, in_channels, H, W) float32 and gives one tensor. Not modified.
        input_size: height and width of the random inputs; sizes that the network takes, of different sides so that a
            resolution change shows.
        in_channels: channels of the input.
        value_range: the value of white, 1.0 or 255.0: the random inputs span ``0…value_range``.
        spectral: also replace Fourier units that need no transform (see ``spectral.py``).

    Returns:
        The folded copy (float32, on the CPU) and the report: what was replaced with which error, what stays and why.

    Raises:
        UsageError: the network, or a part of it, is in training mode.
        BadInput: the network does not run on such an input, or gives values that are not finite.
        CheckFailed: the folded network differs from the original by more than ``FOLD_FLOAT32_RELATIVE`` (or twice the
            original's own float32 rounding, where that is more); the message names the block that brings it.
    """
    training = [path or "(root)" for path, part in module.named_modules() if part.training]
    if training:
        raise UsageError(f"{training[0]} is in training mode", "a network in eval mode", "call module.eval() first")
    network32, network64 = copy_as(module, torch.float32), copy_as(module, torch.float64)
    try:
        x = torch.rand((1, in_channels, *input_size), generator=torch.Generator().manual_seed(23)) * value_range
        observation = observe(network32, x)
    except Exception as error:
        raise _does_not_run(network32, tuple(x.shape), str(error)) from error

    replacements: Replacements = {}
    blocks: List[FoldedBlock] = []
    kept: List[KeptBlock] = []
    visited = set()

    def visit(path: str, block: torch.nn.Module) -> None:
        if id(block) in visited or not _has_weights(block):
            return
        visited.add(id(block))
        seen = observation.seen.get(path)
        if seen is None and _dead(block, observation):
            kept.append(KeptBlock(path, _class_name(block), "the network never runs it: its weights are dead"))
            return
        if seen is not None and not _plain_layer(block):
            try:
                replacement, entry = _replacement(path, block, network64.get_submodule(path), seen, observation, spectral)
                replacements[path] = replacement
                blocks.append(entry)
                return
            except Kept as reason:
                kept.append(KeptBlock(path or "(root)", _class_name(block), str(reason)))
        for name, child in block.named_children():
            visit(f"{path}.{name}" if path else name, child)

    visit("", network32)
    folded = with_replacements(module, replacements)
    report = _prove_network(module, network32, network64, folded, replacements, x.shape, value_range)
    return FoldResult(folded, FoldReport(tuple(blocks), tuple(kept), *report))


def with_replacements(module: torch.nn.Module, replacements: Replacements) -> torch.nn.Module:
    """A float32 copy of ``module`` with the sub-modules at the given paths replaced, wherever they are used."""
    folded = copy_as(module, torch.float32)
    if "" in replacements:
        return replacements[""]
    by_id = {id(folded.get_submodule(path)): new for path, new in replacements.items()}
    for parent in list(folded.modules()):
        # Not named_children(): it names a module that stands in two places only once.
        for name, child in list(parent._modules.items()):
            if id(child) in by_id:
                setattr(parent, name, by_id[id(child)])
    return folded


def _replacement(
    path: str,
    block32: torch.nn.Module,
    block64: torch.nn.Module,
    seen: Seen,
    observation: Observation,
    spectral: bool,
) -> Tuple[torch.nn.Module, FoldedBlock]:
    """The proved replacement of one block and its report. Raises Kept with the reason where there is none."""
    if seen.objection:
        raise Kept(seen.objection)
    if id(block32) in observation.reached_into:
        raise Kept("its weights are also used outside of its forward pass, which a replacement would not offer")
    require_affine(block64, seen.in_shape)
    was = _class_name(block32)
    if spectral:
        fourier = _fourier_replacement(path, was, block32, seen)
        if fourier:
            return fourier
    channels, out_channels = seen.in_shape[1], seen.out_shape[1]
    shrink = (seen.in_shape[2] - seen.out_shape[2], seen.in_shape[3] - seen.out_shape[3])
    kernel = probe(block64, channels, shrink)
    before = macs_per_pixel(block64, channels, shrink)
    size = f"{kernel.size[0]}x{kernel.size[1]}"
    if kernel.macs > before:
        raise Kept(f"affine, but one {size} convolution would raise its MACs per pixel from {before} to {kernel.macs}")
    proof = proved_convolution(block64, block32, kernel, channels)
    mode = proof.convolution.padding_mode if max(kernel.padding) > 0 else "unpadded"
    groups = f" groups {kernel.groups}" if kernel.groups > 1 else ""
    became = f"Conv2d {channels}→{out_channels} {size} {mode}{groups}"
    entry = FoldedBlock(
        path or "(root)",
        was,
        became,
        before,
        kernel.macs,
        proof.error_float64,
        proof.error_float32,
        proof.error_original_float32,
    )
    return proof.convolution.float(), entry


def _fourier_replacement(
    path: str, block32: torch.nn.Module, seen: Seen
) -> Optional[Tuple[torch.nn.Module, FoldedBlock]]:
    """The replacement of an affine block that uses torch.fft, None for a block without it. Raises Kept."""
    from sr_deploy.fold.spectral import fold_fourier_unit, uses_fft

    if not uses_fft(block32, seen.in_shape):
        return None
    found = fold_fourier_unit(block32, seen.in_shape)
    if isinstance(found, str):
        raise Kept(f"a Fourier unit that does not fold: {found}")
    entry = FoldedBlock(
        path or "(root)",
        _class_name(block32),
        "1x1 convolutions + width matrix",
        macs_per_traced_pixel(block32, seen.in_shape),
        macs_per_traced_pixel(found.module, seen.in_shape),
        found.error_float64,
        found.error_float32,
    )
    return found.module, entry


def _class_name(block: torch.nn.Module) -> str:
    return type(block).__name__


def _has_weights(block: torch.nn.Module) -> bool:
    """True when there is a parameter or buffer in the block: one without is not worth a look."""
    return next(block.parameters(), None) is not None or next(block.buffers(), None) is not None


def _plain_layer(block: torch.nn.Module) -> bool:
    """True for a layer of torch.nn itself, such as Conv2d, BatchNorm2d or PReLU, that nothing was attached to."""
    own = type(block).__module__.startswith("torch.nn.modules.") and next(block.children(), None) is None
    return own and not block._forward_pre_hooks and not block._forward_hooks


def _dead(block: torch.nn.Module, observation: Observation, ran: Set[int]) -> bool:
    """True when neither the block nor anything in it ran, and no operation took a weight of it."""
    if any(id(part) in ran for part in block.modules()):
        return False
    return not any(id(tensor) in observation.used for tensor in (*block.parameters(), *block.buffers()))
