"""First minutes on a GPU: one command, one table, each line an unknown that is settled or still open.

    python tests/hardware/first_contact.py                        prepares (minutes, on the CPU) and asks everything
    python tests/hardware/first_contact.py --prepare FOLDER       only prepares: for a machine without PyTorch and ONNX
    python tests/hardware/first_contact.py --material FOLDER      asks, with what was prepared elsewhere

The package is taken from this clone; numpy is all that must be installed. Each part runs in a process and within a time
of its own, all of them within 8 minutes, so that a crash or a hang is one open line. The card's settings are never
changed. On a machine with a GPU the result is written to engines/first_contact_<GPU>.json, the layers of all engines
beside it; elsewhere only where --json says. Checkpoints are found through SRDEPLOY_ASSETS (default ../shared); without
them the network that ships is taken.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sr_deploy.core.host.device import environment  # noqa: E402
from sr_deploy.core.host.machine import this_machine  # noqa: E402
from tests.hardware import material, on_cuda, on_engines, on_onnxruntime  # noqa: E402
from tests.hardware.rows import Row, Rows, read_rows  # noqa: E402

TOTAL_SECONDS = 8 * 60
#: What is left when no further part is begun.
LEAST_SECONDS = 5
#: Part → the most seconds it may take; "engines NAME" stands for each network. In the order of what is worth knowing.
LIMITS = {
    "doctor": 30, "identity": 40, "bindings": 60, "rtx": 60, "onnxruntime": 90, "special": 150, "engines": 150,
}  # fmt: skip


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Prepare, ask, print, write."""
    asked = options(arguments)
    if asked.part:
        run_part(asked.part, asked.material, asked.work, Rows(asked.rows))
        return 0
    if asked.prepare:
        prepare(asked.prepare, asked.quick)
        return 0
    with tempfile.TemporaryDirectory(prefix="first-contact-") as temporary:
        work = Path(temporary)
        ready = asked.material or work / "material"
        if not ready.exists():
            prepare(ready, asked.quick)
        found = ask(ready, work, asked.seconds)
        layers = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((work / "layers").glob("*.json"))}
    print("\n".join(row.line() for row in found))
    print(f"{sum(row.settled for row in found)} settled, {sum(not row.settled for row in found)} open")
    target = asked.json or result_file()
    if target is not None:
        write(target, found, layers)
    return 0


def options(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, help="make the material in this folder and stop")
    parser.add_argument("--material", type=Path, help="material that was prepared")
    parser.add_argument("--quick", action="store_true", help="prepare the network that ships, small, without int8")
    parser.add_argument("--json", type=Path, help="write the result here, with or without a GPU")
    parser.add_argument("--seconds", type=float, default=TOTAL_SECONDS, help="for all parts together")
    for own in ("--part", "--work", "--rows"):
        parser.add_argument(own, type=str if own == "--part" else Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def prepare(folder: Path, quick: bool) -> None:
    """Make the material, small or whole."""
    if quick:
        material.prepare(folder, [("demo", material.DEMO)], ("fp16",), ((24, 32),))
    else:
        images = material.ASSETS / "images/calibration/DIV2K_test_LRx4"
        precisions = ("fp16", "int8") if images.is_dir() else ("fp16",)
        material.prepare(folder, material.checkpoints(), precisions, images=images)


def parts(ready: Path) -> List[Tuple[str, float]]:
    """(part, its limit in seconds), in order."""
    networks = json.loads((ready / "material.json").read_text("utf-8"))["networks"]
    found: List[Tuple[str, float]] = []
    for name, limit in LIMITS.items():
        found += [(f"{name} {network}", limit) for network in networks] if name == "engines" else [(name, limit)]
    return found


def ask(ready: Path, work: Path, seconds: float) -> List[Row]:
    """Every part in a process of its own."""
    end, found = time.monotonic() + seconds, []
    for part, limit in parts(ready):
        left = end - time.monotonic()
        if left < LEAST_SECONDS:
            found.append(Row(part, False, "open: no time is left", {}, 0.0))
            continue
        rows = work / f"{part.replace(' ', '-')}.rows"
        command = [sys.executable, __file__, "--part", part, "--material", str(ready), "--work", str(work)]
        why = run(command + ["--rows", str(rows)], min(limit, left))
        found += read_rows(rows)
        if why:
            found.append(Row(f"the rest of {part}", False, f"open: {why}", {}, 0.0))
    return found


def run(command: Sequence[str], seconds: float) -> str:
    """Run one part; why it did not end well, or ""."""
    try:
        done = subprocess.run(command, timeout=seconds, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return f"it took more than {seconds:.0f} s"
    if done.returncode == 0:
        return ""
    last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no word"]
    return f"it ended with {done.returncode}: {last[0][:200]}"


def run_part(part: str, ready: Path, work: Path, rows: Rows) -> None:
    """One part, in its own process."""
    name, _, network = part.partition(" ")
    if name in ("doctor", "identity", "bindings"):
        getattr(on_cuda, name)(rows)
    elif name == "rtx":
        on_engines.rtx(rows, ready)
    elif name == "onnxruntime":
        on_onnxruntime.onnxruntime(rows, ready)
    elif name == "special":
        first = json.loads((ready / "material.json").read_text("utf-8"))["networks"][0]
        on_engines.special(rows, ready, work, first)
    else:
        on_engines.engines(rows, ready, work, network)


def result_file() -> Optional[Path]:
    """Under engines/, by the GPU's name; None without one."""
    gpus = this_machine().gpus
    if not gpus:
        return None
    return ROOT / "engines" / f"first_contact_{re.sub(r'[^a-z0-9]+', '_', gpus[0].name.lower()).strip('_')}.json"


def write(target: Path, found: Sequence[Row], layers: Dict[str, dict]) -> None:
    """The rows with the machine they are of, and the layers of the engines beside them."""
    result = {"schema": 1, "environment": environment(), "rows": [asdict(row) for row in found]}
    target.write_text(json.dumps(result, indent=1, default=str) + "\n", encoding="utf-8")
    if layers:
        target.with_name(target.stem + "_layers.json").write_text(json.dumps(layers) + "\n", encoding="utf-8")
    print(f"written: {target.name}")


if __name__ == "__main__":
    sys.exit(main())
