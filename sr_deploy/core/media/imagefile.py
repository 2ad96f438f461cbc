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

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.errors import BadImage

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA = 0, 2, 3, 4
#: PNG colour type → (stored channels, decoded channels without a tRNS chunk).
_CHANNELS = {_GREY: (1, 1), _RGB: (3, 3), _PALETTE: (1, 3), _GREY_ALPHA: (2, 4), 6: (4, 4)}
_DEPTHS = (1, 2, 4, 8, 16)
#: Deflate makes at most so many bytes of one.
_DEFLATE_TIMES = 1032
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
        size: (height, width) in pixels as stored, before the orientation is applied.
        channels: of the decoded array, 1, 3 or 4; grey with alpha is decoded as 4.
        depth: bits of a decoded channel, 8 or 16.
        scans: passes over the picture in which a JPEG stores it; 1 for a PNG.
        orientation: EXIF's, 1…8; 1: upright.
        transparent_colour: the one colour, in decoded values, that a PNG without alpha channel calls transparent.
    """

    grey: bool
    size: Size
    channels: int
    depth: int = 8
    scans: int = 1
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
    size, depth, colour_type = _png_header(data, path)
    orientation, transparent, packed = 1, None, 0
    stored, channels = _CHANNELS[colour_type]
    position = len(PNG_SIGNATURE)
    while True:
        header = data[position : position + 8]
        length = int.from_bytes(header[:4], "big")
        end = position + 12 + length
        if len(header) < 8 or end > len(data):
            raise _cut_off(path, "PNG")
        name, body = header[4:], data[position + 8 : end - 4]
        if zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(data[end - 4 : end], "big"):
            shown = name.decode("ascii") if name.isalpha() else name.hex(" ")
            raise _damaged(path, "PNG", f"the checksum of its {shown} chunk at byte {position} is wrong")
        if name == b"IDAT":
            packed += length
        elif name == b"acTL" and int.from_bytes(body[:4], "big") > 1:
            raise BadImage(f"{path} is an animated PNG", "a single picture", "extract its frames as PNG files")
        elif name == b"eXIf":
            orientation = _orientation(body)
        elif name == b"tRNS" and colour_type == _PALETTE:
            channels = 4
        elif name == b"tRNS" and colour_type in (_GREY, _RGB):
            if length != 2 * stored:
                raise _damaged(path, "PNG", f"its transparent colour has {length} bytes")
            step = 255 // ((1 << depth) - 1) if depth < 8 else 1
            transparent = tuple(step * value for (value,) in struct.iter_unpack(">H", body))
        elif name == b"IEND":
            break
        position = end
    if size[0] * (size[1] * stored * depth // 8) > _DEFLATE_TIMES * packed:
        raise _damaged(path, "PNG", f"it says that it has {format_size(size)} pixels, and has {packed} bytes of data")
    grey = colour_type in (_GREY, _GREY_ALPHA)
    return FileFacts(grey, size, channels, 16 if depth == 16 else 8, 1, orientation, transparent)


def _png_header(data: bytes, path: Path) -> Tuple[Size, int, int]:
    """((height, width), bits, colour type) of a PNG's first chunk."""
    start = len(PNG_SIGNATURE)
    if len(data) < start + 25:
        raise _cut_off(path, "PNG")
    width, height, depth, colour_type = struct.unpack_from(">IIBB", data, start + 8)
    if data[start : start + 8] != b"\x00\x00\x00\x0dIHDR" or colour_type not in _CHANNELS or depth not in _DEPTHS:
        raise _damaged(path, "PNG", "it has no header")
    return (height, width), depth, colour_type


def _jpeg_facts(data: bytes, path: Path) -> FileFacts:
    components, orientation, size = 0, 1, (0, 0)
    position = 2
    while True:
        while data[position : position + 2] == b"\xff\xff":
            position += 1
        marker, length = data[position : position + 2], int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        if marker[:1] not in (b"", b"\xff"):
            raise _damaged(path, "JPEG", f"no marker at byte {position}")
        if len(marker) < 2 or length < 2 or len(body) + 2 < length:
            raise _cut_off(path, "JPEG")
        kind = marker[1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC) and len(body) > 5:
            components = body[5]
            # Of several frames, which no decoder takes, the largest.
            size = max(size, struct.unpack_from(">HH", body, 1), key=lambda pair: pair[0] * pair[1])
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
    # The same holds for the markers that begin a scan. They are counted to the end of the file: an end marker could be
    # hidden in a comment.
    return FileFacts(components == 1, size, components, 8, data.count(b"\xff\xda", position), orientation)


def _cut_off(path: Path, kind: str) -> BadImage:
    return BadImage(f"{path} is cut off: this {kind} has no end", f"a whole {kind} file", "copy or download it again")


def _damaged(path: Path, kind: str, why: str) -> BadImage:
    return BadImage(f"{path} is damaged: {why}", f"a whole {kind} file", "copy or download it again")


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
