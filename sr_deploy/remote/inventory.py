"""Which boards: ``user@host:port``, an alias of ~/.ssh/config, or a name in an inventory file."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Sequence, Tuple

from pydantic import Field
from typing_extensions import Annotated

from sr_deploy.core.errors import UsageError
from sr_deploy.core.schema import described, read_described_toml

#: Where a board keeps what was copied and made, unless the inventory says otherwise; ``~`` is the user's home there.
WORKDIR = "~/srdeploy-boards"
#: user@host:port; an IPv6 address stands in brackets when a port follows.
_TARGET = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?:\[(?P<ip6>[^\]]+)\]|(?P<host>[^\s:@/]+))(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True)
class Board:
    """How one board is reached.

    Attributes:
        name: as tables and the folder of its results call it.
        host: host name, address, or alias of ~/.ssh/config.
        user, port, key: None leaves them to ~/.ssh/config and its defaults; ``key`` is a private key's file.
        python: the Python on the board that keeps lock and job; 3.7 or newer, needs no package.
        srdeploy: the command there; looked for in PATH, /opt/srdeploy/bin, /usr/local/bin, ~/.local/bin and the
            workdir's venv, and run only where nobody but root and the user can change it.
        workdir: the folder on the board. Boards that several people use need one for all: its lock is in there.
    """

    name: str
    host: str
    user: Optional[str] = None
    port: Optional[int] = None
    key: Optional[str] = None
    python: str = "python3"
    srdeploy: str = "srdeploy"
    workdir: str = WORKDIR


def boards_of(targets: Sequence[str], inventory: Optional[Path], key: Optional[Path] = None) -> Tuple[Board, ...]:
    """The boards that the words of a command line name, each once.

    Args:
        targets: names of the inventory, ``all`` (every board in it), or ``user@host:port``.
        inventory: a TOML file; None where there is none.
        key: a private key for all of them, before what the inventory says.

    Raises:
        UsageError: a word that names no board, or a board named twice.
        BadInput: see ``read_inventory``.
    """
    known = read_inventory(inventory) if inventory is not None else {}
    found = []
    for target in targets:
        if target in known:
            found.append(known[target])
        elif target == "all" and known:
            found.extend(known.values())
        else:
            found.append(parse_target(target))
    for index, board in enumerate(found):
        if board.name in [other.name for other in found[:index]]:
            raise UsageError(f"the board {board.name} is named twice", "each board once")
    if key is not None:
        found = [dataclasses.replace(board, key=str(key)) for board in found]
    return tuple(found)


def parse_target(text: str) -> Board:
    """A board from ``host``, ``user@host``, ``user@host:port`` or ``user@[address]:port``.

    Raises:
        UsageError: anything else.
    """
    match = _TARGET.fullmatch(text)
    port = int(match.group("port")) if match and match.group("port") else None
    if match is None or text.startswith("-") or (port is not None and not 0 < port < 65536):
        raise UsageError(f"{text!r} names no board", "user@host:port, or a name of the --inventory")
    host = match.group("ip6") or match.group("host")
    # The name becomes a folder on this machine.
    name = re.sub(r"[^A-Za-z0-9._-]", "_", host if port in (None, 22) else f"{host}_{port}")
    return Board(name, host, match.group("user"), port)


#: A word of ssh's command line or of a path: printable, and ssh cannot take it for an option.
_Word = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-][^\x00-\x1f\x7f]*$", max_length=1000)]
_Host = Annotated[str, Field(pattern=r"^[^\x00-\x20\x7f/@-][^\x00-\x20\x7f/@]*$", max_length=255)]
#: A board's name becomes a folder of results.
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


@described
@dataclass(frozen=True)
class BoardTable:
    """The table ``[boards.NAME]``; see ``Board`` for the meaning of each key."""

    host: _Host
    user: Optional[_Host] = None
    port: Optional[Annotated[int, Field(ge=1, le=65535)]] = None
    key: Optional[_Word] = None
    python: _Word = "python3"
    srdeploy: _Word = "srdeploy"
    workdir: _Word = WORKDIR


@described
@dataclass(frozen=True)
class Inventory:
    """What stands in an inventory.

    Attributes:
        boards: one table a board, by its name.
    """

    boards: Annotated[Dict[_Name, BoardTable], Field(min_length=1, max_length=10_000)]

    def __post_init__(self) -> None:
        """Refuse the name that stands for every board.

        Raises:
            ValueError: naming the key.
        """
        if "all" in self.boards:
            raise ValueError("boards.all: 'all' is no name for a board")


def read_inventory(path: Path) -> Dict[str, Board]:
    """The boards of a TOML file: one table ``[boards.NAME]`` each, see BoardTable for its keys.

    Raises:
        BadInput: not readable, not TOML, or not as described.
    """
    read = read_described_toml(Inventory, path, "inventory", 'write tables [boards.NAME] with host = "192.0.2.7"')
    return {name: Board(name, **dataclasses.asdict(table)) for name, table in read.boards.items()}
