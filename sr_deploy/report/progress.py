"""A progress bar for long work: on a terminal only, and on stderr, so that stdout holds results."""

from __future__ import annotations

import sys
from typing import Iterable, Iterator, Optional, Sized, TypeVar

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
