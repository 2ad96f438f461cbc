"""Files of a board through SFTP, read to a bound; a server that does not speak it as it should is an error of ours."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import Any, Iterator, Optional, Union

from sr_deploy.core.errors import BadInput, EnvironmentFault
from sr_deploy.core.text import plain
from sr_deploy.remote.call import WRONG_BOARD
from sr_deploy.remote.connect import Link

#: Bytes of one request: what OpenSSH's server gives at most. paramiko's own 32 KiB would wait for the network eight
#: times as often, and its prefetch has no bound that follows what was asked for.
BLOCK = 255 << 10


@contextlib.contextmanager
def garbled(link: Link) -> Iterator[None]:
    """Around calls of paramiko's SFTP and nothing else: answers that are none of the protocol become an error of ours.

    Raises:
        BadInput: such an answer.
    """
    from paramiko import SFTPError

    try:
        yield
    except (SFTPError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, struct.error) as error:
        raise BadInput(
            f"{link.board.name}: its SFTP server answers what is not SFTP: {plain(str(error), 200)}",
            "the subsystem sftp, as OpenSSH has it",
            WRONG_BOARD,
        ) from error


@contextlib.contextmanager
def spoken(link: Link, what: Union[str, bytes]) -> Iterator[None]:
    """As ``garbled``, and an error of one file becomes one of ours too, but FileNotFoundError.

    Raises:
        FileNotFoundError: no such file there.
        EnvironmentFault: another error of one file.
        BadInput: see ``garbled``.
    """
    try:
        with garbled(link):
            yield
    except (FileNotFoundError, ConnectionError, TimeoutError, socket.timeout):
        raise
    except OSError as error:
        # What a lost connection raises is for ``connected`` to see.
        if not link.alive() or "Socket is closed" in str(error):
            raise
        raise EnvironmentFault(
            f"{link.board.name}: {plain(os.fsdecode(what), 200)}: {plain(str(error), 200)}",
            "a file that this user may use there",
            "look at its owner and rights on the board",
        ) from error


@contextlib.contextmanager
def opened(link: Link, path: Union[str, bytes]) -> Iterator[Any]:
    """A file of the board for reading.

    Raises:
        FileNotFoundError: see ``spoken``.
    """
    with spoken(link, path):
        stream = link.sftp.open(path, "rb")
        # paramiko asks for so much in one request.
        stream.MAX_REQUEST_SIZE = BLOCK
    try:
        yield stream
    finally:
        with contextlib.suppress(Exception):
            stream.close()


def read_at(link: Link, path: str, offset: int, most: int) -> Optional[bytes]:
    """At most ``most`` bytes of a file there from ``offset`` on; None where there is none."""
    try:
        with opened(link, path) as stream, spoken(link, path):
            stream.seek(offset)
            return stream.read(most)
    except FileNotFoundError:
        return None
