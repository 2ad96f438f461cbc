"""A folder at once and one step after the other: reading, computing and writing that overlap, and what that wins.

    python tests/benchmarks/folder_overlap.py [--pictures 50] [--sides 400,900] [--rounds 3] [--net demo_x2.safetensors]

Pictures of random sizes, cut from the demo's photograph, are upscaled in one process by the functions that ``srdeploy
run`` uses: once all three stages one after the other, picture by picture, once as the command does it. Both ways run in
turn, ``--rounds`` times, with the same runner. The share of decoding and encoding is of the way one after the other.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from sr_deploy.core.deployment.manifest import open_deployment  # noqa: E402
from sr_deploy.core.media.image import find_images, read_picture, write_picture  # noqa: E402
from sr_deploy.engine.index import EngineIndex  # noqa: E402
from sr_deploy.pipeline.export import ExportOptions, export_deployment  # noqa: E402
from sr_deploy.pipeline.pictures.stages import upscale_picture  # noqa: E402
from sr_deploy.pipeline.runner import resolve, runners  # noqa: E402
from sr_deploy.pipeline.upscale import UpscaleOptions, upscale_files  # noqa: E402

DEMO = ROOT / "sr_deploy" / "demo"


def one_after_the_other(net, source, out):
    """(seconds of reading, of computing, of writing)."""
    deployment, spent = open_deployment(net), [0.0, 0.0, 0.0]
    with runners(resolve(EngineIndex(deployment)), lambda _: None) as runner_at:
        for path in find_images([source]):
            marks = [time.perf_counter()]
            picture = read_picture(path)
            marks.append(time.perf_counter())
            result = upscale_picture(deployment, runner_at(picture.size), picture)
            marks.append(time.perf_counter())
            write_picture(result, out / path.name)
            marks.append(time.perf_counter())
            spent = [have + end - begin for have, begin, end in zip(spent, marks, marks[1:])]
    return spent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--sides", default="400,900", help="least and largest side, pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--net", default="demo_x2.safetensors")
    parser.add_argument("--shrink", type=int, default=0, help="use a network of so many convolutions instead")
    options = parser.parse_args()
    low, high = map(int, options.sides.split(","))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        source = pictures(place / "in", options.pictures, low, high)
        net = place / "net"
        if options.shrink:
            small_network(net, options.shrink)
        else:
            export_deployment(ExportOptions(DEMO / options.net, net))
        ratios, shares = [], []
        print(f"{'round':>5}{'read s':>9}{'compute s':>11}{'write s':>9}{'one by one s':>14}{'run s':>8}{'ratio':>8}")
        for index in range(options.rounds):
            (place / f"a{index}").mkdir()
            spent = one_after_the_other(net, source, place / f"a{index}")
            began = time.perf_counter()
            upscale_files(UpscaleOptions(net, (source,), place / f"b{index}"))
            overlapped = time.perf_counter() - began
            same(place / f"a{index}", place / f"b{index}")
            ratios.append(sum(spent) / overlapped)
            shares.append((spent[0] + spent[2]) / sum(spent))
            row = "".join(
                f"{value:>{width}.2f}" for value, width in zip((*spent, sum(spent), overlapped), (9, 11, 9, 14, 8))
            )
            print(f"{index:>5}{row}{ratios[-1]:>8.2f}", flush=True)
        print(f"median ratio {statistics.median(ratios):.2f}; reading and writing {statistics.median(shares):.0%}; "
              f"{len(os.sched_getaffinity(0))} cores")  # fmt: skip


def pictures(folder, count, low, high):
    """PNG files of random sizes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    photo = cv2.imread(str(DEMO / "demo.png"))
    photo = np.concatenate([np.concatenate([photo, photo[:, ::-1]], 1)] * 2, 0)
    while min(photo.shape[:2]) < high:
        photo = np.concatenate([np.concatenate([photo, photo[:, ::-1]], 1)] * 2, 0)
    for index in range(count):
        height, width = rng.integers(low, high, 2)
        top, left = (int(rng.integers(0, have - side + 1)) for have, side in zip(photo.shape, (height, width)))
        cv2.imwrite(str(folder / f"{index:03}.png"), photo[top : top + height, left : left + width])
    return folder


def small_network(net, convolutions):
    """A network so small that decoding and encoding take more than a third: a GPU's share of the time, on a CPU."""
    import torch

    from sr_deploy.pipeline.load import LoadOptions

    module = net.parent / "small_of_benchmark.py"
    module.write_text(
        "import torch\n"
        "def made():\n"
        "    torch.manual_seed(0)\n"
        f"    inner = [torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range({convolutions})]\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), *inner,\n"
        "        torch.nn.Conv2d(8, 12, 3, padding=1), torch.nn.PixelShuffle(2)).eval()\n"
    )
    sys.path.insert(0, str(net.parent))
    import small_of_benchmark

    checkpoint = net.parent / "small.pth"
    torch.save(small_of_benchmark.made().state_dict(), checkpoint)
    load = dataclasses.replace(LoadOptions(), factory="small_of_benchmark:made", value_range=1.0)
    export_deployment(ExportOptions(checkpoint, net, load=load))


def same(one, other):
    """Both ways give the same files."""
    for path in one.iterdir():
        assert np.array_equal(cv2.imread(str(path), -1), cv2.imread(str(other / path.name), -1)), path


if __name__ == "__main__":
    main()
