"""What a set of layers in 8 bits will lose in each picture, learned from the sets that were looked at.

Noises of layers that are related by little add up, and so does what they cost where that is small:

    lost in picture p by the set S  ≈  base(p) + factor(p) · Σ cost(l, p) over the layers l of S.

The costs are those of each layer alone, the base is what 16 bits lose, and the factor is what the last set that was
looked at there had. So a forecast of a set that was looked at is what was found, and others are judged by their
likeness to it. What structure a set shows in a picture is forecast in the same way, with a factor of its own, and so is
the square of a colour's shift, from the squares of the layers' own: shifts of layers that are not related have either
sign. The mean over the pictures, where it is bound, is one more picture.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np

from sr_deploy.core.tolerance import COLOUR_SHIFT, STRUCTURE
from sr_deploy.precision.choose.budget import Budget
from sr_deploy.precision.choose.sensitivity import LayerCost
from sr_deploy.precision.evaluate import Judged

#: A layer and its 8-bit format; the kind and the name of a picture.
Layer8 = Tuple[str, str]
PictureKey = Tuple[str, str]
#: What is forecast of a picture: what it loses, its structure, or the square of its colours' shift.
Row = Tuple[PictureKey, str]
LOSS, SEEN, SHIFT = "loss", "structure", "shift"
#: The mean over all pictures, as if it were one.
MEAN: PictureKey = ("", "the mean")
#: Layers cost something everywhere, dB, and a picture always bears something of what it may lose.
_LEAST = 1e-12
#: A picture may always lose this share of what 16 bits leave of the budget.
_SURE = 0.25
#: What a set loses hangs on a few edges too: one that is lucky lowers what was learned to this share of it at most.
_LUCK = 0.75
#: Pictures are asked what each layer costs there from this share of what they may lose on.
_NEAR = 0.7


class Forecast:
    """See the top of the file.

    Args:
        budget: with what is felt of noise (``Budget.felt_from``).
        base: of 16 bits alone, all pictures looked at.
    """

    def __init__(self, budget: Budget, base: Judged) -> None:
        self.budget = budget
        self._pictures = len(base.each)
        self._base = self._found(base)
        #: Picture → layer → dB, of all that is forecast there but the shift.
        self._cost: Dict[PictureKey, Dict[Layer8, float]] = {}
        #: Picture → layer → the square of the shift that it makes alone.
        self._shift: Dict[PictureKey, Dict[Layer8, float]] = {}
        self._factor: Dict[Row, float] = {}
        #: Kind → how much more than the worst is promised, as a share of it.
        self._beyond: Dict[str, float] = {}

    def ask(self, costs: Iterable[LayerCost]) -> None:
        """Take in what layers cost alone, on pictures that were not asked before."""
        for one in costs:
            for picture in one.pictures:
                key = picture.kind, picture.name
                self._cost.setdefault(key, {})[one.name, one.format] = max(self.budget.cost_of(picture), _LEAST)
                self._shift.setdefault(key, {})[one.name, one.format] = max(picture.shift**2, _LEAST)
        pictures = [key for key in self._cost if key != MEAN]
        self._cost[MEAN] = {
            layer: float(np.mean([self._cost[key][layer] for key in pictures])) for layer in self._cost[pictures[0]]
        }

    def begin(self) -> None:
        """Forget what was learned from sets: others, in other formats, will come."""
        self._factor.clear()
        self._beyond = {}

    def learn(self, narrow: Iterable[Layer8], judged: Judged) -> None:
        """Take in how a set did; of one that was not looked at in all pictures, those where it was."""
        found = self._found(judged)
        if (MEAN, LOSS) in found:
            for kind, beyond in self.budget.beyond(judged).items():
                self._beyond[kind] = max(beyond, _LUCK * self._beyond.get(kind, 0.0))
        layers = list(narrow)
        for row, value in found.items():
            alone = sum(self._costs_of(row).get(one, 0.0) for one in layers)
            bound = self._bound(row)
            if alone > 0.0 and bound is not None:
                # NaN tells no figure: twice what may be makes the next set smaller.
                value = max(value, 2.0 * bound) if judged.sick else value
                value = min(value, 2.0 * bound) if not np.isfinite(value) else value
                factor = max(value - self._base[row], 0.0) / alone
                self._factor[row] = max(factor, _LUCK * self._factor.get(row, 0.0))

    def loads(self, layers: Sequence[Layer8]) -> np.ndarray:
        """How much of what each picture bears each layer takes, (rows, layers); a set keeps the budget, by this
        forecast, where none of its sums exceeds 1."""
        rows: List[List[float]] = []
        for row in self._base:
            bound, cost = self._bound(row), self._costs_of(row)
            if bound is not None and cost:
                share = self._factor.get(row, 0.0) / max(bound - self._base[row], _LEAST)
                rows.append([share * cost[one] for one in layers])
        return np.array(rows, np.float64).reshape(len(rows), len(layers))

    def unasked(self, judged: Judged, most: int) -> List[PictureKey]:
        """Pictures in which a set comes near to what may be, and no layer's cost is known, nearest first."""
        near: Dict[PictureKey, float] = {}
        for row, value in self._found(judged).items():
            bound = self._bound(row)
            if row[0] not in self._cost and bound is not None and value > _NEAR * bound:
                near[row[0]] = max(value / bound, near.get(row[0], 0.0))
        return sorted(near, key=lambda key: -near[key])[:most]

    def _costs_of(self, row: Row) -> Dict[Layer8, float]:
        """What layers add to a row; empty where none was asked."""
        return (self._shift if row[1] == SHIFT else self._cost).get(row[0], {})

    def _bound(self, row: Row) -> Optional[float]:
        """What a picture may lose, dB, show, 8-bit steps, or shift by, squared; None has no limit."""
        key, what = row
        if what == SEEN:
            return STRUCTURE.steps
        if what == SHIFT:
            return None if self.budget.worst is None else COLOUR_SHIFT.steps**2
        most = self.budget.mean if key == MEAN else self.budget.worst
        if most is None:
            return None
        # How much worse others do was learned from a set that may have little in common with the next.
        least = self._base[row] + _SURE * (most - self._base[row])
        return max(least, most / (1.0 + self._beyond.get(key[0], 0.0)))

    def _found(self, judged: Judged) -> Dict[Row, float]:
        """How a set did; with the mean where all pictures were looked at."""
        found: Dict[Row, float] = {}
        for one in judged.each:
            key = one.kind, one.name
            found[key, LOSS], found[key, SEEN] = self.budget.expected_of(one), one.structure
            found[key, SHIFT] = one.shift**2
        if len(judged.each) == self._pictures:
            found[MEAN, LOSS] = float(np.mean(self.budget.expected(judged)))
        return found
