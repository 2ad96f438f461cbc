"""The two pictures people look at: latency over input size, and network beside bicubic. PNG or SVG by suffix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple

import cv2
import numpy as np

from sr_deploy.bench.result import Point, Result
from sr_deploy.core.artifact import atomic_file
from sr_deploy.core.contract import format_size
from sr_deploy.core.errors import UsageError
from sr_deploy.core.names import check_name
from sr_deploy.core.text import mathtext
from sr_deploy.report.numbers import ran_in, result_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Line colours that stay apart for colour-blind readers and on white paper: M. Okabe and K. Ito, "Color Universal
#: Design" (2008), without its yellow, which is too pale. Markers and dashes tell lines apart where colour cannot.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":", "-", "--")
#: The frame of the zoomed part: seen on dark and on light pictures.
FRAME_COLOUR = "#FF2D00"
#: What the horizontal axis of a latency plot can be.
AXES = ("size", "area")
#: Smallest type, in points.
SMALL = 9
#: How the legend names hollow markers.
LAUNCH_BOUND = "hollow: launch-bound, it times the host's launches"

#: Part of a picture: top, left, height, width, in pixels of the largest panel.
Crop = Tuple[int, int, int, int]


def latency_plot(results: Sequence[Result], path: Path, axis: str = "size") -> None:
    """Latency over input pixels: one line a result, a band from median to p90, medians in ms.

    A size that failed is a cross below all lines, with its reason.

    Args:
        results: one or more sweeps; a result without any point that worked is named in the legend only.
        path: the file to write, .png or .svg.
        axis: "size", both axes logarithmic, or "area", both linear from 0: there a straight line through 0 is a network
            whose time follows the input's area.

    Raises:
        UsageError: no result, another axis, or another suffix.
        DiskFull, EnvironmentFault: the file cannot be written.
    """
    check_suffix(path)
    check_axis(axis)
    if not results:
        raise UsageError("there is no result to plot", "at least one sweep")
    from matplotlib.figure import Figure

    # The legend is below the axes, so that it covers no data.
    figure = Figure(figsize=(8.0, 5.0 + 0.22 * len(results)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    scale = "log" if axis == "size" else "linear"
    axes.set(xscale=scale, yscale=scale)
    axes.set_ylabel("latency, ms", fontsize=11)
    title, labels = titles_of("Latency", results)
    axes.set_title(mathtext(title), fontsize=12, loc="left", wrap=True)
    for index, result in enumerate(results):
        _line(axes, result, "median" if len(results) == 1 else labels[index], index)
    axes.fill_between([], [], color="#777777", alpha=0.25, linewidth=0, label="from the median up to p90")
    if axis == "size":
        size_axis(axes, results)
        _latency_axis(axes, results)
    else:
        _area_axes(axes, results)
    _failures(axes, results)
    axes.grid(which="major", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=SMALL, loc="outside lower left", frameon=False, ncols=2 if len(results) == 1 else 1)
    _annotate(figure, axes, results)
    save_figure(figure, path)


def comparison_picture(
    panels: Sequence[Tuple[str, np.ndarray]], path: Path, crop: Optional[Crop] = None, zoom_edge: int = 64
) -> None:
    """Panels side by side, and below each the same part enlarged, every pixel a square.

    Args:
        panels: (title, uint8 (H, W, 3) RGB) pairs; a smaller one (the low-resolution input) is shown at the size of
            the largest with nearest-neighbour enlargement.
        path: the file to write, .png or .svg.
        crop: the part to enlarge; None takes the square with the most fine detail in the last panel.
        zoom_edge: edge of that square, in pixels of the largest panel.

    Raises:
        UsageError: no panel, one that is not uint8 RGB or has other proportions, a crop outside the picture, or
            another suffix.
        DiskFull, EnvironmentFault: the file cannot be written.
    """
    check_suffix(path)
    if not panels or any(p.dtype != np.uint8 or p.ndim != 3 or p.shape[2] != 3 or not p.size for _, p in panels):
        raise UsageError("a panel is not a picture", "at least one uint8 (H, W, 3) RGB array")
    height, width = max((panel.shape[:2] for _, panel in panels), key=lambda shape: shape[0] * shape[1])
    for title, panel in panels:
        if abs(panel.shape[0] * width / (panel.shape[1] * height) - 1) > 0.05:
            raise UsageError(
                f"the panel {title!r} is {panel.shape[0]}x{panel.shape[1]}", f"the proportions of {height}x{width}"
            )
    crop = busiest_square(panels[-1][1], (height, width), zoom_edge) if crop is None else crop
    top, left, rows, columns = crop
    if min(top, left) < 0 or min(rows, columns) < 1 or top + rows > height or left + columns > width:
        raise UsageError(f"the crop {crop} leaves the picture", f"top, left, height, width within {height}x{width}")
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    # All lengths in inches. The axes are placed by hand: only then is every panel exactly as wide as intended.
    column, gap, head = 3.2, 0.06, 0.32
    whole, part = column * height / width, column * rows / columns
    figure_width, figure_height = len(panels) * (column + gap) + gap, head + whole + part + 2 * gap
    figure = Figure(figsize=(figure_width, figure_height), dpi=160)
    for index, (title, panel) in enumerate(panels):
        x = (gap + index * (column + gap)) / figure_width
        below = figure.add_axes((x, gap / figure_height, column / figure_width, part / figure_height))
        above = figure.add_axes((x, (2 * gap + part) / figure_height, column / figure_width, whole / figure_height))
        full = cv2.resize(panel, (width, height), interpolation=cv2.INTER_NEAREST)
        shown = _fitted(full, round(column * figure.dpi))
        above.imshow(shown, extent=(0, width, height, 0), interpolation="nearest", aspect="auto")
        above.set_title(mathtext(title), fontsize=12, pad=5)
        above.add_patch(Rectangle((left, top), columns, rows, fill=False, edgecolor=FRAME_COLOUR, linewidth=1.5))
        below.imshow(full[top : top + rows, left : left + columns], interpolation="nearest", aspect="auto")
        for axes, edge, line in ((above, "#000000", 0.5), (below, FRAME_COLOUR, 1.5)):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color(edge)
            axes.spines[:].set_linewidth(line)
    save_figure(figure, path)


def busiest_square(picture: np.ndarray, size: Tuple[int, int], edge: int) -> Crop:
    """The square with the most fine detail: where the mean absolute Laplacian of the grey picture is largest.

    Args:
        picture: uint8 (H, W, 3) RGB.
        size: (height, width) that the picture will be shown at; the crop is in its pixels.
        edge: of the square, pixels; at most the picture's shorter side.
    """
    height, width = size
    edge = min(edge, height, width)
    grey = cv2.cvtColor(cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST), cv2.COLOR_RGB2GRAY)
    detail = np.abs(cv2.Laplacian(grey, cv2.CV_32F)).astype(np.float64)
    # Sums over every square at once, from the integral image.
    total = cv2.integral(detail)
    sums = total[edge:, edge:] - total[:-edge, edge:] - total[edge:, :-edge] + total[:-edge, :-edge]
    top, left = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return int(top), int(left), edge, edge


def _worked(result: Result) -> List[Point]:
    """The points with times that may be shown as times, by input size."""
    return sorted((p for p in result.points if p.median_s and p.usable), key=lambda point: point.input_pixels)


def titles_of(what: str, results: Sequence[Result]) -> Tuple[str, List[str]]:
    """(title, one label a result): precision, runtime, device and scope are told once where all share them.

    Args:
        what: is drawn, such as "Latency".
        results: at least one.
    """
    names = [result.deployment for result in results]
    told = f"{what} of {', '.join(dict.fromkeys(names))}"
    shared = {ran_in(result) for result in results}
    if len(shared) == 1:
        return f"{told}: {shared.pop()}", names
    return told, [result_title(result) for result in results]


def check_axis(axis: str) -> None:
    """Raise UsageError for an axis that no latency plot has."""
    check_name("axis of a latency plot called", axis, AXES)


def _line(axes: Axes, result: Result, label: str, index: int) -> None:
    """One result: its medians as a line, and a band up to p90."""
    style = index % len(COLOURS)
    points = _worked(result)
    x = [point.input_pixels for point in points]
    low = [1e3 * (point.median_s or 0.0) for point in points]
    high = [1e3 * (point.p90_s or 0.0) for point in points]
    axes.plot(x, low, DASHES[style], marker=MARKERS[style], color=COLOURS[style], label=mathtext(label), markersize=6)
    axes.fill_between(x, low, high, color=COLOURS[style], alpha=0.25, linewidth=0)
    mark_launch_bound(axes, points, low, style)


def mark_launch_bound(axes: Axes, points: Sequence[Point], y: Sequence[float], style: int) -> None:
    """Hollow markers for points that time launches rather than kernels, named once in the legend."""
    bound = [(point.input_pixels, value) for point, value in zip(points, y) if point.launch_bound]
    if not bound:
        return
    named = any(line.get_label() == LAUNCH_BOUND for line in axes.lines)
    axes.plot(
        *zip(*bound), MARKERS[style], color=COLOURS[style], markerfacecolor="white", markersize=6, zorder=3,
        label=None if named else LAUNCH_BOUND,
    )  # fmt: skip


def size_axis(axes: Axes, results: Sequence[Result]) -> None:
    """Ticks at the measured sizes; of two that would overlap, the larger is named."""
    sizes = sorted({point.size for result in results for point in result.points}, key=lambda s: -s[0] * s[1])
    pixels = [height * width for height, width in sizes] or [1]
    span = max(pixels) / min(pixels)
    axes.set_xlim(min(pixels) / max(1.2, span**0.06), max(pixels) * max(1.2, span**0.1))
    kept: List[Tuple[int, int]] = []
    for height, width in sizes:
        if all(abs(np.log(h * w / (height * width))) > 0.11 * np.log(span) for h, w in kept):
            kept.append((height, width))
    axes.set_xticks([height * width for height, width in kept], [format_size(size).replace("x", "×") for size in kept])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("input (height × width)", fontsize=11)
    axes.tick_params(labelsize=SMALL + 0.5)


def _area_axes(axes: Axes, results: Sequence[Result]) -> None:
    """Megapixels and milliseconds, both from 0; what failed has its room below 0."""
    from matplotlib.ticker import FuncFormatter

    times = [1e3 * t for result in results for p in _worked(result) for t in (p.median_s, p.p90_s) if t]
    pixels = [point.input_pixels for result in results for point in result.points]
    top, strip = 1.08 * max(times, default=1.0), _strip(len(_failed(results)))
    axes.set_xlim(0, 1.08 * max(pixels, default=1))
    axes.set_ylim(-top * strip / (1 - strip), top)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e6:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value >= 0 else ""))
    axes.set_xlabel("input area, megapixels", fontsize=11)
    axes.tick_params(labelsize=SMALL + 0.5)


def _latency_axis(axes: Axes, results: Sequence[Result]) -> None:
    """Plain numbers, in steps of 1-2-5 where the range is short; room below all lines for what failed."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    times = [1e3 * t for result in results for p in _worked(result) for t in (p.median_s, p.p90_s) if t]
    low, high = np.log10((min(times), max(times)) if times else (1.0, 10.0))
    margin = max(0.12, 0.08 * (high - low))
    bottom = _strip(len(_failed(results)))
    height = (high - low + 2 * margin) / (1 - bottom)
    axes.set_ylim(10 ** (high + margin - height), 10 ** (high + margin))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if height < 2.5 else (1,), numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _failed(results: Sequence[Result]) -> List[Tuple[int, Point]]:
    """(index of the result, point) of every failure, and of every point that must not be used."""
    return [(index, point) for index, result in enumerate(results) for point in result.points if not point.usable]


