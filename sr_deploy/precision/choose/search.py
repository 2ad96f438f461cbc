"""The set of 8-bit layers that saves most and keeps a quality budget.

What a set will lose in each picture is forecast (forecast.py). The set that saves most within the forecast is looked
at, and what is found corrects the forecast, until a set keeps the budget that no other is forecast to better; then sets
are tried that save more and are forecast to break it by little. A picture in which a set comes near to what may be lost
is asked what each layer costs there, and binds all sets after it. Nothing is taken that was not judged.

Where there are several 8-bit formats, each layer in the one in which its noise costs less is looked through first, then
all layers in one format: of these only sets that save more than the best so far are looked at. So a mix saves no less
than one format would with the same budget, also where the costs of a mix do not add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Dict, FrozenSet, Iterable, List, Mapping, Sequence, Tuple

import numpy as np

from sr_deploy.core.number_formats import FLOAT16, INT8, NumberFormat
from sr_deploy.core.text import counted
from sr_deploy.graph.roofline import Board, PowerMode
from sr_deploy.precision.choose.forecast import Forecast, Layer8, PictureKey
from sr_deploy.precision.choose.sensitivity import LayerCost
from sr_deploy.precision.evaluate import Judged

#: Sets that are looked at, at most, in the first family and in each further one.
TRIALS, MORE_TRIALS = 16, 6
#: A set is still tried that is forecast to lose so many times what it may, found in steps of _STEP; after _MISSES that
#: broke the budget one after the other none is.
_HOPE, _STEP, _MISSES = 2.0, 1.05, 6
#: As long as none is kept, each that breaks the budget makes the next one lose less, down to this share of it.
_DESPAIR = 0.2
#: Pictures that are asked after each look, at most; layers that others are tried without.
_ASKED, _OTHERS = 2, 8


@dataclass(frozen=True)
class Found:
    """What the search chose.

    Attributes:
        narrow: the layers in 8 bits, and the format of each.
        raised: the layers that were given back.
        judged: of the chosen set.
        tried: how many sets were looked at.
    """

    narrow: Tuple[Layer8, ...]
    raised: Tuple[str, ...]
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
    families: Sequence[Sequence[Layer8]],
    saved: Mapping[str, float],
    judge_set: Callable[[Tuple[Layer8, ...]], Judged],
    forecast: Forecast,
    costs_in: Callable[[Sequence[PictureKey]], Iterable[LayerCost]],
    say: Callable[[str], None] = lambda _: None,
) -> Found:
    """The layers in 8 bits that save most within a budget.

    Args:
        families: the candidates, each family with all of them, in the formats to look through together; one or more.
        saved: layer → what 8 bits save there, in any format.
        judge_set: looks at a set of layers in 8 bits; the empty set is plain 16 bits.
        forecast: of the budget, told what each layer costs in some of the pictures.
        costs_in: measures what each layer in each format costs in more pictures.
        say: told each set that was looked at.

    Returns:
        Of the sets that were looked at and keep the budget, the one that saves most; the empty one if none does.
    """
    tries = _Tries(saved, judge_set, forecast, costs_in, say)
    for family, trials in zip(families, (TRIALS, *[MORE_TRIALS] * len(families))):
        tries.look_through(family, len(tries.seen) + 1 + trials)
    chosen = dict(tries.best)
    judged = tries.seen[tries.best] if tries.best else judge_set(())
    raised = tuple(name for name, _ in families[0] if name not in chosen)
    return Found(tuple(sorted(tries.best)), raised, judged, len(tries.seen))


def most_looked_at(families: int) -> int:
    """How many sets ``search`` looks at, at most."""
    return families + TRIALS + (families - 1) * MORE_TRIALS


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
        forecast: Forecast,
        costs_in: Callable[[Sequence[PictureKey]], Iterable[LayerCost]],
        say: Callable[[str], None],
    ) -> None:
        self._saved, self._judge_set, self._forecast = saved, judge_set, forecast
        self._costs_in, self._say = costs_in, say
        self.seen: Dict[FrozenSet[Layer8], Judged] = {}
        self.best: FrozenSet[Layer8] = frozenset()

    def look_through(self, family: Sequence[Layer8], most: int) -> None:
        """Find the best set of a family that saves more than the best there is, until ``most`` sets were seen.

        All of it is looked at first, for what is special about these formats together.
        """
        hope, misses, step = 1.0, 0, 1.0
        self._forecast.begin()
        self._keeps(frozenset(family))
        while len(self.seen) < most and misses < _MISSES and _DESPAIR < hope < _HOPE:
            narrow = self._fullest(family, hope)
            known = narrow in self.seen
            if not known and self._gain(narrow) > self._gain(self.best):
                first, step = not self.best, 1.0
                if self._keeps(narrow):
                    hope, misses = max(hope, 1.0) if first else hope, 0
                elif first:
                    # Something to go on from is worth more than the last step.
                    hope /= _STEP**2
                else:
                    misses += 1
            elif step < 1.0 and not known:
                # Nothing is forecast to lose as little as that.
                return
            else:
                # What broke the budget is forecast to keep it, by sets that were seen since: before any is kept, less
                # is tried. Else the forecast knows nothing better, and beyond it there may be. Never to and fro.
                step = 1.0 / _STEP if known and not self.best and step <= 1.0 else _STEP
                hope *= step

    def _keeps(self, narrow: FrozenSet[Layer8]) -> bool:
        """Look at a set, and learn from it."""
        judged = self.seen[narrow] = self._judge_set(tuple(sorted(narrow)))
        budget, forecast = self._forecast.budget, self._forecast
        asked = forecast.unasked(judged, _ASKED)
        if asked:
            self._say(f"near to the budget: {', '.join(name for _, name in asked)}")
            forecast.ask(self._costs_in(asked))
        forecast.learn(narrow, judged)
        kept = budget.keeps(judged)
        self._say(f"  {counted(len(narrow), 'layer')} in 8 bits: {budget.verdict(judged)}")
        if kept and self._gain(narrow) > self._gain(self.best):
            self.best = narrow
            self._say(f"  best so far: {counted(len(narrow), 'layer')} in 8 bits")
        return kept

    def _gain(self, narrow: Iterable[Layer8]) -> float:
        """What a set saves; of two that save alike the larger one saves more."""
        return math.fsum(max(self._saved.get(name, 0.0), 0.0) + 1e-12 for name, _ in narrow)

    def _fullest(self, family: Sequence[Layer8], hope: float) -> FrozenSet[Layer8]:
        """The layers that save most of those that are forecast to lose at most ``hope`` times what they may, and were
        not looked at yet: where they were, the same without one of those that load most."""
        loads = self._forecast.loads(family) / hope
        narrow = self._chosen(family, loads)
        if narrow not in self.seen:
            return narrow
        heaviest = sorted(range(len(family)), key=lambda index: -loads[:, index].max(initial=0.0))
        without = []
        for index in [index for index in heaviest if family[index] in narrow][:_OTHERS]:
            fewer = np.delete(loads, index, 1)
            without.append(self._chosen([one for one in family if one != family[index]], fewer))
        return max((one for one in without if one not in self.seen), key=self._gain, default=narrow)

    def _chosen(self, family: Sequence[Layer8], loads: np.ndarray) -> FrozenSet[Layer8]:
        taken = fullest(loads, np.array([self._gain([one]) for one in family]))
        return frozenset(one for one, good in zip(family, taken) if good)


def fullest(loads: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """The items of most gain whose loads add up to at most 1 in each row: a knapsack of several bounds.

    Items are given up where they load most, for their gain, the rows that are too full, those that fit are put back,
    and then each is swapped for another, or for two, as long as that gains. After Y. Toyoda, "A simplified algorithm
    for obtaining approximate solutions to zero-one programming problems", Management Science 21(12), 1975. Exact it is
    not; loads are forecasts.

    Args:
        loads: (rows, items), 0 or more.
        gains: (items,), above 0.

    Returns:
        Which are taken, bool (items,).
    """
    taken = np.ones(len(gains), bool)
    used = loads.sum(1)
    while len(used) and used.max() > 1.0:
        full = np.where(used > 1.0, used, 0.0)
        weight = np.where(taken, full @ loads / gains, -1.0)
        if weight.max() <= 0.0:
            # What overflows is made of nothing that is taken: numbers at the end of their range.
            break
        taken[int(weight.argmax())] = False
        used = loads[:, taken].sum(1)
    _filled(loads, gains, taken)
    while _swapped(loads, gains, taken):
        _filled(loads, gains, taken)
    return taken


def _filled(loads: np.ndarray, gains: np.ndarray, taken: np.ndarray) -> None:
    """Take in place what still fits, what gains most first."""
    used = loads[:, taken].sum(1)
    for item in np.argsort(-gains, kind="stable"):
        if not taken[item] and (used + loads[:, item] <= 1.0).all():
            taken[item] = True
            used += loads[:, item]


def _swapped(loads: np.ndarray, gains: np.ndarray, taken: np.ndarray) -> bool:
    """Exchange in place one item, or two, for one that gains more, or one for two; whether any was."""
    used = loads[:, taken].sum(1)
    inside, outside = np.flatnonzero(taken), np.flatnonzero(~taken)
    for gone, come in _exchanges(inside, outside):
        more = gains[come].sum() - gains[gone].sum()
        if more > 0.0 and (used - loads[:, gone].sum(1) + loads[:, come].sum(1) <= 1.0).all():
            taken[gone], taken[come] = False, True
            return True
    return False


def _exchanges(inside: np.ndarray, outside: np.ndarray) -> Iterable[Tuple[List[int], List[int]]]:
    """(gone, come): one for one, one for two, two for one."""
    for gone in inside:
        for first, come in enumerate(outside):
            yield [gone], [come]
            yield from (([gone], [come, other]) for other in outside[first + 1 :])
    for first, gone in enumerate(inside):
        for other in inside[first + 1 :]:
            yield from (([gone, other], [come]) for come in outside)
