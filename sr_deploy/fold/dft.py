"""torch.fft without torch.fft: an unmodified network computes its transforms as products of real matrices.

For spectral blocks that do not fold (a kernel that varies with frequency, a nonlinearity between the transforms), and
for ``--spectral dft``. No ONNX operator DFT and no complex tensor is left, and every part of it is a node that can be
pinned to float32.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, Callable, Dict, Iterator, List, Optional, Pattern, Sequence, Set, Tuple, Union

import torch
from torch.overrides import TorchFunctionMode

from sr_deploy.fold.dft_matrix import Pair, half_spectrum_of_real, real_of_half_spectrum, spectrum_of_complex
from sr_deploy.fold.spectral import TRANSFORMS, FoldedFourierUnit
from sr_deploy.fold.split_complex import SplitComplex, polar, split, unsupported, view_as_complex
from sr_deploy.fold.traced_size import Length, as_length, fixed_size, half_of, length_of

Lengths = Optional[Sequence[Length]]
Dims = Union[None, int, Sequence[int]]


@contextlib.contextmanager
def real_dft(fixed: bool = False) -> Iterator[None]:
    """While active, torch.fft and complex tensors are real matrix products on pairs of real tensors.

    In a trace of dynamic size (``fixed`` False) the matrices are computed in the graph from the size, exactly enough up
    to 4096 points an axis. With ``fixed``, and outside of a trace, they are constants made in float64, in two stages
    where that saves at least half of the multiplications. Folded Fourier units heed ``fixed`` too.

    Args:
        fixed: the graph being traced has one size only.

    Raises (inside):
        CheckFailed: an operation on complex numbers that has no real form here, named.
    """
    with fixed_size(fixed), _RealDft():
        yield


def spectral_modules(module: torch.nn.Module, in_shape: Sequence[int]) -> Tuple[str, ...]:
    """The names of the sub-modules whose own forward pass calls a transform, and of the FoldedFourierUnits.

    Args:
        module: a network in eval mode, on the CPU; it is run once on zeros.
        in_shape: (N, C, H, W) of its input.

    Returns:
        Names as in ``module.named_modules()``; ``""`` is the network itself.
    """
    names = {part: name for name, part in module.named_modules()}
    watch = _Caller()
    handles = []
    try:
        for part in names:
            handles.append(part.register_forward_pre_hook(watch.enter))
            handles.append(part.register_forward_hook(watch.leave))
        with torch.no_grad(), watch:
            module(torch.zeros(tuple(in_shape)))
    finally:
        for handle in handles:
            handle.remove()
    return tuple(n for part, n in names.items() if part in watch.callers or isinstance(part, FoldedFourierUnit))


def scope_pattern(name: str) -> Pattern[str]:
    """What matches the beginning of the names of the ONNX nodes that a sub-module makes.

    The TorchScript exporter names a node by the modules that run around it: "/residual/residual.0/block1/Conv".
    A module whose last name is a number is called by its parent's name too; a container that is only iterated does not
    appear; from the second run of a module on, a number follows its name ("/residual2_1/residual2.0/…").

    Args:
        name: as in ``named_modules()``, such as "residual.0.block1.0.convg2g.fu".

    Returns:
        A pattern for ``match``. It takes any of the parents to be absent.
    """
    components: List[str] = []
    for part in filter(None, name.split(".")):
        component = f"{components[-1]}.{part}" if part.isdigit() and components else part
        components.append(component)
    steps = [f"{re.escape(component)}(?:_[0-9]+)?/" for component in components]
    return re.compile("/" + "".join(f"(?:{step})?" for step in steps[:-1]) + "".join(steps[-1:]))


class _Caller(TorchFunctionMode):
    """Notes which module is running innermost when a transform is called."""

    def __init__(self) -> None:
        super().__init__()
        self.running: List[torch.nn.Module] = []
        self.callers: Set[torch.nn.Module] = set()

    def enter(self, part: torch.nn.Module, args: Any) -> None:
        self.running.append(part)

    def leave(self, part: torch.nn.Module, args: Any, out: Any) -> None:
        self.running.pop()

    def __torch_function__(self, func: Callable, types: Any, args: Tuple = (), kwargs: Optional[Dict] = None) -> Any:
        if func in TRANSFORMS and self.running:
            self.callers.add(self.running[-1])
        return func(*args, **(kwargs or {}))


class _RealDft(TorchFunctionMode):
    def __torch_function__(self, func: Callable, types: Any, args: Tuple = (), kwargs: Optional[Dict] = None) -> Any:
        kwargs = kwargs or {}
        if func in _REPLACED:
            return _REPLACED[func](*args, **kwargs)
        if func in TRANSFORMS:
            raise unsupported(f"torch.fft.{func.__name__[4:]}")
        return func(*args, **kwargs)


def _scale(lengths: Sequence[Length], inverse: bool, norm: Optional[str]) -> Any:
    """The factor of a transform over axes of these lengths."""
    if norm not in (None, "backward", "ortho", "forward"):
        raise ValueError(f"norm {norm!r} is not one of backward, ortho, forward")
    if norm != "ortho" and inverse == (norm == "forward"):
        return 1.0
    points: Any = 1
    for length in lengths:
        points = points * (length.to(torch.float32) if isinstance(length, torch.Tensor) else length)
    if isinstance(points, torch.Tensor):
        return torch.reciprocal(torch.sqrt(points) if norm == "ortho" else points)
    return points ** (-0.5 if norm == "ortho" else -1.0)


def _fitted(x: torch.Tensor, dim: int, length: Length) -> torch.Tensor:
    """Crop or zero-pad the end of one axis. A trace takes the same choice for every size."""
    have, want = int(x.shape[dim]), int(length)
    if have == want:
        return x
    if have > want:
        # A trace takes its own values for sizes, which PyTorch's types do not say; so below.
        return x.narrow(dim, 0, length)  # type: ignore[arg-type]
    shape: List[Length] = list(x.shape)
    shape[dim] = length - x.shape[dim]
    return torch.cat([x, torch.zeros(shape, dtype=x.dtype, device=x.device)], dim)  # type: ignore[arg-type]


def _along(dim: int, function: Callable, *tensors: torch.Tensor) -> Any:
    """Apply a function of the last axis to axis ``dim``."""
    last = tensors[0].dim() - 1
    if dim % tensors[0].dim() == last:
        return function(*tensors)
    out = function(*(tensor.transpose(dim, last) for tensor in tensors))
    return tuple(part.transpose(dim, last) for part in out) if isinstance(out, tuple) else out.transpose(dim, last)


def _axes(x: Any, s: Lengths, dim: Dims) -> List[int]:
    """The axes of a transform over several, as numbers from the front."""
    rank = x.dim()
    if dim is None:
        dim = range(rank) if s is None else range(rank - len(s), rank)
    return [axis % rank for axis in ((dim,) if isinstance(dim, int) else dim)]


def _lengths(x: Any, s: Lengths, axes: Sequence[int]) -> List[Length]:
    """What each axis is cropped or padded to; -1 keeps it."""
    if s is None:
        return [length_of(x, axis) for axis in axes]
    given = [as_length(length) for length in s]
    return [length_of(x, axis) if isinstance(n, int) and n == -1 else n for axis, n in zip(axes, given)]


def _complex_stages(
    z: SplitComplex, axes: Sequence[int], lengths: Sequence[Length], inverse: bool, norm: Optional[str]
) -> SplitComplex:
    """Complex transforms along each axis in turn."""
    sign = 1 if inverse else -1
    for axis, n in zip(axes, lengths):
        re, im = _fitted(z.real, axis, n), _fitted(z.imag, axis, n)
        scale = _scale([n], inverse, norm)

        def stage(a: torch.Tensor, b: torch.Tensor, n: Length = n, scale: Any = scale) -> Pair:
            return spectrum_of_complex((a, b), n, sign, scale)

        z = SplitComplex(*_along(axis, stage, re, im))
    return z


def _fftn(
    x: Any, s: Lengths = None, dim: Dims = None, norm: Optional[str] = None, inverse: bool = False
) -> SplitComplex:
    axes = _axes(x, s, dim)
    return _complex_stages(split(x), axes, _lengths(x, s, axes), inverse, norm)


def _rfftn(x: torch.Tensor, s: Lengths = None, dim: Dims = None, norm: Optional[str] = None) -> SplitComplex:
    axes = _axes(x, s, dim)
    lengths = _lengths(x, s, axes)
    n, scale = lengths[-1], _scale(lengths[-1:], False, norm)
    x = _fitted(x, axes[-1], n)
    z = SplitComplex(*_along(axes[-1], lambda a: half_spectrum_of_real(a, n, -1, scale), x))
    return _complex_stages(z, axes[:-1], lengths[:-1], False, norm)


def _irfftn(z: Any, s: Lengths = None, dim: Dims = None, norm: Optional[str] = None) -> torch.Tensor:
    axes = _axes(z, s, dim)
    lengths = _lengths(z, s, axes)
    if s is None or (isinstance(s[-1], int) and s[-1] == -1):
        lengths[-1] = 2 * (lengths[-1] - 1)
    z = _complex_stages(split(z), axes[:-1], lengths[:-1], True, norm)
    n, scale = lengths[-1], _scale(lengths[-1:], True, norm)
    kept = half_of(n) + 1
    re, im = (_fitted(part, axes[-1], kept) for part in (z.real, z.imag))
    return _along(axes[-1], lambda a, b: real_of_half_spectrum((a, b), n, 1, scale), re, im)


def _rolled(x: Any, dim: Dims, inverse: bool) -> Any:
    """Move the origin of each axis to its middle (inverse: back)."""
    for axis in _axes(x, None, dim):
        n = length_of(x, axis)
        if isinstance(n, int) and n == 1:
            continue
        # A roll forward by n // 2 starts at the element n - n // 2; back by n // 2 starts at n // 2.
        start = half_of(n) if inverse else n - half_of(n)
        x = torch.cat([x.narrow(axis, start, n - start), x.narrow(axis, 0, start)], axis)
    return x


def _one(function: Callable, **fixed: Any) -> Callable:
    """A transform over one axis from the one over several."""

    def transform(input: Any, n: Optional[Length] = None, dim: int = -1, norm: Optional[str] = None) -> Any:
        return function(input, None if n is None else (n,), (dim,), norm, **fixed)

    return transform


def _two(function: Callable, **fixed: Any) -> Callable:
    """A transform whose default axes are the last two."""

    def transform(input: Any, s: Lengths = None, dim: Dims = (-2, -1), norm: Optional[str] = None) -> Any:
        return function(input, s, dim, norm, **fixed)

    return transform


def _several(function: Callable, **fixed: Any) -> Callable:
    """A transform over any axes."""

    def transform(input: Any, s: Lengths = None, dim: Dims = None, norm: Optional[str] = None) -> Any:
        return function(input, s, dim, norm, **fixed)

    return transform


def _fftshift(input: Any, dim: Union[None, int, Sequence[int]] = None) -> Any:
    return _rolled(input, dim, inverse=False)


def _ifftshift(input: Any, dim: Union[None, int, Sequence[int]] = None) -> Any:
    return _rolled(input, dim, inverse=True)


_REPLACED: Dict[Callable, Callable] = {
    torch.fft.fft: _one(_fftn),
    torch.fft.ifft: _one(_fftn, inverse=True),
    torch.fft.rfft: _one(_rfftn),
    torch.fft.irfft: _one(_irfftn),
    torch.fft.fft2: _two(_fftn),
    torch.fft.ifft2: _two(_fftn, inverse=True),
    torch.fft.rfft2: _two(_rfftn),
    torch.fft.irfft2: _two(_irfftn),
    torch.fft.fftn: _several(_fftn),
    torch.fft.ifftn: _several(_fftn, inverse=True),
    torch.fft.rfftn: _several(_rfftn),
    torch.fft.irfftn: _several(_irfftn),
    torch.fft.fftshift: _fftshift,
    torch.fft.ifftshift: _ifftshift,
    torch.complex: SplitComplex,
    torch.polar: polar,
    torch.view_as_complex: view_as_complex,
}
