"""What only running a network tells: how far it enlarges, and which sizes it takes. For modules and graphs alike."""

from __future__ import annotations

from typing import Callable, Tuple

from sr_deploy.core.contract import Size, SizeRules

#: Multiples that the height and width of an input may have to be; the smallest that works is taken.
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
#: No probe for the multiple is smaller than this, pixels.
SMALLEST_PROBE = 24
#: Runs a network on a picture of (height, width): the shape of its output. It raises what the network raises.
ShapeOf = Callable[[Size], Tuple[int, ...]]


class NoSize(Exception):
    """No size works; the text says what happened at the roundest one."""


def scale_and_sizes(shape_of: ShapeOf) -> Tuple[int, SizeRules]:
    """Run a network on ever rounder sizes until one works, then on ever smaller ones of that kind.

    Returns:
        (scale, the sizes it takes). The minimum is the least square input that works.

    Raises:
        NoSize: none does.
    """
    problem, cause = "", None
    for multiple in MULTIPLES:
        # Odd multiples, and not square: a network that needs rounder sizes or swaps the axes shows.
        count = -(-SMALLEST_PROBE // multiple) | 1
        height, width = multiple * count, multiple * (count + 2)
        try:
            shape = shape_of((height, width))
        except Exception as error:
            problem, cause = f"running it failed: {type(error).__name__}: {error}".splitlines()[0], error
            continue
        cause = None
        scale = shape[-1] // width if len(shape) == 4 else 0
        if scale >= 1 and shape == (1, 3, scale * height, scale * width):
            return scale, SizeRules(_minimum(shape_of, scale, multiple, count), multiple)
        problem = f"it gives {shape} for an input of {(1, 3, height, width)}"
    raise NoSize(problem) from cause


def _minimum(shape_of: ShapeOf, scale: int, multiple: int, count: int) -> int:
    """The least edge that works, by bisection between nothing and ``count`` multiples, which do."""
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        edge = multiple * middle
        try:
            works = shape_of((edge, edge)) == (1, 3, scale * edge, scale * edge)
        except Exception:  # whatever a network raises where a picture is too small for it
            works = False
        low, high = (low, middle) if works else (middle, high)
    return multiple * high
