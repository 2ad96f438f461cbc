"""What is asked of a clip, and what follows from it before the first frame: resolved once, refused where it must be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Tuple

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.deployment.manifest import Deployment, open_deployment
from sr_deploy.core.media.video.clip import Assumed, Clip, read_clip
from sr_deploy.core.media.video.encode import Encoding, settle
from sr_deploy.core.media.video.join import check_copies
from sr_deploy.core.media.video.tensor import check_frames
from sr_deploy.engine.index import EngineIndex
from sr_deploy.pipeline.runner import Resolved, decide, resolve
from sr_deploy.pipeline.tiling import tiling_of
from sr_deploy.pipeline.video.room import check_even, check_frames_fit

#: Frames of a segment: what a run that is killed loses at most. An encoder sets its key frames no closer by itself.
SEGMENT_FRAMES = 120


@dataclass(frozen=True)
class ClipOptions:
    """What ``srdeploy run`` is asked for, where the input is a clip.

    Attributes:
        deployment: the folder.
        clip: the file to read.
        out: the file to write; its suffix names the container.
        backend, engine, precision: which runtime; see pipeline/runner.py.
        codec, crf, pixel_format: see ``settle`` of core/media/video/encode.py; None: by the clip.
        assumed: what the clip's stream does not say of its colours.
        sound: copy audio, subtitles, cover pictures and chapters.
        force: replace the result.
        resume: go on with a run that was ended.
        segment_frames: frames from one key frame that a resumed run can go on at to the next.
        memory, allow_inexact: of tiles, where a frame does not fit; see pipeline/tiling.py.
        cluster: address of a Dask scheduler whose workers make the segments; None: this machine.
    """

    deployment: Path
    clip: Path
    out: Path
    backend: Optional[str] = None
    engine: Optional[Path] = None
    precision: Optional[str] = None
    codec: Optional[str] = None
    crf: Optional[int] = None
    pixel_format: Optional[str] = None
    assumed: Assumed = Assumed()
    sound: bool = True
    force: bool = False
    resume: bool = False
    segment_frames: int = SEGMENT_FRAMES
    memory: Optional[int] = None
    allow_inexact: bool = False
    cluster: Optional[str] = None


@dataclass(frozen=True)
class Task:
    """A clip that can be upscaled; made by ``task_of``.

    Attributes:
        deployment, resolved: what runs.
        clip: the source.
        encoding: of the result.
        network: sha256 of the engine or graph that runs.
        notes: what was assumed or is left out, for the user.
    """

    deployment: Deployment
    resolved: Resolved
    clip: Clip
    encoding: Encoding
    network: str
    notes: Tuple[str, ...]

    def request(self, options: ClipOptions) -> Dict[str, str]:
        """What decides the frames and their bytes; see ``UnfinishedState``."""
        return {
            "clip": sha256_of(options.clip),
            "network": self.network,
            "assumed": f"{options.assumed.matrix} {options.assumed.siting}",
            "inexact": str(options.allow_inexact),
            "segment": str(options.segment_frames),
            **self.encoding.described(),
        }


def task_of(options: ClipOptions) -> Task:
    """Look at the clip and the deployment.

    Raises:
        BadInput: the clip cannot be read, or has frames that do not fit the network or the memory.
        UsageError: see ``settle`` and ``check_copies``.
        BadDeployment, ForeignEngine, EnvironmentFault: nothing here can run it.
    """
    deployment = open_deployment(options.deployment)
    tiling = tiling_of(options.memory, options.allow_inexact)
    resolved = resolve(EngineIndex(deployment), options.backend, options.engine, options.precision, tiling=tiling)
    manifest = deployment.manifest
    clip = read_clip(options.clip, options.assumed)
    encoding = settle(clip, options.out, manifest.scale, options.codec, options.crf, options.pixel_format)
    notes = clip.notes + check_copies(clip, options.out, options.sound)
    check_frames(manifest.contract, clip.form, clip.form.depth, clip.colour, str(clip.path))
    check_even(manifest, clip.size)
    check_frames_fit(clip.size, manifest.contract, manifest.scale)
    return Task(deployment, resolved, clip, encoding, decide(resolved, clip.size).sha256, notes)
