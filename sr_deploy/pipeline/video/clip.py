"""A clip through a deployment: decoding, computing and encoding at the same time, a segment after the other."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np

from sr_deploy.core.artifact import atomic_file, sha256_of
from sr_deploy.core.contract import IOContract
from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.errors import BadInput, SrDeployError
from sr_deploy.core.media.video.clip import Assumed, Clip, Damage, Timed, opened, read_clip, read_frames
from sr_deploy.core.media.video.encode import ClipWriter, Encoding, settle
from sr_deploy.core.media.video.join import check_copies, join
from sr_deploy.core.media.video.pixels import planes_of_frame
from sr_deploy.core.media.video.tensor import check_frames, planes_of_tensor, tensor_of_planes
from sr_deploy.core.overlap import ahead, behind
from sr_deploy.core.signals import held_back
from sr_deploy.engine.index import EngineIndex
from sr_deploy.pipeline.runner import decide, resolve, runners
from sr_deploy.pipeline.tiling import tiling_of
from sr_deploy.pipeline.video.room import check_even, check_frames_fit
from sr_deploy.pipeline.video.unfinished import Unfinished, begun
from sr_deploy.report.progress import Counting, counting
from sr_deploy.run.base import Runner, upscale

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


@dataclass(frozen=True)
class ClipDone:
    """What became of a clip.

    Attributes:
        written: the result.
        frames: in it.
        seconds: that this run took for those of them that it made itself.
        made: how many these are.
        notes: what the user should know: assumptions, streams left out.
        damage: lines about what could not be decoded; none for a whole clip.
    """

    written: Path
    frames: int
    seconds: float
    made: int
    notes: Tuple[str, ...]
    damage: Tuple[str, ...]

    def to_dict(self) -> Dict[str, Any]:
        """Plain values for JSON."""
        return {
            "written": [str(self.written)],
            "frames": self.frames,
            "frames_per_second": round(self.made / self.seconds, 3) if self.seconds else None,
            "notes": list(self.notes),
            "damage": list(self.damage),
        }


def upscale_clip(options: ClipOptions, say: Callable[[str], None] = lambda _: None) -> ClipDone:
    """Every frame of a clip ``scale`` times as large, with its timestamps, its tags and its sound.

    Ctrl-C, or a signal to end, finishes the frames that are under way and joins what there is to a playable file; the
    signal then does what it does otherwise. ``resume`` goes on at the last whole segment, with the same frames.

    Raises:
        BadInput: the clip cannot be read, or has frames that do not fit the network.
        UsageError: see ``settle``, ``check_copies`` and ``begun``.
        CheckFailed: a frame without a finite result.
        BadDeployment, ForeignEngine, EnvironmentFault: nothing here can run, or no more can be written.
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
    decision = decide(resolved, clip.size)
    request = {
        "clip": sha256_of(options.clip),
        "network": decision.sha256,
        "assumed": f"{options.assumed.matrix} {options.assumed.siting}",
        "inexact": str(options.allow_inexact),
        "segment": str(options.segment_frames),
        **encoding.described(),
    }
    for note in notes:
        say(note)
    unfinished = begun(options.out, request, options.force, options.resume)
    if unfinished.frames:
        say(f"goes on at frame {unfinished.frames}")
    damage = Damage()
    with held_back() as ended, runners(resolved, say) as runner_at:
        work = _Work(clip, encoding, manifest.contract, runner_at(clip.size), options.segment_frames, unfinished)
        with counting(clip.frames, unfinished.frames, "upscaling") as shown:
            tail = _segments(work, damage, shown, lambda: bool(ended))
        early = bool(ended)
        done = unfinished.frames + (0 if tail is None else tail[1])
        if done:
            _join(options, work, None if tail is None else tail[0], early)
        elif not early:
            unfinished.remove()
            raise BadInput(f"{clip.path} has no frame that can be decoded", "a clip with frames", "download it again")
        if early:
            say(f"{options.out} holds the first {done} frames; the same command with --resume goes on" if done else
                "ended before the first frame")  # fmt: skip
        else:
            unfinished.remove()
        return ClipDone(options.out, done, shown.seconds, shown.made, notes, damage.lines(clip))


