"""A clip's frames through a network into segments: decoding, computing and encoding at the same time."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, Optional, Tuple

import numpy as np

from sr_deploy.core.artifact import atomic_file
from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import SrDeployError
from sr_deploy.core.media.video.clip import Clip, Damage, Timed, read_frames
from sr_deploy.core.media.video.encode import ClipWriter, Encoding
from sr_deploy.core.media.video.pixels import planes_of_frame
from sr_deploy.core.media.video.tensor import planes_of_tensor, tensor_of_planes
from sr_deploy.core.overlap import ahead, behind
from sr_deploy.pipeline.video.unfinished import Unfinished
from sr_deploy.report.progress import Counting
from sr_deploy.run.base import Runner, upscale


@dataclass(frozen=True)
class Work:
    """What the stages share."""

    clip: Clip
    encoding: Encoding
    contract: IOContract
    runner: Runner
    segment_frames: int
    unfinished: Unfinished


def make_segments(work: Work, damage: Damage, shown: Counting, stop: Callable[[], bool],
                  frames: Optional[Iterator[Timed]] = None) -> Optional[Tuple[Path, int]]:  # fmt: skip
    """Make segments: frames are decoded and encoded while others are computed.

    Args:
        work: of which clip, how, and where to.
        damage: of the clip, is counted up.
        shown: is told each frame.
        stop: says that no more is to be begun.
        frames: those to make; None: all that are missing.

    Returns:
        A segment that was cut short because ``stop`` said so, and its frames; a resumed run makes it anew.
    """
    done = work.unfinished.frames
    segments = Segments(work)
    try:
        with ahead(tensors_of(work, frames or _missing(work, damage))) as tensors, behind(segments.write) as hand:
            for number, (timed, lr) in enumerate(tensors, done):
                if stop():
                    break
                with named(work.clip, number):
                    sr = upscale(work.runner, lr)
                hand((timed, sr))
                shown.advance()
        return segments.finish(whole=not stop())
    except BaseException:
        segments.abandon()
        raise


class Segments:
    """Frames in order to one segment after the other, each whole or not at all; used by one thread at a time."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._open: Optional[Tuple[contextlib.ExitStack, ClipWriter, Path]] = None
        self._frames = 0

    def write(self, item: Tuple[Timed, np.ndarray]) -> None:
        """Encode a frame; a segment that is full is finished."""
        timed, sr = item
        work = self._work
        with named(work.clip, work.unfinished.frames + self._frames):
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


def _missing(work: Work, damage: Damage) -> Iterator[Timed]:
    return itertools.islice(read_frames(work.clip, damage), work.unfinished.frames, None)


def tensors_of(work: Work, frames: Iterator[Timed]) -> Iterator[Tuple[Timed, np.ndarray]]:
    """Frames as the network takes them."""
    for timed in frames:
        planes = planes_of_frame(timed.frame, work.clip.form)
        yield timed, tensor_of_planes(planes, work.clip.colour, work.contract)


@contextlib.contextmanager
def named(clip: Clip, frame: int) -> Iterator[None]:
    """Say which frame an error is about."""
    try:
        yield
    except SrDeployError as error:
        raise type(error)(f"frame {frame} of {clip.path}: {error.found}", error.wanted, error.todo) from error
