"""Walk a network from the root down, replace each block that is one convolution, and prove the whole."""

from __future__ import annotations

from typing import Dict, List, Optional, Set, Tuple

import torch

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.fold.affine import macs_per_traced_pixel, require_affine
from sr_deploy.fold.convolution import one_convolution
from sr_deploy.fold.double import copy_as, one_thread, run_block
from sr_deploy.fold.observe import Observation, Seen, observe
from sr_deploy.fold.prove import Candidate
from sr_deploy.fold.prove_network import prove_network, with_replacements
from sr_deploy.fold.result import FoldedBlock, FoldReport, FoldResult, Kept, KeptBlock

Replaced = Tuple[torch.nn.Module, FoldedBlock]


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
        module: any network in eval mode that takes (N, in_channels, H, W) and gives one tensor. Not modified.
        input_size: height and width of the random inputs, a size that the network takes.
        in_channels: channels of the input.
        value_range: the value of white, 1.0 or 255.0: the random inputs span ``0…value_range``.
        spectral: also replace Fourier units that need no transform (see ``spectral.py``).

    Returns:
        The folded copy (float32, on the CPU) and the report: what was replaced with which error, what stays and why.

    Raises:
        UsageError: the network, or a part of it, is in training mode.
        BadInput: the network does not run on such an input, gives values that are not finite, or other ones each time.
        CheckFailed: the folded network differs from the original by more than ``FOLD_FLOAT64_RELATIVE`` in float64 or
            ``FOLD_FLOAT32_RELATIVE`` in float32 (more where the original itself magnifies rounding, see ``whole.py``);
            the message names the block that brings it.
    """
    training = [path or "(root)" for path, part in module.named_modules() if part.training]
    if training:
        raise UsageError(f"{training[0]} is in training mode", "a network in eval mode", "call eval() on it first")
    network32, network64 = copy_as(module, torch.float32), copy_as(module, torch.float64)
    x = torch.rand((1, in_channels, *input_size), generator=torch.Generator().manual_seed(23)) * value_range
    try:
        observation = observe(network32, x)
    except Exception as error:  # the network may be anyone's
        raise BadInput(
            f"the network does not run on {in_channels} channels of {format_size(input_size)}: {error}",
            "a size and a number of channels that it takes",
            "give input_size=(height, width) and in_channels=",
        ) from error
    with one_thread():
        replacements, blocks, kept = _walk(network32, network64, observation, spectral)
        proof = prove_network(network32, network64, replacements, tuple(x.shape), value_range)
    report = FoldReport(
        blocks=tuple(blocks),
        kept=tuple(kept),
        network_error=proof.error_float32,
        network_error_before=proof.error_original_float32,
        network_error_float64=proof.error_float64,
        sizes=proof.sizes,
        noise_overflows=proof.noise_overflows,
    )
    return FoldResult(with_replacements(network32, replacements, torch.float32), report)


def _walk(
    network32: torch.nn.Module, network64: torch.nn.Module, observation: Observation, spectral: bool
) -> Tuple[Dict[str, torch.nn.Module], List[FoldedBlock], List[KeptBlock]]:
    """From the root down: replace what can be, look into what cannot. A module in two places is visited once."""
    replacements: Dict[str, torch.nn.Module] = {}
    blocks: List[FoldedBlock] = []
    kept: List[KeptBlock] = []
    ran = {id(network32.get_submodule(path)) for path in observation.seen}
    first_path = {id(module): path for path, module in network32.named_modules()}
    waiting = [network32]
    visited: Set[int] = set()
    while waiting:
        block = waiting.pop()
        if id(block) in visited or not _has_weights(block):
            continue
        visited.add(id(block))
        path = first_path[id(block)]
        if _dead(block, observation, ran):
            kept.append(KeptBlock(path, type(block).__name__, "the network never runs it: its weights are dead"))
            continue
        if id(block) in ran and not _plain_layer(block) and not _is_its_only_convolution(block, observation.seen[path]):
            try:
                replaced = _replacement(path, block, network64.get_submodule(path), observation, spectral)
                replacements[path], entry = replaced
                blocks.append(entry)
                continue
            except Kept as reason:
                kept.append(KeptBlock(path or "(root)", type(block).__name__, str(reason)))
        waiting.extend(reversed(list(block.children())))
    return replacements, blocks, kept


def _replacement(
    path: str, block32: torch.nn.Module, block64: torch.nn.Module, observation: Observation, spectral: bool
) -> Replaced:
    """The proved replacement of one block and its report. Raises Kept with the reason where there is none."""
    seen = observation.seen[path]
    if seen.objection:
        raise Kept(seen.objection)
    if id(block32) in observation.reached_into:
        raise Kept("its weights are also used outside of its forward pass, which one convolution would not offer")
    require_affine(block64, seen.in_shape)
    fourier = _fourier_replacement(path, block32, seen) if spectral else None
    if fourier:
        return fourier
    candidate = Candidate(block32, block64, seen.in_shape, seen.out_shape)
    return one_convolution(path or "(root)", type(block32).__name__, candidate)


def _fourier_replacement(path: str, block32: torch.nn.Module, seen: Seen) -> Optional[Replaced]:
    """The replacement of an affine block that uses torch.fft; None for a block without transforms. Raises Kept."""
    from sr_deploy.fold.spectral import fold_fourier_unit, uses_fft

    if not uses_fft(block32, seen.in_shape):
        return None
    found = fold_fourier_unit(block32, seen.in_shape)
    if isinstance(found, str):
        raise Kept(f"it uses a Fourier transform and is no unit that folds: {found}")
    entry = FoldedBlock(
        name=path or "(root)",
        was=type(block32).__name__,
        became="1x1 convolutions + width matrix",
        macs_before=macs_per_traced_pixel(block32, seen.in_shape),
        macs_after=macs_per_traced_pixel(found.module, seen.in_shape),
        error_float64=found.error_float64,
        error_float32=found.error_float32,
    )
    return found.module, entry


def _has_weights(block: torch.nn.Module) -> bool:
    """True when there is a parameter or buffer in the block: one without is not worth a look."""
    return next(block.parameters(), None) is not None or next(block.buffers(), None) is not None


def _plain_layer(block: torch.nn.Module) -> bool:
    """True for a layer of torch.nn itself, such as Conv2d, BatchNorm2d or PReLU, that nothing was attached to."""
    own = type(block).__module__.startswith("torch.nn.modules.") and next(block.children(), None) is None
    return own and not block._forward_pre_hooks and not block._forward_hooks


def _is_its_only_convolution(block: torch.nn.Module, seen: Seen) -> bool:
    """True for a module around one plain Conv2d that gives what the Conv2d alone gives: nothing is left to fold."""
    owners = [part for part in block.modules() if _own_weights(part)]
    if seen.objection or len(owners) != 1 or type(owners[0]) is not torch.nn.Conv2d or not _plain_layer(owners[0]):
        return False
    x = torch.randn(seen.in_shape, generator=torch.Generator().manual_seed(25))
    try:
        return torch.equal(run_block(block, x), run_block(owners[0], x))
    except Kept:
        return False


def _own_weights(module: torch.nn.Module) -> bool:
    """True when the module itself, not a module in it, has a parameter or buffer."""
    return any(True for _ in (*module.parameters(recurse=False), *module.buffers(recurse=False)))


def _dead(block: torch.nn.Module, observation: Observation, ran: Set[int]) -> bool:
    """True when neither the block nor anything in it ran, and no operation took a weight of it."""
    if any(id(part) in ran for part in block.modules()):
        return False
    return not any(id(tensor) in observation.used for tensor in (*block.parameters(), *block.buffers()))
