"""Reading what another program wrote: a frozen dataclass describes the format, and reading checks every field.

Each format of a file, and each message from a board, is one dataclass marked ``described``. Its annotations are the
grammar: types are strict (no ``true`` for 1, no text for a number), unknown and missing keys are errors, numbers are
finite, ``Annotated[int, Field(ge=1)]`` and the words below narrow them, ``__post_init__`` raises ValueError for what
several fields must fulfil together. A field ``schema: int = N`` is the format's version: a file must have it, and of no
other number. pydantic does the checking; ``json_schema`` publishes the same description.
"""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Type, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import Annotated, Literal

from sr_deploy.core.errors import BadInput
from sr_deploy.core.text import plain
from sr_deploy.core.toml import toml_reader

Described = TypeVar("Described")

#: Bytes of a described file that are read at most: a plan of a network with 10,000 nodes has some 3 MB.
MOST_BYTES = 64 << 20
#: Problems that one error message names.
_MOST_NAMED = 5

#: What pydantic calls the branches of a union in the place of an error.
_UNION_WORDS = ("tuple", "str", "int", "float", "none")

#: Words that descriptions are written in.
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**62)]
Positive = Annotated[int, Field(ge=1, le=2**62)]
#: Pixels of a height or width, at most.
MOST_EDGE = 10**6
Edge = Annotated[int, Field(ge=1, le=MOST_EDGE)]
#: Height and width of a picture, pixels.
SizePair = Tuple[Edge, Edge]
#: The same as text, height first, such as "720x1280"; "144" is a square. See parse_size of contract.py.
SizeText = Annotated[str, Field(pattern=r"^0*[1-9][0-9]{0,5}([xX]0*[1-9][0-9]{0,5})?$", max_length=20)]
#: Output size over input size. No network here enlarges more than 8 times; 64 leaves room.
Scale = Annotated[int, Field(ge=1, le=64)]
#: A number that is not negative.
Amount = Annotated[float, Field(ge=0.0)]
Seconds = Annotated[float, Field(ge=0.0)]
#: Events a second.
Rate = Annotated[float, Field(gt=0.0, le=1e6)]
#: Seconds that something took: neither nothing nor a year.
Duration = Annotated[float, Field(ge=1e-12, le=1e7)]
#: A scale of quantisation: a positive, normal float32.
QuantScale = Annotated[float, Field(ge=2.0**-126, le=3.4e38)]


def _power_of_two(value: float) -> float:
    if math.frexp(value)[0] != 0.5:
        raise ValueError("no power of two")
    return value


#: A factor that no float type rounds: a power of two, normal in float16 as its inverse is.
ExactFactor = Annotated[float, Field(ge=2.0**-14, le=2.0**14), AfterValidator(_power_of_two)]
ShortText = Annotated[str, Field(max_length=1000)]


def described(cls: Type[Described]) -> Type[Described]:
    """Mark a dataclass as the description of a format; see the module.

    Example:
        >>> from dataclasses import dataclass
        >>> @described
        ... @dataclass(frozen=True)
        ... class Edge2:
        ...     height: Edge
        ...     width: Edge
    """
    return _marked(cls, "forbid")


def described_in_part(cls: Type[Described]) -> Type[Described]:
    """As ``described``, for what another version of srdeploy may write: keys that are not named are left alone."""
    return _marked(cls, "ignore")


def described_open(cls: Type[Described]) -> Type[Described]:
    """As ``described``, for a TypedDict that holds facts for people: keys that are not named are kept."""
    return _marked(cls, "allow")


def _marked(cls: Type[Described], extra: Literal["allow", "ignore", "forbid"]) -> Type[Described]:
    # Where pydantic looks for it; a class in general has no such attribute.
    cls.__pydantic_config__ = ConfigDict(strict=True, extra=extra, allow_inf_nan=False)  # type: ignore[attr-defined]
    return cls


def with_fields(fields: Mapping[str, Any]) -> Callable[[Type[Described]], Type[Described]]:
    """Give a class optional fields (None where missing) that a table names; below ``@dataclass``, which reads them.

    Args:
        fields: name → accepted type.
    """

    def add(cls: Type[Described]) -> Type[Described]:
        cls.__annotations__ = {**getattr(cls, "__annotations__", {}), **{n: Optional[t] for n, t in fields.items()}}
        for name in fields:
            setattr(cls, name, None)
        return cls

    return add


def _adapter(kind: object) -> TypeAdapter[Any]:
    return _made_adapter(kind)


@functools.lru_cache(maxsize=None)
def _made_adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def json_schema(kind: Any) -> Dict[str, Any]:
    """The JSON schema of a description."""
    return _adapter(kind).json_schema()


