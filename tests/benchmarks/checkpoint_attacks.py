"""Hostile checkpoints against the reader: each must end soon, in little memory, and refused or read; nothing may run.

    python tests/benchmarks/checkpoint_attacks.py [--times 20000] [--seed 0] [--built] [--sample] [--keep FOLDER]

Two kinds: good files of five formats (torch's zip, its legacy stream, safetensors, whole modules in both) whose bytes
are mutated, some behind right checksums; and files in which structure is hostile (``checkpoint_shapes.py``). Each is
given to ``inspect_path``, which reads it and looks for its architecture, in a child process. Measured are its processor
time, by how much the child's memory grew, and through Python's audit hook whether anything but reading was done: a
program or a module started, code compiled, a file written, a socket opened. Printed is the count of outcomes and the
worst of each group; exit code 1 for more than 2 s or 500 MB, any other exception than BadInput, or a deed.
"""

from __future__ import annotations

import argparse
import codecs
import collections
import dataclasses
import gc
import io
import itertools
import json
import os
import random
import resource
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch
from safetensors.torch import save

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from checkpoint_shapes import FAMILIES, built_cases  # noqa: E402

from sr_deploy.core.errors import BadInput  # noqa: E402
from sr_deploy.models.architectures.edsr import BasicSREDSR  # noqa: E402
from sr_deploy.pipeline.inspect import inspect_path  # noqa: E402

