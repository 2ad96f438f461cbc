"""What a pickle is described with: names, stand-ins, and tensors whose numbers have not been read.

None of these does anything; that is their purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Tuple

from sr_deploy.checkpoint.budget import NAME_LETTERS, check_limit

#: Modules whose functions have no place in a checkpoint: one that asks to call them is refused. Other unknown
#: functions are left uncalled, which is just as safe, but may be part of an honest file (a project of its own may be
#: called "code" or "trace", so such names are not here).
DANGEROUS_MODULES = frozenset((
    "os", "posix", "nt", "posixpath", "ntpath", "subprocess", "_posixsubprocess", "sys", "importlib", "imp", "runpy",
    "pty", "pdb", "shutil", "socket", "_socket", "webbrowser", "ctypes", "_ctypes", "pickle", "_pickle",
    "dill", "marshal", "popen2", "pip",
))  # fmt: skip
#: The same for single names of the module ``builtins``.
DANGEROUS_BUILTINS = frozenset((
    "eval", "exec", "execfile", "compile", "__import__", "open", "file", "input", "breakpoint", "reload",
))  # fmt: skip
BUILTIN_MODULES = ("builtins", "__builtin__", "__builtins__")


def printable(text: object, limit: int = 60) -> str:
    """Text from a file as a terminal may show it: cut to ``limit`` characters, control characters as "?"."""
    safe = "".join(letter if letter.isprintable() else "?" for letter in str(text)[: limit + 1])
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


class Malformed(ValueError):
    """The instructions are not those of a whole pickle."""


class AsksToRun(Exception):
    """The pickle asks to call a function of a dangerous module.

    Args:
        name: the function as the file names it, for example "os.system".
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)


@dataclass(frozen=True)
class Global:
    """The name of a class or function. Nothing was imported to make it.

    Raises:
        OverBudget: a name longer than any.
    """

    module: str
    name: str

    def __post_init__(self) -> None:
        check_limit(len(self.module) + len(self.name), NAME_LETTERS, "letters in the name of a class")

    @property
    def path(self) -> str:
        """Module and name with a dot between."""
        return f"{self.module}.{self.name}"

    @property
    def dangerous(self) -> bool:
        """True when no checkpoint has an honest reason to call it."""
        parts = self.path.split(".")
        if any(part in DANGEROUS_MODULES for part in (parts[0], *self.name.split(".")[:-1])):
            return True
        return any(part in BUILTIN_MODULES for part in parts[:-1]) and any(
            part in DANGEROUS_BUILTINS for part in parts[1:]
        )


@dataclass(eq=False)
class StandIn:
    """An object of a class that is not made here: what the pickle says of it, kept and never used.

    Attributes:
        kind: the name of its class, or of the function whose result it would have been.
        state: what the pickle wanted to give to ``__setstate__``, usually the instance's attributes.
        items: what it wanted to store as ``object[key] = value``.
    """

    kind: Global
    state: Any = None
    items: Dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StorageRef:
    """A flat array of numbers that lies elsewhere in the file.

    Attributes:
        dtype: the name of torch's storage class, for example "FloatStorage".
        key: which one.
        count: number of elements.
    """

    dtype: str
    key: str
    count: int


@dataclass(frozen=True, eq=False)
class TensorRef:
    """A tensor as the pickle describes it; its numbers have not been read.

    Attributes:
        storage: where the numbers lie.
        offset: first element, in elements.
        size, stride: as in torch, in elements. Not checked against the storage yet.
        dtype: the name of a torch dtype where the tensor brings its own (storages without a type), else "".
    """

    storage: StorageRef
    offset: int
    size: Tuple[int, ...]
    stride: Tuple[int, ...]
    dtype: str = ""
