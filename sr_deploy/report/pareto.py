"""Which of several candidates are worth having: the Pareto front. Pure."""

from __future__ import annotations

import math
from typing import Sequence, Tuple


def pareto_front(candidates: Sequence[Tuple[float, float]]) -> Tuple[int, ...]:
    """Indices of the candidates that no other one beats, cheapest first.

    One candidate beats another when it costs no more and gives no less, and is better in at least one of the two
    (V. Pareto, Manuale di economia politica, 1906). Equal candidates do not beat each other.

    Args:
        candidates: (cost, gain) of each, such as (latency in seconds, PSNR in dB); a gain may be infinite.

    Raises:
        ValueError: a NaN, which is neither better nor worse than anything.
    """
    if any(math.isnan(value) for pair in candidates for value in pair):
        raise ValueError("a candidate with NaN has no place among the others")
    front = [
        index
        for index, (cost, gain) in enumerate(candidates)
        if not any(c <= cost and g >= gain and (c < cost or g > gain) for c, g in candidates)
    ]
    return tuple(sorted(front, key=lambda index: (candidates[index][0], index)))
