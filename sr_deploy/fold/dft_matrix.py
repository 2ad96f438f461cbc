"""Discrete Fourier transforms of one axis as products with real matrices, in one stage or two.

A spectrum is a pair (re, im) of real tensors. Every function works along the last axis, gives an unscaled sum unless
told a scale, and takes the sign of the exponent: -1 for a forward transform, +1 for an inverse one.

Two stages (Cooley and Tukey, 1965): with n = n1·n2, m = n2·m1 + m2 and k = k1 + n1·k2,

    X[k] = Σ_{m2} w_n2^(m2·k2) · w_n^(m2·k1) · Σ_{m1} w_n1^(m1·k1) · x[m],     w_r = exp(sign·2πj / r).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Optional, Tuple

import numpy as np
import torch

from sr_deploy.fold.traced_size import Length, constant, count_to, half_of

Pair = Tuple[torch.Tensor, torch.Tensor]

#: Below this many points one product is a few operators and less work than a second stage's copies.
_SMALLEST_SPLIT = 64
#: A second stage costs a twiddle and a transposition; it must save at least half of the multiplications.
_WORTH = 0.5


def two_stages(n: int, real: bool) -> Optional[Tuple[int, int]]:
    """(n1, n2) with the fewest multiplications when two stages are worth it, else None.

    Args:
        n: points.
        real: the transform is between real numbers and a half spectrum.
    """
    if n < _SMALLEST_SPLIT:
        return None
    pairs = [(n1, n // n1) for n1 in range(2, n // 2 + 1) if n % n1 == 0]
    if not pairs:
        return None
    best = min(pairs, key=lambda pair: split_cost(pair[0], pair[1], real))
    return best if split_cost(best[0], best[1], real) <= _WORTH * direct_cost(n, real) else None


def direct_cost(n: int, real: bool) -> int:
    """Multiplications of one transform of n points as one product."""
    return 2 * n * (n // 2 + 1) if real else 4 * n * n


def split_cost(n1: int, n2: int, real: bool) -> int:
    """Multiplications of one transform of n1·n2 points in two stages, the twiddle between them included.

    A half spectrum needs only the columns k2 that reach k = n/2.
    """
    n = n1 * n2
    if real:
        return 2 * n1 * n + 4 * n + 4 * n * (n2 // 2 + 1)
    return 4 * n1 * n + 4 * n + 4 * n2 * n


def spectrum_of_complex(pair: Pair, n: Length, sign: int, scale) -> Pair:
    """n complex points to n frequencies (or back)."""
    if not isinstance(n, int) or (split := two_stages(n, real=False)) is None:
        cos, sin = _waves(n, n, sign, scale, pair[0])
        return _times(pair, cos, sin)
    n1, n2 = split
    re, im = (part.reshape(*part.shape[:-1], n1, n2) for part in pair)
    cos, sin = _waves(n1, n1, sign, 1.0, re)
    re, im = _turn((cos @ re - sin @ im, sin @ re + cos @ im), _waves_between(n1, n2, sign, scale, re))
    re, im = _times((re, im), *_waves(n2, n2, sign, 1.0, re))
    return _interleaved(re), _interleaved(im)


def half_spectrum_of_real(x: torch.Tensor, n: Length, sign: int, scale) -> Pair:
    """n real points to the frequencies 0 … n/2."""
    if not isinstance(n, int) or (split := two_stages(n, real=True)) is None:
        cos, sin = _waves(n, half_of(n) + 1, sign, scale, x)
        return x @ cos, x @ sin
    n1, n2 = split
    columns = n // 2 // n1 + 1
    x = x.reshape(*x.shape[:-1], n1, n2)
    cos, sin = _waves(n1, n1, sign, 1.0, x)
    pair = _turn((cos @ x, sin @ x), _waves_between(n1, n2, sign, scale, x))
    re, im = _times(pair, *_waves(n2, columns, sign, 1.0, x))
    return _interleaved(re)[..., : n // 2 + 1], _interleaved(im)[..., : n // 2 + 1]


def real_of_half_spectrum(pair: Pair, n: Length, sign: int, scale) -> torch.Tensor:
    """The frequencies 0 … n/2 to n real points.

    The other half is taken to be the conjugate. The imaginary part at 0 and (even n) n/2 has no effect, as in
    torch.fft.irfft.
    """
    if not isinstance(n, int) or (split := two_stages(n, real=True)) is None:
        cos, sin = _waves(n, half_of(n) + 1, sign, scale, pair[0])
        weight = _hermitian_weight(n, pair[0])
        return pair[0] @ (cos * weight).transpose(0, 1) - pair[1] @ (sin * weight).transpose(0, 1)
    n1, n2 = split
    columns = n // 2 // n1 + 1
    weight = _hermitian_weight(n, pair[0])
    missing = columns * n1 - (n // 2 + 1)
    re, im = (torch.nn.functional.pad(part * weight, (0, missing)) for part in pair)
    re, im = (part.reshape(*part.shape[:-1], columns, n1).transpose(-1, -2) for part in (re, im))
    cos, sin = (wave.transpose(0, 1) for wave in _waves(n2, columns, sign, 1.0, re))
    re, im = _turn(_times((re, im), cos, sin), _waves_between(n1, n2, sign, scale, re))
    cos, sin = _waves(n1, n1, sign, 1.0, re)
    y = cos @ re - sin @ im
    return y.reshape(*y.shape[:-2], n)


def _times(pair: Pair, cos: torch.Tensor, sin: torch.Tensor) -> Pair:
    """(re + j·im) @ (cos + j·sin)."""
    re, im = pair
    return re @ cos - im @ sin, re @ sin + im @ cos


def _turn(pair: Pair, wave: Pair) -> Pair:
    """(re + j·im) · (cos + j·sin), element by element."""
    (re, im), (cos, sin) = pair, wave
    return re * cos - im * sin, re * sin + im * cos


def _interleaved(x: torch.Tensor) -> torch.Tensor:
    """(…, k1, k2) to (…, k2·n1 + k1)."""
    x = x.transpose(-1, -2)
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def _waves(n: Length, columns: Length, sign: int, scale, like: torch.Tensor) -> Pair:
    """cos and sin of ``sign·2π·m·k/n`` times ``scale``: (n, columns), of the type of ``like``."""
    if isinstance(n, int):
        return _constant_waves(n, columns, n, sign, scale, like.dtype, like.device)
    steps, frequencies = count_to(n).to(like), count_to(columns).to(like)
    turns = steps[:, None] * frequencies[None, :]
    # Whole turns are taken off first: products of whole numbers are exact in float32 up to n = 4096, the sines of
    # large angles are not.
    size = n.to(like)
    turns = turns - size * torch.floor(turns / size + 0.5)
    angle = turns * (2 * math.pi / size)
    return torch.cos(angle) * scale, torch.sin(angle) * (scale * sign)


def _waves_between(n1: int, n2: int, sign: int, scale: float, like: torch.Tensor) -> Pair:
    """The twiddle: cos and sin of ``sign·2π·k1·m2/n`` times ``scale``, (n1, n2)."""
    return _constant_waves(n1, n2, n1 * n2, sign, scale, like.dtype, like.device)


@lru_cache(maxsize=64)
def _constant_waves(
    rows: int, columns: int, n: int, sign: int, scale: float, dtype: torch.dtype, device: torch.device
) -> Pair:
    turns = np.outer(np.arange(rows), np.arange(columns)) % n
    angle = turns * (2 * math.pi / n)
    waves = np.cos(angle) * scale, np.sin(angle) * (scale * sign)
    return constant(waves[0], dtype, device), constant(waves[1], dtype, device)


def _hermitian_weight(n: Length, like: torch.Tensor) -> torch.Tensor:
    """How often each frequency of a half spectrum stands in the whole one: 1 at 0 and n/2, else 2."""
    if isinstance(n, int):
        return _constant_weight(n, like.dtype, like.device)
    k = count_to(half_of(n) + 1).to(like)
    return 2.0 - (k == 0).to(like) - (2 * k == n.to(like)).to(like)


@lru_cache(maxsize=64)
def _constant_weight(n: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    k = np.arange(n // 2 + 1)
    return constant(2.0 - (k == 0) - (2 * k == n), dtype, device)
