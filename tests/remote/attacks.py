"""Hostile boards as a grammar: an honest session, of which one thing is a lie that its number chooses.

What lies is an answer of the agent (for each operation), the job's status, its list of results, its log, or a result;
how it lies is its structure (kinds, missing, unknown and double keys, depth, counts), its values (paths that lead out,
control characters, huge numbers, hashes), or its bytes (garbage, cut, floods, silence). A number is always the same.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import random
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Tuple

MARK = "SRDEPLOY-"
OPERATIONS = ("hello", "doctor", "commit", "start", "status", "fetched", "stop", "discard")
FILES = ("status.json", "files", "log", "result")
LOG_ID = "bench-0123456789ab"

EVIL_TEXTS = (
    "../../../victim", "x/../../../victim", "/etc/passwd", "..", ".", "", "a\x00b", "a/b", "a\\..\\b", "C:x", "CON",
    ".ssh/authorized_keys", "\x1b]0;title\x07", "\n::error::owned", "::error::owned", "##[error]x", "[/b]", "[red]x",
    "x" * 100_000, "\u202egnp.exe", "%2e%2e/victim", "~root", "-oProxyCommand=x", "$(touch x)", "é" * 300, "nul\n",
    "running", "ended", "9" * 5000,
)  # fmt: skip
EVIL_NUMBERS = (-1, 0, 1, 2**31, 10**15, 10**30, 10**400, 0.5, -0.0, 1e300, True, False)
EVIL_WORDS = ('"\\ud800"', "NaN", "-Infinity", "1e999", "[" * 5000, "{" * 500, '{"a":1,"a":2}', "'x'", "0x10", "")


def evil(pick: random.Random) -> Any:
    """A value that no field expects."""
    return pick.choice(
        (
            lambda: pick.choice(EVIL_TEXTS),
            lambda: pick.choice(EVIL_NUMBERS),
            lambda: pick.choice((None, [], {}, [[]], [None], {"": None}, ["x"] * 20_000, {"a": {"b": {"c": []}}})),
            lambda: pick.randbytes(8).hex(),
        )
    )()


@dataclass
class Attack:
    """One hostile board.

    Attributes:
        number: chooses everything.
        target: what lies: an operation of the agent or one of FILES.
        way: structure, values or bytes, and which kind of it, for the table.
        command: what the user asks for: build, run, attach or stop.
        wanted: the beginning of the id that attach names.
    """

    number: int
    target: str = field(init=False)
    way: str = field(init=False)
    command: str = field(init=False)
    wanted: Tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        pick = random.Random(self.number)
        self.target = (*OPERATIONS, *FILES, "files", "status.json")[self.number % (len(OPERATIONS) + len(FILES) + 2)]
        commands = {"stop": ["stop"], "status": ["attach", "stop"], "discard": ["build"]}
        self.command = pick.choice(commands.get(self.target, ["build", "run"]))
        if self.command == "build" and self.target in FILES and pick.random() < 0.5:
            self.command = "attach"
        self.wanted = pick.choice(((), ("bench",)))
        self.way = pick.choice(
            ("structure", "values", "values", "bytes", *(["places"] * 4 if self.target == "files" else []))
        )

    def reply(self, request: Dict[str, Any]) -> Tuple[List[bytes], bytes, int]:
        """(blocks of stdout, the end of stderr, exit status) for one request; a flood is a long list of one block."""
        honest = HONEST[request["op"]](request)
        if request["op"] != self.target:
            return [line(honest)], b"", 0
        pick = random.Random(self.number)
        if self.way == "structure":
            return [line(structured(pick, honest))], b"", 0
        if self.way == "values":
            return [line(valued(pick, honest))], b"", 0
        return garbage(pick, honest)

    def files(self, job: str, folder: str) -> Dict[str, bytes | None]:
        """The job's files on the board, by their path below ``folder``/jobs/ID; None for one that never ends."""
        output = b'{"error": "x", "exit_code": 0}\n'
        pick = random.Random(self.number)
        log, result = pick.choice(LOGS) if self.target == "log" else b"one\ntwo\n", b'{"points": []}'
        entries = [
            entry(f"{folder}/jobs/{job}/log", f"jobs/{job}/log", log or b"x" * (1 << 20)),
            entry(f"{folder}/jobs/{job}/output", f"jobs/{job}/output", output),
            entry(f"{folder}/jobs/{job}/result", "results/a.json", result),
        ]
        status = {"exit_code": 0, "seconds": 1.0, "ended": "2026-01-02T03:04:05Z", "files": 3, "bytes": 0}
        if self.target == "files":
            entries = self._listed(pick, entries, job)
        status.update(files=len(entries), bytes=sum(e["size"] for e in entries if isinstance(e.get("size"), int)))
        found: Dict[str, bytes | None] = {
            "status.json": json.dumps(status).encode(),
            "files": b"".join(json.dumps(each).encode() + b"\n" for each in entries),
            "log": log, "output": output, "result": result,
        }  # fmt: skip
        if self.target == "status.json":
            found["status.json"] = file_lie(pick, self.way, status)
        elif self.target == "files" and self.way in ("bytes", "structure"):
            found["files"] = file_lie(pick, self.way, entries[0])
        elif self.target == "result":
            found["result"] = pick.choice((b"", result[:-1], result + b"x" * 1000, b"x" * len(result), None))
        return found

    def _listed(self, pick: random.Random, entries: List[Dict[str, Any]], job: str) -> List[Dict[str, Any]]:
        if self.way == "values":
            entries[pick.randrange(3)] = valued(pick, entries[0])
        elif self.way == "places":
            entries = PLACES[pick.randrange(len(PLACES))](entries, job)
        return entries


