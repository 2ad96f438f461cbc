"""Work in a thread of its own, with a bounded queue between: reading ahead, writing behind.

Decoders, encoders, compression and the runtimes release Python's lock, so a stage costs nothing while another computes.
A queue is bounded because pictures are large: a stage that is ahead waits.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Any, Callable, Generic, Iterable, Iterator, List, TypeVar

Item = TypeVar("Item")
#: Seconds after which a waiting stage looks whether the other has given up.
_LOOK = 0.1


class _Failure:
    """What a stage raised, on its way to the one who asks it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


@contextlib.contextmanager
def ahead(items: Iterable[Item], depth: int) -> Iterator[Iterator[Item]]:
    """The items, each made in another thread while those before are worked on; their order is kept.

    Args:
        items: what it raises is raised where its next item is asked for.
        depth: items that may wait, 1 or more; one more is being made.

    Example:
        >>> with ahead(range(3), 1) as made:
        ...     list(made)
        [0, 1, 2]
    """
    waiting: queue.Queue[Any] = queue.Queue(depth)
    over = threading.Event()

    def put(item: Any) -> bool:
        while not over.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=_LOOK)
                return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_END)
        except BaseException as error:
            put(_Failure(error))

    def take() -> Iterator[Item]:
        while True:
            item = waiting.get()
            if item is _END:
                return
            if isinstance(item, _Failure):
                raise item.error
            yield item

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        over.set()
        thread.join()


class Behind(Generic[Item]):
    """What ``behind`` gives: ``put`` hands an item over."""

    def __init__(self, use: Callable[[Item], None], depth: int) -> None:
        self._use = use
        self._waiting: queue.Queue[Any] = queue.Queue(depth)
        self._failed: List[BaseException] = []
        self._thread = threading.Thread(target=self._work, name="behind", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand an item over; waits while the queue is full.

        Raises:
            What using an earlier item raised.
        """
        self._raise()
        self._waiting.put(item)

    def finish(self) -> None:
        """Wait until everything is used; raises what using an item raised."""
        self._waiting.put(_END)
        self._thread.join()
        self._raise()

    def abandon(self) -> None:
        """Use nothing more, and wait for the item in work."""
        self._failed.append(RuntimeError("abandoned"))
        self._waiting.put(_END)
        self._thread.join()

    def _work(self) -> None:
        while True:
            item = self._waiting.get()
            if item is _END:
                return
            if self._failed:
                continue  # so that nobody waits for room for ever
            try:
                self._use(item)
            except BaseException as error:
                self._failed.append(error)

    def _raise(self) -> None:
        if self._failed:
            raise self._failed[0]


@contextlib.contextmanager
def behind(use: Callable[[Item], None], depth: int) -> Iterator[Callable[[Item], None]]:
    """A function that hands items to ``use`` in another thread, in order; at the end of the block all are used.

    Args:
        use: what it raises is raised by the next hand-over, or at the end of the block. After a failure, and when the
            block raises, waiting items are dropped.
        depth: items that may wait.

    Example:
        >>> used = []
        >>> with behind(used.append, 1) as hand_over:
        ...     hand_over(1)
        >>> used
        [1]
    """
    stage = Behind(use, depth)
    try:
        yield stage.put
    except BaseException:
        stage.abandon()
        raise
    stage.finish()
