"""Plots of sweeps beside latency itself: throughput, distribution, quality against latency. PNG or SVG by suffix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, List, Sequence

import numpy as np

from sr_deploy.bench.result import Point, Result
from sr_deploy.core.contract import format_size
from sr_deploy.core.errors import UsageError
from sr_deploy.core.quality.metrics import CRITERION
from sr_deploy.core.text import mathtext
from sr_deploy.report.labels import name_points
from sr_deploy.report.numbers import figures, result_title
from sr_deploy.report.plots import (
    COLOURS,
    DASHES,
    MARKERS,
    SMALL,
    check_suffix,
    mark_launch_bound,
    save_figure,
    size_axis,
    titles_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: So many sizes are drawn in one distribution plot; more cannot be told apart.
MOST_SIZES = 6
#: So many samples of a size are drawn one by one; of more, every n-th.
MOST_DOTS = 1500


@dataclass(frozen=True)
class Candidate:
    """One point of quality against latency: a name, median latency in seconds, mean of the criterion (PSNR-Y, dB)."""

    name: str
    latency_s: float
    quality: float


def throughput_plot(results: Sequence[Result], path: Path) -> None:
    """Output megapixels per second over input pixels: one line a result, from the medians.

    Points that failed, are invalid, or whose output size is unknown are left out.

    Raises:
        UsageError: nothing is left, or another suffix than .png and .svg.
        DiskFull, EnvironmentFault: the file cannot be written.
    """
    check_suffix(path)
    drawn = [[p for p in _usable(result) if p.output_pixels] for result in results]
    if not any(drawn):
        raise UsageError("there is no throughput to plot", "a sweep with a point that worked")
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(8.0, 4.4 + 0.22 * len(results)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xscale="log")
    title, labels = titles_of("Throughput", results)
    highest = 0.0
    for index, (label, points) in enumerate(zip(labels, drawn)):
        x = [point.input_pixels for point in points]
        y = [point.output_pixels / 1e6 / (point.median_s or 1.0) for point in points]
        style = index % len(COLOURS)
        name = mathtext(label)
        axes.plot(x, y, DASHES[style], marker=MARKERS[style], color=COLOURS[style], label=name, markersize=6)
        mark_launch_bound(axes, points, y, style)
        highest = max(highest, *y, 0.0)
    size_axis(axes, results)
    # Room above for the markers of the highest.
    axes.set_ylim(0, 1.08 * highest)
    axes.set_ylabel("output megapixels per second,\nfrom the median latency", fontsize=11)
    axes.set_title(mathtext(title), fontsize=12, loc="left", wrap=True)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _plain(axes)
    figure.legend(fontsize=SMALL, loc="outside lower left", frameon=False)
    save_figure(figure, path)


def distribution_plot(result: Result, path: Path) -> None:
    """How the samples of each size lie around their median: their distribution, and each in the order taken.

    The left panel shows, for each size, which part of its samples took at most so many times the median; a step there
    is a second mode, a long tail leans right. The right panel shows drift and bursts. Up to MOST_SIZES sizes are drawn.

    Raises:
        UsageError: no point worked, or another suffix than .png and .svg.
        DiskFull, EnvironmentFault: the file cannot be written.
    """
    check_suffix(path)
    points = _usable(result)
    if not points:
        raise UsageError("there are no samples to plot", "a sweep with a point that worked")
    from matplotlib.figure import Figure

    shown = [points[i] for i in sorted({round(k) for k in np.linspace(0, len(points) - 1, MOST_SIZES)})]
    figure = Figure(figsize=(8.0, 4.2), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    highest = 1.0
    for style, point in enumerate(shown):
        relative = np.asarray(point.samples_s) / point.median_s
        ordered = np.sort(relative)
        share = np.arange(1, len(ordered) + 1) / len(ordered)
        label = f"{format_size(point.size).replace('x', '×')}: {len(ordered)} samples"
        left.step(100 * share, ordered, where="pre", color=COLOURS[style], linestyle=DASHES[style], label=label)
        taken = range(0, len(relative), math.ceil(len(relative) / MOST_DOTS))
        right.plot([100 * (i + 0.5) / len(relative) for i in taken], relative[list(taken)], linestyle="none",
                   marker=MARKERS[style], markersize=2.5, alpha=0.6, color=COLOURS[style])  # fmt: skip
        highest = max(highest, float(np.quantile(relative, 0.99)))
    low = min(float(np.min(point.samples_s)) / (point.median_s or 1.0) for point in shown)
    top = max(1.02, 1 + 1.3 * (highest - 1))
    left.set_ylim(max(0.0, 1 - 1.15 * max(1 - low, 0.1 * (top - 1))), top)
    above = sum(int(np.sum(np.asarray(p.samples_s) > top * (p.median_s or 1.0))) for p in shown)
    left.set_ylabel("latency over its median", fontsize=11)
    left.set_xlabel("part of the samples that is at most so slow, %", fontsize=SMALL + 1)
    right.set_xlabel("in the order taken, % of the measurement", fontsize=SMALL + 1)
    several = "1 slower sample lies" if above == 1 else f"{above} slower samples lie"
    note = f"\n{several} above the frame" if above else ""
    figure.suptitle(mathtext(f"Samples of {result_title(result)}") + note, fontsize=12, x=0.01, ha="left", wrap=True)
    for axes in (left, right):
        axes.set_xlim(0, 100)
        axes.tick_params(labelsize=SMALL)
        _plain(axes)
    figure.legend(fontsize=SMALL, loc="outside lower left", frameon=False, ncols=3)
    save_figure(figure, path)


def pareto_plot(
    candidates: Sequence[Candidate], front: Sequence[int], title: str, path: Path, quality: str = CRITERION.title
) -> None:
    """Quality against latency; what no other one beats is filled and joined by a line, the rest is hollow.

    Args:
        candidates: at least one, with finite quality, measured alike.
        front: indices of those on the front, fastest first; see ``pareto_front``.
        title: what they have in common: size, runtime, device, scope.
        path: the file to write, .png or .svg.
        quality: what it is called; its unit is the criterion's, dB.

    Raises:
        UsageError: no candidate, or another suffix.
        DiskFull, EnvironmentFault: the file cannot be written.
    """
    check_suffix(path)
    if not candidates:
        raise UsageError("there is nothing to compare", "at least one deployment with quality and latency")
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(8.0, 4.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xscale="log")
    x = [1e3 * candidate.latency_s for candidate in candidates]
    y = [candidate.quality for candidate in candidates]
    axes.plot([x[i] for i in front], [y[i] for i in front], "-", drawstyle="steps-post", color=COLOURS[0], zorder=1,
              label="Pareto front: the best quality for the time")  # fmt: skip
    for marked, face, label in ((True, COLOURS[0], None), (False, "white", "beaten by another one")):
        chosen = [i for i in range(len(candidates)) if (i in front) == marked]
        if chosen:
            axes.plot([x[i] for i in chosen], [y[i] for i in chosen], "o", markersize=9, color=COLOURS[0],
                      markerfacecolor=face, linestyle="none", label=label, zorder=2)  # fmt: skip
    span = max(max(x) / min(x), 1.5)
    axes.set_xlim(min(x) / span**0.15, max(x) * span**0.35)
    height = max(max(y) - min(y), 0.2)
    axes.set_ylim(min(y) - 0.25 * height, max(y) + 0.25 * height)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("median latency, ms (left is better)", fontsize=11)
    axes.set_ylabel(f"mean {quality}, {CRITERION.unit} (up is better)", fontsize=11)
    axes.set_title(mathtext(title), fontsize=12, loc="left", wrap=True)
    _plain(axes)
    texts = [
        f"{mathtext(c.name)}\n{c.quality:.2f} {CRITERION.unit}, {figures(1e3 * c.latency_s)} ms" for c in candidates
    ]
    unnamed = name_points(figure, axes, list(zip(x, y)), texts, SMALL)
    for index in unnamed:
        axes.plot([], [], linestyle="none", label=f"not named above: {texts[index]}".replace("\n", ", "))
    figure.legend(fontsize=SMALL, loc="outside lower left", frameon=False, ncols=1 if unnamed else 2)
    save_figure(figure, path)


def _usable(result: Result) -> List[Point]:
    """The points whose times may be shown as times, by input size."""
    return sorted((p for p in result.points if p.usable and p.median_s), key=lambda point: point.input_pixels)


def _plain(axes: Axes) -> None:
    axes.grid(which="major", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