def _strip(failures: int) -> float:
    """The part of the axes' height that failures take, one line of text each."""
    return min(0.5, 0.055 * failures)


def _failures(axes: Axes, results: Sequence[Result]) -> None:
    """A cross for each size that failed, and why, on the side where there is room."""
    failed = _failed(results)
    across = axes.get_xaxis_transform()
    for row, (index, point) in enumerate(failed):
        height = _strip(len(failed)) * (row + 0.5) / len(failed)
        axes.plot(point.input_pixels, height, "X", color=COLOURS[index % len(COLOURS)], markersize=8, transform=across)
        reason = point.failure or point.invalid or ""
        reason = reason if len(reason) <= 44 else reason[:43] + "…"
        leftmost = axes.transData.transform((point.input_pixels, 1.0))[0] < (axes.bbox.x0 + axes.bbox.x1) / 2
        axes.annotate(
            mathtext(f"{'failed' if point.failure else 'invalid'}: {reason}"),
            (point.input_pixels, height),
            xycoords=across,
            xytext=(8 if leftmost else -8, 0),
            textcoords="offset points",
            ha="left" if leftmost else "right",
            va="center",
            fontsize=SMALL,
            color=_dark(index),
        )


def _annotate(figure: Figure, axes: Axes, results: Sequence[Result]) -> None:
    """The median beside each marker: in the first of four places where it covers no line and no other label.

    Where none of them is free the number is left out; the table has it.
    """
    figure.draw_without_rendering()
    taken = [text.get_window_extent() for text in axes.texts]
    traces = [axes.transData.transform([(p.input_pixels, 1e3 * (p.median_s or 0)) for p in _worked(r)] or [(1, 1)])
              for r in results]  # fmt: skip
    dots = np.concatenate([_along(trace) for trace in traces])
    places = ((0, 8, "center", "bottom"), (0, -8, "center", "top"), (9, -4, "left", "top"), (-9, 4, "right", "bottom"))
    for index, result in enumerate(results):
        for point in _worked(result):
            median = 1e3 * (point.median_s or 0.0)
            for right, up, horizontal, vertical in places:
                label = axes.annotate(
                    _short(median),
                    (point.input_pixels, median),
                    xytext=(right, up),
                    textcoords="offset points",
                    ha=horizontal,
                    va=vertical,
                    fontsize=SMALL,
                    color=_dark(index),
                    bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.5},
                )
                box = label.get_window_extent()
                if not any(map(box.overlaps, taken)) and not box.count_contains(dots) and axes.bbox.y0 < box.y0:
                    taken.append(box)
                    break
                label.remove()


