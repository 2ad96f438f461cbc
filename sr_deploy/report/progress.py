"""A progress bar for long work: on a terminal only, and on stderr, so that stdout holds results."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Callable, Iterable, Iterator, Optional, Sized, TypeVar

Item = TypeVar("Item")


def track(items: Iterable[Item], description: str, total: Optional[int] = None) -> Iterator[Item]:
    """Give the items one by one and show how far it is; silent when stderr is not a terminal.

    Args:
        items: what to go through.
        description: one or two words before the bar, such as "upscaling".
        total: number of items; None takes ``len(items)`` where there is one.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    total = len(items) if total is None and isinstance(items, Sized) else total
    yield from rich_track(items, description, total=total, console=Console(stderr=True), transient=True)


class Counting:
    """How many of something are done, and how long they took. Made by ``counting``.

    Attributes:
        made: since it was begun.
        seconds: from the beginning to the last one.
    """

    def __init__(self, tell: Callable[[int], None]) -> None:
        self.made, self.seconds = 0, 0.0
        self._tell, self._begun = tell, time.monotonic()

    def advance(self) -> None:
        """One more is done."""
        self.made += 1
        self.seconds = time.monotonic() - self._begun
        self._tell(self.made)


@contextlib.contextmanager
def counting(total: Optional[int], done: int, description: str) -> Iterator[Counting]:
    """Show how many frames are done, how many a second, and the time left; silent when stderr is not a terminal.

    Args:
        total: how many there are; None: unknown.
        done: how many were done before.
        description: one or two words before the bar.
    """
    if not sys.stderr.isatty():
        yield Counting(lambda made: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(description, total=total, completed=done, rate="")

        def tell(made: int) -> None:
            rate = f"{made / max(counted.seconds, 1e-9):.2f} frames/s"
            bars.update(bar, completed=done + made, rate=rate)

        counted = Counting(tell)
        yield counted
