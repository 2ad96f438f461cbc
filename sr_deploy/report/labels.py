"""Names beside the points of a plot: near, inside the frame, over no marker and over no other name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, List, Sequence, Tuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Distances that are tried, points; beyond the first a line leads from the name to its marker.
RADII = (10.0, 26.0, 46.0, 72.0, 104.0, 140.0)
#: Directions that are tried at each, degrees. Below to the right comes first: a front rises, so its line is not there.
ANGLES = (-25, 155, 25, 205, -90, 90, -60, 120, 60, 240, 0, 180)
#: Free space around a marker and between names, points.
MARGIN = 3.0


def name_points(
    figure: Figure, axes: Axes, points: Sequence[Tuple[float, float]], texts: Sequence[str], size: float
) -> Tuple[int, ...]:
    """Write each text beside its point; the limits of the axes must be what they will be.

    Args:
        figure, axes: with markers drawn.
        points: in data coordinates.
        texts: one for each, of one or several lines.
        size: of the type, points.

    Returns:
        Indices of the points for which no place was free; they have no name.
    """
    figure.draw_without_rendering()
    spots = axes.transData.transform(points)
    dot = figure.dpi / 72
    taken: List[Any] = []
    unnamed: List[int] = []
    for index in sorted(range(len(texts)), key=lambda i: (spots[i][0], -spots[i][1])):
        width, height = _extent(figure, texts[index], size)
        found = _free_place(axes.bbox, spots, index, (width, height), taken, dot)
        if found is None:
            unnamed.append(index)
            continue
        box, radius = found
        taken.append(box)
        corner = ((box.x0 - spots[index][0]) / dot, (box.y0 - spots[index][1]) / dot)
        line = {"arrowstyle": "-", "color": "#888888", "linewidth": 0.7, "shrinkA": 1, "shrinkB": 5}
        axes.annotate(
            texts[index],
            points[index],
            xytext=corner,
            textcoords="offset points",
            fontsize=size,
            ha="left",
            va="bottom",
            arrowprops=line if radius > RADII[0] else None,
        )
    return tuple(sorted(unnamed))


def _extent(figure: Figure, text: str, size: float) -> Tuple[float, float]:
    """Width and height of a text, pixels."""
    drawn = figure.text(0, 0, text, fontsize=size)
    box = drawn.get_window_extent()
    drawn.remove()
    return box.width, box.height


def _free_place(
    frame: Any, spots: Any, index: int, extent: Tuple[float, float], taken: Sequence[Any], dot: float
) -> Any:
    """(box, radius) of the nearest free place for a name, in pixels and points; None where none is free."""
    from matplotlib.transforms import Bbox

    width, height = extent
    others = [spot for number, spot in enumerate(spots) if number != index]
    for radius in RADII:
        for angle in ANGLES:
            across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            # The side of the box that faces the marker is at the radius.
            left = spots[index][0] + radius * dot * across - width * (0.5 - 0.5 * max(-1.0, min(1.0, 1.6 * across)))
            bottom = spots[index][1] + radius * dot * up - height * (0.5 - 0.5 * max(-1.0, min(1.0, 1.6 * up)))
            box = Bbox.from_bounds(left, bottom, width, height)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            room = box.padded(MARGIN * dot)
            if inside and not any(map(room.overlaps, taken)) and not (others and room.count_contains(others)):
                own = Bbox.from_bounds(left, bottom, width, height)
                if not own.count_contains([spots[index]]):
                    return box, radius
    return None
