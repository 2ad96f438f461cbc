"""Where a picture is cut into tiles: plain arithmetic of whole pixels.

    tile 0   |-----------------|              a tile reads start…stop and gives first…last; between lies the halo
    tile 1             |-----------------|    two neighbours share the border in the middle of what both read
    tile 2                 |-----------------|    the last tile is shifted, so that it ends with the picture

A pixel is taken from a tile that holds everything it depends on, so tiles of a local network fit without a seam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Optional, Tuple

import numpy as np

from sr_deploy.core.contract import Size, SizeRules, format_size, round_up
from sr_deploy.core.errors import BadDeployment
from sr_deploy.core.reach import Reach

#: Pixels that tiles of a network read beyond what they give where it is not local: no number makes them equal, and
#: more than 16 changes little. Mean difference from the whole in steps for 8, 16, 32 and 48 pixels, tiles that give
#: 64²: EFDN ×2 0.56, 0.36, 0.40, 0.32; F2SRGAN ×2 1.25, 1.24, 1.21, 1.11.
INEXACT_HALO = 32
#: Layouts of tensors that are cut: rows and columns of whole pixels.
TILED_LAYOUTS: Tuple[str, ...] = ("NCHW", "NHWC")
#: One more than the network needs: so two neighbours both know the pixels on either side of their border.
SEEN_BY_BOTH = 1


class Span(NamedTuple):
    """A tile along one axis, in pixels of the input.

    Attributes:
        start, stop: what it reads.
        first, last: what it gives: the enlarged pixels of these.
    """

    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True)
class Layout:
    """A picture cut into tiles.

    Attributes:
        size: of the picture, (height, width).
        padded: the size after pixels were reflected at the bottom and at the right; ``size`` where nothing was.
        rows, columns: the tiles along both axes, in coordinates of the picture.
    """

    size: Size
    padded: Size
    rows: Tuple[Span, ...]
    columns: Tuple[Span, ...]

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.columns)

    @property
    def tile(self) -> Size:
        """(height, width) of the largest tile."""
        return (max(s.stop - s.start for s in self.rows), max(s.stop - s.start for s in self.columns))

    @property
    def pixels(self) -> int:
        """Input pixels that are computed, halos included."""
        return sum(s.stop - s.start for s in self.rows) * sum(s.stop - s.start for s in self.columns)


@dataclass(frozen=True)
class Cut:
    """How the pictures of one network are cut for one engine.

    Attributes:
        tile: (height, width) of a tile at most, pixels.
        fixed: each tile is exactly that large.
        halo: see ``Span``; one pixel more than the network needs, see SEEN_BY_BOTH.
        multiple: tiles begin at multiples of this.
        sizes: the sizes that the network takes.
        exact: the network is local: the tiles give what the whole picture would.
        why: what the network's reach is, for people.
        bytes_per_pixel: memory of the host that a tile takes for each of its pixels; 0 where it is not known.
    """

    tile: Size
    fixed: bool
    halo: int
    multiple: int
    sizes: SizeRules
    exact: bool
    why: str = ""
    bytes_per_pixel: float = 0.0

    def layout(self, size: Size) -> Layout:
        """A picture of ``size`` (height, width) in tiles, row by row.

        A picture is padded where the network takes only multiples, or no size as small as this one, or where the
        engine is of a fixed size and the picture smaller.
        """
        padded = (self._padded(size[0], self.tile[0]), self._padded(size[1], self.tile[1]))
        spans = [self._spans(padded[axis], size[axis], self.tile[axis]) for axis in (0, 1)]
        return Layout((size[0], size[1]), padded, spans[0], spans[1])

    def _padded(self, length: int, tile: int) -> int:
        if self.fixed:
            return round_up(max(length, tile), 1 if length <= tile else self.multiple)
        return self.sizes.fit(length)

    def _spans(self, length: int, shown: int, tile: int) -> Tuple[Span, ...]:
        """Tiles over ``length`` pixels, of which ``shown`` are the picture's own."""
        starts = [0]
        if length > tile:
            step = (tile - 2 * self.halo) // self.multiple * self.multiple
            last = round_up(length - tile, self.multiple)
            starts = [*range(0, last, step), last]
        stops = [min(start + tile, length) for start in starts]
        borders = [(start + stop) // 2 for start, stop in zip(starts[1:], stops)]
        firsts, lasts = [0, *borders], [*borders, length]
        spans = (Span(*each) for each in zip(starts, stops, firsts, lasts))
        return tuple(span._replace(last=min(span.last, shown)) for span in spans if span.first < shown)


def cut_for(reach: Optional[Reach], sizes: SizeRules, tile: Size, fixed: bool, name: str) -> Cut:
    """The cut of a network for tiles of at most ``tile`` (height, width).

    Args:
        reach: of the network; None where the deployment does not say.
        sizes: what it takes.
        tile: of the engine where it is ``fixed``, else what there is memory for.
        name: of the engine or graph, for errors.

    Raises:
        BadDeployment: the reach is not known, or a tile is all halo.
    """
    if reach is None:
        raise BadDeployment(
            f"the deployment of {name} does not say how far its network looks, so no tiles can be cut",
            "a deployment whose manifest holds the reach of the network",
            "export it again",
        )
    multiple = int(np.lcm(reach.multiple, sizes.multiple))
    halo = reach.halo + SEEN_BY_BOTH if reach.is_local else INEXACT_HALO
    if min(tile) - 2 * halo < multiple:
        raise BadDeployment(
            f"tiles of {format_size(tile)} for {name} are all halo: {halo} pixels of each side belong to neighbours",
            f"tiles of at least {least_tile(reach, sizes)} pixels a side",
            f"srdeploy build DEPLOYMENT --size {max(256, round_up(least_tile(reach, sizes), 64))}",
        )
    return Cut((tile[0], tile[1]), fixed, halo, multiple, sizes, reach.is_local, reach.explained())


def least_tile(reach: Reach, sizes: SizeRules) -> int:
    """The smallest side of a tile that gives something, pixels."""
    halo = reach.halo + SEEN_BY_BOTH if reach.is_local else INEXACT_HALO
    return sizes.fit(2 * halo + int(np.lcm(reach.multiple, sizes.multiple)))


def mirrored(start: int, stop: int, length: int) -> np.ndarray:
    """Where the pixels start…stop of a padded axis come from: those of the picture, then its mirror image.

    The pixel at the border is not repeated (the reflection of NumPy and PyTorch); a picture of one pixel repeats it.

    Example:
        >>> mirrored(2, 7, 4).tolist()
        [2, 3, 2, 1, 0]
    """
    period = max(2 * (length - 1), 1)
    place = np.arange(start, stop) % period
    return np.where(place < length, place, period - place)
