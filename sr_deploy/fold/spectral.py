"""Fourier units that are 1×1 convolutions and one product along the width, found and proved by probing.

A unit that multiplies the half spectrum of ``rfft2`` by one complex matrix ``K``, the same at every frequency, has no
Fourier transform left in it. The real part of ``K`` commutes with the transform. The factor ``j`` on the stored half of
the last axis is ``-j`` on the other half, and nothing at frequency 0 and (even width) at half the width, where the
return to real numbers drops the imaginary part; the height axis is transformed forth and back unchanged. So

    unit(x) = conv1x1(x, A) + conv1x1(x @ Q, B) + bias,   A = Re K,  B = Im K,

with the real W×W matrix ``Q`` of ``width_vector``: minus the discrete Hilbert transform along the width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from sr_deploy.core.tolerance import FOLD_FLOAT32_RELATIVE, FOLD_FLOAT64_RELATIVE
from sr_deploy.fold.affine import relative_error
from sr_deploy.fold.double import copy_as, run_block
from sr_deploy.fold.result import Kept
from sr_deploy.fold.traced_size import constant, count_to, length_of

#: The transforms themselves; shifting a spectrum's origin or listing its frequencies is not one.
TRANSFORMS = frozenset(
    getattr(torch.fft, kind + name)
    for kind in ("", "i", "r", "ir", "h", "ih")
    for name in ("fft", "fft2", "fftn")
    if hasattr(torch.fft, kind + name)
)

#: Where coefficients are read. Width 8: the entry of Q beside the diagonal is -0.60, far from zero.
_PROBE = (6, 8)
#: Where the form is proved, (height, width): tiny, odd, even, prime and mixed.
_PROOFS = ((1, 1), (1, 2), (2, 1), (2, 3), (3, 4), (5, 7), (8, 8), (9, 16), (13, 15), (33, 20))
#: A unit may refuse sizes below this; it must take all others.
_TINY = 4


@dataclass(frozen=True)
class SpectralFold:
    """A Fourier unit without a Fourier transform.

    Attributes:
        module: the FoldedFourierUnit, float32.
        error_float64, error_float32: the module in that type against the unit in float64, largest difference over the
            largest output magnitude.
    """

    module: torch.nn.Module
    error_float64: float
    error_float32: float


class FoldedFourierUnit(torch.nn.Module):
    """``conv1x1(x, local) + conv1x1(x @ Q, width) + bias`` for any height and width.

    The product runs first: runtimes then fuse the addition into a convolution.

    Args:
        local: (C_out, C_in), the matrix A.
        width: (C_out, C_in), the matrix B.
        bias: (C_out,) or None.
    """

    def __init__(self, local: torch.Tensor, width: torch.Tensor, bias: Optional[torch.Tensor]) -> None:
        super().__init__()
        self.local = torch.nn.Parameter(local[:, :, None, None], requires_grad=False)
        self.width = torch.nn.Parameter(width[:, :, None, None], requires_grad=False)
        self.bias = None if bias is None else torch.nn.Parameter(bias, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C_in, H, W) to (N, C_out, H, W)."""
        return F.conv2d(x, self.local, self.bias) + F.conv2d(x @ width_matrix(x), self.width)


def width_vector(distance, width, library):
    """Entries of Q by distance: ``Q[w, v] = width_vector(v - w)``.

    With ``m`` 0 at k = 0 and (even W) at k = W/2, else 1, ``Q = irfft(m · j · rfft(I))``. Its entry at distance d is
    ``-2/W · Σ_{k=1}^{K} sin(2πkd/W)``, K = (W-1)//2. The sum is ``(cos φ - cos((2K+1)φ)) / (2 sin φ)``, φ = πd/W
    (Lagrange's identity), where (2K+1)φ is πd - φ for even W and πd for odd W:

        even W:  -2/W · cot φ  at odd d,   0  at even d
        odd W:   -1/W · cot φ/2  at odd d,   1/W · tan φ/2  at even d

    The distance is first brought into ±W/2, which keeps both forms away from their poles: without that, the rounding of
    an angle close to π costs four digits in float32 at a width of 1000.

    Args:
        distance: array of whole numbers as floats, between -W and W.
        width: W, a number or a 0-d array of the same library.
        library: numpy or torch.

    Returns:
        An array of the type and shape of ``distance``.
    """
    odd_width = width - 2 * library.floor(width / 2)
    distance = distance - width * library.floor(distance / width + 0.5)
    odd = distance - 2 * library.floor(distance / 2)
    angle = distance * (math.pi / (width * (1 + odd_width)))
    sine, cosine = library.sin(angle), library.cos(angle)
    # The second terms select without a comparison; for even W they leave 0 / 1 at even distances.
    numerator = (1 - odd) * odd_width * sine - odd * cosine
    denominator = odd * sine + (1 - odd) * (odd_width * cosine + (1 - odd_width))
    return numerator / denominator * ((2 - odd_width) / width)


