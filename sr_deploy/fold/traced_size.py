"""Sizes during a trace: constants for a graph of fixed size, traced values for one of dynamic size."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import Iterator, Union

import numpy as np
import torch

#: A number of elements: an int, or while a dynamic graph is traced a 0-d int64 tensor that the trace follows.
Length = Union[int, torch.Tensor]

_FIXED: ContextVar[bool] = ContextVar("sr_deploy_fixed_size", default=False)


@contextlib.contextmanager
def fixed_size(fixed: bool = True) -> Iterator[None]:
    """While active, what is computed from sizes in a trace becomes a constant of the graph."""
    token = _FIXED.set(fixed)
    try:
        yield
    finally:
        _FIXED.reset(token)


def as_length(value: Length) -> Length:
    """``value`` as an int, except in a trace of dynamic size, where a traced value stays one."""
    if isinstance(value, torch.Tensor) and _FIXED.get():
        return int(value)
    return value


def length_of(tensor: torch.Tensor, dim: int) -> Length:
    """The size of one axis of ``tensor``, see ``as_length``."""
    return as_length(tensor.shape[dim])


def count_to(length: Length) -> torch.Tensor:
    """0 … length - 1, int64."""
    # A trace takes its own values for sizes, which PyTorch's types do not say.
    return torch.arange(length)  # type: ignore[arg-type]


def half_of(length: Length) -> Length:
    """``length // 2``. Integer division of traced values would become ONNX Mod, which TensorRT 8.5 lacks."""
    if isinstance(length, torch.Tensor):
        return torch.floor(length.to(torch.float32) * 0.5).to(torch.int64)
    return length // 2


def constant(array: np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A float64 array as a tensor that a trace takes as it is: the conversion of type is not part of the graph."""
    exact = array.astype(np.float64 if dtype == torch.float64 else np.float32)
    return torch.from_numpy(exact).to(device, dtype)
