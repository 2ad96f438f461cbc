"""Whether a network gives the same for the same picture, and which part of it does not."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import torch

from sr_deploy.core.errors import BadInput
from sr_deploy.core.tolerance import FOLD_FLOAT32_RELATIVE
from sr_deploy.fold.affine import relative_error
from sr_deploy.fold.double import evaluate


def check_repeats(network: torch.nn.Module, x: torch.Tensor) -> None:
    """Run the network twice.

    Raises:
        BadInput: the outputs differ; the message names the innermost module in which the difference begins.
    """
    first, second = _traced(network, x), _traced(network, x)
    if _same(first[-1][1], second[-1][1]):
        return
    names = {id(part): path or "(root)" for path, part in network.named_modules()}
    part = next((part for (part, one), (_, other) in zip(first, second) if not _same(one, other)), network)
    raise BadInput(
        f"two runs of the network on one picture differ; the difference begins in {names[id(part)]} "
        f"({type(part).__name__})",
        "no randomness, no memory of earlier runs",
        "dropout that is left on (functional.dropout without training=self.training) and random layers must go",
    )


def _traced(network: torch.nn.Module, x: torch.Tensor) -> List[Tuple[torch.nn.Module, Any]]:
    """Every module that ran, in the order in which they finished, with a copy of what it gave; the network last."""
    seen: List[Tuple[torch.nn.Module, Any]] = []

    def note(part: torch.nn.Module, _: Any, given: Any) -> None:
        seen.append((part, given.detach().clone() if isinstance(given, torch.Tensor) else None))

    hooks: Dict[int, Any] = {id(part): part.register_forward_hook(note) for part in network.modules()}
    try:
        whole = evaluate(network, x.clone())
    finally:
        for hook in hooks.values():
            hook.remove()
    return [*seen, (network, whole)]


def _same(one: Any, other: Any) -> bool:
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return type(one) is type(other)
    if one.shape != other.shape:
        return False
    if not one.is_floating_point():
        return bool(torch.equal(one, other))
    known = torch.isfinite(one) & torch.isfinite(other)
    if not torch.equal(torch.isfinite(one), torch.isfinite(other)):
        return False
    return bool(relative_error(one[known], other[known]) <= FOLD_FLOAT32_RELATIVE) if known.any() else True
