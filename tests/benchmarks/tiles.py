"""Every checkpoint in tiles against the whole: how far it looks, whether tiles are equal, and if not, by how much.

    python tests/benchmarks/tiles.py [--only span_ch28_x4.pth,efdn_x4.pth] [--sizes 20] [--looked-at FOLDER]

For a local network: ``--sizes`` random sizes with random tiles, borders included, on pieces of a photograph and on
noise; the largest float difference in 8-bit steps, and how many 8-bit values differ. For the others: one photograph in
tiles of 128 with the halo that is used for them, against the whole: the largest difference along the tiles' borders (as
the product measures it), and the largest and mean difference from the whole. SwinIR has no checkpoint: its mini form
with random weights is taken. ``--looked-at`` writes pictures: tiles, whole, and their difference times 16.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from sr_deploy.core.deployment.manifest import open_deployment  # noqa: E402
from sr_deploy.core.errors import SrDeployError  # noqa: E402
from sr_deploy.core.media.image import Picture, from_network, read_picture, to_network  # noqa: E402
from sr_deploy.pipeline.export import ExportOptions, export_deployment  # noqa: E402
from sr_deploy.run.base import upscale  # noqa: E402
from sr_deploy.run.onnxruntime import runner_from_graph  # noqa: E402
from sr_deploy.run.tiled import TiledRunner  # noqa: E402
from sr_deploy.run.tiles import cut_for, least_tile  # noqa: E402

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", ROOT.parent / "shared"))
DEMO = ROOT / "sr_deploy" / "demo"
PHOTO = ASSETS / "images" / "Set14" / "HR" / "baboon.png"


def checkpoints(only):
    """The networks that ship, and those of the shared folder."""
    found = [*sorted(DEMO.glob("*.safetensors")), *sorted((ASSETS / "weights").iterdir())]
    return [path for path in found if not only or path.name in only]


def swinir(folder):
    """A checkpoint of SwinIR's mini form with random weights."""
    from sr_deploy.models.architectures.swinir import LightweightSwinIR, SwinShape

    torch.manual_seed(0)
    shape = SwinShape(dim=24, window=8, heads=6, hidden=48, qkv_bias=True)
    path = folder / "swinir_random_x2.pth"
    torch.save(LightweightSwinIR([4, 4, 4], [shape] * 3, False, 2).state_dict(), path)
    return path


def local_row(deployment, runner, count, rng):
    """(largest float difference in steps, differing 8-bit values, values compared)."""
    manifest = deployment.manifest
    contract, scale, sizes = manifest.contract, manifest.scale, manifest.sizes
    photo = read_picture(PHOTO).pixels
    least, worst, differing, compared = least_tile(manifest.reach, sizes), 0.0, 0, 0
    for index in range(count):
        size = tuple(sizes.fit(int(side)) for side in rng.integers(least, 3 * least, 2))
        tile = tuple(sizes.fit(int(side)) for side in rng.integers(least, 2 * least, 2))
        tile = tuple(min(pair) for pair in zip(tile, size)) if index % 2 else tile
        top, left = (int(rng.integers(0, max(have - side, 0) + 1)) for have, side in zip(photo.shape, size))
        pixels = photo[top : top + size[0], left : left + size[1]]
        if index % 4 == 3 or pixels.shape[:2] != size:
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        picture = Picture(np.ascontiguousarray(pixels))
        lr = to_network(picture, contract)
        whole = upscale(runner, lr)
        cut = cut_for(manifest.reach, sizes, tile, bool(index % 2), "net")
        parts = upscale(TiledRunner(runner, cut, contract, scale), lr)
        worst = max(worst, float(np.abs(parts - whole).max()) * 255 / contract.value_range)
        values = [from_network(sr, contract, picture).pixels for sr in (parts, whole)]
        differing += int(np.count_nonzero(values[0] != values[1]))
        compared += values[0].size
    return worst, differing, compared


def global_row(deployment, runner, looked_at, name):
    """(largest along borders, largest and mean difference from the whole)."""
    manifest = deployment.manifest
    contract, scale = manifest.contract, manifest.scale
    side = manifest.sizes.fit(256) if manifest.sizes.multiple > 1 else 250
    picture = Picture(np.ascontiguousarray(read_picture(PHOTO).pixels[:side, :side]))
    lr = to_network(picture, contract)
    tiled = TiledRunner(
        runner, cut_for(manifest.reach, manifest.sizes, (128, 128), False, "net"), contract, scale, True
    )
    parts, whole = upscale(tiled, lr), upscale(runner, lr)
    a, b = (from_network(sr, contract, picture).pixels for sr in (parts, whole))
    if looked_at:
        difference = np.clip(np.abs(a.astype(int) - b) * 16, 0, 255).astype(np.uint8)
        cv2.imwrite(str(Path(looked_at) / f"{name}.png"), np.concatenate([a, b, difference], 1)[:, :, ::-1])
    steps = np.abs(parts - whole) * 255 / contract.value_range
    return tiled.seams.largest, float(steps.max()), float(steps.mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--sizes", type=int, default=20)
    parser.add_argument("--looked-at", default="")
    options = parser.parse_args()
    # What torchvision's import wants and a CPU build of torch lacks; see tests/conftest.py.
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    failed, rng = False, np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        names = [name for name in options.only.split(",") if name]
        paths = checkpoints(names)
        if not names or "swinir" in names:
            paths.append(swinir(Path(folder)))
        for path in paths:
            try:
                deployment = export_deployment(ExportOptions(path, Path(folder) / path.name.split(".")[0]))
            except SrDeployError as error:
                print(f"{path.name:<34} not here: {error.found[:80]}", flush=True)
                continue
            deployment = open_deployment(deployment.folder)
            manifest = deployment.manifest
            reach = manifest.reach
            runner = runner_from_graph(deployment.path_of(manifest.graphs[0]), manifest.contract, manifest.scale)
            if reach.is_local:
                worst, differing, compared = local_row(deployment, runner, options.sizes, rng)
                failed |= differing > 0 or worst > 255e-5
                told = f"local, halo {reach.halo}: {worst:.2g} steps, {differing} of {compared:,} 8-bit values"
            else:
                along, largest, mean = global_row(deployment, runner, options.looked_at, path.name.split(".")[0])
                told = f"global ({len(reach.global_nodes)} nodes: {reach.global_nodes[0].why}): {along:.3g} along "
                told += f"borders; from the whole {largest:.3g}, mean {mean:.2g}"
            print(f"{path.name:<34} {told}", flush=True)
            runner.close()
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
