"""What each layer costs in INT8, as a plot. PNG or SVG by suffix."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, Sequence

from sr_deploy.core.errors import UsageError
from sr_deploy.core.text import mathtext
from sr_deploy.report.plots import COLOURS, SMALL, check_suffix, save_figure

#: So many layers are drawn, the costliest; the rest are in the table.
MOST_LAYERS = 40


def sensitivity_plot(layers: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """One bar a layer, costliest on top: dB lost when it alone runs in INT8.

    Args:
        layers: dicts with ``name``, ``loss_db`` and ``default`` ("int8" or a wider type), in the order to draw.
        path: the file to write, .png or .svg.
        title: above the plot.

    Raises:
        UsageError: no layers, or another suffix.
        DiskFull, EnvironmentFault: the file cannot be written.
    """
    check_suffix(path)
    if not layers:
        raise UsageError("there is no layer to plot", "a network with convolutions")
    from matplotlib.figure import Figure

    drawn = layers[:MOST_LAYERS]
    figure = Figure(figsize=(8.0, 1.6 + 0.22 * len(drawn)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for narrow, label, colour, hatch in (
        (True, "INT8 by default", COLOURS[0], ""),
        (False, "wider by default", COLOURS[1], "///"),
    ):
        rows = [index for index, layer in enumerate(drawn) if (layer["default"] == "int8") == narrow]
        if rows:
            axes.barh(
                rows, [drawn[row]["loss_db"] for row in rows], color=colour, hatch=hatch, edgecolor="white", label=label
            )
    axes.set_yticks(range(len(drawn)), [mathtext(shortened(layer["name"])) for layer in drawn], fontsize=SMALL)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("dB of PSNR-Y lost when this layer alone runs in INT8 (most noise on top)", fontsize=11)
    more = f" (the {len(drawn)} costliest of {len(layers)} layers)" if len(layers) > len(drawn) else ""
    axes.set_title(mathtext(title + more), fontsize=12, loc="left", wrap=True)
    axes.grid(True, axis="x", alpha=0.3)
    axes.legend(fontsize=SMALL)
    save_figure(figure, path)


def shortened(name: str) -> str:
    """The end of a long name, where layers differ."""
    return name if len(name) <= 44 else "…" + name[-43:]
