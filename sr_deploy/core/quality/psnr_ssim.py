"""How good an upscaled picture is, by the convention of super-resolution papers ("Y, border = scale").

Both figures are taken on the luma of ITU-R BT.601 in studio range, Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255,
in float64 and not rounded, from pictures that were clipped and rounded to 8 bits; a border as wide as the scale is
left out. This is what MATLAB's rgb2ycbcr, psnr and the SSIM script of Wang et al. give in the published tables.
"""

from __future__ import annotations

import math
from typing import Tuple

import numpy as np

from sr_deploy.core.errors import BadImage

#: How results name this convention.
CONVENTION = "BT.601 Y, border = scale left out, 8-bit"

LUMA_WEIGHTS = (65.481, 128.553, 24.966)
#: Width of SSIM's window, pixels, and its sigma.
WINDOW, _SIGMA = 11, 1.5
#: Originals are cropped to a multiple of the scale, in some sets to a multiple of all scales, 12.
_MOST_CROPPED = 11


def luma(pixels: np.ndarray) -> np.ndarray:
    """BT.601 Y, float64 (H, W) in 16…235, of uint8 (H, W, 3) RGB or (H, W, 1) grey (R = G = B).

    Raises:
        BadImage: not 8 bit; the convention is defined for 8-bit pictures only.
    """
    if pixels.dtype != np.uint8:
        raise BadImage(f"PSNR and SSIM were asked of {pixels.dtype} pixels", "8-bit pictures", "convert them to 8 bits")
    return luma_of_colours(pixels)


def luma_of_colours(colours: np.ndarray) -> np.ndarray:
    """The same of colours in 0…255 that need not be whole numbers, (H, W, 3) or (H, W, 1)."""
    three = np.broadcast_to(colours, colours.shape[:2] + (3,)).astype(np.float64)
    plane: np.ndarray = three @ np.asarray(LUMA_WEIGHTS) / 255.0 + 16.0
    return plane


def crop_like(hr: np.ndarray, sr: np.ndarray, name: str = "the original") -> np.ndarray:
    """The part of an original that the upscaled picture shows: the top-left (H, W) of it.

    Args:
        hr: pixels of the original (H', W', C).
        sr: pixels of the upscaled picture (H, W, C).
        name: what errors call the original: its path.

    Raises:
        BadImage: the original is smaller, or so much larger that the two are not a pair.
    """
    height, width = sr.shape[:2]
    if not (0 <= hr.shape[0] - height <= _MOST_CROPPED and 0 <= hr.shape[1] - width <= _MOST_CROPPED):
        raise BadImage(
            f"{name} is {hr.shape[0]}x{hr.shape[1]}, but the upscaled picture is {height}x{width}",
            f"that size, or up to {_MOST_CROPPED} pixels more (originals are cropped at the right and the bottom)",
            "check the scale, and that the folders belong together",
        )
    return hr[:height, :width]


def psnr_y(sr: np.ndarray, hr: np.ndarray, border: int) -> float:
    """Peak signal-to-noise ratio of the luma, dB: 10 log10(255² / mean squared difference); equal pictures give inf.

    Args:
        sr, hr: the result and its original (see ``crop_like``), uint8 (H, W, 3) RGB or (H, W, 1) grey.
        border: pixels left out on each side; the scale, by convention.

    The table of metrics (metrics.py) checks that the sizes agree and suffice.

    Raises:
        BadImage: not 8 bit.
    """
    first, second = _inner_lumas(sr, hr, border)
    error = float(np.mean((first - second) ** 2))
    return math.inf if error == 0.0 else 10.0 * math.log10(255.0**2 / error)


def psnr_rgb(sr: np.ndarray, border: int, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio over red, green and blue to another network's output, dB: fidelity; equal gives inf.

    Args:
        sr, reference: uint8 (H, W, 3) RGB or (H, W, 1) grey, of one size.
        border: pixels left out on each side.

    Raises:
        BadImage: of two sizes.
    """
    if sr.shape[:2] != reference.shape[:2]:
        raise BadImage(
            f"the picture is {sr.shape[0]}x{sr.shape[1]}, the reference's {reference.shape[0]}x{reference.shape[1]}",
            "the same size",
            "take a reference of the same scale",
        )
    inside = (slice(border, sr.shape[0] - border), slice(border, sr.shape[1] - border))
    error = float(np.mean((sr[inside].astype(np.float64) - reference[inside]) ** 2))
    return math.inf if error == 0.0 else 10.0 * math.log10(255.0**2 / error)


def ssim_y(sr: np.ndarray, hr: np.ndarray, border: int) -> float:
    """Structural similarity of the luma (Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004), 1 for equal pictures.

    Gaussian window of 11x11 and sigma 1.5, C1 = (0.01·255)², C2 = (0.03·255)², mean over the windows that lie wholly
    inside the picture after the border is left out.

    Args:
        sr, hr, border: as for ``psnr_y``.

    Raises:
        BadImage: not 8 bit.
    """
    a, b = _inner_lumas(sr, hr, border)
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    mean_a, mean_b = _blurred(a), _blurred(b)
    variance_a = _blurred(a * a) - mean_a**2
    variance_b = _blurred(b * b) - mean_b**2
    covariance = _blurred(a * b) - mean_a * mean_b
    top = (2.0 * mean_a * mean_b + c1) * (2.0 * covariance + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    return float(np.mean(top / bottom))


def _inner_lumas(sr: np.ndarray, hr: np.ndarray, border: int) -> Tuple[np.ndarray, np.ndarray]:
    """Both lumas without the border."""
    height, width = sr.shape[:2]
    inside = (slice(border, height - border), slice(border, width - border))
    return luma(sr)[inside], luma(hr)[inside]


def _blurred(plane: np.ndarray) -> np.ndarray:
    """Weighted mean over every window inside (H, W): (H - 10, W - 10). The Gaussian is separable."""
    distance = np.arange(WINDOW) - WINDOW // 2
    weight = np.exp(-(distance**2) / (2.0 * _SIGMA**2))
    weight /= weight.sum()
    height, width = plane.shape[0] - WINDOW + 1, plane.shape[1] - WINDOW + 1
    rows: np.ndarray = sum(weight[k] * plane[k : k + height] for k in range(WINDOW))
    blurred: np.ndarray = sum(weight[k] * rows[:, k : k + width] for k in range(WINDOW))
    return blurred
