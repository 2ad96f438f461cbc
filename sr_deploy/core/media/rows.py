"""Writing a picture row by row, so that a large one never lies in memory as a whole.

PNG is a stream of compressed rows (ISO/IEC 15948) and needs no more. JPEG has streams too, but OpenCV's encoder takes
a whole picture; see ``ROWS`` for what is written how.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import BinaryIO, Iterable, Tuple

import numpy as np

from sr_deploy.core.contract import Size
from sr_deploy.core.media.imagefile import PNG_SIGNATURE, png_chunk

#: Suffixes that are written by rows; a picture of any other lies in memory until it is complete.
ROWS = (".png",)
#: Channels → PNG colour type: grey, grey with alpha, RGB, RGB with alpha.
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
#: zlib's level. 3 is some three times as fast as 6, for files a tenth larger.
_LEVEL = 3
#: Compressed bytes in a chunk, about.
_CHUNK = 1 << 20


class PngRows:
    """A PNG that is being written.

    Args:
        stream: an empty file.
        size: (height, width) of the picture.
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
        depth: bits per channel, 8 or 16.
        before: chunks to put between the header and the pixels, such as a colour profile: (name, body).
    """

    def __init__(
        self, stream: BinaryIO, size: Size, channels: int, depth: int, before: Iterable[Tuple[bytes, bytes]] = ()
    ) -> None:
        self._stream, self._size, self._depth = stream, size, depth
        self._step = channels * depth // 8
        self._done, self._packed = 0, bytearray()
        self._compressor = zlib.compressobj(_LEVEL)
        header = struct.pack(">IIBBBBB", size[1], size[0], depth, _COLOUR_TYPES[channels], 0, 0, 0)
        stream.write(PNG_SIGNATURE + png_chunk(b"IHDR", header))
        for name, body in before:
            stream.write(png_chunk(name, body))

    def write(self, rows: np.ndarray) -> None:
        """Add rows: uint8 or uint16 (h, W, channels), as deep as the picture.

        Raises:
            ValueError: they do not fit the picture.
        """
        height = rows.shape[0]
        if rows.dtype.itemsize * 8 != self._depth or rows.shape[1] != self._size[1]:
            raise ValueError(f"rows of {rows.dtype} {rows.shape} do not belong to a picture of {self._size}")
        if self._done + height > self._size[0]:
            raise ValueError(f"{self._done + height} rows of {self._size[0]}")
        # Each row is stored as differences to the pixel on the left, filter type 1.
        samples = np.ascontiguousarray(rows.astype(rows.dtype.newbyteorder(">"), copy=False))
        plain = samples.reshape(height, -1).view(np.uint8)
        filtered = np.ones((height, plain.shape[1] + 1), np.uint8)
        filtered[:, 1 : 1 + self._step] = plain[:, : self._step]
        np.subtract(plain[:, self._step :], plain[:, : -self._step], out=filtered[:, 1 + self._step :])
        self._packed += self._compressor.compress(filtered.data)
        self._done += height
        if len(self._packed) >= _CHUNK:
            self._flush()

    def close(self) -> None:
        """Write the end; the stream stays open.

        Raises:
            ValueError: rows are missing.
        """
        if self._done != self._size[0]:
            raise ValueError(f"{self._done} rows of {self._size[0]}")
        self._packed += self._compressor.flush()
        self._flush()
        self._stream.write(png_chunk(b"IEND", b""))

    def _flush(self) -> None:
        self._stream.write(png_chunk(b"IDAT", bytes(self._packed)))
        self._packed = bytearray()


def is_written_by_rows(path: Path) -> bool:
    """Whether a file of this suffix is."""
    return path.suffix.lower() in ROWS
