"""What a board is asked to do: the files it needs, the command, and the number that both follow from."""

from __future__ import annotations

import getpass
import hashlib
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Tuple

#: Words of ``arguments`` that the board replaces by its own folders.
DEPLOYMENT_MARK, JOB_MARK = "{deployment}", "{job}"


@dataclass(frozen=True)
class LocalFile:
    """A file of this machine that the board needs."""

    path: Path
    sha256: str
    size: int


@dataclass(frozen=True)
class Job:
    """One command on one deployment.

    Attributes:
        command: build, bench, verify or run.
        name: the deployment's name, for people.
        files: path inside the deployment's folder → file.
        inputs: path inside the job's ``inputs/`` → file.
        arguments: of ``srdeploy`` on the board, DEPLOYMENT_MARK and JOB_MARK standing for folders there.
    """

    command: str
    name: str
    files: Dict[str, LocalFile]
    inputs: Dict[str, LocalFile]
    arguments: Tuple[str, ...]

    @property
    def deployment(self) -> str:
        """Its folder on the board: what is in it and its name, so that a changed deployment gets another."""
        return f"{_digest({path: file.sha256 for path, file in self.files.items()})}/{self.name}"

    @property
    def id(self) -> str:
        """The same for the same deployment, inputs and command: the job is found again by it."""
        inputs = {path: file.sha256 for path, file in self.inputs.items()}
        return f"{self.command}-{_digest([self.deployment, inputs, list(self.arguments)])}"

    @property
    def title(self) -> str:
        """As the lock's holder is shown."""
        return f"{self.command} {self.name}"

    def needed(self) -> Dict[str, LocalFile]:
        """The files by SHA-256, each once."""
        return {file.sha256: file for file in (*self.files.values(), *self.inputs.values())}

    def to_dict(self) -> Dict[str, Any]:
        """What the board's agent needs to start it."""
        return {
            "id": self.id,
            "title": self.title,
            "command": self.command,
            "deployment": self.deployment,
            "files": {path: file.sha256 for path, file in self.files.items()},
            "inputs": {path: file.sha256 for path, file in self.inputs.items()},
            "arguments": list(self.arguments),
            "holder": holder_name(),
        }


def holder_name() -> str:
    """Who holds the board's lock: user and host of this machine."""
    try:
        user = getpass.getuser()
    except Exception:
        # No user database, as in some containers; its exception differs between Python versions.
        user = "someone"
    return f"{user}@{socket.gethostname()}"


def client_id() -> str:
    """Marks this machine's incomplete uploads, so that another's are not continued."""
    return _digest(holder_name())


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
