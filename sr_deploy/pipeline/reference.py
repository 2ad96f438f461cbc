"""What another network makes of the same pictures: what the fidelity of a smaller or changed network is taken to."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Callable, Iterator, Optional

import numpy as np

from sr_deploy.core.deployment.manifest import MANIFEST_NAME, Deployment, open_deployment
from sr_deploy.core.errors import BadImage, UsageError
from sr_deploy.core.media.image import Picture, find_images, from_network, read_picture, to_network
from sr_deploy.engine.index import EngineIndex
from sr_deploy.pipeline.runner import resolve, runners
from sr_deploy.run.base import upscale

#: (name of the picture, its low-resolution picture) → uint8 pixels of the reference.
ReferencePictures = Callable[[str, Picture], np.ndarray]


@contextlib.contextmanager
def reference_pictures(
    place: Optional[Path], deployment: Deployment, say: Callable[[str], None]
) -> Iterator[Optional[ReferencePictures]]:
    """A function that gives the reference's pictures; None where there is no reference.

    Args:
        place: a deployment, which is run in what it would run in, or a folder of pictures.
        deployment: that is judged.
        say: told what runs.

    Raises:
        UsageError: a deployment of another scale, or no such folder.
        BadImage: a picture is missing.
    """
    if place is None:
        yield None
    elif (place / MANIFEST_NAME).is_file():
        other = open_deployment(place)
        if other.manifest.scale != deployment.manifest.scale:
            raise UsageError(
                f"--reference {place} is x{other.manifest.scale}, {deployment.folder} x{deployment.manifest.scale}",
                "a reference of the same scale",
            )
        contract = other.manifest.contract
        with runners(resolve(EngineIndex(other)), say) as runner_at:

            def run(_: str, low: Picture) -> np.ndarray:
                made = upscale(runner_at(low.size), to_network(low, contract))
                return from_network(made, contract, low).pixels

            yield run
    else:
        files = {file.stem: file for file in find_images([place])}

        def read(name: str, _: Picture) -> np.ndarray:
            if name not in files:
                raise BadImage(
                    f"{place} has no picture {name}",
                    "one for each original, by its name",
                    "srdeploy run REFERENCE -i LR -o FOLDER",
                )
            return read_picture(files[name]).pixels

        yield read
