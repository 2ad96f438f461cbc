"""Memory and time of one large picture through ``srdeploy run``, and whether its pixels are those of strips run whole.

    python tests/benchmarks/large_picture.py [--size 6000x8000] [--nets demo_x2.safetensors,span_ch28_x4.pth]

The picture is the demo's photograph, mirrored until it is large enough, with a slow change of brightness so that no two
places are alike. Memory is the operating system's count of the whole process (``ru_maxrss``: resident, at its peak).
The PNG that was written is decoded row by row; some of its rows are compared with strips of the picture that are run
whole, with as many rows beside them as the network looks. Exit code 1 where a pixel differs or there is more memory
than ``--most``.
"""

from __future__ import annotations

import argparse
import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from sr_deploy.core.contract import parse_size  # noqa: E402
from sr_deploy.core.deployment.manifest import open_deployment  # noqa: E402
from sr_deploy.core.media.image import Picture, from_network, to_network  # noqa: E402
from sr_deploy.pipeline.export import ExportOptions, export_deployment  # noqa: E402
from sr_deploy.run.base import upscale  # noqa: E402
from sr_deploy.run.onnxruntime import runner_from_graph  # noqa: E402

DEMO = ROOT / "sr_deploy" / "demo"
WEIGHTS = Path(os.environ.get("SRDEPLOY_ASSETS", ROOT.parent / "shared")) / "weights"
#: Rows of the input in a strip that is compared, and columns of one part of it.
ROWS, COLUMNS = 6, 2000


def large_picture(size):
    """uint8 (H, W, 3), BGR as OpenCV writes it."""
    small = cv2.imread(str(DEMO / "demo.png"))
    times = [-(-side // (2 * have)) for side, have in zip(size, small.shape)]
    block = np.concatenate([small, small[:, ::-1]], axis=1)
    block = np.concatenate([block, block[::-1]], axis=0)
    picture = np.tile(block, (*times, 1))[: size[0], : size[1]]
    light = 0.75 + 0.25 * np.sin(np.arange(size[0]) / 311.0)[:, None] * np.cos(np.arange(size[1]) / 407.0)[None, :]
    return np.concatenate(
        [np.rint(picture[a : a + 500] * light[a : a + 500, :, None]).astype(np.uint8) for a in range(0, size[0], 500)]
    )


def png_rows(path, wanted):
    """Yield (row number, uint8 (W, 3) RGB) of some rows of a PNG of filter type 1, without holding the rest."""
    inflate, have, number = zlib.decompressobj(), bytearray(), 0
    with open(path, "rb") as stream:
        stream.seek(8)
        width = None
        while number <= max(wanted):
            length, name = struct.unpack(">I4s", stream.read(8))
            body = stream.read(length)
            stream.read(4)
            if name == b"IHDR":
                width = struct.unpack_from(">I", body)[0]
            if name != b"IDAT":
                continue
            for start in range(0, len(body), 1 << 16):
                have += inflate.decompress(body[start : start + (1 << 16)])
                step = 1 + 3 * width
                while len(have) >= step:
                    if number in wanted:
                        assert have[0] == 1
                        line = np.frombuffer(bytes(have[1:step]), np.uint8).reshape(width, 3)
                        yield number, np.cumsum(line, axis=0, dtype=np.uint8)
                    del have[:step]
                    number += 1


def compared(deployment, picture, target, strips, rng):
    """The largest difference of some strips, in 8-bit steps, and how many pixels were compared."""
    manifest = deployment.manifest
    scale, halo, (height, width) = manifest.scale, manifest.reach.halo, picture.shape[:2]
    runner = runner_from_graph(deployment.path_of(manifest.graphs[0]), manifest.contract, scale)
    worst = count = 0
    places = sorted({0, height - ROWS, *(int(row) for row in rng.integers(halo, height - halo - ROWS, strips))})
    made = {}
    for first in places:
        top, bottom = max(first - halo, 0), min(first + ROWS + halo, height)
        for left in range(0, width, COLUMNS):
            begin, end = max(left - halo, 0), min(left + COLUMNS + halo, width)
            part = Picture(np.ascontiguousarray(picture[top:bottom, begin:end, ::-1]))
            sr = from_network(upscale(runner, to_network(part, manifest.contract)), manifest.contract, part).pixels
            inside = sr[(first - top) * scale : (first - top + ROWS) * scale]
            inside = inside[:, (left - begin) * scale : (min(left + COLUMNS, width) - begin) * scale]
            for index, line in enumerate(inside):
                made.setdefault(first * scale + index, []).append(line)
    for number, line in png_rows(target, set(made)):
        expected = np.concatenate(made[number])
        worst = max(worst, int(np.abs(line.astype(int) - expected).max()))
        count += line.shape[0]
    return worst, count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="6000x8000", help="HxW")
    parser.add_argument("--nets", default="demo_x2.safetensors,span_ch28_x4.pth")
    parser.add_argument("--strips", type=int, default=4)
    parser.add_argument("--most", type=float, default=2.5, help="GB that are allowed")
    parser.add_argument("--memory", default=None, help="as srdeploy run takes it")
    options = parser.parse_args()
    size, failed = parse_size(options.size), False
    print(f"{'network':<24}{'peak GB':>8}{'seconds':>9}{'PNG MB':>8}{'pixels compared':>17}{'largest difference':>20}")
    with tempfile.TemporaryDirectory() as folder:
        picture = large_picture(size)
        source = Path(folder) / "large.png"
        cv2.imwrite(str(source), picture)
        for name in options.nets.split(","):
            net = Path(folder) / name.split(".")[0]
            checkpoint = DEMO / name if (DEMO / name).is_file() else WEIGHTS / name
            export_deployment(ExportOptions(checkpoint, net))
            target = net / "large.png"
            words = ["run", str(net), "-i", str(source), "-o", str(target)]
            words += ["--memory", options.memory] if options.memory else []
            began = time.monotonic()
            peak = _run_and_count([sys.executable, "-m", "sr_deploy.cli", *words])
            seconds = time.monotonic() - began
            worst, count = compared(open_deployment(net), picture, target, options.strips, np.random.default_rng(0))
            size_mb = target.stat().st_size / 1e6
            target.unlink()
            print(f"{net.name:<24}{peak / 1e9:>8.2f}{seconds:>9.0f}{size_mb:>8.0f}{count:>17,}{worst:>20}", flush=True)
            failed |= worst > 0 or peak > options.most * 1e9
    sys.exit(int(failed))


def _run_and_count(command):
    """Run a command; the bytes that were resident at its peak."""
    # A process of its own counts its one child: ru_maxrss of children is the largest of all that have ended.
    code = (
        "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, cwd=ROOT)
    sys.stderr.write(done.stderr)
    if done.returncode:
        sys.exit(done.returncode)
    return 1024 * int(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
