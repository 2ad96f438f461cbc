"""What a network will be shown, and the graphics that the tool makes itself for it: to calibrate, to fit, to judge.

Pictures for judging come from another seed than those that ranges and weights follow.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Dict, Iterator, List, Tuple, TypeVar

import numpy as np

from sr_deploy.core.contract import IOContract
from sr_deploy.core.deployment.manifest import Deployment, GraphFile
from sr_deploy.core.media.bicubic import resize
from sr_deploy.core.media.graphics.paint import PAINTERS, painted
from sr_deploy.core.media.image import Picture, to_network
from sr_deploy.precision.calibrate.collect import PATCH

#: Seeds of the graphics to fit on and of those to judge on.
FITTED_SEED, JUDGED_SEED = 1, 2
#: Graphics beside photographs: half as many, in whole rounds of all kinds, between these.
LEAST, MOST = len(PAINTERS), 4 * len(PAINTERS)
#: Graphics that plans are judged on: two of each kind.
JUDGED = 2 * len(PAINTERS)


Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Graphics:
    """A set of graphics at a network's scale.

    Attributes:
        count: how many.
        side: of the low-resolution pictures, pixels.
        scale: of the network.
        seed: of what is painted.
    """

    count: int
    side: int
    scale: int
    seed: int = FITTED_SEED

    def pairs(self) -> Tuple[Tuple[str, np.ndarray, np.ndarray], ...]:
        """Name, low-resolution picture and original, uint8 (side, side, 3) and (scale · side, scale · side, 3)."""
        return _pairs(self.count, self.side, self.scale, self.seed)

    def inputs(self, contract: IOContract) -> Iterator[np.ndarray]:
        """The low-resolution pictures as a graph takes them."""
        return (to_network(Picture(low), contract) for _, low, _ in self.pairs())

    def originals(self, contract: IOContract) -> Iterator[np.ndarray]:
        """The originals, in the form and units of the graph's inputs."""
        return (to_network(Picture(high), contract) for _, _, high in self.pairs())

    def pictures(self) -> List[Tuple[str, Picture]]:
        """The originals by name."""
        return [(name, Picture(high)) for name, _, high in self.pairs()]

    def record(self) -> Dict[str, Any]:
        """What stands in a calibration: how many, from which seed, and a hash over the low-resolution pixels, which
        follow from the versions of NumPy, Pillow and Matplotlib too."""
        digest = hashlib.sha256(b"".join(low.tobytes() for _, low, _ in self.pairs())).hexdigest()
        return {"count": self.count, "side": self.side, "seed": self.seed, "sha256": digest}


@lru_cache(maxsize=4)
def _pairs(count: int, side: int, scale: int, seed: int) -> Tuple[Tuple[str, np.ndarray, np.ndarray], ...]:
    # Kind by kind, so that evenly spaced ones of them are of as many kinds as possible.
    pictures = sorted(painted(count, side * scale, seed), key=lambda one: one[0].rpartition("_")[0])
    return tuple((name, resize(high, (side, side)), high) for name, high in pictures)


def graphics_to_fit(content: str, photographs: int, deployment: Deployment, graph: GraphFile) -> Graphics:
    """The graphics that ranges, weights and fine-tuning see beside so many pictures of the user; none for "photo"."""
    rounds = int(photographs / 2 / len(PAINTERS) + 0.5) * len(PAINTERS)
    count = {"photo": 0, "graphics": MOST, "any": min(max(rounds, LEAST), MOST)}[content]
    sizes = deployment.manifest.sizes
    return Graphics(count, sizes.fit(max(graph.size or (PATCH, PATCH))), deployment.manifest.scale)


def spread(photographs: List[Kind], graphics: List[Kind]) -> List[Kind]:
    """Both in one list, each evenly over all of it: what a training keeps back of it has both."""
    places = [
        ((index + 0.5) / len(part), kind, index)
        for kind, part in enumerate((photographs, graphics))
        for index in range(len(part))
    ]
    return [(photographs, graphics)[kind][index] for _, kind, index in sorted(places)]


def graphics_to_judge(content: str, deployment: Deployment, side: int) -> Graphics:
    """The graphics that a plan is judged on; none for "photo"."""
    fitting = deployment.manifest.sizes.fit(side)
    return Graphics(0 if content == "photo" else JUDGED, fitting, deployment.manifest.scale, JUDGED_SEED)
