"""What of a folder is finished: a record beside the results of which request made which, for ``--resume``.

Before a picture is begun a line says what is asked for it; its result then appears whole (core/artifact.py). So a
result that is there, and was not before, is the one that was asked for, wherever the process was killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional
from urllib.parse import quote

from sr_deploy.core.artifact import explained_write_errors, sha256_of
from sr_deploy.core.errors import BadInput
from sr_deploy.core.schema import MOST_BYTES, Sha256, ShortText, described, value_from

#: The record, in the folder of the results.
RECORD_NAME = ".srdeploy-results.jsonl"


@described
@dataclass(frozen=True)
class BegunResult:
    """One line of the record.

    Attributes:
        file: the result's path below the folder, with its bytes written as in a URL.
        request: of what the result follows from: the picture's bytes, the network, the options; see ``request_of``.
        before: inode and time of change (ns), "17-1700000000000000000", of what was there before; null: nothing.
    """

    file: str
    request: Sha256
    before: Optional[ShortText] = None


class Finished:
    """The record of one folder.

    Args:
        folder: of the results.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / RECORD_NAME
        self._begun: Dict[str, BegunResult] = {}
        with contextlib.suppress(OSError), open(self._path, "rb") as stream:
            for line in stream.read(MOST_BYTES).split(b"\n"):
                # A line that a killed process left half-written says nothing.
                with contextlib.suppress(BadInput, UnicodeDecodeError):
                    begun = value_from(BegunResult, line.decode("ascii"), str(self._path))
                    self._begun[begun.file] = begun

    def has(self, target: Path, request: str) -> bool:
        """Whether ``target`` is there and was made by this request."""
        begun = self._begun.get(self._name(target))
        now = _state(target)
        return begun is not None and now is not None and begun.request == request and begun.before != now

    def begin(self, target: Path, request: str) -> None:
        """Note that ``target`` is going to be made.

        Raises:
            DiskFull, EnvironmentFault: the record cannot be written.
        """
        begun = BegunResult(self._name(target), request, _state(target))
        self._begun[begun.file] = begun
        with explained_write_errors(self._path):
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(self._path, "ab+") as stream:
                # The newline first: what a killed process left half-written then is a line of its own.
                stream.write(b"\n" + json.dumps(asdict(begun)).encode("ascii") + b"\n")

    def _name(self, target: Path) -> str:
        return quote(os.fsencode(os.path.relpath(target, self._folder)))


def request_of(source: Path, network: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """The sha256 of all that a result follows from: the picture's bytes, what runs, and how it is written."""
    facts = {"picture": sha256_of(source), "network": dict(network), "options": dict(options)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8")).hexdigest()


def _state(target: Path) -> Optional[str]:
    """What tells a file from the one that replaces it; None: there is none."""
    try:
        found = os.stat(target)
    except OSError:
        return None
    return f"{found.st_ino}-{found.st_mtime_ns}"
