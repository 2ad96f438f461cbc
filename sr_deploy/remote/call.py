"""Questions to a board: agent.py is sent to its Python over SSH and answers with one line of JSON."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any, Dict

from sr_deploy.core.errors import DiskFull, EnvironmentFault
from sr_deploy.remote.connect import Dropped, Link

#: Marks the reply among what login scripts print.
MARK = "SRDEPLOY-REPLY "
#: Seconds for one answer; ``doctor`` imports every runtime, and hashing a large upload takes a while.
REPLY_SECONDS = 300.0


def ask(link: Link, operation: str, **request: Any) -> Dict[str, Any]:
    """Let the board's agent carry out one operation of agent.OPERATIONS.

    Raises:
        EnvironmentFault: no Python there, or the operation failed there.
        DiskFull: no space left there.
        Dropped: the connection ended.
    """
    board = link.board
    source = Path(__file__).with_name("agent.py").read_text(encoding="utf-8")
    # A JSON text inside a Python text: repr quotes it, whatever is in it. The agent is read, never imported here: it
    # needs what only the board's system is sure to have.
    asked = json.dumps(dict(request, op=operation, workdir=board.workdir))
    program = f"{source}\nanswer(json.loads({asked!r}), {MARK!r})\n"
    channel = link.client.get_transport().open_session()
    channel.settimeout(REPLY_SECONDS)
    channel.exec_command(f"{board.python} -")
    try:
        channel.sendall(program.encode("utf-8"))
        channel.shutdown_write()
    except OSError:
        # A shell that found no such program has closed its end; its exit status tells.
        if not link.alive():
            raise
    out, err = channel.makefile("rb").read(), channel.makefile_stderr("rb").read()
    code = channel.recv_exit_status()
    if code == -1:
        raise Dropped("no exit status came")
    replies = [line for line in out.decode("utf-8", "replace").splitlines() if line.startswith(MARK)]
    if not replies:
        text = err.decode("utf-8", "replace").strip().splitlines()
        raise EnvironmentFault(
            f"{board.name}: {board.python} did not work there (exit code {code}): {text[-1] if text else 'no message'}",
            "Python 3.7 or newer on the board",
            "give its path with `python` in the inventory",
        )
    reply = json.loads(replies[-1][len(MARK) :])
    if "errno" in reply:
        raise _fault(board.name, operation, reply)
    return reply


def _fault(name: str, operation: str, reply: Dict[str, Any]) -> EnvironmentFault:
    if reply["errno"] in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{name}: no space left on the board ({reply['error']})", "room for the job", "see df -h there")
    return EnvironmentFault(
        f"{name}: {operation} failed there: {reply['error']}",
        "a workdir that this user may write",
        "another `workdir` in the inventory",
    )
