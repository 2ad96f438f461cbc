"""The board's commands in a fresh environment of each Python, on a deployment that this Python made.

    python tests/benchmarks/pythons.py                          # every interpreter that pyenv or PATH has
    python tests/benchmarks/pythons.py --python python3.8 --python python3.13

For each interpreter: a new virtual environment, the built wheel with its ``jetson`` extra (less PyCUDA, which a board
compiles against its CUDA) and ONNX Runtime, then doctor, unpack (where the deployment is a bundle), build, run, bench,
verify, gate and inspect. No torch and no onnx is there, which is checked. Exit code 1 when any step fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
SIZE = "24x32"
ABSENT = "import importlib.util as u; assert not any(map(u.find_spec, ('torch', 'onnx')))"


def interpreters() -> Dict[str, str]:
    """Version → interpreter, of pyenv first, then of PATH."""
    found: Dict[str, str] = {}
    for root in (os.environ.get("PYENV_ROOT"), Path.home() / ".pyenv"):
        for path in sorted(Path(root or "/nonexistent").glob("versions/3.*/bin/python")):
            version = ".".join(path.parts[-3].split(".")[:2])
            if version in VERSIONS:
                found.setdefault(version, str(path))
    for version in VERSIONS:
        path = shutil.which(f"python{version}")
        if path and ".pyenv/shims" not in path:
            found.setdefault(version, path)
    return found


def built_wheel(folder: Path) -> Path:
    """The wheel of this tree, built from a copy so that nothing is left in the tree."""
    source = folder / "source"
    source.mkdir()
    shutil.copytree(ROOT / "sr_deploy", source / "sr_deploy", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder / "wheel"), str(source)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return next((folder / "wheel").glob("srdeploy-*.whl"))


def requirements(wheel: Path) -> List[str]:
    """What to install for a board without a GPU: the wheel with onnxruntime, and the jetson extra less PyCUDA."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    extra = re.findall(r"^Requires-Dist: (.*?)\s*;\s*(.*extra == ['\"]jetson['\"].*)$", metadata, re.MULTILINE)
    kept = []
    for requirement, marker in extra:
        if not requirement.startswith("pycuda"):
            rest = re.sub(r"\(?extra == ['\"]jetson['\"]\)?|\band\b", "", marker).strip(" ()")
            kept.append(f"{requirement}; {rest}" if rest else requirement)
    assert len(kept) < len(extra), "the extra jetson has no pycuda: is it still what a board installs?"
    return [f"{wheel}[onnxruntime]", *kept]


def material(folder: Path) -> Tuple[Path, Path, Path]:
    """A bundle of the demo's network, a folder of inputs and one of their originals."""
    import cv2
    import numpy as np

    deployment = folder / "deployment"
    network = ROOT / "sr_deploy/demo/demo_x2.safetensors"
    command = [sys.executable, "-m", "sr_deploy.cli"]
    subprocess.run([*command, "export", str(network), "-o", str(deployment)], check=True, capture_output=True)
    for name in ("lr", "hr"):
        (folder / name).mkdir()
    lr = np.random.default_rng(0).integers(60, 190, (24, 32, 3)).astype(np.uint8)
    cv2.imwrite(str(folder / "lr/noise.png"), lr)
    cv2.imwrite(str(folder / "hr/noise.png"), lr.repeat(2, axis=0).repeat(2, axis=1))
    packed = folder / "net.srd"
    pack = ["pack", str(deployment), "-o", str(packed), "--backend", "onnxruntime", "--size", SIZE]
    subprocess.run([*command, *pack], check=True, capture_output=True)
    return packed, folder / "lr", folder / "hr"


def steps(given: Path, lr: Path, hr: Path, folder: Path) -> List[Tuple[str, List[str]]]:
    """The commands, in order; ``folder`` is this interpreter's own."""
    own, quick = str(folder / "net"), ["--seconds", "0.1", "--ci", "0", "--threads", "1"]
    result = str(folder / "result.json")
    found = [("doctor", ["doctor", "--json"])]
    if given.suffix == ".srd":
        found.append(("unpack", ["unpack", str(given), "-o", own]))
    else:
        shutil.copytree(given, own)
    build = ["build", own, "--backend", "onnxruntime", "--size", SIZE]
    picture = str(next(lr.iterdir()))
    return [
        *found,
        ("build", build),
        ("run", ["run", own, "--backend", "onnxruntime", "-i", picture, "-o", str(folder / "up")]),
        ("bench", ["bench", own, "--backend", "onnxruntime", "--size", SIZE, "--out", result, *quick]),
        ("verify", ["verify", own, "--lr", str(lr), "--hr", str(hr), "--backend", "onnxruntime", "--no-torch"]),
        ("gate", ["gate", own, own, "--interleave", "--size", SIZE, "--backend", "onnxruntime", "--threshold", "50"]),
        ("inspect", ["inspect", own, "--json"]),
    ]


def run_python(python: str, wanted: Sequence[str], given: Path, lr: Path, hr: Path, folder: Path) -> List[Tuple]:
    """(step, seconds, problem) for one interpreter; stops at the first problem."""
    folder.mkdir()
    bin_folder = folder / "venv" / "bin"
    fresh = [
        ("venv", [python, "-m", "venv", str(folder / "venv")]),
        ("install", [str(bin_folder / "python"), "-m", "pip", "install", "-q", "--prefer-binary", *wanted]),
        ("no torch, no onnx", [str(bin_folder / "python"), "-c", ABSENT]),
    ]
    # The tree must not be importable by chance: the commands run in the interpreter's own folder.
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["OMP_NUM_THREADS"] = "1"
    rows = []
    commands = [(name, [str(bin_folder / "srdeploy"), *more]) for name, more in steps(given, lr, hr, folder)]
    for name, command in fresh + commands:
        started = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        problem = "" if done.returncode == 0 else f"exit {done.returncode}: {(done.stderr or done.stdout)[-1500:]}"
        if "Traceback" in done.stderr or "Warning: " in done.stderr:
            problem = problem or done.stderr[-1500:]
        rows.append((name, time.perf_counter() - started, problem))
        if problem:
            break
    return rows


def main() -> int:
    """Run every interpreter, print a table, say which step failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", help="an interpreter; repeat. Default: all that are found")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    given = parser.parse_args()
    chosen = given.python or list(interpreters().values())
    failed, table = 0, {}
    with tempfile.TemporaryDirectory(prefix="srdeploy-pythons-") as scratch:
        folder = Path(scratch)
        wanted, (deployment, lr, hr) = requirements(built_wheel(folder)), material(folder)
        print(f"made with Python {sys.version.split()[0]}: {deployment.name}; installed: {', '.join(wanted[1:])}")
        for index, python in enumerate(chosen):
            version = subprocess.check_output([python, "-c", "import platform; print(platform.python_version())"])
            rows = run_python(python, wanted, deployment, lr, hr, folder / str(index))
            problems = [(name, problem) for name, _, problem in rows if problem]
            failed += bool(problems)
            table[version.decode().strip()] = [(name, round(seconds, 1), problem) for name, seconds, problem in rows]
            shown = "  ".join(f"{name} {'FAIL' if problem else f'{seconds:.1f} s'}" for name, seconds, problem in rows)
            print(f"{version.decode().strip():8} {'FAIL' if problems else 'pass'}  {shown}", flush=True)
            for name, problem in problems:
                print(f"    {name}: {problem}")
            shutil.rmtree(folder / str(index))
    if given.json:
        given.json.write_text(json.dumps(table, indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
