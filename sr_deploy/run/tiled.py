"""A runner that wraps a runner: pictures of any size through an engine that takes one, or within little memory.

    with TiledRunner(runner, cut, contract, scale) as tiled:
        sr = upscale(tiled, lr)                          # as any runner; run, verify, bench and video need no more
        for place, part in tiled.tiles(part_of, size):   # or part by part, so that the whole never lies in memory
            ...

What a network of a deployment needs for it is in its manifest (``reach``); where tiles lie, run/tiles.py decides.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Tuple

import numpy as np

from sr_deploy.core.contract import IOContract, Size, format_size
from sr_deploy.core.errors import CheckFailed
from sr_deploy.core.media.sample import sample_for
from sr_deploy.core.overlap import ahead
from sr_deploy.core.tolerance import TILES
from sr_deploy.run.base import DeviceTime, Runner, no_device_events
from sr_deploy.run.inputs import checked_input, nothing_uploaded
from sr_deploy.run.settings import DeviceSettings
from sr_deploy.run.tiles import Cut, Layout, Span, mirrored

#: First row or column, and the one after the last.
Range = Tuple[int, int]
#: Rows and columns of the picture → these pixels as the contract says: (1, 3, h, w) or uint8 (1, h, w, 3).
PartOf = Callable[[Range, Range], np.ndarray]
#: Tiles that are read ahead of the one that is computed.
READ_AHEAD = 2
#: Side of the tile, pixels, whose time tells how long a picture will take.
PROBE = 128


class Place(NamedTuple):
    """What a tile gives: rows and columns of the *input*; the result has ``scale`` times as many."""

    rows: Range
    columns: Range


@dataclass
class Seams:
    """How far two neighbours differ on both sides of their border, where each knows the pixels: 0 without a seam.

    Attributes:
        white: the value of white in the results.
        largest: the largest difference so far, in 8-bit steps.
    """

    white: float
    largest: float = 0.0
    _sum: float = 0.0
    _count: int = 0

    @property
    def mean(self) -> float:
        """The mean difference along all borders, in 8-bit steps."""
        return self._sum / self._count if self._count else 0.0

    def compare(self, one: np.ndarray, other: np.ndarray) -> None:
        """Two tiles' results for the same pixels."""
        if one.size:
            difference = np.abs(one.astype(np.float32) - other.astype(np.float32)) * np.float32(255.0 / self.white)
            self.largest = max(self.largest, float(difference.max()))
            self._sum += float(difference.sum())
            self._count += difference.size


