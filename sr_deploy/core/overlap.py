"""Reading, computing and writing at the same time, with few items waiting between them.

Threads are enough: decoders, encoders, numpy and the runtimes let go of the interpreter while they work.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Any, Callable, Iterable, Iterator, List, TypeVar

Item = TypeVar("Item")

#: Items that wait between two stages: one that is being taken, and one more for stages whose times vary.
WAITING = 2
#: Seconds after which a stage that waits looks whether the others are still there.
_LOOK = 0.1


@contextlib.contextmanager
def ahead(items: Iterable[Item], waiting: int = WAITING) -> Iterator[Iterator[Item]]:
    """``items``, made by a thread of their own while the block works on those before.

    What making them raises is raised where the item is asked for. At the end of the block the thread has ended, also
    where not all items were taken; a generator is closed by it.
    """
    ready: queue.Queue[Any] = queue.Queue(waiting)
    stopped = threading.Event()

    def make() -> None:
        end: Any = (None, None)
        source = iter(items)
        try:
            for item in source:
                if not _put(ready, (True, item), stopped):
                    break
        except BaseException as error:  # handed on, whatever it is
            end = (None, error)
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()
        _put(ready, end, stopped)

    def taken() -> Iterator[Item]:
        while True:
            more, item = ready.get()
            if more is None:
                if item is not None:
                    raise item
                return
            yield item

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        stopped.set()
        thread.join()


@contextlib.contextmanager
def behind(use: Callable[[Item], None], waiting: int = WAITING) -> Iterator[Callable[[Item], None]]:
    """A function that hands an item to a thread, which calls ``use`` with each in order while the block goes on.

    What ``use`` raises is raised by the next call, or at the end of the block; items after it are dropped. Where the
    block ends well, all items have been used when it ends; where it raises, those that wait are dropped.
    """
    given: queue.Queue[Any] = queue.Queue(waiting)
    failed: List[BaseException] = []
    stopped = threading.Event()

    def work() -> None:
        while not stopped.is_set():
            try:
                more, item = given.get(timeout=_LOOK)
            except queue.Empty:
                continue
            if not more:
                return
            try:
                use(item)
            except BaseException as error:  # handed on, whatever it is
                failed.append(error)
                stopped.set()

    def hand(item: Item) -> None:
        if not _put(given, (True, item), stopped):
            raise failed[0]

    thread = threading.Thread(target=work, name="behind", daemon=True)
    thread.start()
    try:
        yield hand
        _put(given, (False, None), stopped)
        thread.join()
    finally:
        stopped.set()
        thread.join()
    if failed:
        raise failed[0]


def _put(line: queue.Queue[Any], item: Any, stopped: threading.Event) -> bool:
    """Put an item; False where nobody takes it any more."""
    while not stopped.is_set():
        with contextlib.suppress(queue.Full):
            line.put(item, timeout=_LOOK)
            return True
    return False
