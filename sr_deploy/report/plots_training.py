"""How a training went: loss, and distance from the network that is followed, over the steps. PNG or SVG by suffix."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Sequence, Tuple

from sr_deploy.core.errors import UsageError
from sr_deploy.core.text import mathtext
from sr_deploy.report.plots import COLOURS, DASHES, MARKERS, SMALL, check_suffix, save_figure

#: A judgement: step, mean loss since the last one in 8-bit steps (NaN: none yet), PSNR against float32 in dB.
Judgement = Tuple[int, float, float]


def training_plot(points: Sequence[Judgement], path: Path, title: str) -> None:
    """Loss above, PSNR against the float32 network below, over the steps; the best state is marked.

    Args:
        points: the first is the start.
        path: the file to write, .png or .svg.
        title: above the plot.

    Raises:
        UsageError: no points, or another suffix.
        DiskFull, EnvironmentFault: the file cannot be written.
    """
    figure, below = _with_losses([point[:2] for point in points], path, title, "loss, 8-bit steps")
    steps, psnrs = [step for step, _, _ in points], [psnr for _, _, psnr in points]
    below.plot(steps, psnrs, DASHES[0], marker=MARKERS[1], color=COLOURS[1], markersize=4)
    best = max(range(len(points)), key=lambda index: psnrs[index])
    label = f"best: {psnrs[best]:.2f} dB, step {steps[best]}"
    below.axvline(steps[best], color=COLOURS[4], linewidth=0.8, linestyle=":", label=label)
    below.legend(fontsize=SMALL)
    below.set_ylabel("PSNR against float32, dB\n(pictures not trained on)", fontsize=11)
    save_figure(figure, path)


#: A judgement of a distillation: step, mean loss since the last one (NaN: none yet), PSNR to originals and to the
#: teacher in dB, each None where there are none.
Judged = Tuple[int, float, Optional[float], Optional[float]]


def distillation_plot(points: Sequence[Judged], best: int, path: Path, title: str) -> None:
    """Loss above, PSNR and fidelity below, over the steps; the best state is marked.

    Args:
        points: the first is the start.
        best: step of the best state.
        path: the file to write, .png or .svg.
        title: above the plot.

    Raises:
        UsageError: no points, or another suffix.
        DiskFull, EnvironmentFault: the file cannot be written.
    """
    figure, below = _with_losses([point[:2] for point in points], path, title, "loss")
    for index, label in ((2, "to the originals"), (3, "to the teacher (fidelity)")):
        known = [(point[0], point[index]) for point in points if point[index] is not None]
        if known:
            style = {"marker": MARKERS[index - 1], "color": COLOURS[index - 1], "markersize": 4, "label": label}
            below.plot(*zip(*known), DASHES[index - 2], **style)
    below.axvline(best, color=COLOURS[4], linewidth=0.8, linestyle=":", label=f"best: step {best}")
    below.legend(fontsize=SMALL)
    below.set_ylabel("PSNR, dB\n(pictures not trained on)", fontsize=11)
    save_figure(figure, path)


def _with_losses(points: Sequence[Tuple[int, float]], path: Path, title: str, label: str) -> Tuple[Any, Any]:
    """A figure with the losses above, and its axes below, which are still empty."""
    check_suffix(path)
    if not points:
        raise UsageError("there is no training to plot", "at least one judgement")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 5.6), dpi=150, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    learned = [(step, loss) for step, loss in points if loss == loss]
    if learned:
        above.plot(*zip(*learned), DASHES[0], marker=MARKERS[0], color=COLOURS[0], markersize=4)
        above.set_ylim(0, 1.08 * max(loss for _, loss in learned))
    above.set_ylabel(label, fontsize=11)
    above.set_title(mathtext(title), fontsize=12, loc="left", wrap=True)
    below.set_xlabel("step", fontsize=11)
    for axes in (above, below):
        axes.grid(True, alpha=0.3)
    return figure, below
