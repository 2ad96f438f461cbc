"""Pictures for a page: small copies, enlarged details, error maps. Pixels in, encoded bytes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import cv2
import numpy as np

from sr_deploy.core.contract import round_up
from sr_deploy.core.media.bicubic import resize
from sr_deploy.core.quality.psnr_ssim import luma
from sr_deploy.report.plots import Crop

#: Where an error map is white-hot: an error of so many 8-bit steps of luma, or more.
ERROR_LIMIT = 32
#: A picture is shown at most so wide, in pixels; a detail is a square of so many pixels of the original.
WIDEST, DETAIL = 400, 72
JPEG_QUALITY = 88
#: OpenCV's number for the colour map "inferno", dark for no error, which reads the same in black and white.
_COLOURS = cv2.COLORMAP_INFERNO


@dataclass(frozen=True)
class Panel:
    """One picture of a row.

    Attributes:
        title: its heading, in plain text.
        alt: what it shows, for those who cannot see it.
        whole: JPEG or PNG bytes of a small copy, with its media type.
        detail: PNG bytes of the enlarged part, one pixel of the original a pixel.
        error: whether it is an error map.
    """

    title: str
    alt: str
    whole: Tuple[str, bytes]
    detail: bytes
    error: bool = False


def picture_panel(title: str, alt: str, pixels: np.ndarray, size: Tuple[int, int], crop: Crop) -> Panel:
    """A panel of a picture.

    Args:
        title, alt: see Panel.
        pixels: uint8 (H, W, 3) RGB or (H, W, 1); a smaller one (the low-resolution input) is enlarged without
            interpolation.
        size: (height, width) of the original.
        crop: the detail, in pixels of the original.
    """
    full = _rgb(pixels)
    if full.shape[:2] != tuple(size):
        full = cv2.resize(full, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    return Panel(title, alt, ("image/jpeg", _jpeg(_small(full))), _png(_part(full, crop)))


def error_panel(title: str, alt: str, pixels: np.ndarray, original: np.ndarray, crop: Crop) -> Panel:
    """A panel of |difference of luma| from the original, 0…ERROR_LIMIT steps as colours, more as the last colour.

    The small copy takes the largest error under each of its pixels, so that none is averaged away.
    """
    error = np.abs(luma(pixels) - luma(original))
    step = max(1, -(-error.shape[1] // WIDEST))
    height, width = round_up(error.shape[0], step), round_up(error.shape[1], step)
    padded = np.zeros((height, width))
    padded[: error.shape[0], : error.shape[1]] = error
    largest = padded.reshape(height // step, step, width // step, step).max(axis=(1, 3))
    return Panel(title, alt, ("image/jpeg", _jpeg(_coloured(largest))), _png(_coloured(_part(error, crop))), True)


def bicubic_of(lr: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    """The low-resolution picture enlarged bicubically to (height, width): what every network is compared with."""
    return resize(lr, size)


def error_scale() -> bytes:
    """The colours from 0 to ERROR_LIMIT as a PNG, 256x1."""
    return _png(_coloured(np.linspace(0, ERROR_LIMIT, 256)[None]))


def _coloured(error: np.ndarray) -> np.ndarray:
    steps = np.rint(np.clip(error / ERROR_LIMIT, 0, 1) * 255).astype(np.uint8)
    return cv2.applyColorMap(steps, _COLOURS)[..., ::-1]


def _rgb(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.broadcast_to(pixels, pixels.shape[:2] + (3,)))


def _part(array: np.ndarray, crop: Crop) -> np.ndarray:
    top, left, rows, columns = crop
    return array[top : top + rows, left : left + columns]


def _small(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    if width <= WIDEST:
        return pixels
    return cv2.resize(pixels, (WIDEST, max(1, round(height * WIDEST / width))), interpolation=cv2.INTER_AREA)


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))[1].tobytes()


def _jpeg(pixels: np.ndarray) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), options)[1].tobytes()
