"""Frames of a video ↔ a network's tensors, by the contract of its graph."""

from __future__ import annotations

import numpy as np

from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadInput, CheckFailed
from sr_deploy.core.media.colour import Planes, YuvColour, planes_of_rgb, rgb_of_planes
from sr_deploy.core.media.video.pixels import PixelFormat


def check_depth(contract: IOContract, depth: int, origin: str) -> None:
    """Refuse a clip that would lose bits in the graph.

    Raises:
        BadInput: more than 8 bits for a graph that takes and gives 8.
    """
    if contract.dtype == "uint8" and depth > 8:
        raise BadInput(
            f"{origin} has {depth} bits, and this graph takes and gives 8",
            "a clip of 8 bits",
            "export the network without --io uint8",
        )


def tensor_of_planes(planes: Planes, colour: YuvColour, contract: IOContract) -> np.ndarray:
    """A frame as the graph takes it: float32 (1, 3, H, W) in 0…value_range, not rounded, or uint8 (1, H, W, 3)."""
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
    return planes_of_rgb(rgb_of_tensor(array, contract), colour, form.depth, form.subsampling, form.grey)
