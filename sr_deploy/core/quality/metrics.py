"""The table of metrics: one row for each figure that says how good an upscaled picture is.

``verify`` (table and JSON), ``report``, the quality file, budgets, the gate and what boards send back loop over
METRICS. A new metric is its function, in a file beside psnr_ssim.py, and one row here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

import numpy as np
from pydantic import Field
from typing_extensions import Annotated

from sr_deploy.core.errors import BadImage
from sr_deploy.core.quality.niqe import BLOCK, LEAST_BLOCKS, Natural, niqe
from sr_deploy.core.quality.psnr_ssim import WINDOW, psnr_rgb, psnr_y, ssim_y
from sr_deploy.core.quality.shifts import colour_shift, sub_pixel_grid


@dataclass(frozen=True)
class Beside:
    """What some metrics need beside a picture and its original; they are not taken without it.

    Attributes:
        reference: what another network, the original of a smaller one, makes of the same input: uint8 (H, W, 3) RGB or
            (H, W, 1) grey.
        natural: statistics of natural photographs, for NIQE.
    """

    reference: Optional[np.ndarray] = None
    natural: Optional[Natural] = None


@dataclass(frozen=True)
class Metric:
    """One row.

    Attributes:
        key: in JSON, such as "psnr_y".
        title: for people, without the unit.
        unit: such as "dB"; "" where the figure has none.
        function: of (result, original, border), or of (result, border) where no original is needed; pictures are uint8
            (H, W, 3) RGB or (H, W, 1) grey, the border is what it leaves out on each side, pixels. What ``beside``
            names comes last. It may give None for a picture that it cannot judge.
        needs_reference: whether the function takes the original.
        higher_is_better: which direction is better.
        decimals: shown in tables.
        smallest: pixels each way that must be left inside the border.
        lowest, highest: what the figure can be, where it is finite; a quality file or a budget with more is refused.
        against_torch: whether the PyTorch network's own figure is taken too, so that a loss can be told and bound.
        beside: an attribute of ``Beside`` that the function takes; "": none.
        judges: which pictures, where not all: the mean is of those, and ``verify`` says so; "": all.
    """

    key: str
    title: str
    unit: str
    function: Callable[..., Optional[float]]
    needs_reference: bool
    higher_is_better: bool
    decimals: int
    smallest: int
    lowest: float
    highest: float
    against_torch: bool = False
    beside: str = ""
    judges: str = ""

    @property
    def heading(self) -> str:
        """Of a table's column: title and unit."""
        return f"{self.title} {self.unit}".strip()

    @property
    def torch_key(self) -> str:
        """Key of the PyTorch network's own figure."""
        return f"torch_{self.key}"

    @property
    def bound_key(self) -> str:
        """Key of a budget's bound on the mean."""
        return ("min_" if self.higher_is_better else "max_") + self.key

    @property
    def loss_key(self) -> str:
        """Key of a budget's bound on what is lost against the PyTorch network."""
        return f"max_{self.key}_loss"

    @property
    def worst_loss_key(self) -> str:
        """Key of a budget's bound on what any picture loses against the PyTorch network."""
        return f"max_worst_{self.key}_loss"

    def of(self, sr: np.ndarray, hr: np.ndarray, border: int, beside: Beside = Beside()) -> float:
        """The figure of one picture; NaN where what it needs beside is not given, or it cannot judge this picture.

        Args:
            sr, hr: the result and its original (see ``crop_like``), uint8 (H, W, 3) RGB or (H, W, 1) grey.
            border: pixels left out on each side; the scale, by convention.
            beside: what some metrics need.

        Raises:
            BadImage: the sizes differ, less than ``smallest`` is left inside the border, or not 8 bit.
        """
        height, width = sr.shape[:2]
        if hr.shape[:2] != (height, width):
            raise BadImage(
                f"the upscaled picture is {height}x{width}, its original {hr.shape[0]}x{hr.shape[1]}",
                "the same size",
                "check the scale",
            )
        if min(height, width) - 2 * border < self.smallest:
            raise BadImage(
                f"a picture of {height}x{width} is too small to judge by {self.title} with a border of {border}",
                f"at least {self.smallest + 2 * border} pixels each way",
                "use larger pictures",
            )
        arguments = [sr, hr, border] if self.needs_reference else [sr, border]
        if self.beside:
            given = getattr(beside, self.beside)
            if given is None:
                return math.nan
            arguments.append(given)
        found = self.function(*arguments)
        return math.nan if found is None else found

    def lost(self, reference: Optional[float], value: Optional[float]) -> Optional[float]:
        """By how much ``value`` is worse than ``reference``, in the figure's unit; None where one is missing."""
        if reference is None or value is None:
            return None
        return reference - value if self.higher_is_better else value - reference

    @property
    def value_type(self) -> Any:
        """What a described format accepts for the figure."""
        return Annotated[float, Field(ge=self.lowest, le=self.highest)]