def width_matrix(x: torch.Tensor) -> torch.Tensor:
    """Q for the width of ``x`` (N, C, H, W), as (W, W) of its dtype.

    A constant (made in float64, one for all units of that width) when the width is known, else the same in the graph:
    operators that TensorRT 8.5 has, integer Range and no Mod.
    """
    width = length_of(x, -1)
    if isinstance(width, int):
        return _constant_matrix(width, x.dtype, x.device)
    distance = count_to(2 * width - 1) - (width - 1)
    vector = width_vector(distance.to(x), width.to(x), torch)
    column = count_to(width)
    return vector[column[None, :] - column[:, None] + (width - 1)]


@lru_cache(maxsize=8)
def _constant_matrix(width: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    column = np.arange(width, dtype=np.float64)
    matrix = width_vector(column[None, :] - column[:, None], np.float64(width), np)
    return constant(matrix, dtype, device)


class _Watch(TorchFunctionMode):
    """Notes whether a transform was called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen = self.seen or func in TRANSFORMS
        return func(*args, **(kwargs or {}))


def uses_fft(block: torch.nn.Module, in_shape: Sequence[int]) -> bool:
    """True when ``block``, run on zeros of ``in_shape`` (N, C, H, W), calls a transform of torch.fft."""
    with torch.no_grad(), _Watch() as watch:
        block(torch.zeros(tuple(in_shape)))
    return watch.seen


def fold_fourier_unit(block: torch.nn.Module, in_shape: Sequence[int]) -> Union[SpectralFold, str]:
    """Replace a Fourier unit by 1×1 convolutions and a product along the width, if that is what it is.

    The coefficients are read from impulse responses in float64: A at the impulse, B in the column to its right. Then
    the form is proved on random inputs, at ten sizes and at ``in_shape``, in float64 and in float32.

    Args:
        block: takes one (N, C_in, H, W), gives one (N, C_out, H, W), in eval mode. Not modified.
        in_shape: (N, C_in, H, W), an input it gets in its network.

    Returns:
        The fold, or a phrase that says why the block is not of this form.
    """
    channels = in_shape[1]
    sizes = (*_PROOFS, tuple(in_shape[2:]))
    try:
        block = copy_as(block, torch.float64)
        folded = FoldedFourierUnit(*_coefficients(block, channels)).eval()
        cases = _cases(block, channels, sizes)
    except Kept as reason:
        return str(reason)
    with torch.no_grad():
        error_float64 = max(relative_error(folded(x), y) for x, y in cases)
        if error_float64 > FOLD_FLOAT64_RELATIVE:
            return f"it is not 1x1 convolutions and a product along the width (relative error {error_float64:.1e})"
        folded = folded.float()
        error_float32 = max(relative_error(folded(x.float()), y) for x, y in cases)
    if error_float32 > FOLD_FLOAT32_RELATIVE:
        return f"its folded form in float32 has a relative error of {error_float32:.1e}"
    return SpectralFold(folded, error_float64, error_float32)


def _coefficients(block: torch.nn.Module, channels: int) -> Tuple[torch.Tensor, torch.Tensor, Optional[torch.Tensor]]:
    """A, B and the bias of a float64 block. Raises Kept when it does not take the probe or changes its size."""
    row, column = _PROBE[0] // 2, _PROBE[1] // 2
    probe = torch.zeros(channels + 1, channels, *_PROBE, dtype=torch.float64)
    probe[torch.arange(channels), torch.arange(channels), row, column] = 1.0
    response = run_block(block, probe)
    if response.shape[0] != probe.shape[0] or response.shape[2:] != probe.shape[2:]:
        raise Kept(f"it changes the size of its input: {tuple(probe.shape)} to {tuple(response.shape)}")
    still = response[-1, :, :1, :1]
    impulse = response[:-1] - still
    beside = _constant_matrix(_PROBE[1], torch.float64, probe.device)[column, column + 1]
    local, width = impulse[:, :, row, column].T, impulse[:, :, row, column + 1].T / beside
    return local.contiguous(), width.contiguous(), still.flatten() if bool(still.any()) else None


def _cases(
    block: torch.nn.Module, channels: int, sizes: Sequence[Tuple[int, ...]]
) -> List[Tuple[torch.Tensor, torch.Tensor]]:
    """Random inputs that float32 holds exactly, with the float64 block's outputs.

    Raises:
        Kept: the block does not take one of the sizes; sizes below ``_TINY`` it may refuse.
    """
    generator = torch.Generator().manual_seed(0)
    cases = []
    for index, (height, width) in enumerate(sizes):
        # Small and large values, with and without a mean, so that no threshold inside the block goes unseen.
        x = torch.randn(2, channels, height, width, generator=generator) + index % 2
        x = (x * (0.01, 1.0, 255.0)[index % 3]).double()
        try:
            y = run_block(block, x)
        except Kept:
            if min(height, width) < _TINY:
                continue
            raise
        if y.shape[2:] != x.shape[2:]:
            raise Kept(f"it changes the size of its input: {tuple(x.shape)} to {tuple(y.shape)}")
        cases.append((x, y))
    return cases
