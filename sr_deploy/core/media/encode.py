"""Pixels to the bytes of a picture file: what each format holds, and what it is written with."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, List, Optional, Tuple

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from sr_deploy.core.errors import UsageError
from sr_deploy.core.media.imagefile import PNG_SIGNATURE, png_chunk
from sr_deploy.core.media.metadata import Metadata, png_metadata_chunks
from sr_deploy.core.names import check_name

#: A JPEG's quality without --quality.
JPEG_QUALITY = 95
#: --chroma → Pillow's number.
CHROMA = {"444": 0, "422": 1, "420": 2}


@dataclass(frozen=True)
class Saving:
    """How results are written.

    Attributes:
        quality: of JPEG, 1…100 (None: 95), and of WebP (None: lossless).
        chroma: of JPEG, a key of CHROMA: how often colour is stored; None: "444", for every pixel.
        strip: EXIF and XMP are left out. What the colours mean always stays.
    """

    quality: Optional[int] = None
    chroma: Optional[str] = None
    strip: bool = False

    def kept(self, about: Metadata) -> Metadata:
        """What is written of a picture's metadata."""
        return about.stripped() if self.strip else about

    def check(self) -> None:
        """Raise UsageError for a value that does not exist."""
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"--quality {self.quality} does not exist", "1 to 100")
        if self.chroma is not None:
            check_name("--chroma", self.chroma, CHROMA)


#: 4:4:4 at 95, lossless WebP, all metadata.
DEFAULT = Saving()
#: Of pixels (H, W, 1 or 3), alpha or None, metadata and saving makes a file's bytes.
Encoder = Callable[[np.ndarray, Optional[np.ndarray], Metadata, Saving], bytes]


@dataclass(frozen=True)
class FileFormat:
    """A row of the table of formats.

    Attributes:
        name: for messages.
        encode: makes the bytes.
        alpha: it has a place for transparency.
        deep: it has a place for 16 bits a channel.
        says: kinds of metadata that it holds, by the names of ``Metadata.there``.
        options: fields of ``Saving`` that mean something for it.
        deep_grey_alpha: it has a place for grey of 16 bits with transparency.
    """

    name: str
    encode: Encoder
    alpha: bool
    deep: bool
    says: FrozenSet[str]
    options: FrozenSet[str] = frozenset()
    deep_grey_alpha: bool = False


