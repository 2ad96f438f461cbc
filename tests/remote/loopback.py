"""A real OpenSSH server on this machine's loopback interface, with keys and a home of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List

SSHD = shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
#: What starts srdeploy on the "board": this checkout in this Python.
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Server:
    """One sshd.

    Attributes:
        address, port: where it listens.
        folder: its configuration, host key and authorised keys.
        process: the listening sshd.
        prefix: words before every command that runs on the same host (``ip netns exec NAME``).
    """

    address: str
    port: int
    folder: Path
    process: subprocess.Popen
    prefix: List[str]

    @property
    def target(self) -> str:
        return f"{getpass.getuser()}@{self.address}:{self.port}"

    @property
    def known_hosts_line(self) -> str:
        key = (self.folder / "host_key.pub").read_text().split()
        name = self.address if self.port == 22 else f"[{self.address}]:{self.port}"
        return f"{name} {key[0]} {key[1]}\n"

    def cut(self) -> int:
        """Kill the sessions as a dead network would end them, not the listener; how many."""
        sessions = descendants(self.process.pid)
        # The job has left its session (setsid) and its process group, and sshd's own processes are named sshd.
        killed = 0
        for pid in sessions:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{pid}/comm").read_text().strip().startswith("sshd"):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
        return killed


def descendants(pid: int) -> List[int]:
    """All processes below one, from /proc."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


def make_key(path: Path) -> Path:
    """An ed25519 key pair without a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def sshd(folder: Path, authorized: Path, address: str = "127.0.0.1", port: int = 0, prefix: List[str] = ()) -> Iterator:
    """Run sshd in the foreground until the block ends; ``authorized`` is the public key that it takes."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    make_key(folder / "host_key")
    shutil.copy(authorized, folder / "authorized_keys")
    (folder / "authorized_keys").chmod(0o600)
    (folder / "sshd_config").write_text(
        f"""Port {port}
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/pid
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
"""
    )
    if os.getuid() == 0:
        # Where sshd drops its rights to; the service makes it, and no service was started.
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    words = [*prefix, SSHD, "-f", str(folder / "sshd_config"), "-D", "-e"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while "Server listening" not in (folder / "log").read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("sshd does not start: " + (folder / "log").read_text())
            time.sleep(0.02)
        yield Server(address, port, folder, process, list(prefix))
    finally:
        for pid in [*descendants(process.pid), process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def command_file(path: Path, before: str = "") -> Path:
    """An executable ``srdeploy`` that runs this checkout; ``before`` is Python that runs first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n{before}\n"
        "from sr_deploy.cli import main\nmain()\n"
    )
    path.chmod(0o755)
    return path


def liar(path: Path, attack: int, claimed: Path) -> Path:
    """A "Python" of a board that answers every program with an attack of attacks.py, and lays out the job's files."""
    path.write_text(
        f"""#!{sys.executable}
import os, sys, time
sys.path.insert(0, {str(REPOSITORY)!r})
from tests.remote.attacks import SILENCE, Attack, request_of
request = dict(request_of(sys.stdin.read()), claimed={str(claimed)!r})
attack = Attack({attack})
if attack.target == "discard" and os.path.isdir({str(claimed / "store")!r}):
    os.rmdir({str(claimed / "store")!r})
if request["op"] in ("start", "status"):
    job = request["job"]["id"] if request["op"] == "start" else request["job"] or "bench-0123456789ab"
    folder = os.path.join({str(claimed)!r}, "jobs", job)
    os.makedirs(folder, exist_ok=True)
    for name, content in attack.files(job, {str(claimed)!r}).items():
        if content is None:
            os.path.lexists(os.path.join(folder, name)) or os.symlink("/dev/zero", os.path.join(folder, name))
        else:
            with open(os.path.join(folder, name), "wb") as stream:
                stream.write(content)
out, err, code = attack.reply(request)
for block in out:
    if block == SILENCE:
        time.sleep(30)
    os.write(1, block)
os.write(2, err)
os._exit(code & 127)
"""
    )
    path.chmod(0o755)
    return path
