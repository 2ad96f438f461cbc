"""What a pickle describes, found without calling anything that it names.

A pickle is a program for a stack machine whose instructions may call any function of any module; that is how a
checkpoint can run code. This file is another machine for the same instructions. It imports nothing and calls nothing:
a name stays a ``Global``, a call of one of torch's tensor builders becomes a ``TensorRef`` (the description of a
tensor), a call of a plain container becomes that container, and any other call becomes an inert ``StandIn``. The
instructions are split by the standard library's ``pickletools.genops``, which only reads.
"""

from __future__ import annotations

import io
import pickletools
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Tuple

from sr_deploy.checkpoint.budget import KEY_LETTERS, LINE_BYTES, NUMBER_BITS, STEPS, Budget, check_limit
from sr_deploy.checkpoint.built import dict_from, is_count, made_by, result_of
from sr_deploy.checkpoint.described import AsksToRun, Global, Malformed, StandIn, StorageRef

#: Instructions that push their own argument.
_LITERALS = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
))  # fmt: skip
#: Instructions that push a fresh value.
_FRESH: Dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
}
_TUPLE_SIZES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Described:
    """The result of reading one pickle.

    Attributes:
        root: the object: plain containers, numbers, text, ``TensorRef``, ``StandIn``, ``Global``.
        kinds: the classes and functions that were left as stand-ins, in order of appearance.
        storages: every storage that is referred to, by key.
    """

    root: Any
    kinds: Tuple[str, ...]
    storages: Dict[str, StorageRef]


#: What a name and a call are counted as, besides their instruction: they take about as long.
_NAME_STEPS, _CALL_STEPS = 3, 3


class Pickles(io.BytesIO):
    """Pickles in memory, one after the other; gives no line that is longer than any honest one."""

    def readline(self, size: Optional[int] = -1, /) -> bytes:
        """A line with its end; OverBudget for one of more than ``LINE_BYTES`` bytes."""
        line = super().readline(LINE_BYTES + 1)
        check_limit(len(line), LINE_BYTES, "bytes in a line of its pickle, or more,")
        return line


def steps_for_pickles() -> Budget:
    """The budget for all pickles of one file."""
    return Budget("to read its pickle", STEPS)


def describe_pickle(stream: Pickles, budget: Budget) -> Described:
    """Read one pickle from ``stream`` and leave the stream right behind it.

    Raises:
        OverBudget: it has more instructions, copies or longer names than any checkpoint.
        AsksToRun: it wants a function of a dangerous module called, or handed to another one. Nothing was called.
        Malformed: not a whole pickle, or one with instructions that no checkpoint has. Damaged bytes may also raise
            ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError or MemoryError.
    """
    machine = _Machine(budget)
    for instruction, argument, _ in pickletools.genops(stream):
        if instruction.name == "STOP":
            return Described(machine.pop(), tuple(machine.kinds), machine.storages)
        machine.step(instruction.name, argument)
    raise Malformed("the pickle has no end")


