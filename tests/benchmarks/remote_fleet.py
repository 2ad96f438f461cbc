"""Several boards at once: one sshd in each of N network namespaces, one command, one cable pulled in the middle.

Needs root, iproute2 and OpenSSH's server. Everything is removed at the end.

    python tests/benchmarks/remote_fleet.py DEPLOYMENT [--boards 3] [--outage 35]

It prints the table of ``srdeploy remote all bench …`` and fails if a board's results did not come home, if the boards
did not work at the same time, or if the pulled cable did not drop the connection (an outage of more than 30 s does).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sr_deploy.pipeline.ship.remote import RemoteOptions, run_remote  # noqa: E402
from sr_deploy.remote.inventory import boards_of  # noqa: E402
from sr_deploy.remote.table import states_table  # noqa: E402
from tests.remote import loopback  # noqa: E402


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextlib.contextmanager
def namespace(index: int):
    """A network namespace with one address, joined to this one by a cable: (its name, its address, our end's name)."""
    name, ours, theirs = f"srdeploy{index}", f"srd{index}a", f"srd{index}b"
    ip("netns", "add", name)
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        ip("addr", "add", f"10.213.{index}.1/24", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", name, "addr", "add", f"10.213.{index}.2/24", "dev", theirs)
        for device in (theirs, "lo"):
            ip("-n", name, "link", "set", device, "up")
        yield name, f"10.213.{index}.2", ours
    finally:
        ip("netns", "del", name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("deployment", type=Path)
    parser.add_argument("--boards", type=int, default=3)
    parser.add_argument(
        "--outage", type=float, default=35.0, help="seconds that the last board's cable is out; 0: none"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="for each of the two sizes")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["HOME"] = str(folder)
        os.environ.pop("SSH_AUTH_SOCK", None)
        (folder / ".ssh").mkdir()
        key = loopback.make_key(folder / ".ssh" / "id_ed25519")
        program = loopback.command_file(folder / "bin" / "srdeploy")
        lines, cables = [], []
        for index in range(1, options.boards + 1):
            name, address, cable = stack.enter_context(namespace(index))
            server = stack.enter_context(
                loopback.sshd(folder / name, key.with_suffix(".pub"), address, 22, ["ip", "netns", "exec", name])
            )
            with open(folder / ".ssh" / "known_hosts", "a") as known:
                known.write(server.known_hosts_line)
            lines.append(f'[boards.board{index}]\nhost = "{address}"\nsrdeploy = "{program}"\n')
            lines.append(f'python = "{sys.executable}"\nworkdir = "{folder}/work{index}"\n')
            cables.append(cable)
        (folder / "boards.toml").write_text("".join(lines))

        def pull() -> None:
            ip("link", "set", cables[-1], "down")
            time.sleep(options.outage)
            # Addresses of IPv4 stay while the link is down.
            ip("link", "set", cables[-1], "up")

        puller = threading.Thread(target=pull)
        running = set()

        def say(text: str) -> None:
            print(text, flush=True)
            if "started" in text:
                running.add(text.split("]")[0])
                if len(running) == options.boards and options.outage:
                    puller.start()

        arguments = ("--size", "24,32", "--seconds", str(options.seconds), "--ci", "0", "--backend", "onnxruntime")
        request = RemoteOptions(
            boards_of(["all"], folder / "boards.toml"), folder / "out", options.deployment, "bench", arguments
        )
        begun = time.monotonic()
        outcomes = run_remote(request, say)
        wall = time.monotonic() - begun
        if options.outage:
            puller.join()
        from rich.console import Console

        Console().print(states_table([outcome.to_dict() for outcome in outcomes]))
        jobs = [outcome.progress.seconds or 0.0 for outcome in outcomes]
        points = [
            len(json.loads(path.read_text())["points"]) for path in sorted((folder / "out").glob("*/results/*.json"))
        ]
        print(f"{wall:.1f} s for jobs of {', '.join(f'{seconds:.1f} s' for seconds in jobs)}; results: {points}")
        good = all(outcome.error is None for outcome in outcomes) and points == [2] * options.boards
        good = good and (options.outage > 0 or wall < sum(jobs) + 10)
        good = good and (options.outage <= 30 or outcomes[-1].progress.drops >= 1)
        print("good" if good else "FAILED")
        return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
