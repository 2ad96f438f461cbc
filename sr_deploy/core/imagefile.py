"""What the bytes of a picture file say before it is decoded: whole or cut off, grey or colour, which way up.

Decoders give half a picture for half a file, and drop what they do not return; so the file is walked through first.
Sources: PNG specification (ISO/IEC 15948) for chunks; ITU-T T.81 for JPEG markers; TIFF 6.0 and EXIF 2.3 for the
orientation tag.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

from sr_deploy.core.errors import BadImage

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _GREY_ALPHA = 0, 2, 4
_ORIENTATION_TAG = 274

#: First bytes (at an offset) of what people hand in by mistake, and what to do about it.
_OTHERS = (
    (0, b"GIF8", "a GIF", "convert it to PNG"),
    (0, b"BM", "a BMP", "convert it to PNG"),
    (0, b"II*\x00", "a TIFF", "convert it to PNG"),
    (0, b"MM\x00*", "a TIFF", "convert it to PNG"),
    (8, b"WEBP", "a WebP", "convert it to PNG"),
    (4, b"ftypavif", "an AVIF", "convert it to PNG"),
    (4, b"ftypheic", "a HEIC", "convert it to PNG"),
    (4, b"ftyp", "a video", "extract its frames as PNG: ffmpeg -i VIDEO FOLDER/%06d.png"),
    (8, b"AVI ", "a video", "extract its frames as PNG: ffmpeg -i VIDEO FOLDER/%06d.png"),
    (0, b"\x1aE\xdf\xa3", "a video", "extract its frames as PNG: ffmpeg -i VIDEO FOLDER/%06d.png"),
)


@dataclass(frozen=True)
class FileFacts:
    """What the file's structure says.

    Attributes:
        grey: one colour channel (alpha not counted).
        orientation: EXIF's, 1…8; 1: upright.
        transparent_colour: the one colour, in decoded values, that a PNG without alpha channel calls transparent.
    """

    grey: bool
    orientation: int = 1
    transparent_colour: Optional[Tuple[int, ...]] = None


def facts_of_file(data: bytes, path: Path) -> FileFacts:
    """Look through a PNG or JPEG file.

    Args:
        data: the whole file.
        path: named in errors.

    Raises:
        BadImage: empty, cut off, damaged, animated, CMYK, or neither PNG nor JPEG.
    """
    if not data:
        raise BadImage(f"{path} is empty", "a PNG or JPEG file", "copy or download it again")
    if data.startswith(PNG_SIGNATURE):
        return _png_facts(data, path)
    if data.startswith(b"\xff\xd8"):
        return _jpeg_facts(data, path)
    for offset, magic, what, todo in _OTHERS:
        if data[offset : offset + len(magic)] == magic:
            raise BadImage(f"{path} is {what}", "a PNG or JPEG file", todo)
    raise BadImage(f"{path} is not a picture: its first bytes are {data[:8].hex(' ')}", "a PNG or JPEG file")


def png_chunk(name: bytes, body: bytes) -> bytes:
    """One chunk of a PNG: length, name, body, checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png_facts(data: bytes, path: Path) -> FileFacts:
    depth, colour_type, orientation, transparent = 0, -1, 1, None
    position = len(PNG_SIGNATURE)
    while True:
        header = data[position : position + 8]
        length = int.from_bytes(header[:4], "big")
        end = position + 12 + length
        if len(header) < 8 or end > len(data):
            raise _cut_off(path, "PNG")
        name, body = header[4:], data[position + 8 : end - 4]
        if zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(data[end - 4 : end], "big"):
            raise BadImage(
                f"{path} is damaged: the checksum of its {name.decode('latin-1')} chunk at byte {position} is wrong",
                "a whole PNG file",
                "copy or download it again",
            )
        if name == b"IHDR" and length == 13:
            depth, colour_type = body[8], body[9]
        elif name == b"acTL" and int.from_bytes(body[:4], "big") > 1:
            raise BadImage(f"{path} is an animated PNG", "a single picture", "extract its frames as PNG files")
        elif name == b"eXIf":
            orientation = _orientation(body)
        elif name == b"tRNS" and colour_type in (_GREY, _RGB):
            step = 255 // ((1 << depth) - 1) if depth < 8 else 1
            transparent = tuple(step * value for (value,) in struct.iter_unpack(">H", body))
        elif name == b"IEND":
            return FileFacts(colour_type in (_GREY, _GREY_ALPHA), orientation, transparent)
        position = end


def _jpeg_facts(data: bytes, path: Path) -> FileFacts:
    components, orientation = 0, 1
    position = 2
    while True:
        while data[position : position + 2] == b"\xff\xff":
            position += 1
        marker, length = data[position : position + 2], int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        if marker[:1] not in (b"", b"\xff"):
            raise BadImage(
                f"{path} is damaged: no marker at byte {position}", "a whole JPEG file", "copy or download it again"
            )
        if len(marker) < 2 or length < 2 or len(body) + 2 < length:
            raise _cut_off(path, "JPEG")
        kind = marker[1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC) and len(body) > 5:
            components = body[5]
        elif kind == 0xE1 and body.startswith(b"Exif\x00\x00"):
            orientation = _orientation(body[6:])
        elif kind == 0xDA:
            break
        position += 2 + length
    # Inside coded data 0xFF is always followed by 0 or a restart number, so the next end marker is the picture's own.
    if data.find(b"\xff\xd9", position + 2 + length) < 0:
        raise _cut_off(path, "JPEG")
    if components not in (1, 3):
        what = "a CMYK JPEG" if components == 4 else f"a JPEG with {components} channels"
        raise BadImage(f"{path} is {what}", "grey or RGB", "convert it to RGB in an image editor")
    return FileFacts(components == 1, orientation)


def _cut_off(path: Path, kind: str) -> BadImage:
    return BadImage(f"{path} is cut off: this {kind} has no end", f"a whole {kind} file", "copy or download it again")


def _orientation(exif: bytes) -> int:
    """The orientation tag of an EXIF block (a TIFF header and its first directory); 1 where there is none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 1
    start = struct.unpack_from(order + "I", exif, 4)[0]
    if start + 2 > len(exif):
        return 1
    for entry in range(struct.unpack_from(order + "H", exif, start)[0]):
        at = start + 2 + 12 * entry
        if at + 12 > len(exif):
            return 1
        tag, _, _, value = struct.unpack_from(order + "HHIH", exif, at)
        if tag == _ORIENTATION_TAG:
            return value if 1 <= value <= 8 else 1
    return 1
