"""Frames of a video ↔ a network's tensors, by the contract of its graph."""

from __future__ import annotations

from typing import Optional

import numpy as np

from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadInput, CheckFailed
from sr_deploy.core.media.colour import Planes, planes_of_rgb, rgb_of_planes
from sr_deploy.core.media.surface import planes_of_surface, surface_of_planes
from sr_deploy.core.media.video.pixels import PixelFormat
from sr_deploy.core.yuv import YuvColour


def check_frames(contract: IOContract, form: Optional[PixelFormat], depth: int, colour: Optional[YuvColour],
                 origin: str) -> None:  # fmt: skip
    """Refuse frames that would lose bits in the graph, or that mean something else than its planes.

    Args:
        contract: of the graph.
        form: of Y'CbCr frames; None for packed RGB.
        depth: bits of a sample.
        colour: what Y'CbCr means; None for packed RGB.
        origin: what errors call the frames.

    Raises:
        BadInput: more than 8 bits for a graph that takes and gives 8, or for a graph of planes another matrix, range,
            siting, depth or subsampling.
    """
    if contract.yuv is None:
        if contract.dtype == "uint8" and depth > 8:
            raise BadInput(
                f"{origin} has {depth} bits, and this graph takes and gives 8",
                "frames of 8 bits",
                "export the network without --io uint8",
            )
        return
    wanted = contract.yuv
    fits = form is not None and form.subsampling == (2, 2) and depth == contract.depth
    if not fits or colour != wanted:
        found = "RGB" if colour is None else f"{colour.matrix} {colour.range} {colour.siting}"
        raise BadInput(
            f"{origin} has {found} of {depth} bits" + ("" if fits or form is None else ", or no 4:2:0"),
            f"{wanted.matrix} {wanted.range} {wanted.siting} of {contract.depth} bits in 4:2:0, as this graph takes",
            "export the network with the --matrix, --range and --siting of these frames, or with --io float32",
        )


def tensor_of_planes(planes: Planes, colour: YuvColour, contract: IOContract) -> np.ndarray:
    """A frame as the graph takes it: float32 (1, 3, H, W), not rounded, uint8 (1, H, W, 3), or planes as they are."""
    if contract.yuv is not None:
        return surface_of_planes(planes)
    return tensor_of_rgb(rgb_of_planes(planes, colour), contract)


def tensor_of_rgb(rgb: np.ndarray, contract: IOContract) -> np.ndarray:
    """float32 (H, W, 3) in 0…1 as the graph takes it."""
    scaled = (rgb if contract.colour == "RGB" else rgb[:, :, ::-1]) * np.float32(contract.value_range)
    if contract.dtype == "uint8":
        return np.ascontiguousarray(np.rint(scaled)[None].astype(np.uint8))
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])


def rgb_of_tensor(array: np.ndarray, contract: IOContract) -> np.ndarray:
    """What the graph gave as float32 (H, W, 3); values outside 0…1 are as they are.

    Raises:
        CheckFailed: NaN or infinite values.
    """
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise CheckFailed(
            f"{bad} of {array.size} output values are NaN or infinite",
            "finite values",
            "build the engine again with float32, and verify it on this device",
        )
    rgb = array[0] if contract.layout == "NHWC" else array[0].transpose(1, 2, 0)
    rgb = rgb if contract.colour == "RGB" else rgb[:, :, ::-1]
    return np.asarray(rgb * np.float32(1.0 / contract.value_range), np.float32)


def planes_of_tensor(array: np.ndarray, contract: IOContract, colour: YuvColour, form: PixelFormat) -> Planes:
    """What the graph gave as a video stores it; raises CheckFailed as ``rgb_of_tensor``."""
    if contract.yuv is not None:
        planes = planes_of_surface(array, contract)
        if (form.subsampling, form.depth, form.grey) == (planes.subsampling, planes.depth, False):
            return planes
        return planes_of_rgb(rgb_of_planes(planes, colour), colour, form.depth, form.subsampling, form.grey)
    return planes_of_rgb(rgb_of_tensor(array, contract), colour, form.depth, form.subsampling, form.grey)