def entry(path: str, to: str, content: bytes) -> Dict[str, Any]:
    return {"path": path, "to": to, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _to(where: str) -> Callable:
    return lambda entries, job: [*entries, {**entries[2], "to": where.replace("ID", job)}]


#: Lists of results that a board must not get through with.
PLACES: Tuple[Callable, ...] = (
    *(map(_to, (
        "../victim", "results/../../../victim", "/etc/cron.d/x", "%2E%2E/victim", "results/%2E%2E/%2E%2E/%2E%2E/victim",
        "results/%2Fetc/x", "results//x", "results/./x", ".ssh/authorized_keys", "results/.bashrc", "pictures/a.png",
        "engines/x.so", "jobs/other/log", "jobs/ID/../../x", "precious", "results", "results/a.json/b",
        "results/link/x",
        "results/a%00b", "results/%1B%5D0;t%07", "results/%1B%07",
        "results/" + "x" * 300, "results/" + "d/" * 100 + "x", "RESULTS/a.json",
        "results/%FF%FE.json", "results/a%5C..%5Cb", "linked/x", "results/%0A%3A%3Aerror", "~/x",
    ))),
    lambda entries, job: [*entries, entries[2]],
    lambda entries, job: [*entries, {**entries[2], "to": "results/a.json/deeper"}],
    lambda entries, job: [{**entries[0], "size": 10**15}, *entries[1:]],
    lambda entries, job: [{**entries[0], "size": 10**12}, *entries[1:]],
    lambda entries, job: [{**entries[2], "to": f"results/{n}.json"} for n in range(30_000)],
    lambda entries, job: [{**entries[2], "sha256": "0" * 64}],
    lambda entries, job: [{**entries[2], "path": "/dev/zero", "size": 1 << 26}],
    lambda entries, job: [{**entries[2], "path": "/nowhere"}],
)  # fmt: skip

LOGS: Tuple[bytes | None, ...] = (
    None, b"\x1b]0;title\x07\x1b[2J\n", b"::error::owned\n  ::set-output name=x::y\n##[error]x\n##vso[task.x]y\n",
    b"x" * 3_000_000, b"\n" * 2_000_000, b"\xff\xfe\x00\n", b"a\rb\rc\n", b"[/b][red]\n", "\u202e\u2028x\n".encode(),
    b"error: \x1b[31mowned\n", b"::" * 100_000,
)  # fmt: skip


def structured(pick: random.Random, honest: Any) -> Any:
    """The honest value with a key too few, too many, twice, of another kind, or another value altogether."""
    value = copy.deepcopy(honest)
    way = pick.randrange(5)
    if way == 0 or not isinstance(value, dict) or not value:
        return Raw(pick.choice(EVIL_WORDS)) if pick.random() < 0.4 else evil(pick)
    key = pick.choice(sorted(value))
    if way == 1:
        del value[key]
    elif way == 2:
        value[pick.choice(EVIL_TEXTS[:20])] = evil(pick)
    elif way == 3:
        return Raw(json.dumps(value)[:-1] + f', "{key}": {json.dumps(value[key])}}}')
    else:
        value[key] = pick.choice(([value[key]], {"x": value[key]}, str(value[key]), None))
    return value


def valued(pick: random.Random, honest: Any) -> Any:
    """The honest value with an evil one somewhere inside."""
    value = copy.deepcopy(honest)
    places = [(value, key) for key in value] if isinstance(value, dict) else []
    for parent, key in list(places):
        child = parent[key]
        if isinstance(child, dict):
            places += [(child, inner) for inner in child]
        elif isinstance(child, list):
            places += [(child, index) for index in range(len(child))]
            places += [(part, inner) for part in child if isinstance(part, dict) for inner in part]
    if not places:
        return evil(pick)
    parent, key = pick.choice(places)
    parent[key] = evil(pick)
    return value


class Raw(str):
    """JSON as it stands, such as no encoder writes."""


def text_of(value: Any) -> bytes:
    return (str(value) if isinstance(value, Raw) else json.dumps(value)).encode("utf-8", "replace")


def line(value: Any, word: str = "REPLY") -> bytes:
    return f"\n{MARK}{word} ".encode() + text_of(value) + b"\n"


def garbage(pick: random.Random, honest: Any) -> Tuple[List[bytes], bytes, int]:
    """Bytes that are no answer: cut, random, floods, faults with evil numbers, silence."""
    good = line(honest)
    return pick.choice(
        (
            lambda: ([b""], b"", 0),
            lambda: ([good[: pick.randrange(len(good))]], b"", 0),
            lambda: ([pick.randbytes(5000)], pick.randbytes(500), 1),
            lambda: ([f"\n{MARK}REPLY ".encode() + pick.randbytes(200) + b"\n"], b"", 0),
            lambda: ([b"\xff" * 100 + good], b"", 0),
            lambda: ([b"y" * 65536] * 2000, b"", 0),
            lambda: ([good], b"\x1b]0;t\x07::error" * 400_000, 0),
            lambda: ([b"Traceback\n"], b"\x1b[31mNo such python\n::error::owned", 127),
            lambda: ([line({"errno": evil(pick), "error": evil(pick)}, "FAULT")], b"", 0),
            lambda: ([line({"errno": 28, "error": "\x1b]0;t\x07\n::error::full"}, "FAULT")], b"", 0),
            lambda: ([line(honest, "MAYBE")], b"", 0),
            lambda: ([good], b"", 2**31),
            lambda: ([SILENCE], b"", 0),
        )
    )()


#: A block that stands for an answer that never comes.
SILENCE = b"(silence)"


def file_lie(pick: random.Random, way: str, honest: Any) -> bytes | None:
    if way == "structure":
        return text_of(structured(pick, honest))
    if way == "values":
        return text_of(valued(pick, honest))
    return pick.choice(
        (None, b"", b"{", pick.randbytes(300), b"[" * 60_000, b"\xff\xfe", b" " * 10**6, b"\x00" * 70_000)
    )


HONEST: Dict[str, Callable[[Dict[str, Any]], Any]] = {
    "hello": lambda asked: {
        "workdir": asked["claimed"], "free_bytes": 10**11, "srdeploy": ["/opt/srdeploy/bin/srdeploy"], "skipped": [],
        "missing": dict.fromkeys(asked["files"], 0), "busy": None,
        "job": {"id": asked["job"], "state": "absent", "fetched": False, "since": ""} if asked.get("job") else None,
    },
    "doctor": lambda asked: {"code": 0, "out": '{"findings": [], "environment": {}}', "err": ""},
    "commit": lambda asked: {"bad": [], "free_bytes": 10**11},
    "discard": lambda asked: {"free_bytes": 10**11},
    "start": lambda asked: {"job": {"id": asked["job"]["id"], "state": "running", "fetched": False, "since": "now"}},
    "status": lambda asked: {
        "jobs": [{"id": asked["job"] or LOG_ID, "state": "running", "fetched": False, "since": "now"}]
    },
    "fetched": lambda asked: {},
    "stop": lambda asked: {"stopped": True},
}  # fmt: skip


def request_of(program: str) -> Dict[str, Any]:
    """The request inside the program text that the PC sends."""
    found = re.search(r"\.answer\(json\.loads\((.*)\), 'SRDEPLOY-'\)", program)
    assert found is not None, "the program has no request"
    return json.loads(ast.literal_eval(found.group(1)))
