"""Pixels of a picture file whose header has been looked at: OpenCV's decoders for PNG, JPEG and 16 bits, else Pillow's.

Pillow reads no colours of 16 bits, and OpenCV neither palettes of TIFF nor inks.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Optional, Tuple

import cv2
import numpy as np
from PIL import Image, ImageCms

from sr_deploy.core.errors import BadImage
from sr_deploy.core.media.formats import opened
from sr_deploy.core.media.imagefile import WANTED, FileFacts
from sr_deploy.core.text import plain

_AGAIN = "copy or download it again, or save it again"


def decoded(data: bytes, facts: FileFacts, path: Path) -> Tuple[np.ndarray, Optional[np.ndarray]]:
    """(pixels, alpha) as the file has them, not turned upright.

    Returns:
        uint8 or uint16 (H, W, 3) in RGB order or (H, W, 1), and alpha (H, W) of that type or None. CMYK comes as RGB
        in sRGB, converted with the file's profile.

    Raises:
        BadImage: the content is damaged.
    """
    if facts.cmyk:
        return _of_inks(data, facts, path), None
    if facts.kind in ("png", "jpeg") or (facts.depth == 16 and not facts.grey):
        return _by_opencv(data, facts, path)
    return _by_pillow(data, facts, path)


def _by_opencv(data: bytes, facts: FileFacts, path: Path) -> Tuple[np.ndarray, Optional[np.ndarray]]:
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise BadImage(f"{path} cannot be decoded: {error.err or error}", f"{WANTED} that is whole", _AGAIN) from error
    if found is None or found.dtype not in (np.uint8, np.uint16):
        raise BadImage(f"{path} cannot be decoded: its content is damaged", f"{WANTED} that is whole", _AGAIN)
    return _split(found, facts)


def _split(found: np.ndarray, facts: FileFacts) -> Tuple[np.ndarray, Optional[np.ndarray]]:
    """OpenCV's grey, BGR or BGRA array as RGB or grey pixels and alpha.

    OpenCV gives grey-with-alpha as BGRA, and drops the transparent colour that a PNG without an alpha channel can name.
    """
    planes = found.reshape(found.shape[0], found.shape[1], -1)
    channels = planes.shape[2]
    alpha = planes[:, :, -1] if channels in (2, 4) else None
    colour = planes[:, :, : channels - 1] if alpha is not None else planes
    pixels = colour[:, :, :1] if facts.grey else colour[:, :, ::-1]
    if facts.transparent_colour is not None:
        full = np.iinfo(pixels.dtype).max
        through = np.all(pixels == np.asarray(facts.transparent_colour, pixels.dtype), axis=2)
        alpha = np.where(through, 0, full).astype(pixels.dtype)
    return np.ascontiguousarray(pixels), None if alpha is None else np.ascontiguousarray(alpha)


def _by_pillow(data: bytes, facts: FileFacts, path: Path) -> Tuple[np.ndarray, Optional[np.ndarray]]:
    image = _loaded(data, facts, path)
    if facts.depth == 16:
        return np.asarray(image).astype(np.uint16)[:, :, None], None
    mode = ("LA" if facts.channels == 2 else "L") if facts.grey else "RGBA" if facts.channels == 4 else "RGB"
    array = np.asarray(image.convert(mode))
    planes = array.reshape(array.shape[0], array.shape[1], -1)
    if mode in ("LA", "RGBA"):
        return np.ascontiguousarray(planes[:, :, :-1]), np.ascontiguousarray(planes[:, :, -1])
    return np.ascontiguousarray(planes), None


def _loaded(data: bytes, facts: FileFacts, path: Path) -> Image.Image:
    image = opened(data, path, facts.kind)
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise of every kind; whatever it is, the file is bad
        reason = plain(str(error), 200)
        raise BadImage(f"{path} cannot be decoded: {reason}", f"{WANTED} that is whole", _AGAIN) from error
    return image


def _of_inks(data: bytes, facts: FileFacts, path: Path) -> np.ndarray:
    """CMYK as sRGB by the file's profile, relative colorimetric with black point compensation."""
    image = _loaded(data, facts, path)
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(facts.about.icc))
        converted = ImageCms.profileToProfile(
            image, profile, ImageCms.createProfile("sRGB"), renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB", flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise BadImage(
            f"{path} is CMYK, and its colour profile does not convert it: {plain(str(error), 200)}",
            "a profile of four inks",
            "convert it to RGB in an image editor",
        ) from error
    return np.ascontiguousarray(np.asarray(converted))
