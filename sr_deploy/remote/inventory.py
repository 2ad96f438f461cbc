"""Which boards: ``user@host:port``, an alias of ~/.ssh/config, or a name in an inventory file."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.core.toml import toml_reader

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


#: The keys of [boards.NAME] and their types: the fields of Board but its name.
KEYS: Dict[str, type] = {
    f.name: int if f.name == "port" else str for f in dataclasses.fields(Board) if f.name != "name"
}


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


def read_inventory(path: Path) -> Dict[str, Board]:
    """The boards of a TOML file: one table ``[boards.NAME]`` each, ``host`` required, the other keys of KEYS optional.

    Raises:
        BadInput: not readable, not TOML, an unknown key, a wrong type, a board without host.
    """
    path = Path(path)
    try:
        raw = toml_reader().loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read the inventory {path}: {error.strerror}", "a TOML file") from error
    except ValueError as error:
        raise BadInput(f"{path} is not TOML: {error}", "tables [boards.NAME]") from error
    boards = raw.get("boards")
    if set(raw) != {"boards"} or not isinstance(boards, dict) or not boards:
        odd = sorted(set(raw) - {"boards"})
        found = f"{path} has the unknown key {odd[0]!r}" if odd else f"{path} names no board"
        raise BadInput(found, "tables [boards.NAME] and nothing else")
    return {name: _board(path, name, table) for name, table in boards.items()}


def _board(path: Path, name: str, table: Any) -> Board:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name == "all":
        raise BadInput(f"{path}: {name!r} is no name for a board", "letters, digits, '.', '_' and '-'; not 'all'")
    if not isinstance(table, dict) or not isinstance(table.get("host"), str):
        raise BadInput(f"{path}: [boards.{name}] has no host", 'host = "192.0.2.7" or a name')
    for key, value in table.items():
        if key not in KEYS:
            raise BadInput(f"{path}: [boards.{name}] has the unknown key {key!r}", "one of " + ", ".join(KEYS))
        if not isinstance(value, KEYS[key]) or isinstance(value, bool) or (key == "port" and not 0 < value < 65536):
            kind = "a number from 1 to 65535" if key == "port" else "a text"
            raise BadInput(f"{path}: [boards.{name}] {key} is {value!r}", kind)
    return Board(name, **table)