class TiledRunner:
    """See the module and ``run/base.py``. It owns the runner that it wraps, and closes it.

    Args:
        inner: takes the tiles.
        cut: how pictures are cut for it.
        contract, scale: of the network.
        inexact: tiles that do not give what the whole picture would are allowed; else they are measured and refused.
    """

    #: ``compute`` brings tiles to the device and results back, so it returns when all is done.
    asynchronous = False
    device_events = False

    def __init__(self, inner: Runner, cut: Cut, contract: IOContract, scale: int, inexact: bool = False) -> None:
        self.inner, self.cut, self.inexact = inner, cut, inexact
        self.contract, self.scale = contract, scale
        self.runtime, self.device, self.io_dtype = inner.runtime, inner.device, inner.io_dtype
        self.seams = Seams(contract.value_range)
        self._seconds_per_pixel: Optional[float] = None
        self._size: Optional[Size] = None
        self._lr: Optional[np.ndarray] = None
        self._sr: Optional[np.ndarray] = None

    def configure(self, settings: DeviceSettings) -> None:
        """Of the runner that takes the tiles."""
        self.inner.configure(settings)

    def prepare(self, size: Size) -> None:
        """Plan the tiles, and prepare the size of the first."""
        rows, columns = self.cut.layout(size).rows[0], self.cut.layout(size).columns[0]
        self.inner.prepare((rows.stop - rows.start, columns.stop - columns.start))
        self._size, self._lr, self._sr = (size[0], size[1]), None, None

    def upload(self, lr: np.ndarray) -> None:
        """Keep a copy of the picture; its tiles are brought to the device one after the other."""
        self._lr, self._sr = checked_input(lr, self._size, self.contract).copy(), None

    def compute(self) -> None:
        """Run all tiles."""
        if self._lr is None or self._size is None:
            raise nothing_uploaded()
        scale = self.scale
        sr = np.empty(self.contract.shape((self._size[0] * scale, self._size[1] * scale)), self.contract.dtype)
        for place, part in self.tiles(array_parts(self._lr, self.contract), self._size):
            region(sr, *enlarged(place, scale), self.contract)[...] = part
        self._sr = sr

    def tiles(self, part_of: PartOf, size: Size) -> Iterator[Tuple[Place, np.ndarray]]:
        """The picture tile by tile, from left to right and then down; tiles to come are read in another thread.

        ``seams`` begins anew, and is complete at the end.

        Args:
            part_of: gives parts of the picture; called in another thread, for parts that lie inside it.
            size: (height, width) of the picture.

        Yields:
            What a tile gives, and the result there: float32 (1, 3, scale·h, scale·w) or uint8 (1, scale·h, scale·w, 3).

        Raises:
            CheckFailed: the network is not local, and ``inexact`` is False; the message says how far two tiles in the
                middle of this picture differ. Or it is local and two tiles differ all the same.
        """
        layout, contract, scale = self.cut.layout(size), self.contract, self.scale
        if not self.cut.exact and not self.inexact:
            raise self._refusal(part_of, layout)
        self.seams = Seams(contract.value_range)
        borders = _Borders(self.seams, contract, scale, size)
        with ahead(_read(part_of, layout, contract), READ_AHEAD) as parts:
            for rows in layout.rows:
                for columns in layout.columns:
                    sr = self._run(next(parts))
                    borders.look_at(rows, columns, sr)
                    place = Place((rows.first, rows.last), (columns.first, columns.last))
                    inside = tuple((s.first - s.start, s.last - s.start) for s in (rows, columns))
                    yield place, region(sr, *enlarged(Place(*inside), scale), contract)
        self._check_seams()

    def seconds_for(self, size: Size) -> float:
        """About how long a picture of ``size`` (height, width) takes: one tile is timed for it, once."""
        layout = self.cut.layout(size)
        if self._seconds_per_pixel is None:
            self._seconds_per_pixel = self._timed(layout)
        return self._seconds_per_pixel * layout.pixels

    def _timed(self, layout: Layout) -> float:
        """Seconds for a pixel of the input, of the second run of a tile; the first prepares the size."""
        tile = layout.tile if self.cut.fixed else tuple(self.cut.sizes.fit(min(side, PROBE)) for side in layout.tile)
        lr = sample_for(self.contract, (tile[0], tile[1]))
        self._run(lr)
        began = time.perf_counter()
        self._run(lr)
        return (time.perf_counter() - began) / (tile[0] * tile[1])

    def _check_seams(self) -> None:
        """Refuse tiles of a local network that differ where they meet; what less than float32 rounds is not judged."""
        # 8-bit results that differ at all do so by a whole step.
        bound = 1.0 if self.contract.dtype == "uint8" else TILES.steps
        if self.cut.exact and self.seams.largest > bound and self.inner.describe().get("precision") == "fp32":
            raise CheckFailed(
                f"tiles differ by {self.seams.largest:.4g} of 255 along their borders, and the network is local",
                f"at most {bound:g} ({TILES.name})",
                "this runtime computes the same pixels differently at two places: take another engine or backend",
            )

    def _refusal(self, part_of: PartOf, layout: Layout) -> CheckFailed:
        """The error for tiles that do not give what the whole picture would, measured on two in its middle."""
        rows, columns = layout.rows, layout.columns
        middle = (len(rows) // 2, len(columns) // 2)
        if len(columns) > 1:
            pair = [(rows[middle[0]], columns[middle[1] - 1]), (rows[middle[0]], columns[middle[1]])]
        else:
            pair = [(rows[place], columns[0]) for place in range(max(middle[0] - 1, 0), middle[0] + 1)]
        seams = Seams(self.contract.value_range)
        borders = _Borders(seams, self.contract, self.scale, layout.size)
        if layout.count == 1:
            return CheckFailed(
                f"a picture of {format_size(layout.size)} would be filled up with its mirror image to "
                f"{format_size(layout.tile)}, and the network is {self.cut.why}",
                f"a picture of at least {format_size(layout.tile)}, or an engine for its size",
                "--allow-inexact takes it filled up",
            )
        for row, column in pair:
            part = _padded_part(part_of, _spans_of(row, column, layout.size), self.contract)
            borders.look_at(row, column, self._run(part))
        told = f"two tiles of it differ by up to {seams.largest:.3g} of 255 along their border, {seams.mean:.2g} in "
        told += "the mean"
        return CheckFailed(
            f"a picture of {format_size(layout.size)} would be made in {layout.count} tiles, and the network is "
            f"{self.cut.why}: {told}",
            "tiles that give what the whole picture would",
            "more memory or an engine for this size makes it whole; --allow-inexact takes the tiles as they are",
        )

    def synchronize(self) -> None:
        """``compute`` has waited."""

    def timed_compute(self) -> DeviceTime:
        """See ``run/base.py``; a device's clock sees one tile at a time."""
        raise no_device_events(self)

    def download(self) -> np.ndarray:
        """The result, a new array."""
        if self._sr is None:
            raise nothing_uploaded()
        return self._sr.copy()

    def describe(self) -> Dict[str, Any]:
        """What the wrapped runner tells, and the tiles."""
        told: Dict[str, Any] = {"halo": self.cut.halo, "exact": self.cut.exact, "largest": format_size(self.cut.tile)}
        if self._size is not None:
            layout = self.cut.layout(self._size)
            told.update(count=layout.count, size=format_size(layout.tile))
        return {**self.inner.describe(), "tiles": told}

    def close(self) -> None:
        """Close the runner that takes the tiles."""
        self.inner.close()
        self._size = self._lr = self._sr = None

    def _run(self, part: np.ndarray) -> np.ndarray:
        """One tile through the wrapped runner."""
        size = self.contract.size_of(part)
        self.inner.prepare(size)
        self.inner.upload(part)
        self.inner.compute()
        return self.inner.download()


@dataclass
class _Borders:
    """The results along the borders of the tiles before, to compare the next ones with."""

    seams: Seams
    contract: IOContract
    scale: int
    size: Size
    _left: Optional[Tuple[Span, np.ndarray]] = None
    _above: Dict[Span, Tuple[Span, np.ndarray]] = field(default_factory=dict)

    def look_at(self, rows: Span, columns: Span, sr: np.ndarray) -> None:
        """Compare a tile with its neighbours on the left and above, on one input pixel to each side of the border."""
        if columns.first > 0 and self._left is not None:
            before, kept = self._left
            band = (rows.first, rows.last)
            edge = (columns.first - 1, min(columns.first + 1, self.size[1]))
            self.seams.compare(self._cut(kept, rows, before, band, edge), self._cut(sr, rows, columns, band, edge))
        if rows.first > 0 and columns in self._above:
            before, kept = self._above[columns]
            edge, own = (rows.first - 1, min(rows.first + 1, self.size[0])), (columns.first, columns.last)
            self.seams.compare(self._cut(kept, before, columns, edge, own), self._cut(sr, rows, columns, edge, own))
        self._left = (columns, sr)
        # Only the rows that the next tile will be compared on: a picture is wide.
        last = Span(rows.last - 1, min(rows.last + 1, rows.stop), 0, 0)
        kept = self._cut(sr, rows, columns, (last.start, last.stop), (columns.start, columns.stop))
        self._above[columns] = (last, kept.copy())

    def _cut(self, sr: np.ndarray, rows: Span, columns: Span, want: Range, across: Range) -> np.ndarray:
        """The result for some rows and columns of the input, out of a tile's that reads ``rows`` and ``columns``."""
        place = Place(
            (want[0] - rows.start, want[1] - rows.start), (across[0] - columns.start, across[1] - columns.start)
        )
        return region(sr, *enlarged(place, self.scale), self.contract)


def enlarged(place: Place, scale: int) -> Tuple[Range, Range]:
    """Rows and columns of the result of those of the input."""
    (top, bottom), (left, right) = place
    return (top * scale, bottom * scale), (left * scale, right * scale)


def region(array: np.ndarray, rows: Range, columns: Range, contract: IOContract) -> np.ndarray:
    """A view of some rows and columns of a picture in the contract's layout."""
    if contract.layout == "NHWC":
        return array[:, rows[0] : rows[1], columns[0] : columns[1]]
    return array[:, :, rows[0] : rows[1], columns[0] : columns[1]]


def array_parts(lr: np.ndarray, contract: IOContract) -> PartOf:
    """The parts of a picture that lies in memory, in the contract's layout."""
    return lambda rows, columns: region(lr, rows, columns, contract)


def _spans_of(rows: Span, columns: Span, size: Size) -> Tuple[Tuple[int, int, int], ...]:
    """What a tile reads, and how long the picture is, along both axes."""
    return (rows.start, rows.stop, size[0]), (columns.start, columns.stop, size[1])


def _read(part_of: PartOf, layout: Layout, contract: IOContract) -> Iterator[np.ndarray]:
    """What each tile reads, row by row, with the pixels that are reflected."""
    for rows in layout.rows:
        for columns in layout.columns:
            yield _padded_part(part_of, _spans_of(rows, columns, layout.size), contract)


def _padded_part(part_of: PartOf, spans: Tuple[Tuple[int, int, int], ...], contract: IOContract) -> np.ndarray:
    """One tile's pixels: what lies beyond the picture is its mirror image."""
    sources = [mirrored(*span) for span in spans]
    bounds = [(int(source.min()), int(source.max()) + 1) for source in sources]
    part = part_of(bounds[0], bounds[1])
    for axis, (source, bound, span) in enumerate(zip(sources, bounds, spans), contract.row_axis):
        if span[1] > span[2]:
            part = np.take(part, source - bound[0], axis=axis)
    return np.ascontiguousarray(part)
