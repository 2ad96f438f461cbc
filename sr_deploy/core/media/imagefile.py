"""What the bytes of a picture file say before it is decoded: whole or cut off, grey or colour, which way up.

Decoders give half a picture for half a file, and drop what they do not return; so the file is walked through first.
Sources: PNG specification (ISO/IEC 15948) for chunks; ITU-T T.81 for JPEG markers.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.errors import BadImage
from sr_deploy.core.media.metadata import (
    PNG_COLOUR_CHUNKS,
    Metadata,
    icc_of_jpeg,
    icc_of_png,
    orientation_of,
    xmp_of_png,
)

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA = 0, 2, 3, 4
#: PNG colour type → (stored channels, decoded channels without a tRNS chunk).
_CHANNELS = {_GREY: (1, 1), _RGB: (3, 3), _PALETTE: (1, 3), _GREY_ALPHA: (2, 4), 6: (4, 4)}
_DEPTHS = (1, 2, 4, 8, 16)
#: Deflate makes at most so many bytes of one.
_DEFLATE_TIMES = 1032

#: What errors ask for.
WANTED = "a PNG, JPEG, WebP, TIFF or BMP file"
TO_RGB = "convert it to RGB in an image editor"
_EXIF_MARK, _XMP_MARK, _ICC_MARK = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"


@dataclass(frozen=True)
class FileFacts:
    """What the file's structure says.

    Attributes:
        kind: "png", "jpeg", "webp", "tiff" or "bmp".
        grey: one colour channel (alpha not counted).
        size: (height, width) in pixels as stored, before the orientation is applied.
        channels: of the decoded array, 1, 3 or 4; grey with alpha is decoded as 4.
        depth: bits of a decoded channel, 8 or 16.
        scans: passes over the picture in which a JPEG stores it; 1 for a PNG.
        orientation: EXIF's, 1…8; 1: upright.
        transparent_colour: the one colour, in decoded values, that a PNG without alpha channel calls transparent.
        about: what it says besides its pixels.
        cmyk: the stored colours are cyan, magenta, yellow and black.
    """

    kind: str
    grey: bool
    size: Size
    channels: int
    depth: int = 8
    scans: int = 1
    orientation: int = 1
    transparent_colour: Optional[Tuple[int, ...]] = None
    about: Metadata = Metadata()
    cmyk: bool = False


def png_chunk(name: bytes, body: bytes) -> bytes:
    """One chunk of a PNG: length, name, body, checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_facts(data: bytes, path: Path) -> FileFacts:
    """Walk through a PNG; raises BadImage where it is cut off, damaged or animated."""
    size, depth, colour_type = _png_header(data, path)
    transparent, packed = None, 0
    said: Dict[bytes, bytes] = {}
    stored, channels = _CHANNELS[colour_type]
    position = len(PNG_SIGNATURE)
    while True:
        header = data[position : position + 8]
        length = int.from_bytes(header[:4], "big")
        end = position + 12 + length
        if len(header) < 8 or end > len(data):
            raise cut_off(path, "PNG")
        name, body = header[4:], data[position + 8 : end - 4]
        if zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(data[end - 4 : end], "big"):
            shown = name.decode("ascii") if name.isalpha() else name.hex(" ")
            raise damaged(path, "PNG", f"the checksum of its {shown} chunk at byte {position} is wrong")
        if name == b"IDAT":
            packed += length
        elif name == b"acTL" and int.from_bytes(body[:4], "big") > 1:
            raise BadImage(f"{path} is an animated PNG", "a single picture", "extract its frames as PNG files")
        elif name in (b"eXIf", b"iCCP", *PNG_COLOUR_CHUNKS):
            said.setdefault(name, body)
        elif name == b"iTXt" and xmp_of_png(body) is not None:
            said.setdefault(name, xmp_of_png(body) or b"")
        elif name == b"tRNS" and colour_type == _PALETTE:
            channels = 4
        elif name == b"tRNS" and colour_type in (_GREY, _RGB):
            if length != 2 * stored:
                raise damaged(path, "PNG", f"its transparent colour has {length} bytes")
            step = 255 // ((1 << depth) - 1) if depth < 8 else 1
            transparent = tuple(step * value for (value,) in struct.iter_unpack(">H", body))
        elif name == b"IEND":
            break
        position = end
    if size[0] * (size[1] * stored * depth // 8) > _DEFLATE_TIMES * packed:
        raise damaged(path, "PNG", f"it says that it has {format_size(size)} pixels, and has {packed} bytes of data")
    grey = colour_type in (_GREY, _GREY_ALPHA)
    about = _png_metadata(said, path)
    return FileFacts(
        "png", grey, size, channels, 16 if depth == 16 else 8, 1, orientation_of(about.exif), transparent, about
    )


def _png_metadata(said: Dict[bytes, bytes], path: Path) -> Metadata:
    icc = icc_of_png(said[b"iCCP"]) if b"iCCP" in said else b""
    if b"iCCP" in said and not icc:
        raise damaged(path, "PNG", "its colour profile cannot be unpacked")
    colour = tuple((name, said[name]) for name in PNG_COLOUR_CHUNKS if name in said)
    return Metadata(icc, said.get(b"eXIf", b""), said.get(b"iTXt", b""), colour)


def _png_header(data: bytes, path: Path) -> Tuple[Size, int, int]:
    """((height, width), bits, colour type) of a PNG's first chunk."""
    start = len(PNG_SIGNATURE)
    if len(data) < start + 25:
        raise cut_off(path, "PNG")
    width, height, depth, colour_type = struct.unpack_from(">IIBB", data, start + 8)
    if data[start : start + 8] != b"\x00\x00\x00\x0dIHDR" or colour_type not in _CHANNELS or depth not in _DEPTHS:
        raise damaged(path, "PNG", "it has no header")
    return (height, width), depth, colour_type


def jpeg_facts(data: bytes, path: Path) -> FileFacts:
    """Walk through a JPEG; raises BadImage where it is cut off or damaged, or CMYK without a profile."""
    components, size = 0, (0, 0)
    exif, xmp = b"", b""
    profile: List[bytes] = []
    position = 2
    while True:
        while data[position : position + 2] == b"\xff\xff":
            position += 1
        marker, length = data[position : position + 2], int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        if marker[:1] not in (b"", b"\xff"):
            raise damaged(path, "JPEG", f"no marker at byte {position}")
        if len(marker) < 2 or length < 2 or len(body) + 2 < length:
            raise cut_off(path, "JPEG")
        kind = marker[1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC) and len(body) > 5:
            components = body[5]
            # Of several frames, which no decoder takes, the largest.
            size = max(size, struct.unpack_from(">HH", body, 1), key=lambda pair: pair[0] * pair[1])
        elif kind == 0xE1 and body.startswith(_EXIF_MARK):
            exif = exif or body[len(_EXIF_MARK) :]
        elif kind == 0xE1 and body.startswith(_XMP_MARK):
            xmp = xmp or body[len(_XMP_MARK) :]
        elif kind == 0xE2 and body.startswith(_ICC_MARK):
            profile.append(body[len(_ICC_MARK) :])
        elif kind == 0xDA:
            break
        position += 2 + length
    # Inside coded data 0xFF is always followed by 0 or a restart number, so the next end marker is the picture's own.
    if data.find(b"\xff\xd9", position + 2 + length) < 0:
        raise cut_off(path, "JPEG")
    icc = icc_of_jpeg(profile)
    if profile and not icc:
        raise damaged(path, "JPEG", "a part of its colour profile is missing")
    if components not in (1, 3, 4):
        raise BadImage(f"{path} is a JPEG with {components} channels", "grey, RGB or CMYK", TO_RGB)
    if components == 4 and not icc:
        raise no_profile(path)
    about = Metadata(icc, exif, xmp)
    # The same holds for the markers that begin a scan. They are counted to the end of the file: an end marker could be
    # hidden in a comment.
    scans = data.count(b"\xff\xda", position)
    grey, cmyk = components == 1, components == 4
    return FileFacts("jpeg", grey, size, components, 8, scans, orientation_of(exif), None, about, cmyk)


def no_profile(path: Path) -> BadImage:
    """The error of inks whose colours nobody knows."""
    return BadImage(f"{path} is CMYK without a colour profile: its colours are not known", "a profile, or RGB", TO_RGB)


def cut_off(path: Path, kind: str) -> BadImage:
    """The error of half a file."""
    return BadImage(f"{path} is cut off: this {kind} has no end", f"a whole {kind} file", "copy or download it again")


def damaged(path: Path, kind: str, why: str) -> BadImage:
    """The error of a file whose parts do not fit."""
    return BadImage(f"{path} is damaged: {why}", f"a whole {kind} file", "copy or download it again")
