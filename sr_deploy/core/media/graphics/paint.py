"""The table of kinds, and sets of pictures made of it.

for name, pixels in painted(count=24, side=384, seed=1): ...
"""

from __future__ import annotations

from typing import Callable, Dict, Iterator, Tuple

import numpy as np
from PIL import Image

from sr_deploy.core.media.graphics import charts, drawings, rendered, screens, writing

#: Paints one kind of picture: (random numbers, side in pixels) → RGB of that side.
Painter = Callable[[np.random.Generator, int], Image.Image]

#: Kind → painter. A set goes round it, so the first kinds are those that differ most from photographs.
PAINTERS: Dict[str, Painter] = {
    "page": writing.page,
    "flat": drawings.flat,
    "combs": screens.combs,
    "interface": screens.interface,
    "terminal": writing.terminal,
    "bars": charts.bars,
    "line_art": drawings.line_art,
    "curves": charts.curves,
    "pixel_art": rendered.pixel_art,
    "colour_map": charts.colour_map,
    "screentone": drawings.screentone,
    "subtitles": writing.subtitles,
    "gradient": rendered.gradient,
    "frame": rendered.frame,
}


def painted(count: int, side: int, seed: int) -> Iterator[Tuple[str, np.ndarray]]:
    """Pictures of all kinds in turn, each by a seed of its own, which other kinds do not change.

    Args:
        count: how many.
        side: height and width, pixels.
        seed: equal seeds give equal pictures; other seeds others.

    Yields:
        A name such as "combs_2", and uint8 RGB (side, side, 3).
    """
    kinds = list(PAINTERS.items())
    for index in range(count):
        kind, painter = kinds[index % len(kinds)]
        random = np.random.default_rng([seed, index // len(kinds), *kind.encode()])
        yield f"{kind}_{index // len(kinds)}", np.asarray(painter(random, side).convert("RGB"), np.uint8).copy()