def _dark(index: int) -> Tuple[float, float, float]:
    """The colour of a result, darkened so that small type in it is read easily on white."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(COLOURS[index % len(COLOURS)])
    return 0.7 * red, 0.7 * green, 0.7 * blue


def _along(trace: np.ndarray) -> np.ndarray:
    """Points every few pixels along a line given by its corners, (n, 2)."""
    if len(trace) < 2:
        return np.asarray(trace, np.float64).reshape(-1, 2)
    pieces = [np.linspace(a, b, 2 + int(np.hypot(*(b - a)) / 3)) for a, b in zip(trace[:-1], trace[1:])]
    return np.concatenate(pieces)


def _short(value: float) -> str:
    """Three significant figures, and never an exponent for a latency between a nanosecond and an hour."""
    return f"{value:.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def _fitted(picture: np.ndarray, columns: int) -> np.ndarray:
    """A picture shrunk by area averaging to about the width it is shown at; a smaller one as it is.

    Showing a large picture without it would drop pixels and draw patterns that are not there.
    """
    if picture.shape[1] <= columns:
        return picture
    rows = max(1, round(picture.shape[0] * columns / picture.shape[1]))
    return cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)


def check_suffix(path: Path) -> None:
    """Raise UsageError when a file of this name cannot be drawn."""
    if Path(path).suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"cannot draw into {path}: its suffix says no format that is known here", ".png or .svg")


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure whole or not at all; the canvas follows from the suffix, so no display is needed."""
    with atomic_file(Path(path)) as temporary:
        figure.savefig(temporary, format=Path(path).suffix.lower()[1:], facecolor="white")
