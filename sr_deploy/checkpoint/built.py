"""The few calls in a pickle that have a result here: tensors become descriptions, plain containers themselves."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Protocol, Tuple, Union

from sr_deploy.checkpoint.budget import NAME_LETTERS, check_limit
from sr_deploy.checkpoint.described import BUILTIN_MODULES, Global, Malformed, StandIn, StorageRef, TensorRef

#: Whole numbers below this one have hashes of their own. Above, a file can choose thousands that share one, and a
#: dictionary of those takes a time that grows with the square of their number.
_OWN_HASH = 1 << 60
#: PyTorch's most dimensions.
_DIMENSIONS = 64


class Machine(Protocol):
    """What reads the pickle, as far as it is needed here."""

    def called(self, callee: Any, arguments: Any) -> Any:
        """What stands for the result of a call."""

    def counted(self, container: Any) -> Any:
        """The container, after its elements were counted."""


class _Opaque:
    """A dictionary key that was not a plain value. Hashing a hostile nest of tuples could exhaust the stack."""


def made_by(callee: Global, arguments: Tuple[Any, ...], machine: Machine) -> Optional[Tuple[Any]]:
    """The result of one of the few builders that are known here, in a tuple of one; None for any other name.

    Every copy is counted: a pickle can ask for the same one again with four bytes.
    """
    path = callee.path
    if path in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
        return (_tensor(*arguments[:4]),)
    if path == "torch._utils._rebuild_tensor_v3":
        dtype = arguments[6]
        if not isinstance(dtype, Global):
            raise Malformed("a tensor has no dtype")
        storage, offset, size, stride = arguments[:4]
        return (_tensor(storage, offset, size, stride, dtype.name),)
    if path in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
        return (arguments[0],)
    if path == "torch._tensor._rebuild_from_type_v2":
        return (machine.called(arguments[0], arguments[2]),)
    if path == "torch.Size":
        return (tuple(machine.counted(arguments[0])) if arguments else (),)
    if path in ("collections.OrderedDict", "collections.defaultdict"):
        given = arguments[0] if path == "collections.OrderedDict" and arguments else {}
        return (_copied_dict(machine.counted(given)),)
    if callee.module in BUILTIN_MODULES:
        return _made_by_builtin(callee.name, arguments, machine)
    return None


def _made_by_builtin(name: str, arguments: Tuple[Any, ...], machine: Machine) -> Optional[Tuple[Any]]:
    """The same for Python's own containers; ``getattr`` only makes a longer name."""
    if name in ("set", "frozenset", "list", "tuple") and len(arguments) <= 1:
        given = arguments[0] if arguments else ()
        if isinstance(given, (list, tuple)):
            machine.counted(given)
            return (tuple(given) if name == "tuple" else list(given),)
    if name == "dict" and len(arguments) <= 1:
        return (_copied_dict(machine.counted(arguments[0] if arguments else {})),)
    if name == "getattr" and len(arguments) >= 2:
        owner, attribute = arguments[0], arguments[1]
        if isinstance(owner, StandIn):
            owner = result_of(owner)
        if isinstance(owner, Global) and isinstance(attribute, str):
            check_limit(len(attribute), NAME_LETTERS, "letters in the name of an attribute")
            return (Global(owner.module, f"{owner.name}.{attribute}"),)
    return None


def result_of(made: StandIn) -> Global:
    """A name for what a call of the stand-in's class or function, which never happened, would have given."""
    name = made.kind.name
    return made.kind if name.endswith("()") else Global(made.kind.module, name + "()")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, dtype: str = "") -> TensorRef:
    """A ``TensorRef``, after its fields have been found to be of the right kind."""
    if not isinstance(storage, StorageRef):
        raise Malformed("a tensor has no storage")
    if any(isinstance(numbers, (tuple, list)) and len(numbers) > _DIMENSIONS for numbers in (size, stride)):
        raise Malformed(f"a tensor has more than {_DIMENSIONS} dimensions")
    dimensions = all(isinstance(numbers, (tuple, list)) and all(map(is_count, numbers)) for numbers in (size, stride))
    if not dimensions or not is_count(offset) or len(size) != len(stride):
        raise Malformed("a tensor has an offset, size or stride that is not possible")
    return TensorRef(storage, offset, tuple(size), tuple(stride), dtype)


def is_count(value: Any) -> bool:
    """True for whole numbers of 0 or more that fit into 63 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _copied_dict(given: Any) -> Dict[Any, Any]:
    """A new dictionary from a dictionary or from a list of pairs (as Python 2 pickled an OrderedDict)."""
    if isinstance(given, dict):
        return dict(given)
    if isinstance(given, (list, tuple)) and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in given):
        return dict_from([(pair[0], pair[1]) for pair in given])
    raise Malformed("the pickle makes a dictionary from something else")


def dict_from(pairs: List[Tuple[Any, Any]]) -> Dict[Union[str, bytes, int, float, bool, None, Global, _Opaque], Any]:
    """A dictionary in which no key is costly to hash."""
    return {key if _is_plain(key) else _Opaque(): value for key, value in pairs}


def _is_plain(key: Any) -> bool:
    """True for keys whose hash is quickly made and not for a file to choose."""
    if isinstance(key, int):
        return -_OWN_HASH < key < _OWN_HASH
    return key is None or isinstance(key, (str, bytes, float, Global))
