"""Questions to a board: the agent is sent to its Python over SSH and answers with one line, read to a bound."""

from __future__ import annotations

import errno
import json
import time
from pathlib import Path
from typing import Any, ClassVar, Protocol, Tuple, Type, TypeVar

from sr_deploy.core.errors import BadInput, DiskFull, EnvironmentFault
from sr_deploy.core.schema import value_from
from sr_deploy.core.text import plain
from sr_deploy.remote.connect import Dropped, Link
from sr_deploy.remote.replies import Fault


class Described(Protocol):
    """The description of a reply (remote/replies.py)."""

    operation: ClassVar[str]


Reply = TypeVar("Reply", bound=Described)

#: Marks the reply among what login scripts print; REPLY or FAULT follows.
MARK = "SRDEPLOY-"
#: Seconds for one answer; ``doctor`` imports every runtime, and hashing a large upload takes a while.
REPLY_SECONDS = 300.0
#: Bytes of a reply and of what login scripts print before it; more for each file that was asked for. A wrong one costs
#: some hundred times its size in memory, since each wrong value is an error of its own.
MOST_REPLY, MOST_PER_FILE = 1 << 18, 128
#: Bytes of the board's error output that are kept, the last ones.
MOST_STDERR = 1 << 13
#: The agent's files in the order of their imports. Sent, never imported here: they need what only the board's system is
#: sure to have.
AGENT = ("agent_files", "agent_place", "agent")
_PROGRAM = """import json, sys, types
for name, text in json.loads({sources!r}):
    sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name + ".py", "exec"), sys.modules[name].__dict__)
sys.modules["agent"].answer(json.loads({asked!r}), {mark!r})
"""


def ask(link: Link, kind: Type[Reply], **request: Any) -> Reply:
    """Let the board's agent carry out one operation.

    Args:
        link: the connection.
        kind: the description of the reply (remote/replies.py), which names the operation.
        request: what the operation takes; see agent.py.

    Raises:
        EnvironmentFault: no Python there, no answer in time, or the operation failed there.
        BadInput: the answer is longer than what was asked for can make it, or not as described.
        DiskFull: no space left there.
        Dropped: the connection ended.
    """
    board, operation = link.board, kind.operation
    most = MOST_REPLY + MOST_PER_FILE * len(request.get("files", ()))
    channel = link.client.get_transport().open_session()
    channel.settimeout(REPLY_SECONDS)
    channel.exec_command(f"{board.python} -")
    try:
        channel.sendall(program_of(operation, dict(request, workdir=board.workdir)).encode("utf-8"))
        channel.shutdown_write()
    except OSError:
        # A shell that found no such program has closed its end; its exit status tells.
        if not link.alive():
            raise
    try:
        out, err = _heard(channel, board.name, operation, most)
        code = channel.recv_exit_status() if channel.exit_status_ready() else -1
    finally:
        channel.close()
    if code == -1:
        raise Dropped("no exit status came")
    return _reply(link, kind, out, err, code)


def program_of(operation: str, request: Any) -> str:
    """The Python text that carries out one operation on the board."""
    sources = [(name, Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")) for name in AGENT]
    # A JSON text inside a Python text: repr quotes it, whatever is in it.
    return _PROGRAM.format(sources=json.dumps(sources), asked=json.dumps(dict(request, op=operation)), mark=MARK)


def _heard(channel: Any, name: str, operation: str, most: int) -> Tuple[bytes, bytes]:
    """What the program printed, and the end of what it complained; memory is bounded by ``most``."""
    out, err, until = bytearray(), bytearray(), time.monotonic() + REPLY_SECONDS
    while True:
        # First whether it has ended, then what has come: in the other order the last words could be missed.
        ended = channel.closed or channel.eof_received
        while channel.recv_ready() and len(out) <= most:
            out += channel.recv(1 << 16)
        if channel.recv_stderr_ready():
            err = (err + channel.recv_stderr(1 << 16))[-MOST_STDERR:]
        elif ended and not channel.recv_ready():
            # The exit status comes as a message of its own, mostly a moment later.
            channel.status_event.wait(5.0)
            return bytes(out), bytes(err)
        elif not ended:
            time.sleep(0.005)
        if len(out) > most:
            raise BadInput(
                f"{name}: the answer to {operation} is longer than {most >> 10} KiB",
                "an answer of the agent",
                "what its login scripts print, or whether the board is what you think it is",
            )
        if time.monotonic() > until:
            raise EnvironmentFault(
                f"{name}: no answer to {operation} within {REPLY_SECONDS:.0f} s",
                "a board that works",
                "look at its load",
            )


def _reply(link: Link, kind: Type[Reply], out: bytes, err: bytes, code: int) -> Reply:
    name, operation = link.board.name, kind.operation
    at = out.rfind(b"\n" + MARK.encode())
    if at < 0:
        text = err.decode("utf-8", "replace").strip().splitlines()
        raise EnvironmentFault(
            f"{name}: {link.board.python} did not work there (exit code {code}): "
            + (plain(text[-1], 300) if text else "no message"),
            "Python 3.7 or newer on the board",
            "give its path with `python` in the inventory",
        )
    word, _, text_of = out[at + 1 + len(MARK) :].split(b"\n", 1)[0].partition(b" ")
    said, origin = text_of.decode("utf-8", "replace"), f"{name}: the answer to {operation}"
    if word == b"FAULT":
        raise _fault(name, operation, value_from(Fault, said, origin, WRONG_BOARD, said_as="reply of the agent"))
    return value_from(kind, said, origin, WRONG_BOARD, said_as="reply of the agent")


#: What to do about an answer that the agent never gives.
WRONG_BOARD = "check that the board is the one you think it is, and its `python`"


def _fault(name: str, operation: str, told: Fault) -> EnvironmentFault:
    if told.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{name}: no space left on the board ({told.error})", "room for the job", "see df -h there")
    if told.errno == 0:
        return EnvironmentFault(
            f"{name}: the workdir is not safe: {told.error}, so others could change what is run",
            "a workdir that only root and you can change, or one with the sticky bit",
            "prepare it with jetson/playbook.yml, or another `workdir` in the inventory",
        )
    return EnvironmentFault(
        f"{name}: {operation} failed there: {told.error}",
        "a workdir that this user may write",
        "another `workdir` in the inventory",
    )
