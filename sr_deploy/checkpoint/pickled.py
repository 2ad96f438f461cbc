"""What a pickle describes, found without calling anything that it names.

A pickle is a program for a stack machine whose instructions may call any function of any module; that is how a
checkpoint can run code. This file is another machine for the same instructions. It imports nothing and calls nothing:
a name stays a ``Global``, a call of one of torch's tensor builders becomes a ``TensorRef`` (the description of a
tensor), a call of a plain container becomes that container, and any other call becomes an inert ``StandIn``. The
instructions are split by the standard library's ``pickletools.genops``, which only reads.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import IO, Any, Callable, Dict, List, Optional, Tuple, Union

from sr_deploy.checkpoint.described import BUILTIN_MODULES, AsksToRun, Global, Malformed, StandIn, StorageRef, TensorRef

#: Instructions that push their own argument.
_LITERALS = (
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
)  # fmt: skip
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


class _Opaque:
    """A dictionary key that was not a plain value. Hashing a hostile nest of tuples could exhaust the stack."""


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


def describe_pickle(stream: IO[bytes]) -> Described:
    """Read one pickle from ``stream`` and leave the stream right behind it.

    Raises:
        AsksToRun: it wants a function of a dangerous module called, or handed to another one. Nothing was called.
        Malformed: not a whole pickle, or one with instructions that no checkpoint has. Damaged bytes may also raise
            ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError or MemoryError.
    """
    machine = _Machine()
    for instruction, argument, _ in pickletools.genops(stream):
        if instruction.name == "STOP":
            return Described(machine.pop(), tuple(machine.kinds), machine.storages)
        machine.step(instruction.name, argument)
    raise Malformed("the pickle has no end")


class _Machine:
    """The stack, the marks and the memo while a pickle is read."""

    def __init__(self) -> None:
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
        if name in _LITERALS:
            self.push(argument)
        elif name in _FRESH:
            self.push(_FRESH[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.push(self.memo[int(argument)])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = self.top()
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
            self.push(_dict_from(_pairs(self.since_mark())))
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
            self.push(_global(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
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
            target.items.update(_dict_from(pairs))
        elif isinstance(target, dict):
            target.update(_dict_from(pairs))
        else:
            raise Malformed("the pickle stores items in something that is no dictionary")

    def called(self, callee: Any, arguments: Any) -> Any:
        """What stands for the result of ``callee(*arguments)``. Never calls it."""
        if not isinstance(arguments, tuple):
            raise Malformed("the pickle calls something without a tuple of arguments")
        if isinstance(callee, StandIn):
            # The result of an uncalled function is called in turn: still nothing to call.
            callee = Global(callee.kind.module, callee.kind.name + "()")
        if not isinstance(callee, Global):
            raise Malformed(f"the pickle calls a {type(callee).__name__}")
        for name in (callee, *arguments):
            # As an argument too: map, partial and their like would call it.
            if isinstance(name, Global) and name.dangerous:
                raise AsksToRun(name.path)
        made = _made_by(callee, arguments, self.called)
        if made is not None:
            return made[0]
        self.kinds.setdefault(callee.path)
        return StandIn(callee)

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
        if not isinstance(kind, Global) or not isinstance(key, (str, int)) or not _is_count(count):
            raise Malformed("a storage reference has values of the wrong kind")
        return self.storages.setdefault(str(key), StorageRef(kind.name, str(key), count))


def _made_by(callee: Global, arguments: Tuple[Any, ...], called: Callable[[Any, Any], Any]) -> Optional[Tuple[Any]]:
    """The result of one of the few builders that are known here, in a tuple of one; None for any other name."""
    path = callee.path
    if path in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
        return (_tensor(*arguments[:4]),)
    if path == "torch._utils._rebuild_tensor_v3":
        dtype = arguments[6]
        if not isinstance(dtype, Global):
            raise Malformed("a tensor has no dtype")
        return (_tensor(*arguments[:4], dtype=dtype.name),)
    if path in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
        return (arguments[0],)
    if path == "torch._tensor._rebuild_from_type_v2":
        return (called(arguments[0], arguments[2]),)
    if path == "torch.Size":
        return (tuple(arguments[0]) if arguments else (),)
    if path in ("collections.OrderedDict", "collections.defaultdict"):
        given = arguments[0] if path == "collections.OrderedDict" and arguments else {}
        return (_copied_dict(given),)
    if callee.module in BUILTIN_MODULES:
        return _made_by_builtin(callee.name, arguments)
    return None


def _made_by_builtin(name: str, arguments: Tuple[Any, ...]) -> Optional[Tuple[Any]]:
    """The same for Python's own containers; ``getattr`` only makes a longer name."""
    if name in ("set", "frozenset", "list", "tuple") and len(arguments) <= 1:
        given = arguments[0] if arguments else ()
        if isinstance(given, (list, tuple)):
            return (tuple(given) if name == "tuple" else list(given),)
    if name == "dict" and len(arguments) <= 1:
        return (_copied_dict(arguments[0] if arguments else {}),)
    if name == "getattr" and len(arguments) >= 2:
        owner, attribute = arguments[0], arguments[1]
        if isinstance(owner, StandIn):
            owner = Global(owner.kind.module, owner.kind.name + "()")
        if isinstance(owner, Global) and isinstance(attribute, str):
            return (Global(owner.module, f"{owner.name}.{attribute}"),)
    return None


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, dtype: str = "") -> TensorRef:
    """A ``TensorRef``, after its fields have been found to be of the right kind."""
    if not isinstance(storage, StorageRef):
        raise Malformed("a tensor has no storage")
    dimensions = all(isinstance(numbers, (tuple, list)) and all(map(_is_count, numbers)) for numbers in (size, stride))
    if not dimensions or not _is_count(offset) or len(size) != len(stride):
        raise Malformed("a tensor has an offset, size or stride that is not possible")
    return TensorRef(storage, offset, tuple(size), tuple(stride), dtype)


def _is_count(value: Any) -> bool:
    """True for whole numbers of 0 or more that fit into 63 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _global(module: Any, name: Any) -> Global:
    if not isinstance(module, str) or not isinstance(name, str):
        raise Malformed("the pickle names something that is no name")
    return Global(module, name)


def _pairs(flat: List[Any]) -> List[Tuple[Any, Any]]:
    if len(flat) % 2:
        raise Malformed("the pickle gives a key without a value")
    return list(zip(flat[::2], flat[1::2]))


def _copied_dict(given: Any) -> Dict[Any, Any]:
    """A new dictionary from a dictionary or from a list of pairs (as Python 2 pickled an OrderedDict)."""
    if isinstance(given, dict):
        return dict(given)
    if isinstance(given, (list, tuple)) and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in given):
        return _dict_from([(pair[0], pair[1]) for pair in given])
    raise Malformed("the pickle makes a dictionary from something else")


def _dict_from(pairs: List[Tuple[Any, Any]]) -> Dict[Union[str, bytes, int, float, bool, None, Global, _Opaque], Any]:
    plain = (str, bytes, int, float, bool, type(None), Global)
    return {key if isinstance(key, plain) else _Opaque(): value for key, value in pairs}