#: What one file may cost: seconds of processor time, bytes of memory.
MOST_SECONDS, MOST_BYTES = 2.0, 500 * 10**6
#: Mutated files that share a child process.
AT_ONCE = 25
_STATM = Path("/proc/self/statm")
#: Where the kernel ends a child.
HARD_SECONDS, HARD_BYTES = 20, 4 << 30
#: What reading a file never does, as Python's audit events name it. ``open`` is judged by its mode.
DEEDS = (
    "exec", "compile", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "shutil.rmtree", "ctypes.dlopen", "pickle.find_class",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes:
        group: of the file.
        name: of the file.
        result: "read", "refused", "traceback: …", "deed: …" or "killed by signal N".
        seconds: processor time.
        grown: bytes of memory more than before.
    """

    group: str
    name: str
    result: str
    seconds: float
    grown: int

    @property
    def violation(self) -> bool:
        """True for what must not happen."""
        return self.result not in ("read", "refused") or self.seconds > MOST_SECONDS or self.grown > MOST_BYTES


def judged(cases: List[Tuple[str, str, bytes]], path: Path) -> List[Outcome]:
    """Read some files, one after the other, in one child process; one at a time when that went wrong.

    Args:
        cases: (group, name, bytes).
        path: where the files are written.
    """
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        os.write(send, json.dumps(_read_in_child([data for _, _, data in cases], path)).encode())
        os._exit(0)
    os.close(send)
    with open(receive, "rb") as stream:
        told = stream.read()
    _, status, usage = os.wait4(child, 0)
    before, found = json.loads(told) if told else (0, [])
    grown = max(0, usage.ru_maxrss * 1024 - before)
    if len(cases) > 1 and (not told or grown > MOST_BYTES):
        return [outcome for case in cases for outcome in judged([case], path)]
    if not told:
        seconds = usage.ru_utime + usage.ru_stime
        return [Outcome(*cases[0][:2], f"killed by signal {os.WTERMSIG(status)}", seconds, grown)]
    return [Outcome(case[0], case[1], result, seconds, grown) for case, (result, seconds) in zip(cases, found)]


def _read_in_child(files: List[bytes], path: Path) -> Tuple[int, List[Tuple[str, float]]]:
    """Bytes of memory before, and (result, processor seconds) of each file."""
    resource.setrlimit(resource.RLIMIT_CPU, (HARD_SECONDS, HARD_SECONDS))
    used, resident = (int(pages) * resource.getpagesize() for pages in _STATM.read_text().split()[:2])
    resource.setrlimit(resource.RLIMIT_AS, (used + HARD_BYTES, used + HARD_BYTES))
    deeds: List[str] = []
    # Whether spandrel is installed is asked for a network that nothing else knows.
    known = {*sys.modules, "spandrel"}

    def audit(event: str, arguments: Tuple[Any, ...]) -> None:
        if event in DEEDS:
            deeds.append(f"{event} {str(arguments[0])[:40]!r}")
        elif event == "import" and arguments[0] not in known:
            deeds.append(f"import {arguments[0]}")
        elif event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            deeds.append(f"write {arguments[0]}")

    sys.addaudithook(audit)
    results = []
    for data in files:
        path.write_bytes(data)
        del deeds[:]
        start = time.process_time()
        result = _result_of(path)
        seconds = time.process_time() - start
        results.append((f"deed: {deeds[0]}" if deeds else result, seconds))
    return resident, results


def _result_of(path: Path) -> str:
    try:
        inspect_path(path)
    except BadInput as error:
        if not error.found or not error.wanted:
            return "traceback: no message"
        if not str(error).replace("\n", "").isprintable():
            return "traceback: control characters in the message"
        return "refused"
    except BaseException as error:
        return f"traceback: {type(error).__name__}: {str(error)[:80]}"
    return "read"


def good_files() -> Dict[str, bytes]:
    """A small network in each format."""
    network = BasicSREDSR(4, 2, 2, 1.0)
    weights = collections.OrderedDict((key, value.clone()) for key, value in network.state_dict().items())
    values = {
        "zip": ({"params": weights, "step": 3}, True), "legacy": ({"params": weights, "step": 3}, False),
        "module": (network, True), "legacy module": (network, False),
    }  # fmt: skip
    out = {"safetensors": save(dict(weights), {"format": "pt"})}
    for name, (value, modern) in values.items():
        stream = io.BytesIO()
        torch.save(value, stream, _use_new_zipfile_serialization=modern)
        out[name] = stream.getvalue()
    return out


def flip(rng: random.Random, raw: bytes, goods: Dict[str, bytes]) -> bytes:
    """Some bits or bytes are others."""
    changed = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(changed))
        changed[at] = rng.choice((changed[at] ^ 1 << rng.randrange(8), rng.randrange(256), 0, 255, ord("(")))
    return bytes(changed)


def pieces(rng: random.Random, raw: bytes, goods: Dict[str, bytes]) -> bytes:
    """A piece is cut out, doubled, moved to the front, blanked, or taken from another file."""
    a, b = sorted(rng.randrange(len(raw) + 1) for _ in range(2))
    if rng.random() < 0.7:
        b = min(b, a + rng.randrange(1, 200))
    other = goods[rng.choice(sorted(goods))]
    c = rng.randrange(len(other))
    choices = (
        raw[:a] + raw[b:], raw[:b] + raw[a:b] + raw[b:], raw[a:b] + raw[:a] + raw[b:], raw[:a], raw[a:],
        raw[:a] + bytes(b - a) + raw[b:], raw[:a] + other[c : c + b - a] + raw[b:], raw + other, other + raw,
        raw[:a] + raw[a:b] * rng.choice((3, 50)) + raw[b:],
    )  # fmt: skip
    return rng.choice(choices)


def lengths(rng: random.Random, raw: bytes, goods: Dict[str, bytes]) -> bytes:
    """Four or eight bytes become a number that is a length somewhere."""
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**40, len(raw), rng.randrange(1 << 16))) % 256**size
    at = rng.randrange(max(1, len(raw) - size))
    return raw[:at] + value.to_bytes(size, rng.choice(("little", "big"))) + raw[at + size :]


def inside(rng: random.Random, raw: bytes, goods: Dict[str, bytes]) -> bytes:
    """A mutation behind right checksums: of the pickle in a zip, or of the JSON header of safetensors."""
    change = rng.choice((flip, pieces, lengths))
    if raw.startswith(b"PK"):
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(raw)) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
            for name in source.namelist():
                data = source.read(name)
                target.writestr(name, change(rng, data, {"a": data}) if name.endswith("data.pkl") else data)
        return out.getvalue()
    if raw[8:9] == b"{":
        (length,) = struct.unpack("<Q", raw[:8])
        header = change(rng, raw[8 : 8 + length], {"a": raw[8 : 8 + length]})
        return struct.pack("<Q", len(header)) + header + raw[8 + length :]
    return change(rng, raw, goods)


MUTATIONS: Tuple[Callable[[random.Random, bytes, Dict[str, bytes]], bytes], ...] = (flip, pieces, lengths, inside)


def mutated_cases(times: int, seed: int) -> Iterator[Tuple[str, str, bytes]]:
    """(group, number and seed, the file's bytes) of ``times`` mutated files."""
    torch.manual_seed(0)
    goods = good_files()
    kinds = [(kind, mutation) for kind in sorted(goods) for mutation in MUTATIONS]
    for number in range(times):
        kind, mutation = kinds[number % len(kinds)]
        data = mutation(random.Random(f"{seed} {number}"), goods[kind], goods)
        yield f"{kind}, {mutation.__name__}", f"{number} of seed {seed}", data


def _import_all(path: Path) -> None:
    """Let the readers import before the children what they import late.

    A network that nothing here knows goes to spandrel, whose import needs two operators that CPU builds of torch lack.
    """
    for encoding in ("cp437", "raw_unicode_escape", "latin-1", "ascii"):
        codecs.lookup(encoding)
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in (
        ("nms", "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
        ("qnms", "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
    ):
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    _import_all.library = library  # it is gone with its last reference
    for data in (*good_files().values(), save({"w": torch.ones(1)})):
        path.write_bytes(data)
        inspect_path(path)


def attack(cases: Iterator[Tuple[str, str, bytes]], at_once: int, keep: Optional[Path] = None) -> List[Outcome]:
    """Judge every case.

    Args:
        cases: (group, name, bytes).
        at_once: how many share a child process; the memory that is then told of each is at most what all of them took.
        keep: a folder for the files that did what must not happen.
    """
    outcomes: List[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="srdeploy-attack-") as folder:
        path = Path(folder) / "net.pth"
        _import_all(path)
        # Garbage of this process, collected by a child while it reads, would hide as much of what a file takes.
        gc.collect()
        gc.freeze()
        while True:
            some = list(itertools.islice(cases, at_once))
            if not some:
                break
            judgements = judged(some, path)
            for outcome, (_, _, data) in zip(judgements, some):
                if outcome.violation and keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{len(outcomes)}.pth").write_bytes(data)
                    print(outcome, file=sys.stderr, flush=True)
                outcomes.append(outcome)
    gc.unfreeze()
    return outcomes


def sampled_cases() -> Iterator[Tuple[str, str, bytes]]:
    """("built", name, the file's bytes) of up to four files of every family."""
    for family in FAMILIES:
        for case in itertools.islice(family(), 2, 34, 8):
            yield ("built", *case)


def main() -> int:
    """Run both kinds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20_000, help="mutated files; 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--built", action=argparse.BooleanOptionalAction, default=True, help="the built ones too")
    parser.add_argument("--sample", action="store_true", help="some of every family of the built ones")
    parser.add_argument("--keep", type=Path, help="where files that must not happen are kept")
    parser.add_argument("--outcomes", type=Path, help="a JSON file of what became of each file")
    asked = parser.parse_args()
    outcomes = attack(mutated_cases(asked.times, asked.seed), AT_ONCE, asked.keep)
    outcomes += attack(sampled_cases() if asked.sample else built_cases(), 1, asked.keep) if asked.built else []
    if asked.outcomes is not None:
        asked.outcomes.write_text(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes]))
    groups = list(dict.fromkeys(outcome.group for outcome in outcomes))
    print("| group | files | read | refused | anything else | most seconds | most MB |")
    print("|---|---|---|---|---|---|---|")
    for group in groups:
        own = [outcome for outcome in outcomes if outcome.group == group]
        found = Counter(outcome.result for outcome in own)
        other = len(own) - found["read"] - found["refused"]
        worst = f"{max(o.seconds for o in own):.2f} | {max(o.grown for o in own) / 1e6:.0f}"
        print(f"| {group} | {len(own)} | {found['read']} | {found['refused']} | {other} | {worst} |")
    violations = [outcome for outcome in outcomes if outcome.violation]
    print(f"{len(outcomes)} files, {len(violations)} violations")
    for outcome in violations[:50]:
        print(outcome, file=sys.stderr)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
