"""The set of 8-bit layers that saves most and keeps a quality budget.

Layers are given back to 16 bits in the order of what their noise costs for each microsecond they save; how many is
found by bisection, because the loss falls with every one of them as far as pictures can tell. That order gives back all
that stands before a loud layer too. So then the cost that the budget bears is known about, and the layers that save
most within it are chosen (a knapsack, solved exactly on a fine scale of costs) and judged, with more while the budget
holds and less where it does not; last, single layers are put back. Costs add up only roughly, so nothing is taken that
was not judged.

Where there are several 8-bit formats, each layer in the one in which its noise costs less is looked through first, then
all layers in one format: of these only sets that save more than the best so far are looked at. So a mix saves no less
than one format would with the same budget, also where the costs of a mix do not add up.

Whether a set keeps the budget is the caller's to say, see budget.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, FrozenSet, List, Mapping, Sequence, Tuple

import numpy as np

from sr_deploy.core.number_formats import FLOAT16, INT8, NumberFormat
from sr_deploy.core.text import counted
from sr_deploy.graph.roofline import Board, PowerMode
from sr_deploy.precision.choose.sensitivity import LayerCost
from sr_deploy.precision.evaluate import Judged, losses_of

#: Sets that are judged at most, the bisection included; of each further family so many more.
TRIALS, MORE_TRIALS = 25, 16
#: Of these, knapsacks of other costs.
_KNAPSACKS = 8
#: Steps that costs are counted in.
_GRAIN = 4096
#: A single layer is tried only if the predicted cost stays below this many times what is known to be borne.
_HOPE = 1.5

#: A layer and its 8-bit format.
Layer8 = Tuple[str, str]


@dataclass(frozen=True)
class Found:
    """What the search chose.

    Attributes:
        narrow: the layers in 8 bits, and the format of each.
        raised: layer → why it was given back.
        judged: of the chosen set.
        tried: how many sets were looked at.
    """

    narrow: Tuple[Layer8, ...]
    raised: Dict[str, str]
    judged: Judged
    tried: int


def saved_microseconds(
    macs: Mapping[str, int],
    moved: Mapping[str, int],
    board: Board,
    mode: PowerMode,
    wide: NumberFormat = FLOAT16,
    narrow: NumberFormat = INT8,
) -> Dict[str, float]:
    """What a narrower format saves at each layer on a board, by its roofline: an estimate.

    Args:
        macs: layer → multiply-accumulates.
        moved: layer → values that it reads.
        board, mode: from graph/roofline.
        wide, narrow: formats that the board has rates of.
    """
    clock, bandwidth = mode.gpu_mhz, board.memory_bits / 8 * 2 * mode.memory_mhz
    arithmetic = 1.0 / board.macs_per_clock[wide.name] - 1.0 / board.macs_per_clock[narrow.name]
    fewer = (wide.bits - narrow.bits) // 8
    return {name: macs[name] * arithmetic / clock + fewer * moved.get(name, 0) / bandwidth for name in macs}


def search(
    families: Sequence[Sequence[LayerCost]],
    saved: Mapping[str, float],
    judge_set: Callable[[Tuple[Layer8, ...]], Judged],
    keeps: Callable[[Judged], bool],
    say: Callable[[str], None] = lambda _: None,
    trials: int = TRIALS,
) -> Found:
    """Give back what the budget needs, and what saves least.

    Args:
        families: the candidates, from ``sensitivities``, each family with all of them, in the formats to look through
            together; one or more.
        saved: layer → what 8 bits save there, in any format.
        judge_set: looks at a set of layers in 8 bits; the empty set is plain 16 bits.
        keeps: whether a set that was judged so is good enough.
        say: told each set that was looked at.
        trials: sets to look at, at most; the bisection is never cut short.

    Returns:
        Of the sets that were looked at and keep the budget, the one that saves most; the empty one if none does.
    """
    tries = _Tries(saved, judge_set, keeps, say)
    for family in families:
        _look_through(tries, family, trials)
        trials = len(tries.seen) + MORE_TRIALS
    chosen = dict(tries.best)
    raised = {
        one.name: f"given back for the PSNR budget: alone it makes {one.noise:.3g} (8-bit steps)² of noise"
        for one in families[0]
        if one.name not in chosen
    }
    return Found(tuple(sorted(tries.best)), raised, tries.seen[tries.best], len(tries.seen))


def most_looked_at(layers: int, families: int, trials: int) -> int:
    """How many sets ``search`` looks at, at most, for so many layers and families."""
    bisected = layers.bit_length() + 2
    return max(trials, bisected) + (families - 1) * max(MORE_TRIALS, bisected)


class _Tries:
    """The sets that were looked at.

    Attributes:
        seen: set → what was seen.
        best: of those that keep the budget the one that saves most; empty as long as none does.
    """

    def __init__(
        self,
        saved: Mapping[str, float],
        judge_set: Callable[[Tuple[Layer8, ...]], Judged],
        keeps: Callable[[Judged], bool],
        say: Callable[[str], None],
    ) -> None:
        self.saved = saved
        self._judge_set, self._keeps, self._say = judge_set, keeps, say
        self.seen: Dict[FrozenSet[Layer8], Judged] = {}
        self.best: FrozenSet[Layer8] = frozenset()

    def keeps(self, narrow: FrozenSet[Layer8]) -> bool:
        """Whether the budget holds with these layers in 8 bits; a set is looked at once."""
        if narrow not in self.seen:
            judged = self.seen[narrow] = self._judge_set(tuple(sorted(narrow)))
            verdict = "kept" if self._keeps(judged) else "not surely kept"
            self._say(f"  {counted(len(narrow), 'layer')} in 8 bits: {losses_of(judged)}: {verdict}")
        good = self._keeps(self.seen[narrow])
        if good and self.gain(narrow) > self.gain(self.best):
            self.best = narrow
            self._say(f"  best so far: {counted(len(narrow), 'layer')} in 8 bits")
        return good

    def bears(self, narrow: FrozenSet[Layer8]) -> bool:
        """The same; what saves no more than the best there is needs no look."""
        return (bool(self.best) and self.gain(narrow) <= self.gain(self.best)) or self.keeps(narrow)

    def gain(self, narrow: FrozenSet[Layer8]) -> float:
        """What a set saves; of two that save alike the larger one saves more."""
        return sum(max(self.saved.get(name, 0.0), 0.0) + 1e-12 for name, _ in narrow)


def _look_through(tries: _Tries, family: Sequence[LayerCost], trials: int) -> None:
    """Find the best set of a family that saves more than the best there is."""
    order = sorted(family, key=lambda one: one.cost / max(tries.saved.get(one.name, 0.0), 1e-9), reverse=True)
    items = [(one.name, one.format) for one in order]
    cost = {(one.name, one.format): one.cost for one in order}
    cut = _bisected(tries, items)
    if cut > 0 and tries.bears(frozenset(items[cut:])):
        borne = _fuller(tries, cost, cut, trials)
        _put_back(tries, cost, borne, trials)


def _bisected(tries: _Tries, items: List[Layer8]) -> int:
    """How many layers must be given back, in order: 0, or the least number with which the budget holds."""
    low, high = 0, len(items)
    if tries.bears(frozenset(items)):
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        if tries.bears(frozenset(items[middle:])):
            high = middle
        else:
            low = middle
    tries.bears(frozenset(items[high:]))
    return high


def _fuller(tries: _Tries, cost: Mapping[Layer8, float], cut: int, trials: int) -> float:
    """Try the sets that save most within the cost that the budget seems to bear; gives that cost.

    Args:
        cost: of the family's layers, in the order of giving back.
        cut: how many were given back.
    """
    items = list(cost)
    kept = sum(cost[one] for one in items[cut:])
    # What failed last bears witness only of its own set: others of a little more cost may hold.
    low, high = kept, kept + 2.0 * cost[items[cut - 1]]
    for count in range(_KNAPSACKS):
        bound = high if count == 0 else (low + high) / 2
        narrow = _fullest(tries, cost, bound)
        if narrow not in tries.seen and len(tries.seen) >= trials:
            break
        if tries.bears(narrow):
            low = bound
            high = max(high, 1.5 * bound) if count == 0 else high
        else:
            high = bound
        if high - low < 0.02 * max(high, 1e-12):
            break
    return low


def _fullest(tries: _Tries, cost: Mapping[Layer8, float], bound: float) -> FrozenSet[Layer8]:
    """The layers that save most with a sum of costs of at most ``bound``: a 0/1 knapsack by dynamic programming."""
    best = np.zeros(_GRAIN + 1)
    taken: List[np.ndarray] = []
    weights = [int(np.ceil(one / bound * _GRAIN)) if bound > 0.0 else int(one > 0.0) * (_GRAIN + 1)
               for one in cost.values()]  # fmt: skip
    for item, weight in zip(cost, weights):
        with_it = np.full(_GRAIN + 1, -np.inf)
        if weight <= _GRAIN:
            with_it[weight:] = best[: _GRAIN + 1 - weight] + tries.gain(frozenset([item]))
        taken.append(with_it > best)
        best = np.maximum(best, with_it)
    chosen, left = set(), _GRAIN
    for item, weight, take in zip(reversed(list(cost)), reversed(weights), reversed(taken)):
        if take[left]:
            chosen.add(item)
            left -= weight
    return frozenset(chosen)


def _put_back(tries: _Tries, cost: Mapping[Layer8, float], borne: float, trials: int) -> None:
    """Try each layer that is still given back, cheapest for its saving first; the best must be of this family."""
    for item in reversed(list(cost)):
        more = tries.best | {item}
        if not more <= cost.keys() or item in tries.best or more in tries.seen or len(tries.seen) >= trials:
            continue
        if sum(cost[one] for one in more) <= _HOPE * borne:
            tries.keeps(more)