@dataclass(frozen=True)
class _Work:
    """What the stages share."""

    clip: Clip
    encoding: Encoding
    contract: IOContract
    runner: Runner
    segment_frames: int
    unfinished: Unfinished


def _segments(work: _Work, damage: Damage, shown: Counting, stop: Callable[[], bool]) -> Optional[Tuple[Path, int]]:
    """Make the segments that are missing: frames are decoded and encoded while others are computed.

    Returns:
        A segment that was cut short because ``stop`` said so, and its frames; a resumed run makes it anew.
    """
    done = work.unfinished.frames
    segments = _Segments(work)
    try:
        with ahead(_tensors(work, damage, done)) as tensors, behind(segments.write) as hand:
            for number, (timed, lr) in enumerate(tensors, done):
                if stop():
                    break
                with _named(work.clip, number):
                    sr = upscale(work.runner, lr)
                hand((timed, sr))
                shown.advance()
        return segments.finish(whole=not stop())
    except BaseException:
        segments.abandon()
        raise


class _Segments:
    """Frames in order to one segment after the other, each whole or not at all; used by one thread at a time."""

    def __init__(self, work: _Work) -> None:
        self._work = work
        self._open: Optional[Tuple[contextlib.ExitStack, ClipWriter, Path]] = None
        self._frames = 0

    def write(self, item: Tuple[Timed, np.ndarray]) -> None:
        """Encode a frame; a segment that is full is finished."""
        timed, sr = item
        work = self._work
        with _named(work.clip, work.unfinished.frames + self._frames):
            planes = planes_of_tensor(sr, work.contract, work.clip.colour, work.encoding.form)
        if self._open is None:
            stack, path = contextlib.ExitStack(), work.unfinished.next_file(work.encoding.suffix)
            self._open = (stack, ClipWriter(stack.enter_context(atomic_file(path)), work.encoding), path)
        self._open[1].write(planes, timed.start, timed.duration)
        self._frames += 1
        if self._frames == work.segment_frames:
            self.finish(whole=True)

    def finish(self, whole: bool) -> Optional[Tuple[Path, int]]:
        """Close the segment that is open; it counts as done where it is ``whole``, else it is returned."""
        if self._open is None:
            return None
        (stack, writer, path), frames = self._open, self._frames
        with stack:
            writer.close()
        self._open, self._frames = None, 0
        if not whole:
            return path, frames
        self._work.unfinished.add(path, frames)
        return None

    def abandon(self) -> None:
        """Leave nothing of the segment that is open."""
        if self._open is not None:
            stack, writer, _ = self._open
            self._open = None
            writer.abandon()
            with contextlib.suppress(_Abandoned), stack:
                raise _Abandoned


class _Abandoned(Exception):
    """A segment is not to be kept."""


def _tensors(work: _Work, damage: Damage, skip: int) -> Iterator[Tuple[Timed, np.ndarray]]:
    """The frames after the first ``skip``, as the network takes them."""
    for timed in itertools.islice(read_frames(work.clip, damage), skip, None):
        planes = planes_of_frame(timed.frame, work.clip.form)
        yield timed, tensor_of_planes(planes, work.clip.colour, work.contract)


@contextlib.contextmanager
def _named(clip: Clip, frame: int) -> Iterator[None]:
    """Say which frame an error is about."""
    try:
        yield
    except SrDeployError as error:
        raise type(error)(f"frame {frame} of {clip.path}: {error.found}", error.wanted, error.todo) from error


def _join(options: ClipOptions, work: _Work, tail: Optional[Path], early: bool) -> None:
    """Write the result from the segments; of a clip that was not finished, with the sound up to its end."""
    files: List[Path] = work.unfinished.files + ([tail] if tail is not None else [])
    until = _end_of(files[-1]) if early else None
    with atomic_file(options.out) as temporary:
        join(files, work.encoding, temporary, options.sound, until)
    if tail is not None:
        tail.unlink()


def _end_of(path: Path) -> float:
    """Seconds at which the last picture of a segment ends."""
    with opened(path) as container:
        packets = [one for one in container.demux(container.streams.video[0]) if one.size]
        return float(max((one.pts + (one.duration or 0)) * one.time_base for one in packets))
