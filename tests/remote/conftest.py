"""A board for the tests: a real sshd on loopback, reached with keys of the tests' own."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from sr_deploy.remote import agent_place
from tests.remote import loopback


@dataclass(frozen=True)
class Board:
    """What a test needs to know: the server, the home of the client, and the folder on the "board"."""

    server: loopback.Server
    home: Path
    workdir: Path
    inventory: Path
    program: Path

    @property
    def own(self) -> Path:
        """The user's own folder in the workdir."""
        return self.workdir / f"uid-{os.getuid()}"

    @property
    def known_hosts(self) -> Path:
        return self.home / ".ssh" / "known_hosts"

    def write_inventory(self, **changes) -> None:
        keys = {
            "host": "127.0.0.1",
            "port": self.server.port,
            "python": sys.executable,
            "srdeploy": str(self.program),
            "workdir": str(self.workdir),
            **changes,
        }
        lines = [f"{key} = {value if isinstance(value, int) else repr(value)}" for key, value in keys.items()]
        self.inventory.write_text("[boards.nx]\n" + "\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """(sshd, client's key); skips where OpenSSH's server is not installed."""
    if loopback.SSHD is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no sshd here: apt-get install openssh-server")
    folder = tmp_path_factory.mktemp("sshd")
    key = loopback.make_key(folder / "id_ed25519")
    with loopback.sshd(folder / "server", key.with_suffix(".pub")) as running:
        yield running, key


@pytest.fixture
def board(server, tmp_path, monkeypatch):
    """A fresh home, inventory and workdir for one test, around the one server."""
    running, key = server
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    for name in (key, key.with_suffix(".pub")):
        shutil.copy(name, home / ".ssh" / name.name)
    (home / ".ssh" / "known_hosts").write_text(running.known_hosts_line)
    monkeypatch.setenv("HOME", str(home))
    # Results without -o go to the folder one is in.
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    program = loopback.command_file(tmp_path / "bin" / "srdeploy")
    found, skipped = agent_place.command_of(str(tmp_path), str(program))
    if found is None:
        pytest.skip(f"no board would run this Python: {skipped[0]}")
    made = Board(running, home, tmp_path / "board", tmp_path / "boards.toml", program)
    made.write_inventory()
    return made


@pytest.fixture(scope="session")
def net(demo_export, tmp_path_factory):
    """The network that ships, x2, as a deployment; read only."""
    return shutil.copytree(demo_export, tmp_path_factory.mktemp("deployment") / "net")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """lr/ and hr/ with one small picture each."""
    import cv2
    import numpy as np

    folder = tmp_path_factory.mktemp("pictures")
    ramp = np.mgrid[0:48, 0:64].sum(axis=0) * 2
    high = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=2).astype(np.uint8)
    for name, picture in (("hr", high), ("lr", cv2.resize(high, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))):
        (folder / name).mkdir()
        cv2.imwrite(str(folder / name / "ramp.png"), picture)
    return folder