def format_of(path: Path) -> FileFormat:
    """The row of a file's suffix.

    Raises:
        UsageError: a suffix that is not written here.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"cannot write {path}: unknown suffix {suffix!r}", "one of " + ", ".join(FORMATS), "use .png")
    return FORMATS[suffix]


def not_kept(about: Metadata, path: Path) -> Tuple[str, ...]:
    """Kinds of metadata that a file of this suffix has no place for."""
    says = format_of(path).says
    return tuple(kind for kind, there in about.there.items() if there and kind not in says)


def _png(pixels: np.ndarray, alpha: Optional[np.ndarray], about: Metadata, _: Saving) -> bytes:
    if alpha is not None and pixels.shape[2] == 1:
        data = _grey_alpha_png(pixels, alpha)
    else:
        planes = pixels[:, :, ::-1] if alpha is None else np.dstack([pixels[:, :, ::-1], alpha])
        data = _by_opencv(".png", planes)
    extra = b"".join(png_chunk(name, body) for name, body in png_metadata_chunks(about))
    header = len(PNG_SIGNATURE) + 25
    return data[:header] + extra + data[header:]


def _by_opencv(suffix: str, planes: np.ndarray) -> bytes:
    """BGR(A) or grey (H, W, C) to the bytes of a file."""
    try:
        done, data = cv2.imencode(suffix, np.ascontiguousarray(planes))
    except cv2.error:
        done = False
    if not done:
        raise _too_large(planes, suffix)
    return bytes(data.tobytes())


def _too_large(planes: np.ndarray, suffix: str) -> UsageError:
    return UsageError(f"cannot encode {planes.shape[1]}x{planes.shape[0]} pixels as {suffix}", "", "use .png")


def _grey_alpha_png(pixels: np.ndarray, alpha: np.ndarray) -> bytes:
    """Grey with alpha (PNG colour type 4), which OpenCV does not write. Rows are stored as differences to the left."""
    height, width = alpha.shape
    samples = np.dstack([pixels, alpha]).astype(pixels.dtype.newbyteorder(">"))
    rows = samples.reshape(height, -1).view(np.uint8)
    depth = 8 * pixels.dtype.itemsize
    step = 2 * depth // 8
    filtered = np.ones((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 1:] = rows
    filtered[:, 1 + step :] = rows[:, step:] - rows[:, :-step]
    header = struct.pack(">IIBBBBB", width, height, depth, 4, 0, 0, 0)
    body = zlib.compress(filtered.tobytes(), 6)
    return PNG_SIGNATURE + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def _by_pillow(kind: str, pixels: np.ndarray, alpha: Optional[np.ndarray], **options: Any) -> bytes:
    """Grey or RGB of 8 bits, with alpha or without, to the bytes of a file."""
    planes = pixels if alpha is None else np.dstack([pixels, alpha])
    image = Image.fromarray(np.ascontiguousarray(planes[:, :, 0] if planes.shape[2] == 1 else planes))
    stream = io.BytesIO()
    try:
        image.save(stream, kind, **{name: value for name, value in options.items() if value not in (None, b"")})
    except (OSError, ValueError, struct.error) as error:  # more pixels a side than the format counts
        raise _too_large(planes, f".{kind}") from error
    return stream.getvalue()


def _jpeg(pixels: np.ndarray, _: Optional[np.ndarray], about: Metadata, saving: Saving) -> bytes:
    return _by_pillow(
        "jpeg", pixels, None, quality=saving.quality or JPEG_QUALITY, subsampling=CHROMA[saving.chroma or "444"],
        icc_profile=about.icc, exif=about.exif and b"Exif\0\0" + about.exif, xmp=about.xmp,
    )  # fmt: skip


def _webp(pixels: np.ndarray, alpha: Optional[np.ndarray], about: Metadata, saving: Saving) -> bytes:
    # WebP knows no grey; the colours under transparent pixels are kept.
    colours = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    lossy = {"quality": saving.quality} if saving.quality is not None else {"lossless": True, "quality": 50}
    return _by_pillow(
        "webp", colours, alpha, exact=True, icc_profile=about.icc, exif=about.exif, xmp=about.xmp, **lossy
    )


def _bmp(pixels: np.ndarray, _: Optional[np.ndarray], __: Metadata, ___: Saving) -> bytes:
    return _by_pillow("bmp", pixels, None)


def _tiff(pixels: np.ndarray, alpha: Optional[np.ndarray], about: Metadata, _: Saving) -> bytes:
    """One strip of deflated samples; Pillow writes the directory, and itself no colours of 16 bits."""
    planes = pixels if alpha is None else np.dstack([pixels, alpha])
    height, width, channels = planes.shape
    packed = zlib.compress(np.ascontiguousarray(planes.astype(planes.dtype.newbyteorder("<"))).tobytes(), 6)
    tags: Any = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    if about.exif:
        exif = Image.Exif()
        exif.load(about.exif)
        for tag, value in exif.items():
            if tag not in _STRUCTURE:
                tags[tag] = value
        for directory in (34665, 34853):
            if exif.get_ifd(directory):
                tags[directory] = dict(exif.get_ifd(directory))
    tags[256], tags[257], tags[259], tags[277], tags[278], tags[284] = width, height, 8, channels, height, 1
    tags[258] = (8 * planes.dtype.itemsize,) * channels
    tags[262] = 1 if pixels.shape[2] == 1 else 2
    tags[273], tags[279] = 0, len(packed)
    if alpha is not None:
        tags[338] = 2
    for tag, body in ((34675, about.icc), (700, about.xmp)):
        if body:
            tags.tagtype[tag] = 7 if tag == 34675 else 1
            tags[tag] = body
    stream = io.BytesIO()
    tags.save(stream)
    return stream.getvalue() + packed


#: Tags of a TIFF's structure, which are the new file's own.
_STRUCTURE = frozenset(
    (254, 256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 284, 338, 339, 513, 514, 700, 34665, 34675, 34853)
)
_ALL = frozenset(("colour profile", "EXIF", "XMP"))
_JPEG = FileFormat("JPEG", _jpeg, False, False, _ALL, frozenset(("quality", "chroma")))
_TIFF = FileFormat("TIFF", _tiff, True, True, _ALL)
#: Suffix → format: what can be written, and what folders are searched for.
FORMATS: Dict[str, FileFormat] = {
    ".png": FileFormat("PNG", _png, True, True, _ALL | {"PNG gamma or primaries"}, deep_grey_alpha=True),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": FileFormat("WebP", _webp, True, False, _ALL, frozenset(("quality",))),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".bmp": FileFormat("BMP", _bmp, False, False, frozenset()),
}


def suffix_names() -> List[str]:
    """The suffixes without their dots."""
    return [suffix[1:] for suffix in FORMATS]
