"""A hostile board in this process: an SSH server on a pair of sockets, and the files it pretends to have."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import paramiko

from tests.remote.attacks import SILENCE, Attack, request_of

HOST_KEY = paramiko.ECDSAKey.generate()
#: The user's own folder that the board claims to have.
CLAIMED = "/board/uid-0"


class Server(paramiko.ServerInterface):
    """Takes any user and answers each program with what the attack says."""

    def __init__(self, attack: Attack, gone: threading.Event) -> None:
        self.attack, self.gone = attack, gone

    def check_auth_password(self, username, password):
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        threading.Thread(target=self._answer, args=(channel,), daemon=True).start()
        return True

    def _answer(self, channel) -> None:
        with contextlib.suppress(OSError, EOFError):
            program = b"".join(iter(lambda: channel.recv(1 << 16), b""))
            request = dict(request_of(program.decode()), claimed=CLAIMED)
            out, err, code = self.attack.reply(request)
            for block in out:
                if block is SILENCE:
                    self.gone.wait(30)
                channel.sendall(block)
            channel.sendall_stderr(err)
            channel.send_exit_status(code)
            channel.close()


def sftp_of(attack: Attack) -> type:
    """The SFTP side: one job's files, whatever its id; what is written is thrown away."""

    class File(paramiko.SFTPHandle):
        def __init__(self, content: bytes | None) -> None:
            super().__init__()
            self.content, self.size = content, 0

        def read(self, offset, length):
            return (
                b"x" * min(length, 1 << 15)
                if self.content is None
                else self.content[offset : offset + min(length, 1 << 17)]
            )

        def write(self, offset, data):
            self.size = max(self.size, offset + len(data))
            return paramiko.SFTP_OK

        def stat(self):
            found = paramiko.SFTPAttributes()
            found.st_size = self.size
            return found

    class Files(paramiko.SFTPServerInterface):
        def open(self, path, flags, attr):
            path = path.decode("utf-8", "replace") if isinstance(path, bytes) else path
            parts = path.split("/")
            if path == "/dev/zero":
                return File(None)
            if path.endswith(".part"):
                # What is still free is asked for only where a file cannot be written.
                return paramiko.SFTP_FAILURE if attack.target == "discard" else File(b"")
            job = parts[-2] if len(parts) > 2 else ""
            found = attack.files(job, CLAIMED)
            return File(found[parts[-1]]) if parts[-1] in found else paramiko.SFTP_NO_SUCH_FILE

    return Files


class Hostile:
    """Opens connections to one attack; in place of ``connect._open``."""

    def __init__(self, attack: Attack) -> None:
        self.attack, self.gone, self.open_ones = attack, threading.Event(), []

    def open(self, board: Any) -> Any:
        """A connected SSHClient whose other end is the attack."""
        ours, theirs = socket.socketpair()
        server = paramiko.Transport(theirs)
        server.add_server_key(HOST_KEY)
        server.set_subsystem_handler("sftp", paramiko.SFTPServer, sftp_of(self.attack))
        server.start_server(event=threading.Event(), server=Server(self.attack, self.gone))
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect("hostile", sock=ours, username="x", password="y", allow_agent=False, look_for_keys=False)
        self.open_ones += [client, server]
        return client

    def close(self) -> None:
        """End all of them."""
        self.gone.set()
        for each in self.open_ones:
            each.close()
