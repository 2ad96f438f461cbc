"""Rows of the table of first contact: what was asked, and whether it is settled."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Row:
    """One unknown.

    Attributes:
        what: the question.
        settled: whether it has an answer.
        found: the answer in words, or why there is none.
        data: figures behind it, ready for JSON.
        seconds: that it took.
    """

    what: str
    settled: bool
    found: str
    data: Dict[str, Any]
    seconds: float

    def line(self) -> str:
        """The row of the printed table."""
        return f"{'settled' if self.settled else 'open   '}  {self.what}: {self.found}"


class StillOpen(Exception):
    """A question that cannot be asked here; the text says why."""


class Rows:
    """Rows of one part, each on disk as soon as it is known: the process may die in the next."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def look(self, what: str, ask: Callable[[], Value], tell: Callable[[Value], str] = str) -> Optional[Value]:
        """Ask one question; whatever it raises becomes an open row.

        Args:
            what: the question.
            ask: gives the answer; a dictionary goes into the row's data.
            tell: the answer in words.

        Returns:
            The answer, or None where the question stays open.
        """
        started = time.perf_counter()
        try:
            value = ask()
            row = Row(what, True, tell(value), value if isinstance(value, dict) else {}, 0.0)
        except StillOpen as why:
            value, row = None, Row(what, False, f"open: {why}", {}, 0.0)
        except Exception as error:
            # Bindings and runtimes raise kinds of their own; none of them may end the other questions.
            told = " ".join(str(error).split())
            value, row = None, Row(what, False, f"open: {type(error).__name__}: {told}", {}, 0.0)
        self.add({**asdict(row), "seconds": round(time.perf_counter() - started, 3)})
        return value

    def add(self, row: Dict[str, Any]) -> None:
        """Write one row."""
        with open(self._path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, default=str) + "\n")


def read_rows(path: Path) -> List[Row]:
    """What a part has written; a last line that is cut is left out."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(Row(**json.loads(line)))
        except ValueError:
            continue
    return found
