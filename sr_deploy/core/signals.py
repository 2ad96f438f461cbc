"""SIGTERM and SIGHUP end a program as Ctrl-C does: what it was writing is removed, or kept, on the way out."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import Any, Dict, Iterator, List

#: What ``kill``, ``docker stop``, a batch system and a closed terminal send.
ENDING = ("SIGTERM", "SIGHUP")


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Turn the first of these signals into SystemExit with 128 + its number, as shells count; later ones are ignored.

    One that is ignored (``nohup``) stays so. Signals reach the main thread alone, so elsewhere nothing is changed.
    """
    numbers = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.getsignal(number) for number in numbers}
    watched = [number for number in numbers if before[number] == signal.SIG_DFL]

    def end(number: int, _: Any) -> None:
        for other in watched:
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in watched:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in watched:
            signal.signal(number, before[number])


@contextlib.contextmanager
def held_back() -> Iterator[List[int]]:
    """A list that fills when Ctrl-C is pressed or the process is told to end: what is begun can be finished first.

    The signal then does what it does otherwise, when the block has ended. A second one ends at once. Signals reach the
    main thread alone, so elsewhere nothing is changed; one that is ignored (``nohup``) stays so.
    """
    came: List[int] = []
    before: Dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in ("SIGINT", *ENDING) if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
        before = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}

    def hold(number: int, _: Any) -> None:
        came.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, hold)
    try:
        yield came
    finally:
        restore()
    for number in came[:1]:
        signal.raise_signal(number)


def name_of(code: Any) -> str:
    """The signal that an exit code tells of, such as "SIGTERM" for 143; empty for any other code."""
    names = {128 + getattr(signal, name): name for name in ENDING if hasattr(signal, name)}
    return names.get(code, "")
