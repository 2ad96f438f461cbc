"""When a picture is cut into tiles, and how large they are: the memory that may be used, and what an engine takes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Optional, Tuple

from sr_deploy.core.contract import Size, SizeRules, format_size
from sr_deploy.core.deployment.manifest import GraphFile, Manifest
from sr_deploy.core.errors import BadDeployment, BadImage, EnvironmentFault
from sr_deploy.core.host.cuda_device import free_device_bytes
from sr_deploy.core.host.machine import available_memory_bytes
from sr_deploy.core.media.room import bytes_to_upscale
from sr_deploy.engine.manifest import Profile
from sr_deploy.run.tiles import TILED_LAYOUTS, Cut, cut_for, least_tile

#: Without ``--memory`` this part of what is free is used, on the host and on the device.
FREE_SHARE = 0.5
#: A tile may take this part of the memory: the rest is for the picture, the finished rows and the tile read ahead.
TILE_SHARE = 0.25
#: Of a folder a picture that is computed whole takes this part at most: others are read and written meanwhile.
WHOLE_SHARE = 0.5
#: What ONNX Runtime takes, over what the census of the graph counts as alive at once: 3.1 to 3.6 with ONNX Runtime 1.32
#: on the CPU, SPAN ×2 and ×4, 256² to 1024²; its plan of a size it knows is one more block beside the first run's.
ARENA = 3.6
#: Sides of tiles that are tried where the engine leaves the choice. More is not faster: 512² computes an eighth of its
#: pixels twice for a halo of 22, and its tensors are large enough for every core.
SIDES: Tuple[int, ...] = (512, 448, 384, 320, 256, 224, 192, 160, 128, 112, 96, 80, 64, 48, 32, 24, 16)


@dataclass(frozen=True)
class Tiling:
    """What tiles may use, as a command was asked; made by ``tiling_of``.

    Attributes:
        memory: bytes at most, on the host and on the device each; None where nothing tells and nothing was asked.
        inexact: tiles of a network that is not local are allowed.
        whole: a picture of a local network that takes more than this part of the memory is cut.
    """

    memory: Optional[int]
    inexact: bool = False
    whole: float = 1.0


def tiling_of(memory: Optional[int] = None, inexact: bool = False, whole: float = 1.0) -> Tiling:
    """The tiling that ``--memory`` and ``--allow-inexact`` ask for; without the first, half of what is free."""
    if memory is None:
        free = [each for each in (available_memory_bytes(), free_device_bytes()) if each is not None]
        memory = int(FREE_SHARE * min(free)) if free else None
    return Tiling(memory, inexact, whole)


@dataclass(frozen=True)
class Worker:
    """What would run a picture: an engine, or a graph.

    Attributes:
        name: its file.
        profile: smallest, best and largest input; None: any that the network takes.
        graph: the graph that it is, or was made from; None where its activations take none of the host's memory.
    """

    name: str
    profile: Optional[Profile]
    graph: Optional[GraphFile]

    def takes(self, size: Size) -> bool:
        """Whether it takes an input of ``size`` (height, width) whole."""
        if self.profile is None:
            return True
        low, _, high = self.profile
        return all(low[axis] <= size[axis] <= high[axis] for axis in (0, 1))

    def bytes_per_pixel(self, manifest: Manifest) -> float:
        """Memory of the host for each pixel of an input that is run at once: activations, tensors and picture."""
        around = bytes_to_upscale(manifest.contract, manifest.scale)
        if self.graph is None:
            return around
        pixels = self.graph.macs_size[0] * self.graph.macs_size[1]
        return around + ARENA * self.graph.peak_activation_bytes / pixels


def cut_of(tiling: Tiling, manifest: Manifest, worker: Worker, size: Size) -> Optional[Cut]:
    """How a picture of ``size`` (height, width) is cut for a worker; None where it is run whole.

    It is cut where the worker does not take its size, or where it would need more than ``tiling.whole`` of the memory;
    one of a network that is not local only where there is not even all of the memory.

    Raises:
        BadDeployment: it must be cut, and the network's reach is not known or leaves nothing of a tile.
        EnvironmentFault: there is no memory even for the smallest tile.
    """
    reach, memory = manifest.reach, tiling.memory
    is_local = reach is not None and reach.is_local
    need = size[0] * size[1] * worker.bytes_per_pixel(manifest)
    share = tiling.whole if is_local else 1.0
    if worker.takes(size) and _is_allowed(manifest.sizes, size) and (memory is None or need <= share * memory):
        return None
    if manifest.contract.layout not in TILED_LAYOUTS:
        raise BadDeployment(
            f"{worker.name} takes the planes of a video, which are not cut into tiles",
            "a graph of pictures, exported with --io float32 or --io uint8",
            f"srdeploy build DEPLOYMENT --size {format_size(size)} takes them whole",
        )
    fixed = worker.profile is not None and worker.profile[0] == worker.profile[2]
    sizes = manifest.sizes
    if worker.profile is not None and not fixed:
        sizes = dataclasses.replace(sizes, minimum=max(sizes.minimum, *worker.profile[0]))
    tile = worker.profile[0] if worker.profile and fixed else _tile_for(tiling, manifest, worker, sizes)
    cut = cut_for(reach, sizes, tile, fixed, worker.name)
    return dataclasses.replace(cut, bytes_per_pixel=worker.bytes_per_pixel(manifest))


def _is_allowed(sizes: SizeRules, size: Size) -> bool:
    """Whether the network takes an input of this size."""
    try:
        sizes.check(size)
    except BadImage:
        return False
    return True


def _tile_for(tiling: Tiling, manifest: Manifest, worker: Worker, sizes: SizeRules) -> Size:
    """The largest tile of SIDES that there is memory for, within the worker's profile.

    Raises:
        EnvironmentFault: there is none.
    """
    each, multiple = worker.bytes_per_pixel(manifest), sizes.multiple
    largest = worker.profile[2] if worker.profile is not None else (SIDES[0],) * 2
    least = least_tile(manifest.reach, sizes) if manifest.reach is not None else sizes.minimum
    for side in (*(side for side in SIDES if side > least), least):
        tile = (min(side, largest[0]) // multiple * multiple, min(side, largest[1]) // multiple * multiple)
        if tiling.memory is None or tile[0] * tile[1] * each <= TILE_SHARE * tiling.memory:
            return tile
    need = least * least * each / TILE_SHARE
    raise EnvironmentFault(
        f"even tiles of {format_size((least, least))} of {worker.name} need {need / 1e6:.0f} MB, and "
        f"{(tiling.memory or 0) / 1e6:.0f} MB may be used",
        "memory for one tile",
        f"--memory {need / 1e6 + 1:.0f}MB or more",
    )
