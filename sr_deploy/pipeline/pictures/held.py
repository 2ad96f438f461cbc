"""How much memory waits in queues: who wants to add to it waits until there is room.

with held:                      # at the end of the block nobody waits any more
    ...
"""

from __future__ import annotations

import threading
from typing import Optional


class Held:
    """An amount that several threads share.

    Args:
        most: bytes at once; None: any. What is more than that alone is admitted when nothing else is held.
    """

    def __init__(self, most: Optional[int]) -> None:
        self._most, self._now = most, 0
        self._changed = threading.Condition()

    def take(self, amount: int) -> None:
        """Add to what is held; waits until there is room."""
        with self._changed:
            self._changed.wait_for(lambda: self._most is None or not self._now or self._now + amount <= self._most)
            self._now += amount

    def give_back(self, amount: int) -> None:
        """What ``take`` took is free again."""
        with self._changed:
            self._now -= amount
            self._changed.notify_all()

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._most = None
            self._changed.notify_all()
