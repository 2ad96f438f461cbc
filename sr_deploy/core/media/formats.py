"""Which format a picture file has, by its content, and what its header says; those that Pillow walks through.

PNG and JPEG are looked through in imagefile.py, WebP's chunks here (Google's WebP container specification); of TIFF and
BMP Pillow reads the header, and nothing is decoded.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from PIL import Image, UnidentifiedImageError

from sr_deploy.core.errors import BadImage
from sr_deploy.core.media.imagefile import (
    PNG_SIGNATURE,
    TO_RGB,
    WANTED,
    FileFacts,
    cut_off,
    damaged,
    jpeg_facts,
    no_profile,
    png_facts,
)
from sr_deploy.core.media.metadata import Metadata, orientation_of
from sr_deploy.core.text import plain

# What is too large is decided in room.py, from what is read here.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

#: First bytes (at an offset) of what people hand in by mistake, and what to do about it.
_OTHERS = (
    (0, b"GIF8", "a GIF", "convert it to PNG"),
    (4, b"ftypavif", "an AVIF", "convert it to PNG"),
    (4, b"ftypheic", "a HEIC", "convert it to PNG"),
    (4, b"ftyp", "a video", "name it alone, with its suffix: srdeploy run DIR -i clip.mp4 -o clip_sr.mp4"),
    (8, b"AVI ", "a video", "name it alone, with its suffix: srdeploy run DIR -i clip.avi -o clip_sr.mkv"),
    (0, b"\x1aE\xdf\xa3", "a video", "name it alone, with its suffix: srdeploy run DIR -i clip.mkv -o clip_sr.mkv"),
)
_XMP_TAG, _BITS, _ORIENTATION, _EXTRA, _SAMPLE_FORMAT, _ICC_TAG = 700, 258, 274, 338, 339, 34675
#: Of the tag of extra samples: colours were multiplied with the transparency.
_ASSOCIATED = 1
#: Modes of Pillow that are read: (grey, channels with alpha, bits).
_MODES = {
    "1": (True, 1, 8),
    "L": (True, 1, 8),
    "LA": (True, 2, 8),
    "I;16": (True, 1, 16),
    "I;16B": (True, 1, 16),
    "P": (False, 3, 8),
    "PA": (False, 4, 8),
    "RGB": (False, 3, 8),
    "RGBA": (False, 4, 8),
    "CMYK": (False, 4, 8),
}


def facts_of_file(data: bytes, path: Path) -> FileFacts:
    """Look through a file of one of the formats that are read here.

    Args:
        data: the whole file.
        path: named in errors.

    Raises:
        BadImage: empty, cut off, damaged, animated, CMYK without a profile, or of another format.
    """
    if not data:
        raise BadImage(f"{path} is empty", WANTED, "copy or download it again")
    if data.startswith(PNG_SIGNATURE):
        return png_facts(data, path)
    if data.startswith(b"\xff\xd8"):
        return jpeg_facts(data, path)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_facts(data, path)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_facts(data, path)
    if data[:2] == b"BM":
        return _bmp_facts(data, path)
    for offset, magic, what, todo in _OTHERS:
        if data[offset : offset + len(magic)] == magic:
            raise BadImage(f"{path} is {what}", WANTED, todo)
    raise BadImage(
        f"{path} is not a picture: its first bytes are {data[:8].hex(' ')}",
        WANTED,
        "give a picture file; a clip or archive must be unpacked first",
    )


def opened(data: bytes, path: Path, kind: str) -> Image.Image:
    """Pillow's picture of a file, not decoded.

    Raises:
        BadImage: its header cannot be read.
    """
    try:
        return Image.open(io.BytesIO(data), formats=[kind.upper()])
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, TypeError, KeyError) as error:
        raise damaged(path, _named(kind), "its header cannot be read") from error
    except (SyntaxError, RuntimeError, IndexError, OverflowError, MemoryError) as error:
        raise damaged(path, _named(kind), "its header cannot be read") from error


def _named(kind: str) -> str:
    return {"webp": "WebP"}.get(kind, kind.upper())


def _webp_facts(data: bytes, path: Path) -> FileFacts:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise cut_off(path, "WebP")
    chunks: Dict[bytes, bytes] = {}
    position = 12
    while position + 8 <= end:
        name, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        if position + 8 + length > end:
            raise cut_off(path, "WebP")
        chunks.setdefault(name, data[position + 8 : position + 8 + length])
        position += 8 + length + length % 2
    if b"ANIM" in chunks or b"ANMF" in chunks:
        raise BadImage(f"{path} is an animated WebP", "a single picture", "extract its frames as PNG files")
    image = opened(data, path, "webp")
    exif = chunks.get(b"EXIF", b"")
    exif = exif[6:] if exif.startswith(b"Exif\0\0") else exif
    about = Metadata(chunks.get(b"ICCP", b""), exif, chunks.get(b"XMP ", b""))
    return _facts("webp", image, path, about)


def _bmp_facts(data: bytes, path: Path) -> FileFacts:
    if int.from_bytes(data[2:6], "little") > len(data):
        raise cut_off(path, "BMP")
    return _facts("bmp", opened(data, path, "bmp"), path, Metadata())


def _tiff_facts(data: bytes, path: Path) -> FileFacts:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        facts = _tiff_header(data, path)
    for one in told:
        if issubclass(one.category, UserWarning):  # Pillow leaves out a tag that it cannot read, such as the profile
            raise damaged(path, "TIFF", plain(str(one.message).strip(), 200))
    return facts


def _tiff_header(data: bytes, path: Path) -> FileFacts:
    image: Any = opened(data, path, "tiff")
    try:
        pages, tags = getattr(image, "n_frames", 1), image.tag_v2
        bits = tuple(tags.get(_BITS, (1,)))
        about = Metadata(_bytes(tags.get(_ICC_TAG)), _exif_of_tiff(image), _bytes(tags.get(_XMP_TAG)))
    except (OSError, ValueError, TypeError, KeyError, SyntaxError, IndexError, OverflowError) as error:
        raise damaged(path, "TIFF", "its tags cannot be read") from error
    if pages > 1:
        raise BadImage(f"{path} is a TIFF of {pages} pages", "a single picture", "save its pages as files of their own")
    formats = tuple(tags.get(_SAMPLE_FORMAT, (1,)))
    if set(formats) - {1} or set(bits) - {1, 2, 4, 8, 16} or image.mode not in _MODES:
        raise BadImage(
            f"{path} is a TIFF of the form {image.mode} with {', '.join(map(str, bits))} bits",
            "grey, RGB, palette or CMYK, of whole numbers of 8 or 16 bits",
            "convert it in an image editor",
        )
    if _ASSOCIATED in tuple(tags.get(_EXTRA, ())):
        raise BadImage(f"{path} has colours that were multiplied with its transparency", "straight alpha", TO_RGB)
    depth = 16 if 16 in bits else 8
    # Pillow turns what it decodes of a TIFF the right way up itself; see decode.py for what it does not decode.
    turned = int(tags.get(_ORIENTATION, 1)) if depth == 16 and image.mode in ("RGB", "RGBA") else 1
    return _facts("tiff", image, path, about, depth, turned)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else value[0] if isinstance(value, tuple) and value else b""


def _exif_of_tiff(image: Any) -> bytes:
    """The tags that describe the photograph, as a block of their own; those of the file's structure are left."""
    exif = image.getexif()
    if not exif.get_ifd(34665) and not any(tag in exif for tag in (271, 272, 306, 315, 33432)):
        return b""
    kept = Image.Exif()
    for tag in (270, 271, 272, 305, 306, 315, 33432):
        if tag in exif:
            kept[tag] = exif[tag]
    kept.get_ifd(34665).update(exif.get_ifd(34665))
    kept.get_ifd(34853).update(exif.get_ifd(34853))
    packed = kept.tobytes()
    return packed[6:] if packed.startswith(b"Exif\0\0") else packed


def _facts(kind: str, image: Image.Image, path: Path, about: Metadata, depth: Optional[int] = None,
           orientation: Optional[int] = None) -> FileFacts:  # fmt: skip
    if image.mode not in _MODES:
        raise BadImage(f"{path} has the form {image.mode}", "grey, RGB, palette or CMYK", TO_RGB)
    grey, channels, bits = _MODES[image.mode]
    if image.mode == "P" and "transparency" in image.info:
        channels = 4
    cmyk = image.mode == "CMYK"
    if cmyk and not about.icc:
        raise no_profile(path)
    turned = orientation if orientation is not None else orientation_of(about.exif)
    size: Tuple[int, int] = (image.size[1], image.size[0])
    return FileFacts(kind, grey, size, channels, depth or bits, 1, turned if 1 <= turned <= 8 else 1, None, about, cmyk)
