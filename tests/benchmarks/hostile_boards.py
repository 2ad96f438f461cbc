"""Hostile boards: what a lying board can do to this machine; 1,000 in this process and 50 through a real sshd.

    python tests/benchmarks/hostile_boards.py DEPLOYMENT [--count 1000] [--sshd 50] [--first 0]

Every board is an attack of tests/remote/attacks.py, chosen by its number. It fails where a command ends in a
traceback, writes or removes anything outside ``-o`` or what was there before, shows a control character or a command
of a CI log, takes more than 150 MiB, or does not leave within 2 s of Ctrl-C, which comes after 4 s
(15 s through sshd, where every answer starts a Python).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Dict, List, Tuple
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import sr_deploy.remote.connect as connect  # noqa: E402
from tests.remote import loopback  # noqa: E402
from tests.remote.attacks import Attack  # noqa: E402
from tests.remote.hostile import Hostile  # noqa: E402
from tests.remote.ordeal import Verdict, prepare, suffer  # noqa: E402


def words_of(attack: Attack, target: str, net: Path, picture: Path, base: Path) -> List[str]:
    """The command line for one attack."""
    more = {
        "build": [str(net), "--backend", "onnxruntime"],
        "run": [str(net), "--backend", "onnxruntime", "-i", str(picture)],
        "attach": list(attack.wanted),
        "stop": [],
    }[attack.command]
    return ["remote", "-o", str(base / "out"), "--patience", "1", target, attack.command, *more]


def in_process(attack: Attack, net: Path, picture: Path, base: Path) -> Verdict:
    """One attack of a board in this process."""
    prepare(base, "hostile")
    hostile = Hostile(attack)
    try:
        with mock.patch.object(connect, "_open", hostile.open):
            return suffer(words_of(attack, "hostile", net, picture, base), base, "hostile")
    finally:
        hostile.close()


def through_sshd(attack: Attack, net: Path, picture: Path, base: Path, server: loopback.Server, key: Path) -> Verdict:
    """One attack whose lies come through OpenSSH's server: the board's Python is a program that lies."""
    board = base / "board"
    (board / "uid-0" / "jobs").mkdir(parents=True)
    (board / "uid-0" / "store").mkdir()
    liar = loopback.liar(board / "python", attack.number, board / "uid-0")
    name = f"127.0.0.1_{server.port}"
    prepare(base, name)
    inventory = base / "boards.toml"
    inventory.write_text(
        f'[boards."{name}"]\nhost = "127.0.0.1"\nport = {server.port}\npython = "{liar}"\nkey = "{key}"\n'
    )
    words = words_of(attack, name, net, picture, base)
    kept = {path: path.stat().st_mtime_ns for path in (inventory, liar)}
    verdict = suffer([*words[:1], "--inventory", str(inventory), *words[1:]], base, name, patience=15.0)
    verdict.problems = [
        p for p in verdict.problems if not p.startswith((f"written: {board}", f"changed or removed: {board}"))
    ]
    verdict.problems += [f"changed: {path}" for path, was in kept.items() if path.stat().st_mtime_ns != was]
    return verdict


def all_of(title: str, numbers: range, one: Callable[[Attack, Path], Verdict]) -> int:
    """Run attacks and print one row for each thing that lies; how many verdicts were bad."""
    rows: Dict[str, List[Tuple[Attack, Verdict]]] = collections.defaultdict(list)
    bad, begun = 0, time.monotonic()
    for number in numbers:
        attack = Attack(number)
        with tempfile.TemporaryDirectory(prefix="hostile-") as base:
            verdict = one(attack, Path(base))
        rows[attack.target].append((attack, verdict))
        if verdict.problems:
            bad += 1
            print(
                f"{number} ({attack.target}, {attack.way}, {attack.command}): {'; '.join(verdict.problems)}", flush=True
            )
    print(f"\n{title}: {len(numbers)} attacks, {bad} bad, {time.monotonic() - begun:.0f} s")
    heading = "what lies     attacks  exit 0/1/2/3/4/5/Ctrl-C      longest s  most MiB"
    print(heading + "\n" + "-" * len(heading))
    for target, found in sorted(rows.items()):
        codes = collections.Counter(verdict.code for _, verdict in found)
        shown = "/".join(str(codes[code]) for code in (0, 1, 2, 3, 4, 5, 130))
        longest, most = max(v.seconds for _, v in found), max(v.memory for _, v in found)
        print(f"{target:13} {len(found):7}  {shown:27} {longest:10.2f} {most / 2**20:9.1f}")
    peak = max(verdict.peak for found in rows.values() for _, verdict in found)
    print(f"peak memory of the process, hostile boards and libraries included: {peak >> 20} MiB")
    return bad


def main() -> int:
    """Run both and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("deployment", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--sshd", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        home = Path(folder)
        os.environ["HOME"] = folder
        os.environ.pop("SSH_AUTH_SOCK", None)
        picture = home / "a.png"
        shutil.copy(Path(__file__).resolve().parents[2] / "sr_deploy" / "demo" / "demo.png", picture)
        net = options.deployment.resolve()
        numbers = range(options.first, options.first + options.count)
        bad = all_of("In this process", numbers, lambda attack, base: in_process(attack, net, picture, base))
        if options.sshd:
            (home / ".ssh").mkdir()
            key = loopback.make_key(home / ".ssh" / "id_ed25519")
            server = stack.enter_context(loopback.sshd(home / "server", key.with_suffix(".pub")))
            (home / ".ssh" / "known_hosts").write_text(server.known_hosts_line)
            bad += all_of(
                "Through sshd",
                range(options.first, options.first + options.sshd),
                lambda attack, base: through_sshd(attack, net, picture, base, server, key),
            )
    print("good" if not bad else "FAILED")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