class _Machine:
    """The stack, the marks and the memo while a pickle is read."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.stack: List[Any] = []
        self.marks: List[List[Any]] = []
        self.memo: Dict[int, Any] = {}
        self.kinds: Dict[str, None] = {}
        self.storages: Dict[str, StorageRef] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise Malformed("the pickle takes a value that it has not given")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise Malformed("the pickle uses a value that it has not given")
        return self.stack[-1]

    def since_mark(self) -> List[Any]:
        if not self.marks:
            raise Malformed("the pickle goes back to a mark that it has not set")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        self.budget.spend()
        if name in _LITERALS:
            if type(argument) is int:
                check_limit(argument.bit_length(), NUMBER_BITS, "bits in one number")
            self.push(argument)
        elif name in _FRESH:
            self.push(_FRESH[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.push(self.memo[int(argument)])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[_place(argument)] = self.top()
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.top()
        elif name == "MARK":
            self.marks.append(self.stack)
            self.stack = []
        elif name == "POP_MARK":
            self.since_mark()
        elif name == "POP":
            # Popping right after a mark removes the mark, as in the real machine.
            if self.stack:
                self.stack.pop()
            else:
                self.since_mark()
        elif name == "DUP":
            self.push(self.top())
        else:
            self.step_with_containers(name, argument)

    def step_with_containers(self, name: str, argument: Any) -> None:
        """Instructions that make or fill containers."""
        if name in _TUPLE_SIZES:
            items = [self.pop() for _ in range(_TUPLE_SIZES[name])]
            self.push(tuple(reversed(items)))
        elif name == "TUPLE":
            self.push(tuple(self.since_mark()))
        elif name in ("LIST", "FROZENSET"):
            self.push(self.since_mark())
        elif name == "DICT":
            self.push(dict_from(_pairs(self.since_mark())))
        elif name == "APPEND":
            self.extend([self.pop()])
        elif name in ("APPENDS", "ADDITEMS"):
            self.extend(self.since_mark())
        elif name == "SETITEM":
            value, key = self.pop(), self.pop()
            self.set_items([(key, value)])
        elif name == "SETITEMS":
            self.set_items(_pairs(self.since_mark()))
        else:
            self.step_with_names(name, argument)

    def step_with_names(self, name: str, argument: Any) -> None:
        """Instructions that name, call or configure something: the ones that could run code."""
        if name == "GLOBAL":
            self.budget.spend(_NAME_STEPS)
            self.push(_global(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            self.budget.spend(_NAME_STEPS)
            attribute, module = self.pop(), self.pop()
            self.push(_global(module, attribute))
        elif name in ("EXT1", "EXT2", "EXT4"):
            self.push(Global("copyreg", f"extension_{argument}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, callee = self.pop(), self.pop()
            self.push(self.called(callee, arguments))
        elif name == "NEWOBJ_EX":
            _, arguments, callee = self.pop(), self.pop(), self.pop()
            self.push(self.called(callee, arguments))
        elif name == "INST":
            self.push(self.called(_global(*argument.split(" ", 1)), tuple(self.since_mark())))
        elif name == "OBJ":
            items = self.since_mark()
            self.push(self.called(items[0], tuple(items[1:])))
        elif name == "BUILD":
            state, target = self.pop(), self.top()
            if isinstance(target, StandIn):
                target.state = state
        elif name == "BINPERSID":
            self.push(self.referenced(self.pop()))
        else:
            raise Malformed(f"the pickle has the instruction {name}, which no checkpoint has")

    def extend(self, values: List[Any]) -> None:
        """Add to the list on top; anything else that is added to belongs to a stand-in and is of no use."""
        target = self.top()
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, StandIn):
            raise Malformed("the pickle appends to something that is no list")

    def set_items(self, pairs: List[Tuple[Any, Any]]) -> None:
        """Store into the dictionary, or the stand-in of a dictionary, on top."""
        target = self.top()
        if isinstance(target, StandIn):
            target.items.update(dict_from(pairs))
        elif isinstance(target, dict):
            target.update(dict_from(pairs))
        else:
            raise Malformed("the pickle stores items in something that is no dictionary")

    def called(self, callee: Any, arguments: Any) -> Any:
        """What stands for the result of ``callee(*arguments)``. Never calls it."""
        if not isinstance(arguments, tuple):
            raise Malformed("the pickle calls something without a tuple of arguments")
        if isinstance(callee, StandIn):
            # The result of an uncalled function is called in turn: still nothing to call.
            callee = result_of(callee)
        if not isinstance(callee, Global):
            raise Malformed(f"the pickle calls a {type(callee).__name__}")
        self.budget.spend(_CALL_STEPS + len(arguments))
        for name in (callee, *arguments):
            # As an argument too: map, partial and their like would call it.
            if isinstance(name, Global) and name.dangerous:
                raise AsksToRun(name.path)
        made = made_by(callee, arguments, self)
        if made is not None:
            return made[0]
        self.kinds.setdefault(callee.path)
        return StandIn(callee)

    def counted(self, container: Any) -> Any:
        """The container, after as many steps as it has elements were counted for going through it."""
        self.budget.spend(len(container))
        return container

    def referenced(self, identity: Any) -> Any:
        """What a persistent id means: torch puts ("storage", type, key, location, count) for numbers kept elsewhere."""
        if isinstance(identity, tuple) and identity and identity[0] == "module" and len(identity) == 4:
            # The legacy format wraps each class of a module with its source text.
            return identity[1]
        if not (isinstance(identity, tuple) and len(identity) in (5, 6) and identity[0] == "storage"):
            raise Malformed("the pickle refers to something other than a storage")
        if identity[5:] not in ((), (None,)):
            raise Malformed("a storage is a view of another one, as only PyTorch 0.3 and older wrote it")
        _, kind, key, _, count = identity[:5]
        if not isinstance(kind, Global) or not isinstance(key, (str, int)) or not is_count(count):
            raise Malformed("a storage reference has values of the wrong kind")
        if isinstance(key, str):
            check_limit(len(key), KEY_LETTERS, "letters in the key of a storage")
        return self.storages.setdefault(str(key), StorageRef(kind.name, str(key), count))


def _place(argument: Any) -> int:
    """The number of a place in the memo; the text form could give any number."""
    place = int(argument)
    if not 0 <= place < 1 << 32:
        raise Malformed("the pickle keeps a value at a place that cannot be")
    return place


def _global(module: Any, name: Any) -> Global:
    if not isinstance(module, str) or not isinstance(name, str):
        raise Malformed("the pickle names something that is no name")
    return Global(module, name)


def _pairs(flat: List[Any]) -> List[Tuple[Any, Any]]:
    if len(flat) % 2:
        raise Malformed("the pickle gives a key without a value")
    return list(zip(flat[::2], flat[1::2]))
