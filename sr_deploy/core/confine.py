"""Paths that a file or a board names, kept inside the folder they are for."""

from __future__ import annotations

import os
import re
from pathlib import Path, PureWindowsPath
from typing import Type

from pydantic import Field
from typing_extensions import Annotated

from sr_deploy.core.errors import BadInput, SrDeployError
from sr_deploy.core.text import plain

#: A file or folder name alone, as descriptions (core/schema.py) take it: no separator, not hidden, no ``..``.
FileName = Annotated[str, Field(max_length=255, pattern=r"^[^\x00-\x1f\x7f/\\:.][^\x00-\x1f\x7f/\\:]*$")]
#: An identifier that becomes a folder or file name: ASCII letters, digits, ``_``, ``-`` and inner dots.
Identifier = Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?$")]

#: A part of a path that is a name on every system, and on POSIX systems.
_PORTABLE, _POSIX = re.compile(r"[^\x00-\x1f\x7f\\:]+"), re.compile(r"[^\x00-\x1f\x7f]+")


def confined(folder: Path, name: str, origin: str, error: Type[SrDeployError] = BadInput,
             portable: bool = True) -> Path:  # fmt: skip
    """The path of ``name`` inside ``folder``.

    Args:
        folder: what the name is relative to; it may be a link itself.
        name: with ``/`` between folders, from a file or a board.
        origin: who names it, for the error.
        error: its class.
        portable: ``\\`` and ``:`` are refused on every system, not on Windows alone, where they lead elsewhere.

    Returns:
        ``folder / name``; no link on the way leads outside ``folder``.

    Raises:
        BadInput (``error``): absolute, a drive or a device of Windows, ``..``, an empty or a control-character part, or
            a link that leads out.
    """
    parts = name.split("/")
    part_of = _PORTABLE if portable or os.name == "nt" else _POSIX
    good = all(part_of.fullmatch(part) and part not in (".", "..") for part in parts)
    good = good and not (os.name == "nt" and PureWindowsPath(*parts).is_reserved())
    path = Path(folder).joinpath(*parts) if good else Path(folder)
    inside = os.path.realpath(str(folder))
    if not good or os.path.commonpath([inside, os.path.realpath(str(path))]) != inside:
        raise error(
            f"{plain(origin)} names {plain(repr(name), 200)}", f"a place inside {plain(str(folder))}", "do not use it"
        )
    return path
