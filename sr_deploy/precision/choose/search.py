"""The cheapest set of INT8 layers that keeps a quality budget.

Layers are given back to float16 in the order of the noise they make for each microsecond they save; how many is found
by bisection, because the loss falls with every one of them as far as pictures can tell.

Whether a set keeps the budget is the caller's to say, see budget.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, Mapping, Sequence, Tuple

from sr_deploy.graph.roofline import Board, PowerMode
from sr_deploy.precision.choose.sensitivity import LayerCost
from sr_deploy.precision.evaluate import Judged, losses_of


@dataclass(frozen=True)
class Found:
    """What the search chose.

    Attributes:
        narrow: the layers in INT8.
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
) -> Found:
    """Give back as few layers as the budget needs.

    Args:
        layers: the candidates, from ``sensitivities``.
        saved: layer → what INT8 saves there.
        judge_set: looks at a set of INT8 layers; the empty set is plain float16.
        keeps: whether a set that was judged so is good enough.
        say: told each set that was looked at.

    Returns:
        The largest set, in this order of giving back, that keeps the budget; the empty one if none does.
    """
    order = sorted(layers, key=lambda one: one.noise / max(saved.get(one.name, 0.0), 1e-9), reverse=True)
    names = [one.name for one in order]
    seen: Dict[int, Judged] = {}

    def good(count: int) -> bool:
        """Whether the budget holds when the first ``count`` layers are given back."""
        if count not in seen:
            seen[count] = judge_set(tuple(names[count:]))
            say(f"  {len(names) - count} layers in INT8: {losses_of(seen[count])}")
        return keeps(seen[count])

    low, high = 0, len(names)
    if good(0):
        high = 0
    while high - low > 1:
        middle = (low + high) // 2
        if good(middle):
            high = middle
        else:
            low = middle
    good(high)
    raised = {
        one.name: f"given back for the PSNR budget: alone it makes {one.noise:.3g} (8-bit steps)² of noise"
        for one in order[:high]
    }
    return Found(tuple(names[high:]), raised, seen[high], len(seen))
