"""A picture tile by tile into a file: read, computed and written at the same time, in finished rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional, Tuple

import numpy as np

from sr_deploy.core.artifact import atomic_file
from sr_deploy.core.contract import IOContract, format_size
from sr_deploy.core.errors import EnvironmentFault
from sr_deploy.core.media.bicubic import resize
from sr_deploy.core.media.encode import DEFAULT, Saving
from sr_deploy.core.media.image import Picture, check_writable, from_network, to_network, write_picture
from sr_deploy.core.media.metadata import png_metadata_chunks
from sr_deploy.core.media.rows import PngRows, is_written_by_rows
from sr_deploy.core.overlap import behind
from sr_deploy.run.tiled import Place, TiledRunner
from sr_deploy.run.tiles import Layout

#: Rows of the input that bicubic enlarging reads above and below.
ALPHA_HALO = 4
#: Bands of finished rows that wait to be written; one more is written and one is made.
WAITING = 1


@dataclass(frozen=True)
class Estimate:
    """What a picture will take, before its first tile.

    Attributes:
        layout: its tiles.
        bytes: memory of the host, about: picture, bands, tiles and the runtime's own.
        seconds: about; None where it was not asked.
    """

    layout: Layout
    bytes: float
    seconds: Optional[float]

    def explained(self, halo: int) -> str:
        """One line for people."""
        layout = self.layout
        tiles = "1 tile" if layout.count == 1 else f"{layout.count} tiles"
        parts = [f"{tiles} of {format_size(layout.tile)} ({halo} pixels of halo)", amount(self.bytes)]
        if self.seconds is not None:
            parts.append(f"about {_duration(self.seconds)}")
        if layout.padded != layout.size:
            parts.append(f"{format_size(layout.size)} is filled up to {format_size(layout.padded)} by reflection")
        return ", ".join(parts)


def amount(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def bytes_in_tiles(layout: Layout, picture: Picture, scale: int, tile_bytes: float, by_rows: bool) -> float:
    """Memory that a picture in tiles takes, about.

    Args:
        layout: its tiles.
        picture: decoded.
        scale: output size over input size.
        tile_bytes: of one tile in the runtime, with its tensors.
        by_rows: the result is written by rows; else it lies in memory, and its encoded form too.
    """
    each = (picture.pixels.shape[2] + (picture.alpha is not None)) * picture.depth // 8
    rows = max(span.last - span.first for span in layout.rows)
    band = rows * layout.size[1] * scale * scale * each
    whole = layout.size[0] * layout.size[1] * each
    held = band * (WAITING + 3) if by_rows else 2 * whole * scale * scale + band
    return whole + held + tile_bytes


def enlarge_tiles(runner: TiledRunner, picture: Picture, contract: IOContract) -> Iterator[Tuple[int, Picture]]:
    """A picture through a runner of tiles, in bands from top to bottom.

    Yields:
        The first row of a band in the result, and the band: of the kind and depth of ``picture``, alpha included.
    """
    scale, (_, width) = runner.scale, picture.size

    def part_of(rows: Tuple[int, int], columns: Tuple[int, int]) -> np.ndarray:
        return to_network(Picture(_cropped(picture.pixels, rows, columns)), contract)

    band: Optional[np.ndarray] = None
    for place, sr in runner.tiles(part_of, picture.size):
        rows, columns = place
        if band is None:
            shape = ((rows[1] - rows[0]) * scale, width * scale, picture.pixels.shape[2])
            band = np.empty(shape, picture.pixels.dtype)
        like = Picture(_cropped(picture.pixels, rows, columns))
        band[:, columns[0] * scale : columns[1] * scale] = from_network(sr, contract, like).pixels
        if columns[1] == width:
            yield rows[0] * scale, Picture(band, _alpha_of(picture, place, scale))
            band = None


def _cropped(pixels: np.ndarray, rows: Tuple[int, int], columns: Tuple[int, int]) -> np.ndarray:
    return pixels[rows[0] : rows[1], columns[0] : columns[1]]


def _alpha_of(picture: Picture, place: Place, scale: int) -> Optional[np.ndarray]:
    """The alpha of a band, enlarged as a whole picture's is."""
    if picture.alpha is None:
        return None
    height, width = picture.size
    first, last = place.rows
    above, below = max(first - ALPHA_HALO, 0), min(last + ALPHA_HALO, height)
    enlarged = resize(picture.alpha[above:below], ((below - above) * scale, width * scale))
    return enlarged[(first - above) * scale : (last - above) * scale]


def write_tiles(
    runner: TiledRunner, picture: Picture, contract: IOContract, target: Path, saving: Saving = DEFAULT
) -> None:
    """A picture in tiles to a file, whole or not at all.

    Args:
        runner, contract: of the network.
        picture: decoded.
        target: the file; a PNG is written by rows, of another format the whole result is held.
        saving: how it is written.

    Raises:
        CheckFailed: see ``TiledRunner.tiles``, or NaN in the result.
        UsageError, DiskFull, EnvironmentFault: see ``write_picture``.
    """
    check_writable(target, picture, saving)
    size = (picture.size[0] * runner.scale, picture.size[1] * runner.scale)
    if not is_written_by_rows(target):
        write_picture(upscale_in_tiles(runner, picture, contract), target, saving)
        return
    said = png_metadata_chunks(saving.kept(picture.about).of_size(size))
    with atomic_file(target) as temporary, open(temporary, "wb") as stream:
        rows = PngRows(stream, size, picture.pixels.shape[2] + (picture.alpha is not None), picture.depth, said)
        with behind(rows.write, WAITING) as hand:
            for _, band in enlarge_tiles(runner, picture, contract):
                hand(_with_alpha(band))
        rows.close()


def _with_alpha(band: Picture) -> np.ndarray:
    return band.pixels if band.alpha is None else np.dstack([band.pixels, band.alpha])


def upscale_in_tiles(runner: TiledRunner, picture: Picture, contract: IOContract) -> Picture:
    """A picture in tiles as a whole in memory; see ``enlarge_tiles``."""
    height, width = (side * runner.scale for side in picture.size)
    pixels = np.empty((height, width, picture.pixels.shape[2]), picture.pixels.dtype)
    alpha = None if picture.alpha is None else np.empty((height, width), picture.alpha.dtype)
    for first, band in enlarge_tiles(runner, picture, contract):
        rows = slice(first, first + band.size[0])
        pixels[rows] = band.pixels
        if alpha is not None:
            alpha[rows] = band.alpha
    return Picture(pixels, alpha, picture.about.of_size((height, width)))


def check_memory_of(estimate: Estimate, memory: Optional[int], target: Path) -> None:
    """Refuse a picture that will not stay within the memory that may be used.

    Raises:
        EnvironmentFault: the message says what would.
    """
    if memory is None or estimate.bytes <= memory:
        return
    by_rows = is_written_by_rows(target)
    raise EnvironmentFault(
        f"{format_size(estimate.layout.size)} in tiles needs {amount(estimate.bytes)}"
        + ("" if by_rows else f" to be written as {target.suffix}, whose encoder takes the whole picture")
        + f", and {amount(memory)} may be used",
        "more memory" + ("" if by_rows else ", or --format png, which is written by rows"),
        f"--memory {estimate.bytes / 1e9 + 0.05:.1f}GB",
    )
