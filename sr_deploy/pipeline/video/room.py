"""Is there memory for the frames that are under way at once? Asked before the first is computed."""

from __future__ import annotations

from sr_deploy.core.contract import IOContract, Size, format_size
from sr_deploy.core.deployment.manifest import Manifest
from sr_deploy.core.errors import BadInput
from sr_deploy.core.host.machine import available_memory_bytes
from sr_deploy.core.media.room import MEMORY_SHARE, MOST_PIXELS, bytes_to_upscale
from sr_deploy.core.overlap import WAITING

#: Frames between the decoder and the network, or the network and the encoder: those that wait, and one in work.
UNDER_WAY = WAITING + 1
#: Frames that an encoder looks ahead, in bytes per pixel of the result: 60 frames of 4:2:0 in 10 bits.
ENCODER_BYTES = 180


def check_even(manifest: Manifest, size: Size) -> None:
    """Raise BadImage for frames that a graph of planes does not take; any others are cut into tiles, or filled up."""
    if manifest.contract.yuv is not None:
        manifest.sizes.check(size)


def check_frames_fit(size: Size, contract: IOContract, scale: int) -> None:
    """Refuse frames that the memory does not hold; the network's own activations are not among what is counted.

    Raises:
        BadInput: too large for this machine, or for any.
    """
    pixels = size[0] * size[1]
    need = pixels * (bytes_to_upscale(contract, scale) * UNDER_WAY + ENCODER_BYTES * scale * scale)
    free = available_memory_bytes()
    if pixels > MOST_PIXELS or (free is not None and need > MEMORY_SHARE * free):
        raise BadInput(
            f"frames of {format_size(size)} need {need / 1e9:.1f} GB here"
            + ("" if free is None else f", and {free / 1e9:.1f} GB are free"),
            f"frames that need at most {MEMORY_SHARE:.0%} of the free memory",
            "make the clip smaller first",
        )
