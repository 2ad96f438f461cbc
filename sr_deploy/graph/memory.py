"""How much memory a graph needs, by the builder's own word, and the strip count that stays within a budget.

No arithmetic predicts what a builder's planner makes of a graph (four strips of one network needed more than none), so
it is asked: ``ask`` takes an ONNX file and gives bytes, and comes from a folder to the right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Dict, Optional, Tuple

import onnx

from sr_deploy.core.errors import CheckFailed, UsageError
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.graph.rewrite.base import RewriteOptions
from sr_deploy.graph.rewrite.streaming import apply_streaming

#: Bytes of activations that a builder plans for an ONNX file.
Ask = Callable[[Path], int]
#: Strip counts that are tried; 1 is the graph as it is.
STRIPS: Tuple[int, ...] = (1, 8, 12, 16, 24, 36, 48, 60, 64)
#: Shares of them for parts other than the widest (RewriteOptions.share), the later ones where the first is not enough.
SHARES: Tuple[float, ...] = (0.5, 1.0)


@dataclass(frozen=True)
class Streamed:
    """A graph and what the builder said.

    Attributes:
        model: the graph in ``strips`` strips.
        strips: in its widest part; 1 is the graph as it was.
        share: of the other parts.
        bytes: activation memory of ``model``.
        asked: strip count, in words with its share → bytes of activations, for all that was built.
    """

    model: onnx.ModelProto
    strips: int
    share: float
    bytes: int
    asked: Dict[str, int]


def activation_bytes(model: onnx.ModelProto, ask: Ask) -> int:
    """Ask the builder about a graph in memory."""
    with temporary_folder() as folder:
        path = folder / "model.onnx"
        onnx.save(model, str(path))
        return ask(path)


def stream_within(
    model: onnx.ModelProto, options: RewriteOptions, ask: Ask, say: Callable[[str], None] = lambda _: None
) -> Streamed:
    """The fewest strips of ``STRIPS`` with which the graph stays within ``options.memory_budget``.

    Fewer strips compute fewer rows twice. The counts are bisected; as memory need not fall with every step, all larger
    ones are tried before giving up; then all again with more strips in the parts that work on less (SHARES).

    Args:
        model: static, in the types that it will be built in.
        options: with size and budget; ``strips`` is ignored.
        ask: the builder.
        say: told each answer.

    Raises:
        UsageError: no size or no budget.
        CheckFailed: no count stays within the budget; the message holds every answer.
    """
    budget = options.memory_budget
    if budget is None or options.size is None:
        raise UsageError("a memory budget holds for one size", "a fixed size and a budget", "give --size HxW")
    asked: Dict[str, int] = {}
    for share in SHARES:
        found = _fewest(model, replace(options, share=share), ask, say, asked)
        if found is not None:
            return found
    answers = ", ".join(f"{form} strips {bytes_ / 1e6:.0f} MB" for form, bytes_ in asked.items())
    raise CheckFailed(
        f"the graph does not stay within {budget / 1e6:.0f} MB: {answers}",
        "a budget that the builder can meet",
        f"--memory-budget {min(asked.values()) / 1e6 + 1:.0f}MB, float16, or a smaller size",
    )


def _fewest(
    model: onnx.ModelProto, options: RewriteOptions, ask: Ask, say: Callable[[str], None], asked: Dict[str, int]
) -> Optional[Streamed]:
    """The fewest strips within the budget for one share; every answer goes into ``asked``."""
    budget, share = options.memory_budget or 0, options.share
    graphs: Dict[int, onnx.ModelProto] = {}

    def form(strips: int) -> str:
        return str(strips) if strips == 1 or share == SHARES[0] else f"{strips} ({share:g})"

    def fits(strips: int) -> bool:
        if strips not in graphs:
            graphs[strips] = apply_streaming(model, replace(options, strips=strips)).model
        if form(strips) not in asked:
            asked[form(strips)] = activation_bytes(graphs[strips], ask)
            say(f"  {form(strips)} strips: {asked[form(strips)] / 1e6:.0f} MB")
        return asked[form(strips)] <= budget

    found: Optional[int] = STRIPS[0] if fits(STRIPS[0]) else None
    low, high = 1, len(STRIPS)
    while found != STRIPS[0] and low < high:
        middle = (low + high) // 2
        if fits(STRIPS[middle]):
            found, high = STRIPS[middle], middle
        else:
            low = middle + 1
    if found is None:
        found = next((strips for strips in STRIPS if fits(strips)), None)
    return None if found is None else Streamed(graphs[found], found, share, asked[form(found)], dict(asked))
