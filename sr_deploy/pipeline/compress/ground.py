"""What a compression stands on: the plain graph, the photographs, what they are judged on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, List, Optional, Tuple

import numpy as np

from sr_deploy.core.contract import round_up
from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.core.media.image import find_images, in_8_bits, read_picture, to_network
from sr_deploy.core.media.natural import natural_input
from sr_deploy.core.text import counted
from sr_deploy.pipeline.compress.request import CompressRequest
from sr_deploy.pipeline.proof import proof_sizes

if TYPE_CHECKING:
    import onnx

    from sr_deploy.compress.groups import Network
    from sr_deploy.compress.subject import Subject
    from sr_deploy.precision.evaluate import Scene
    from sr_deploy.train.patches import Pool

#: Squares that statistics and least squares are taken on, and their side in low-resolution pixels. Many small ones, of
#: every photograph: what 24 of 48 had not in them cost SPAN-tiny at 70 % half a dB on Set14.
SQUARES, SIDE = 96, 32
#: Side of the squares that are judged on.
JUDGED_SIDE = 96
#: Side of the picture that the channels are found with.
_TRACED = 32


@dataclass(frozen=True)
class Ground:
    """The graph and the photographs.

    Attributes:
        deployment: what is compressed.
        model: its plain graph.
        images: float32 (1, 3, H, W), in the units of the graph.
        files: of the images.
        scenes: shrunk photographs with their originals, of those kept back; empty where they are too small.
        pictures_sha256: one hash over the files'.
    """

    deployment: Deployment
    model: onnx.ModelProto
    images: Tuple[np.ndarray, ...]
    files: Tuple[Path, ...]
    scenes: Tuple[Scene, ...]
    pictures_sha256: str

    @property
    def white(self) -> float:
        """The value of white."""
        return self.deployment.manifest.contract.value_range

    def pool(self, side: int, judged: int = JUDGED_SIDE) -> Pool:
        """Squares of photographs, and others to judge on; raises BadInput for too few or too small ones."""
        from sr_deploy.train.patches import pool_of

        multiple = self.deployment.manifest.sizes.multiple
        return pool_of(
            self.images, round_up(side, multiple), round_up(judged, multiple),
            todo="leave it out, or give a smaller --patch" if side > SIDE else "leave it out",
            names=tuple(map(str, self.files)),
        )  # fmt: skip

    def lost(self, narrow: onnx.ModelProto) -> Optional[float]:
        """PSNR-Y that another graph loses on the scenes, dB; None without any."""
        from sr_deploy.precision.evaluate import judge, judging

        if not self.scenes:
            return None
        manifest = self.deployment.manifest
        return judge(self.scenes, judging(narrow), manifest.scale, manifest.contract).loss

    def fidelity(self, narrow: onnx.ModelProto) -> float:
        """PSNR of another graph's output to this one's on squares kept back, dB."""
        from sr_deploy.compress.subject import fidelity

        return fidelity(self.model, narrow, tuple(self.pool(SIDE).judged), self.white)


def ground_of(request: CompressRequest, deployment: Deployment, model: onnx.ModelProto) -> Ground:
    """Read the photographs.

    Raises:
        BadInput: no, too few or too small pictures.
    """
    from sr_deploy.compress.groups import plain_graph
    from sr_deploy.precision.calibrate.picture_set import hashes_of, images_sha256
    from sr_deploy.precision.evaluate import judging, scenes_from_photographs
    from sr_deploy.train.patches import JUDGED, KEPT_BACK

    files = find_images([request.images])
    manifest = deployment.manifest
    images = tuple(to_network(read_picture(file), manifest.contract) for file in files)
    plain = plain_graph(model)
    kept = [(file.name, in_8_bits(read_picture(file))) for file in files[::KEPT_BACK][:JUDGED]]
    ground = Ground(deployment, plain, images, files, (), images_sha256(list(hashes_of(files).values())))
    ground.pool(SIDE)
    scenes = scenes_from_photographs(
        kept, manifest.scale, manifest.contract, judging(plain), JUDGED_SIDE, manifest.sizes.multiple
    )
    return dataclasses.replace(ground, scenes=scenes)


def subject_on(ground: Ground, request: CompressRequest, say: Callable[[str], None]) -> Subject:
    """Find the groups of channels, prove them, and see what they are worth on the photographs.

    Raises:
        BadDeployment: nothing in the graph may become narrower.
        UsageError: an operator that cannot be run here.
    """
    from sr_deploy.compress.subject import subject_of
    from sr_deploy.precision.fit.layerwise import squares_from

    multiple = ground.deployment.manifest.sizes.multiple
    traced = round_up(_TRACED, multiple)
    network = _proved(ground, traced, request.seed, say)
    pool = ground.pool(SIDE)
    squares = squares_from([picture[None] for picture in pool.trained.pictures], SQUARES, round_up(SIDE, multiple),
                           request.seed)  # fmt: skip
    return subject_of(network, squares, traced**2, request.importance, request.seed)


def _proved(ground: Ground, traced: int, seed: int, say: Callable[[str], None]) -> Network:
    import torch

    from sr_deploy.compress.groups import network_of
    from sr_deploy.compress.prove import proved
    from sr_deploy.core.errors import BadDeployment

    found = network_of(ground.model, torch.from_numpy(natural_input((traced, traced), ground.white)))
    for operator, node in found.coupling.stopped.items():
        say(f"channels that {operator} mixes or fixes stay (first at {node})")
    sizes = proof_sizes(ground.deployment.manifest.sizes)[:2]
    noise = np.random.default_rng(seed).random((1, 3, *sizes[1]), np.float32) * np.float32(ground.white)
    pictures: List[np.ndarray] = [*(natural_input(size, ground.white) for size in sizes), noise]
    network = proved(found, [torch.from_numpy(picture) for picture in pictures], seed, say)
    if not network.groups:
        stopped = ", ".join(found.coupling.stopped) or "none"
        raise BadDeployment(
            f"nothing in the graph of {ground.deployment.folder} may become narrower: no layer's channels are its own "
            f"(operators that hold channels: {stopped})",
            "a network with channels between its layers",
            "take a smaller network: srdeploy distill; or look at srdeploy tune and --precision int8",
        )
    channels = sum(group.width for group in network.groups)
    say(
        f"{counted(channels, 'channel')} in {counted(len(network.groups), 'group')}, proved: slicing equals not reading"
    )
    return network
