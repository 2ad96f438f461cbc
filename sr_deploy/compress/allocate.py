"""How many channels every group keeps: given up one width after the other, where the least harm saves the most cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Tuple

from sr_deploy.compress.cost import Spending
from sr_deploy.compress.importance import Ranking

#: Harm that is nothing: a group may have channels that do nothing at all.
_NOTHING = 1e-30
#: Lower widths of a group that are tried at once, and beside them the half.
_TRIED = 4


@dataclass(frozen=True)
class Widths:
    """A point on the way down.

    Attributes:
        of: group → channels.
        cost: of these widths, as a share of the whole.
        harm: of all groups together; see Ranking.
    """

    of: Dict[str, int]
    cost: float
    harm: float


@dataclass(frozen=True)
class Allocation:
    """What widths are chosen by.

    Attributes:
        rankings: of each group.
        spending: the cost.
        multiple: widths are multiples of it, or what a group had.
        by_cost: False spends harm by the channel, whatever it saves.
    """

    rankings: Mapping[str, Ranking]
    spending: Spending
    multiple: int
    by_cost: bool = True

    @property
    def full(self) -> Dict[str, int]:
        """The widths of the whole."""
        return {name: len(ranking.order) for name, ranking in self.rankings.items()}

    def point(self, widths: Mapping[str, int]) -> Widths:
        """Widths with their cost and harm."""
        share = self.spending.total(widths) / self.spending.total(self.full)
        return Widths(dict(widths), share, sum(self.harm(name, width) for name, width in widths.items()))

    def harm(self, name: str, width: int) -> float:
        """Of a group that keeps ``width`` channels."""
        ranking = self.rankings[name]
        return float(ranking.harm[len(ranking.order) - width])


def path_down(allocation: Allocation, least: float) -> Tuple[Widths, ...]:
    """Widths from the whole network down, each narrower than the one before.

    A step takes one group to a lower width, that of all groups and widths whose harm is least for the cost it saves:
    looking at several lower widths, not only the next, passes over places where a little harm saves nothing.

    Args:
        allocation: what they are chosen by.
        least: the share of the cost at which to stop; the last point has no more, where any has.
    """
    now = allocation.full
    path = [Widths(dict(now), 1.0, 0.0)]
    while path[-1].cost > least:
        best: Tuple[float, str, int] = (float("inf"), "", 0)
        for name, have in now.items():
            for width in _lower(have, allocation.multiple):
                gain = allocation.spending.saved(now, name, width) if allocation.by_cost else float(have - width)
                more = allocation.harm(name, width) - allocation.harm(name, have)
                if gain > 0 and max(more, _NOTHING) / gain < best[0]:
                    best = (max(more, _NOTHING) / gain, name, width)
        if not best[1]:
            break
        now[best[1]] = best[2]
        path.append(allocation.point(now))
    return tuple(path)


def _lower(width: int, multiple: int) -> List[int]:
    below = list(range((width - 1) // multiple * multiple, 0, -multiple))
    return list(dict.fromkeys([*below[:_TRIED], *below[len(below) // 2 :][:1]]))


def at_most(allocation: Allocation, path: Tuple[Widths, ...], most: float) -> Widths:
    """The widths of a path that cost no more than a share of the whole, the last step's excess given back.

    Args:
        allocation: of ``path``.
        path: from ``path_down``.
        most: the share; where no point has so little, the last point is given.
    """
    found = next((point for point in path if point.cost <= most), path[-1])
    now, room = dict(found.of), most - found.cost
    full, whole = allocation.full, allocation.spending.total(allocation.full)
    while True:
        best: Tuple[float, str, int, float] = (0.0, "", 0, 0.0)
        for name, have in now.items():
            width = min((have // allocation.multiple + 1) * allocation.multiple, full[name])
            price = -allocation.spending.saved(now, name, width) / whole if width > have else room + 1.0
            if price > room:
                continue
            healed = allocation.harm(name, have) - allocation.harm(name, width)
            if healed / max(price, 1e-9) > best[0]:
                best = (healed / max(price, 1e-9), name, width, price)
        if not best[1]:
            return allocation.point(now)
        now[best[1]] = best[2]
        room -= best[3]
