"""The set of 8-bit layers that saves most and keeps a quality budget.

Layers are given back to 16 bits in the order of the noise they make for each microsecond they save; how many is found
by bisection, because the loss falls with every one of them as far as pictures can tell. That order gives back all that
stands before a loud layer too. So then the noise that the budget bears is known about, and the layers that save most
within it are chosen (a knapsack, solved exactly on a fine scale of noise) and judged, with more noise while the budget
holds and less where it does not; last, single layers are put back. Noises add up only roughly, so nothing is taken that
was not judged.

Whether a set keeps the budget is the caller's to say, see budget.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, FrozenSet, List, Mapping, Sequence, Tuple

import numpy as np

from sr_deploy.graph.roofline import Board, PowerMode
from sr_deploy.precision.choose.sensitivity import LayerCost
from sr_deploy.precision.evaluate import Judged, losses_of

#: Sets that are judged at most, the bisection included.
TRIALS = 25
#: Of these, knapsacks of other noise.
_KNAPSACKS = 8
#: Steps that noise is counted in.
_GRAIN = 4096
#: A single layer is tried only if the predicted noise stays below this many times what is known to be borne.
_HOPE = 1.5


@dataclass(frozen=True)
class Found:
    """What the search chose.

    Attributes:
        narrow: the layers in 8 bits.
        raised: layer → why it was given back.
        judged: of the chosen set.
        tried: how many sets were looked at.
    """

    narrow: Tuple[str, ...]
    raised: Dict[str, str]
    judged: Judged
    tried: int


def saved_microseconds(
    macs: Mapping[str, int], moved: Mapping[str, int], board: Board, mode: PowerMode
) -> Dict[str, float]:
    """What INT8 instead of float16 saves at each layer on a board, by its roofline: an estimate.

    Args:
        macs: layer → multiply-accumulates.
        moved: layer → values that it reads, which take one byte instead of two.
        board, mode: from graph/roofline.
    """
    clock, bandwidth = mode.gpu_mhz, board.memory_bits / 8 * 2 * mode.memory_mhz
    arithmetic = 1.0 / board.macs_per_clock["float16"] - 1.0 / board.macs_per_clock["int8"]
    return {name: macs[name] * arithmetic / clock + moved.get(name, 0) / bandwidth for name in macs}


def search(
    layers: Sequence[LayerCost],
    saved: Mapping[str, float],
    judge_set: Callable[[Tuple[str, ...]], Judged],
    keeps: Callable[[Judged], bool],
    say: Callable[[str], None] = lambda _: None,
    trials: int = TRIALS,
) -> Found:
    """Give back what the budget needs, and what saves least.

    Args:
        layers: the candidates, from ``sensitivities``.
        saved: layer → what 8 bits save there.
        judge_set: looks at a set of layers in 8 bits; the empty set is plain 16 bits.
        keeps: whether a set that was judged so is good enough.
        say: told each set that was looked at.
        trials: sets to look at, at most; the bisection is never cut short.

    Returns:
        Of the sets that were looked at and keep the budget, the one that saves most; the empty one if none does.
    """
    order = sorted(layers, key=lambda one: one.noise / max(saved.get(one.name, 0.0), 1e-9), reverse=True)
    tries = _Tries([one.name for one in order], saved, judge_set, keeps, say)
    cut = _bisected(tries)
    if cut > 0 and tries.keeps(frozenset(tries.names[cut:])):
        noise = {one.name: one.noise for one in order}
        borne = _fuller(tries, noise, cut, trials)
        _put_back(tries, noise, borne, trials)
    names = tries.best
    raised = {
        one.name: f"given back for the PSNR budget: alone it makes {one.noise:.3g} (8-bit steps)² of noise"
        for one in order
        if one.name not in names
    }
    return Found(tuple(name for name in tries.names if name in names), raised, tries.seen[names], len(tries.seen))


class _Tries:
    """The sets that were looked at.

    Attributes:
        names: all layers, in the order of giving back.
        seen: set → what was seen.
        best: of those that keep the budget the one that saves most; empty as long as none does.
    """

    def __init__(
        self,
        names: List[str],
        saved: Mapping[str, float],
        judge_set: Callable[[Tuple[str, ...]], Judged],
        keeps: Callable[[Judged], bool],
        say: Callable[[str], None],
    ) -> None:
        self.names, self.saved = names, saved
        self._judge_set, self._keeps, self._say = judge_set, keeps, say
        self.seen: Dict[FrozenSet[str], Judged] = {}
        self.best: FrozenSet[str] = frozenset()

    def keeps(self, narrow: FrozenSet[str]) -> bool:
        """Whether the budget holds with these layers in 8 bits; a set is looked at once."""
        if narrow not in self.seen:
            judged = self.seen[narrow] = self._judge_set(tuple(name for name in self.names if name in narrow))
            self._say(f"  {len(narrow)} layers in 8 bits: {losses_of(judged)}")
        good = self._keeps(self.seen[narrow])
        if good and self.gain(narrow) > self.gain(self.best):
            self.best = narrow
        return good

    def gain(self, narrow: FrozenSet[str]) -> float:
        """What a set saves; of two that save alike the larger one saves more."""
        return sum(max(self.saved.get(name, 0.0), 0.0) + 1e-12 for name in narrow)


def _bisected(tries: _Tries) -> int:
    """How many layers must be given back, in order: 0, or the least number with which the budget holds."""
    names = tries.names
    low, high = 0, len(names)
    if tries.keeps(frozenset(names)):
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        if tries.keeps(frozenset(names[middle:])):
            high = middle
        else:
            low = middle
    tries.keeps(frozenset(names[high:]))
    return high


def _fuller(tries: _Tries, noise: Mapping[str, float], cut: int, trials: int) -> float:
    """Try the sets that save most within the noise that the budget seems to bear; gives that noise."""
    kept = sum(noise[name] for name in tries.names[cut:])
    # What failed last bears witness only of its own set: others of a little more noise may hold.
    low, high = kept, kept + 2.0 * noise[tries.names[cut - 1]]
    for count in range(_KNAPSACKS):
        bound = high if count == 0 else (low + high) / 2
        narrow = _fullest(tries, noise, bound)
        if narrow not in tries.seen and len(tries.seen) >= trials:
            break
        if tries.gain(narrow) <= tries.gain(tries.best) or tries.keeps(narrow):
            low = bound
            high = max(high, 1.5 * bound) if count == 0 else high
        else:
            high = bound
        if high - low < 0.02 * max(high, 1e-12):
            break
    return low


def _fullest(tries: _Tries, noise: Mapping[str, float], bound: float) -> FrozenSet[str]:
    """The layers that save most with a sum of noises of at most ``bound``: a 0/1 knapsack by dynamic programming."""
    best = np.zeros(_GRAIN + 1)
    taken: List[np.ndarray] = []
    weights = [int(np.ceil(noise[name] / bound * _GRAIN)) if bound > 0.0 else int(noise[name] > 0.0) * (_GRAIN + 1)
               for name in tries.names]  # fmt: skip
    for name, weight in zip(tries.names, weights):
        with_it = np.full(_GRAIN + 1, -np.inf)
        if weight <= _GRAIN:
            with_it[weight:] = best[: _GRAIN + 1 - weight] + tries.gain(frozenset([name]))
        taken.append(with_it > best)
        best = np.maximum(best, with_it)
    chosen, left = set(), _GRAIN
    for name, weight, take in zip(reversed(tries.names), reversed(weights), reversed(taken)):
        if take[left]:
            chosen.add(name)
            left -= weight
    return frozenset(chosen)


def _put_back(tries: _Tries, noise: Mapping[str, float], borne: float, trials: int) -> None:
    """Try each layer that is still given back, cheapest noise for its saving first."""
    for name in reversed(tries.names):
        more = tries.best | {name}
        if name in tries.best or more in tries.seen or len(tries.seen) >= trials:
            continue
        if sum(noise[one] for one in more) <= _HOPE * borne:
            tries.keeps(more)
