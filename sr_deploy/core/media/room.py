"""Is there memory for a picture? Asked of its header, before anything is decoded.

A valid PNG of 875 kB can hold 30000x30000 pixels: 2.7 GB decoded, 170 GB as the float32 output of a ×4 network. The
system would end the process without a word; here the picture is refused, and the message says what it needs.
"""

from __future__ import annotations

from pathlib import Path

from sr_deploy.core.contract import IOContract, format_size
from sr_deploy.core.errors import BadImage
from sr_deploy.core.host.machine import available_memory_bytes
from sr_deploy.core.media.imagefile import FileFacts

#: No picture of more pixels is decoded, whatever the machine: 16384x16384.
MOST_PIXELS = 1 << 28
#: Scans of a progressive JPEG times its pixels. Encoders write 10; each costs a decoder as much as a whole picture.
MOST_SCANNED = 1 << 32
#: A picture may take this part of the memory that is free.
MEMORY_SHARE = 0.8
#: Copies of a picture while it is decoded: the decoder's, the one in RGB order, the one that is turned upright.
DECODED_COPIES = 3
#: Bytes a pixel for the picture as float32 planes, with the copy in another order that comes before.
PLANES_BYTES = 24
#: Copies of the network's output at most: the runtime's, the downloaded, scaled, limited and rounded one.
OUTPUT_COPIES = 5


def bytes_to_upscale(contract: IOContract, scale: int) -> int:
    """Bytes per pixel of the input that ``to_network``, the runtime's tensors and ``from_network`` take.

    The network's own activations are not among them.
    """
    channels = 3 * (4 if contract.dtype == "float32" else 2)
    # A fourth channel of the output is alpha.
    return channels * 2 + (channels + 4) * OUTPUT_COPIES * scale * scale


def decoded_bytes(facts: FileFacts) -> int:
    """What decoding takes, from the file's bytes to pixels that are the right way up."""
    height, width = facts.size
    # A decoder of progressive JPEG keeps all coefficients, two bytes each.
    return height * width * facts.channels * (DECODED_COPIES * facts.depth // 8 + (2 if facts.scans > 1 else 0))


def check_room(facts: FileFacts, path: Path, beside: int = PLANES_BYTES) -> None:
    """Refuse a picture that this machine, or any, had better not decode.

    Args:
        facts: what its header says.
        path: named in errors.
        beside: bytes per pixel that the caller wants besides the picture.

    Raises:
        BadImage: more than ``MOST_PIXELS``, more scans than any encoder writes, or more than ``MEMORY_SHARE`` of the
            memory that is free now. Where the system does not tell what is free, the first two hold alone.
    """
    height, width = facts.size
    pixels = height * width
    todo = "cut it into tiles, or make it smaller"
    if pixels > MOST_PIXELS:
        raise BadImage(
            f"{path} has {format_size(facts.size)} pixels ({pixels / 1e6:,.0f} million)",
            f"at most {MOST_PIXELS / 1e6:,.0f} million",
            todo,
        )
    if facts.scans * pixels > MOST_SCANNED:
        raise BadImage(
            f"{path} has {format_size(facts.size)} pixels in {facts.scans} scans, as if to keep a decoder busy",
            f"a JPEG of that size in at most {MOST_SCANNED // pixels} scans",
            "do not trust it; if it is your own, write it again as a JPEG that is not progressive",
        )
    need, free = decoded_bytes(facts) + pixels * beside, available_memory_bytes()
    if free is not None and need > MEMORY_SHARE * free:
        raise BadImage(
            f"{path} has {format_size(facts.size)} pixels, which need {need / 1e9:.1f} GB here, and "
            f"{free / 1e9:.1f} GB are free",
            f"a picture that needs at most {MEMORY_SHARE:.0%} of the free memory",
            todo,
        )