def value_from(kind: Type[Described], text: str, origin: str, todo: str = "", error: Type[BadInput] = BadInput,
               said_as: str = "value") -> Described:  # fmt: skip
    """A described value from its JSON text.

    Args:
        kind: the description.
        text: JSON.
        origin: what an error calls the text: a path, or who sent it.
        todo: what the user can do when it is wrong.
        error: the class of the error.
        said_as: what the text should be, for the error, such as "deployment manifest".

    Raises:
        BadInput (``error``): not JSON, a key twice, NaN, or not as described; the message names keys and values.
    """
    try:
        raw = json.loads(text, object_pairs_hook=_unique)
        _check_finite(raw)
        _check_version(kind, raw, origin, todo, error)
        value: Described = _adapter(kind).validate_json(text)
        return value
    except ValidationError as wrong:
        raise error(f"{plain(origin)} is no {said_as}: {_problems(wrong)}", *_wanted(wrong, said_as), todo) from wrong
    except (ValueError, RecursionError) as wrong:
        raise error(f"{plain(origin)} is no {said_as}: {plain(str(wrong))}", "valid JSON", todo) from wrong


def read_described(kind: Type[Described], path: Path, said_as: str, todo: str = "",
                   error: Type[BadInput] = BadInput) -> Described:  # fmt: skip
    """A described value from a JSON file.

    Raises:
        BadInput (``error``): missing, larger than MOST_BYTES, or see ``value_from``.
    """
    return value_from(kind, bounded_text(path, said_as, todo, error), str(path), todo, error, said_as)


def read_described_toml(kind: Type[Described], path: Path, said_as: str, todo: str = "",
                        error: Type[BadInput] = BadInput) -> Described:  # fmt: skip
    """A described value from a TOML file; dates are no values here.

    Raises:
        BadInput (``error``): missing, larger than MOST_BYTES, not TOML, or see ``value_from``.
    """
    text = bounded_text(path, said_as, todo, error)
    try:
        as_json = json.dumps(toml_reader().loads(text))
    except (ValueError, TypeError, RecursionError) as wrong:
        raise error(f"{plain(str(path))} is no {said_as}: {plain(str(wrong))}", "valid TOML", todo) from wrong
    return value_from(kind, as_json, str(path), todo, error, said_as)


def bounded_text(path: Path, said_as: str, todo: str = "", error: Type[BadInput] = BadInput) -> str:
    """The UTF-8 text of a file of at most MOST_BYTES.

    Raises:
        BadInput (``error``): it cannot be read, is larger, or is not UTF-8.
    """
    shown = plain(str(path))
    try:
        with open(path, "rb") as stream:
            raw = stream.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise error(f"{shown} is larger than {MOST_BYTES >> 20} MiB", f"a {said_as}", todo)
        return raw.decode("utf-8")
    except (OSError, ValueError) as wrong:
        reason = wrong.strerror if isinstance(wrong, OSError) else str(wrong)
        raise error(f"cannot read the {said_as} {shown}: {plain(str(reason))}", f"a {said_as}", todo) from wrong


def _check_version(kind: Any, raw: Any, origin: str, todo: str, error: Type[BadInput]) -> None:
    """Refuse another version of a format that has a ``schema``, before its other keys are looked at."""
    known = getattr(kind, "schema", None)
    if type(known) is not int or not isinstance(raw, dict):
        return
    found = raw.get("schema", "no")
    if type(found) is not int or found != known:
        raise error(f"{plain(origin)} has schema {plain(str(found), 60)}", f"schema {known}", todo)


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found


def _check_finite(raw: Any) -> None:
    """ValueError, naming the key, for NaN, Infinity and what is too large for a float, wherever it stands."""
    waiting: List[Tuple[Tuple[Any, ...], Any]] = [((), raw)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [((*place, str(name)), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            waiting += [((*place, index), inner) for index, inner in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{_key(place)} is {value}, which is no finite number")


def _problems(wrong: ValidationError) -> str:
    """The first problems, each with its key and the value found."""
    found = wrong.errors(include_url=False)
    inner = {problem["loc"][:end] for problem in found for end in range(len(problem["loc"]))}
    # A list of which no entry is good is called too short as well.
    problems = [problem for problem in found if problem["type"] != "too_short" or problem["loc"] not in inner]
    lines = [_problem(problem) for problem in problems[:_MOST_NAMED]]
    more = f"; and {len(problems) - _MOST_NAMED} more" if len(problems) > _MOST_NAMED else ""
    return "; ".join(lines) + more


def _problem(problem: Any) -> str:
    key = _key(problem["loc"])
    if problem["type"] in ("missing", "missing_argument"):
        return f"{key} is missing"
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"the key {key} is unknown"
    return f"{key} is {plain(repr(problem['input']), 60)} ({_message(problem)})"


def _message(problem: Any) -> str:
    text = str(problem["msg"])
    text = text[len("Value error, ") :] if text.startswith("Value error, ") else text
    return plain(text[:1].lower() + text[1:], 300)


def _wanted(wrong: ValidationError, said_as: str) -> Tuple[str]:
    return (f"the keys and values of a {said_as}",)


def _key(location: Tuple[Any, ...]) -> str:
    """A place in the document, such as graphs[0].file; words of pydantic's own unions are left out."""
    out = ""
    for part in location:
        if isinstance(part, int):
            out += f"[{part}]"
        elif not (isinstance(part, str) and ("[" in part or part in _UNION_WORDS or part.startswith("constrained-"))):
            out += ("." if out else "") + str(part)
    return plain(out, 120) or "the whole"
