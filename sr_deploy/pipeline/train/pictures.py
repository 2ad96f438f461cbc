"""The pictures that a network is trained on, as bytes: low-resolution ones, with originals or without."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Tuple

import numpy as np

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadImage, UsageError
from sr_deploy.core.media.bicubic import crop_to_multiple, resize
from sr_deploy.core.media.image import find_images, in_8_bits, read_picture, to_network
from sr_deploy.core.quality.pairing import pair_images
from sr_deploy.core.quality.psnr_ssim import crop_like

_BYTES = IOContract(value_range=255.0)


@dataclass(frozen=True)
class Material:
    """Pictures to train on.

    Attributes:
        lows: uint8 (1, 3, H, W) each.
        highs: uint8 (1, 3, s·H, s·W) of each; None without originals.
        about: what they are, for people.
        sha256s: of the files that were read, in their order.
        names: of the files that ``lows`` are of or are made of.
    """

    lows: Tuple[np.ndarray, ...]
    highs: Optional[Tuple[np.ndarray, ...]]
    about: str
    sha256s: Tuple[str, ...]
    names: Tuple[str, ...]


def material_of(images: Optional[Path], hr: Optional[Path], scale: int) -> Material:
    """Read the pictures; those of 16 bits are taken in 8.

    Args:
        images: a folder of low-resolution pictures; None: made of the originals by bicubic, as MATLAB's imresize.
        hr: a folder of originals; None: there are none.
        scale: output size over input size.

    Raises:
        UsageError: neither is given.
        BadInput: no or unreadable pictures, or ones without partners.
    """
    if images is None and hr is None:
        raise UsageError(
            "there is nothing to train on",
            "low-resolution pictures with a teacher, or originals",
            "--images FOLDER --teacher CKPT, or --hr FOLDER",
        )
    if images is not None and hr is not None:
        return _pairs(images, hr, scale)
    if hr is not None:
        files = find_images([hr])
        wholes = [_whole(file, scale) for file in files]
        smalls = [resize(whole, (whole.shape[0] // scale, whole.shape[1] // scale)) for whole in wholes]
        about = f"{len(files)} originals, made smaller by bicubic"
        hashes = tuple(map(sha256_of, files))
        return Material(_channels_first(smalls), _channels_first(wholes), about, hashes, tuple(map(str, files)))
    assert images is not None
    files = find_images([images])
    about = f"{len(files)} low-resolution pictures without originals"
    lows = _channels_first([_pixels(file) for file in files])
    return Material(lows, None, about, tuple(map(sha256_of, files)), tuple(map(str, files)))


def _pairs(images: Path, hr: Path, scale: int) -> Material:
    lows, highs, files = [], [], []
    for _, low, high in pair_images(images, hr, scale):
        small, large = _pixels(low), _pixels(high)
        shape = np.empty((small.shape[0] * scale, small.shape[1] * scale, 0), np.uint8)
        lows.append(small)
        highs.append(crop_like(large, shape, str(high)))
        files += [low, high]
    about = f"{len(lows)} pairs"
    names = tuple(map(str, files[::2]))
    return Material(_channels_first(lows), _channels_first(highs), about, tuple(map(sha256_of, files)), names)


def _whole(file: Path, scale: int) -> np.ndarray:
    """An original, cropped so that it can be made ``scale`` times smaller."""
    pixels = _pixels(file)
    if min(pixels.shape[:2]) < scale:
        raise BadImage(
            f"{file} is {pixels.shape[0]}x{pixels.shape[1]}", f"{scale} pixels or more each way", "take it out"
        )
    return crop_to_multiple(pixels, scale)


def _pixels(file: Path) -> np.ndarray:
    """uint8 (H, W, 3) RGB, of grey pictures too."""
    given = to_network(in_8_bits(read_picture(file)), _BYTES)
    return np.rint(given[0]).astype(np.uint8).transpose(1, 2, 0)


def _channels_first(pictures: List[np.ndarray]) -> Tuple[np.ndarray, ...]:
    return tuple(np.ascontiguousarray(picture.transpose(2, 0, 1)[None]) for picture in pictures)