PSNR_Y = Metric("psnr_y", "PSNR-Y", "dB", psnr_y, True, True, 3, 1, 0.0, 1000.0, against_torch=True)

METRICS: Tuple[Metric, ...] = (
    PSNR_Y,
    Metric("ssim_y", "SSIM-Y", "", ssim_y, True, True, 4, WINDOW, -1.0, 1.0),
    Metric("grid", "Grid", "of 255", sub_pixel_grid, True, False, 3, 1, 0.0, 255.0),
    Metric("colour_shift", "Colour shift", "of 255", colour_shift, True, False, 3, 1, 0.0, 255.0),
    Metric("fidelity", "Fidelity", "dB", psnr_rgb, False, True, 2, 1, 0.0, 1000.0, beside="reference"),
    Metric(
        "niqe",
        "NIQE",
        "",
        niqe,
        False,
        False,
        3,
        1,
        0.0,
        1000.0,
        beside="natural",
        judges=f"{LEAST_BLOCKS} or more blocks of {BLOCK}x{BLOCK} pixels",
    ),
)

#: What plans are searched and fronts are drawn by; it is a row of METRICS and has ``against_torch``.
CRITERION = PSNR_Y


def figures_of(sr: np.ndarray, hr: np.ndarray, border: int, beside: Beside = Beside()) -> Dict[str, float]:
    """Every metric that can be taken of one picture by key; arguments and errors as of ``Metric.of``."""
    found = {metric.key: metric.of(sr, hr, border, beside) for metric in METRICS}
    return {key: value for key, value in found.items() if not math.isnan(value)}


def means_of(pictures: Sequence[Mapping[str, float]]) -> Dict[str, float]:
    """The mean of each figure that all pictures have; of a metric that judges some only, over those that have it."""
    some = {metric.key for metric in METRICS if metric.judges}
    means = {}
    for key, _, _ in figure_columns():
        values = [figures[key] for figures in pictures if key in figures]
        if values and (len(values) == len(pictures) or key in some):
            means[key] = float(np.mean(values))
    return means


def unjudged(pictures: Sequence[Mapping[str, float]]) -> Tuple[str, ...]:
    """What to say of metrics that judged some of the pictures only."""
    out = []
    for metric in METRICS:
        count = sum(metric.key in figures for figures in pictures)
        if metric.judges and 0 < count < len(pictures):
            out.append(f"{metric.title}: of {count} of {len(pictures)} pictures, those with {metric.judges}")
    return tuple(out)


def torch_figures_of(reference: np.ndarray, hr: np.ndarray, border: int) -> Dict[str, float]:
    """The PyTorch network's own figures of one picture by key, of the metrics that want them."""
    return {metric.torch_key: metric.of(reference, hr, border) for metric in METRICS if metric.against_torch}


def figure_columns() -> Tuple[Tuple[str, str, int], ...]:
    """(key, heading, decimals) of each figure that a quality report has, in the order shown."""
    own = tuple((metric.key, metric.heading, metric.decimals) for metric in METRICS)
    return own + tuple(
        (metric.torch_key, f"PyTorch {metric.heading}", metric.decimals) for metric in METRICS if metric.against_torch
    )


def figure_types() -> Dict[str, Any]:
    """Key → accepted type of each figure that a quality report has."""
    types = {metric.key: metric.value_type for metric in METRICS}
    types.update({metric.torch_key: metric.value_type for metric in METRICS if metric.against_torch})
    return types
