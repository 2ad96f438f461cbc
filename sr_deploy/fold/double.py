"""Copies of a network in another floating-point type, and running a block without leaving a trace."""

from __future__ import annotations

import contextlib
import copy
from typing import Any, Iterator

import torch

from sr_deploy.fold.result import Kept


def copy_as(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """A copy of ``module`` on the CPU whose real tensors are all of ``dtype`` (complex ones of twice its width).

    Unlike ``module.to(dtype)`` this reaches tensors kept as plain attributes (a Sobel mask, a mean), also in lists and
    dicts, and copies tensors that autograd computed, which ``deepcopy`` refuses.
    """
    memo = {}
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    twin = copy.deepcopy(module, memo)
    for tensor in list(twin.parameters()) + list(twin.buffers()):
        tensor.data = _converted(tensor.data, dtype)
    for part in twin.modules():
        for name, value in list(vars(part).items()):
            if name not in ("_parameters", "_buffers", "_modules"):
                vars(part)[name] = _converted(value, dtype)
    return twin


def _converted(value: Any, dtype: torch.dtype) -> Any:
    """``value`` with the floating-point tensors in it, however deep in plain containers, turned into ``dtype``."""
    if isinstance(value, torch.nn.Parameter):
        return value
    if isinstance(value, torch.Tensor):
        if value.is_complex():
            return value.to("cpu", torch.complex(*torch.zeros(2, 1, dtype=dtype)).dtype)
        return value.to("cpu", dtype) if value.is_floating_point() else value.to("cpu")
    if type(value) in (list, tuple):
        return type(value)(_converted(item, dtype) for item in value)
    if type(value) is dict:
        return {key: _converted(item, dtype) for key, item in value.items()}
    return value


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run PyTorch on one thread inside the block.

    Folding makes thousands of tiny calls. More threads gain nothing on them, and on a busy machine each call waits
    for a thread that another process holds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def evaluate(block: torch.nn.Module, x: torch.Tensor) -> Any:
    """What ``block`` gives for ``x``, without gradients; tensors it makes on the way get the type of ``x`` too.

    Whatever the block raises is passed on.
    """
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(x.dtype)
        with torch.no_grad():
            return block(x)
    finally:
        torch.set_default_dtype(default)


def run_block(block: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Run ``block`` once on a copy of ``x`` (N, C, H, W), in the type of ``x``.

    Raises:
        Kept: the block raises, gives something else than one finite 4-D tensor, or changes its input.
    """
    shape = "x".join(str(n) for n in x.shape)
    given = x.clone()
    try:
        out = evaluate(block, given)
    except Exception as error:  # whatever a stranger's block raises, it is a reason to leave it alone
        lines = str(error).strip().splitlines() or [""]
        what = f"{type(error).__name__}: {lines[0][:160]}"
        raise Kept(f"it does not run on an input of {shape} ({str(x.dtype)[6:]}): {what}") from error
    if not isinstance(out, torch.Tensor) or out.dim() != 4:
        raise Kept("its output is not one 4-D tensor")
    if not torch.equal(given, x):
        raise Kept("it changes its input in place, which the rest of the network may rely on")
    if not torch.isfinite(out).all():
        raise Kept(f"its output on an input of {shape} is not finite")
    return out.detach()
