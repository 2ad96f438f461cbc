"""Names that users give, held against those that exist."""

from __future__ import annotations

import difflib
from typing import Iterable, Protocol, TypeVar

from sr_deploy.core.errors import UsageError


class Named(Protocol):
    """A row of a table that users choose from by name."""

    @property
    def name(self) -> str:
        """What users call it."""


Row = TypeVar("Row", bound=Named)
Word = TypeVar("Word", bound=str)


def check_name(kind: str, name: str, names: Iterable[Word], todo: str = "") -> Word:
    """The name as one of those that exist.

    Args:
        kind: what it is a name of: "precision", "--codec".
        name: as it was given.
        names: those that exist.
        todo: what the message proposes; empty: the name that is most alike, if one is.

    Raises:
        UsageError: it is not among them; the message lists them.
    """
    known = tuple(names)
    for one in known:
        if one == name:
            return one
    raise UsageError(f"there is no {kind} {name!r}", "one of " + ", ".join(known), todo or proposal(name, known))


def proposal(name: str, names: Iterable[str]) -> str:
    """ "perhaps NAME", of the name that is most alike, whatever its capitals; "" if none is.

    One whose digits differ is another thing and no misspelling: fp4 is not fp8, and an H100 not an H200.

    Example:
        >>> proposal("rtx4090", ["rtx-3090", "rtx-4090"]), proposal("h100", ["h200"])
        ('perhaps rtx-4090', '')
    """
    known = {one.lower(): one for one in names if _digits(one).startswith(_digits(name))}
    return "".join(f"perhaps {known[one]}" for one in difflib.get_close_matches(name.lower(), known, n=1))


def _digits(name: str) -> str:
    return "".join(filter(str.isdigit, name))


def row_named(kind: str, name: str, rows: Iterable[Row], todo: str = "") -> Row:
    """The first row of that name; arguments and errors are those of ``check_name``."""
    table = tuple(rows)
    check_name(kind, name, (row.name for row in table), todo)
    return next(row for row in table if row.name == name)
