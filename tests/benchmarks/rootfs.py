"""The install steps of a board's image in a fresh Debian root file system, arm64 under QEMU where that is installed.

    python tests/benchmarks/rootfs.py --arch arm64      # as root; Debian's debootstrap and qemu-user-static

What the steps prove: Debian 11's Python 3.9 and pip install the wheel and ONNX Runtime's own wheel for the
architecture, without a compiler, and doctor, unpack, build and bench of the demo's network pass. What they do not:
CUDA, TensorRT and PyCUDA, which only NVIDIA's images hold. Times under QEMU say nothing of a board.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.pythons import SIZE, built_wheel, material  # noqa: E402

#: Debian's architecture → what the kernel must know to run it here: QEMU's entry in binfmt_misc.
QEMU = {"arm64": "qemu-aarch64"}
BINFMT = Path("/proc/sys/fs/binfmt_misc")
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"


def enable_qemu(arch: str) -> None:
    """Register QEMU for foreign programs where the host is of another architecture and it is not registered yet."""
    name = QEMU.get(arch)
    if name is None or os.uname().machine in ("aarch64", arch):
        return
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "none", str(BINFMT)], check=True)
    if not (BINFMT / name).exists():
        lines = Path(f"/usr/lib/binfmt.d/{name}.conf").read_text().splitlines()
        (BINFMT / "register").write_text(next(line for line in lines if line.startswith(":")))


def main() -> int:
    """Make the root file system, install, run; the time of each step is printed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="arm64", help="Debian's name: arm64 or amd64")
    parser.add_argument("--suite", default="bullseye")
    parser.add_argument("--root", type=Path, help="keep the root file system here, and take it up again")
    given = parser.parse_args()
    if not shutil.which("debootstrap"):
        sys.exit("debootstrap is not installed: apt-get install debootstrap qemu-user-static")
    enable_qemu(given.arch)
    with tempfile.TemporaryDirectory(prefix="srdeploy-rootfs-") as scratch:
        folder = Path(scratch)
        root = given.root or folder / "root"
        if not (root / "usr/bin/python3").exists():
            make = ["debootstrap", f"--arch={given.arch}", "--variant=minbase", f"--include={PACKAGES}", given.suite]
            timed("debootstrap", [*make, str(root)])
        inside = root / "srdeploy"
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir()
        wheel = Path(shutil.copy(built_wheel(folder), inside))
        shutil.copy(material(folder)[0], inside / "net.srd")
        for name in ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt"):
            shutil.copy(name, str(root) + name)
        # ONNX Runtime reads the processor's list from /sys, and ends the process where it is not there.
        for kind, name in (("sysfs", "sys"), ("proc", "proc")):
            subprocess.run(["mount", "-t", kind, kind, str(root / name)], check=True)
        try:
            return steps(root, wheel.name)
        finally:
            for name in ("proc", "sys"):
                subprocess.run(["umount", str(root / name)], check=True)


def steps(root: Path, wheel: str) -> int:
    """The commands inside, in order; 1 when one fails."""
    program, net = "/srdeploy/venv/bin/srdeploy", "/srdeploy/net"
    commands = {
        "machine": "uname -m && python3 --version",
        "venv": "python3 -m venv /srdeploy/venv && /srdeploy/venv/bin/pip install -q --upgrade pip",
        "install": f"/srdeploy/venv/bin/pip install -q --prefer-binary '/srdeploy/{wheel}[onnxruntime]'",
        "doctor": f"{program} doctor",
        "unpack": f"{program} unpack /srdeploy/net.srd -o {net}",
        "build": f"{program} build {net} --backend onnxruntime --size {SIZE}",
        "bench": f"{program} bench {net} --backend onnxruntime --size {SIZE} --runs 3 --threads 1",
    }
    for name, command in commands.items():
        clean = ["env", "-u", "PYTHONPATH", "PATH=/usr/bin:/bin", "HOME=/root", "LANG=C.UTF-8", "OMP_NUM_THREADS=1"]
        try:
            timed(name, ["chroot", str(root), *clean, "sh", "-c", command])
        except subprocess.CalledProcessError as error:
            print(f"{name} failed with {error.returncode}")
            return 1
    return 0


def timed(name: str, command: list) -> None:
    """Run a command, show what it prints, and its time."""
    started = time.perf_counter()
    print(f"## {name}", flush=True)
    show = subprocess.DEVNULL if name == "debootstrap" else None
    subprocess.run(command, check=True, stdout=show)
    print(f"   {name}: {time.perf_counter() - started:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
