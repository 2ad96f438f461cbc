"""Measuring protocols that others published, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

from sr_deploy.core.contract import Size
from sr_deploy.core.names import row_named


@dataclass(frozen=True)
class Preset:
    """A protocol.

    Attributes:
        name: as given to ``--preset``.
        sizes: inputs (height, width).
        runs: every size is timed exactly so often.
        processes: fresh processes, each of which does all of that.
        scale: of the networks that the protocol is for.
        source: where it was published, and where this one must differ.
    """

    name: str
    sizes: Tuple[Size, ...]
    runs: int
    processes: int
    scale: int
    source: str


F2SRGAN_SIZES = tuple((edge, edge) for edge in (144, 360, 480, 720, 1080))

PRESETS = (
    Preset(
        "f2srgan",
        F2SRGAN_SIZES,
        50,
        1,
        4,
        "Light F2SRGAN study (preprints 202305.1282; Electronics 2023, 12, 2544): squares, x4, 50 timed runs",
    ),
    Preset("f2srgan-500", F2SRGAN_SIZES, 500, 1, 4, "as f2srgan, with 500 timed runs"),
    Preset(
        "ntire",
        ((256, 256),),
        100,
        5,
        4,
        "NTIRE 2024 Efficient Super-Resolution, test_demo.py and README of its repository: x4, device events around "
        "one forward pass, mean over pictures, mean of five runs of the program. Their runtime goes over the 200 "
        "pictures of DIV2K_LSDIR_valid and over the test set, one pass each and without a warm-up, each begun on an "
        "idle device; here it is 256x256, the size at which they count FLOPs, 100 passes after a warm-up, by events "
        "each begun while another is in flight: compare mean_s, and only between networks that were measured here",
    ),
)


def preset_named(name: str) -> Preset:
    """The preset of this name.

    Raises:
        UsageError: there is none.
    """
    return row_named("preset", name, PRESETS)
