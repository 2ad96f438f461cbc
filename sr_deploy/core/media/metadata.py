"""What a picture file says besides its pixels: colour profile, EXIF, XMP, and what PNG says of its colours.

Sources: the ICC's profile specification for embedding (ICC.1, annex B) and the specifications of PNG, JPEG (Adobe's
APP2 segments) and WebP; EXIF 2.3 for the tags that depend on the pixels.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Tuple

from sr_deploy.core.contract import Size

#: PNG's chunks on what its numbers mean as colours; a profile's chunk, iCCP, stands for itself.
PNG_COLOUR_CHUNKS = (b"cICP", b"sRGB", b"gAMA", b"cHRM", b"mDCV", b"cLLI")
#: A profile that is longer when unpacked is none: the largest known have some 3 MB.
MOST_PROFILE_BYTES = 16 << 20
_ORIENTATION, _EXIF_DIRECTORY, _WIDTH, _HEIGHT = 274, 34665, 40962, 40963
_SHORT, _LONG = 3, 4


@dataclass(frozen=True)
class Metadata:
    """What a file says besides its pixels; empty where it says nothing.

    Attributes:
        icc: the colour profile, as its own file would have it.
        exif: a TIFF structure, from "II" or "MM" on.
        xmp: UTF-8 text.
        png_colour: chunks of PNG_COLOUR_CHUNKS: (name, body).
    """

    icc: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""
    png_colour: Tuple[Tuple[bytes, bytes], ...] = ()

    @property
    def there(self) -> Dict[str, bool]:
        """Which kinds there are, by the names that messages use."""
        return {
            "colour profile": bool(self.icc),
            "EXIF": bool(self.exif),
            "XMP": bool(self.xmp),
            "PNG gamma or primaries": bool(self.png_colour),
        }

    def stripped(self) -> Metadata:
        """What is needed to show the colours right: EXIF and XMP are left out."""
        return dataclasses.replace(self, exif=b"", xmp=b"")

    def of_size(self, size: Size) -> Metadata:
        """For pixels that are upright and of ``size`` (height, width): EXIF says so; other bytes stay as they are."""
        return dataclasses.replace(self, exif=exif_of(self.exif, size))


def orientation_of(exif: bytes) -> int:
    """The orientation tag of an EXIF block, 1…8; 1 where there is none."""
    for tag, _, _, value, _ in _entries(exif, _first(exif)):
        if tag == _ORIENTATION:
            return value if 1 <= value <= 8 else 1
    return 1


def exif_of(exif: bytes, size: Size) -> bytes:
    """An EXIF block that says upright, and ``size`` (height, width) where it names one.

    Values are changed in their places, so that offsets within, such as those of a camera's notes, stay right.
    """
    result = bytearray(exif)
    for tag, kind, at, value, order in _entries(exif, _first(exif)):
        if tag == _ORIENTATION:
            _put(result, kind, at, 1, order)
        elif tag == _EXIF_DIRECTORY:
            for inner, inner_kind, place, _, _ in _entries(exif, value):
                if inner in (_WIDTH, _HEIGHT):
                    _put(result, inner_kind, place, size[1] if inner == _WIDTH else size[0], order)
    return bytes(result)


def _first(exif: bytes) -> int:
    """Where the first directory begins; the end of the block where it has none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    return int(struct.unpack_from(order + "I", exif, 4)[0]) if order is not None and len(exif) >= 8 else len(exif)


def _entries(exif: bytes, start: int) -> Iterator[Tuple[int, int, int, int, str]]:
    """Of a directory at ``start``: tag, type, place of the value, the value as it stands, byte order."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2], "<")
    if start + 2 > len(exif):
        return
    for entry in range(struct.unpack_from(order + "H", exif, start)[0]):
        at = start + 2 + 12 * entry
        if at + 12 > len(exif):
            return
        tag, kind = struct.unpack_from(order + "HH", exif, at)
        value = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), exif, at + 8)[0]
        yield tag, kind, at + 8, value, order


def _put(exif: bytearray, kind: int, at: int, value: int, order: str) -> None:
    if kind in (_SHORT, _LONG) and value < 1 << (16 if kind == _SHORT else 32):
        struct.pack_into(order + ("H" if kind == _SHORT else "I"), exif, at, value)


def icc_of_png(body: bytes) -> bytes:
    """The profile in a PNG's iCCP chunk; empty where it cannot be unpacked, or is longer than any."""
    name, _, packed = body.partition(b"\0")
    if not 1 <= len(name) <= 79 or packed[:1] != b"\0":
        return b""
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(packed[1:], MOST_PROFILE_BYTES)
    except zlib.error:
        return b""
    return profile if unpacker.eof else b""


def icc_of_jpeg(segments: List[bytes]) -> bytes:
    """The profile in a JPEG's APP2 segments, each after its mark; empty where one is missing."""
    numbered = {part[0]: part[2:] for part in segments if len(part) > 2}
    count = next((part[1] for part in segments if len(part) > 2), 0)
    return b"".join(numbered[n] for n in range(1, count + 1)) if set(numbered) == set(range(1, count + 1)) else b""


def xmp_of_png(body: bytes) -> Optional[bytes]:
    """The text of a PNG's iTXt chunk, where it is XMP."""
    name, _, rest = body.partition(b"\0")
    if name != b"XML:com.adobe.xmp" or len(rest) < 2:
        return None
    parts = rest[2:].split(b"\0", 2)
    if len(parts) < 3 or rest[0] != 0:  # compressed, which XMP's specification does not allow
        return None
    return parts[2]


def png_metadata_chunks(about: Metadata) -> List[Tuple[bytes, bytes]]:
    """The chunks of a PNG between its header and its pixels that say it: (name, body)."""
    chunks = list(about.png_colour)
    if about.icc:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(about.icc, 9)))
    if about.exif:
        chunks.append((b"eXIf", about.exif))
    if about.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + about.xmp))
    return chunks
