"""Does a container's L4T fit the board's? An image for a Jetson says which L4T it was made for; the board says its own.

The driver's libraries come from the board, and CUDA and TensorRT from the image. They fit within one major release of
L4T (35.x is JetPack 5, 36.x is JetPack 6, 38.x and 39.x are JetPack 7), not across two: CUDA then fails at its first
call, with an error that names neither.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Mapping, Optional

from sr_deploy.core.errors import EnvironmentFault
from sr_deploy.core.host.machine import parse_tegra_release

#: Set by docker/jetpack*.Dockerfile: the major releases of L4T that the image fits, such as "35" or "38 39".
IMAGE_VARIABLE = "SRDEPLOY_L4T"
#: The board's own release file, which must be mounted into the container.
RELEASE_FILE = Path("/etc/nv_tegra_release")
#: L4T major release → the Dockerfile for it.
DOCKERFILES = {
    "35": "docker/jetpack5.Dockerfile",
    "36": "docker/jetpack6.Dockerfile",
    "38": "docker/jetpack7.Dockerfile",
    "39": "docker/jetpack7.Dockerfile",
}


def check_container(environment: Optional[Mapping[str, str]] = None, release_file: Path = RELEASE_FILE) -> None:
    """Refuse to start in a container that was made for another L4T; outside of one nothing is checked.

    Args:
        environment: of this process; None takes os.environ.
        release_file: the board's /etc/nv_tegra_release.

    Raises:
        EnvironmentFault: the board's L4T is another one, or cannot be read; the message names both and what to do.
    """
    image = (os.environ if environment is None else environment).get(IMAGE_VARIABLE, "").strip()
    if not image:
        return
    try:
        text = release_file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise EnvironmentFault(
            f"this image is for a Jetson with L4T {_named(image)}, and the board's {release_file} is not here",
            "a Jetson, and its release file in the container",
            f"docker run --runtime nvidia -v {RELEASE_FILE}:{RELEASE_FILE}:ro …",
        ) from error
    check_release(image, text)


def check_release(image: str, text: str) -> None:
    """Compare what an image is for with a board's release file.

    Args:
        image: major releases of L4T, separated by spaces, such as "35" or "38 39".
        text: of /etc/nv_tegra_release.

    Raises:
        EnvironmentFault: they differ, or the text tells no release.
    """
    board = parse_tegra_release(text)
    if board is None:
        raise EnvironmentFault(
            f"{RELEASE_FILE} tells no release of L4T: {(text.splitlines() or ['it is empty'])[0][:80]}",
            "a line such as # R35 (release), REVISION: 4.1",
            "see cat /etc/nv_tegra_release on the board itself",
        )
    major = board.split(".")[0]
    if major not in image.split():
        fitting = DOCKERFILES.get(major)
        build = f"docker build -f {fitting} …; docker/README.md lists them" if fitting else "see docker/README.md"
        raise EnvironmentFault(
            f"this image is for L4T {_named(image)}, and the board runs L4T {board}",
            f"an image for L4T {major}.x",
            build,
        )


def _named(image: str) -> str:
    return " or ".join(f"{major}.x" for major in image.split())
