"""A clip through a deployment, a segment after the other, joined with its sound at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from sr_deploy.core.artifact import atomic_file
from sr_deploy.core.errors import BadInput
from sr_deploy.core.media.video.clip import Damage, opened
from sr_deploy.core.media.video.join import join
from sr_deploy.core.signals import held_back
from sr_deploy.pipeline.runner import runners
from sr_deploy.pipeline.video.cluster import make_on_cluster
from sr_deploy.pipeline.video.request import ClipOptions, Task, task_of
from sr_deploy.pipeline.video.segments import Work, make_segments
from sr_deploy.pipeline.video.unfinished import Unfinished, begun
from sr_deploy.report.progress import Counting, counting

Say = Callable[[str], None]


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


def upscale_clip(options: ClipOptions, say: Say = lambda _: None) -> ClipDone:
    """Every frame of a clip ``scale`` times as large, with its timestamps, its tags and its sound.

    Ctrl-C, or a signal to end, finishes the frames that are under way and joins what there is to a playable file; the
    signal then does what it does otherwise. ``resume`` goes on at the last whole segment, with the same frames.

    Raises:
        UsageError: see ``task_of`` and ``begun``.
        BadInput, BadDeployment, ForeignEngine, EnvironmentFault: see ``task_of``; or no more can be written.
        CheckFailed: a frame without a finite result.
    """
    task = task_of(options)
    for note in task.notes:
        say(note)
    unfinished = begun(options.out, task.request(options), options.force, options.resume)
    if unfinished.frames:
        say(f"goes on at frame {unfinished.frames}")
    damage = Damage()
    with held_back() as ended:
        with counting(task.clip.frames, unfinished.frames, "upscaling") as shown:
            tail = _made(options, task, unfinished, damage, shown, lambda: bool(ended), say)
        early = bool(ended)
        done = unfinished.frames + (0 if tail is None else tail[1])
        if done:
            _join(options, task, unfinished, None if tail is None else tail[0], early)
        elif not early:
            unfinished.remove()
            raise BadInput(
                f"{options.clip} has no frame that can be decoded", "a clip with frames", "download it again"
            )
        if early:
            say(f"{options.out} holds the first {done} frames; the same command with --resume goes on" if done else
                "ended before the first frame")  # fmt: skip
        else:
            unfinished.remove()
        return ClipDone(options.out, done, shown.seconds, shown.made, task.notes, damage.lines(task.clip))


def _made(options: ClipOptions, task: Task, unfinished: Unfinished, damage: Damage, shown: Counting,
          stop: Callable[[], bool], say: Say) -> Optional[Tuple[Path, int]]:  # fmt: skip
    """Make the segments that are missing, here or on a cluster; one that was cut short, and its frames."""
    if options.cluster is not None:
        make_on_cluster(options, task, unfinished, damage, shown, stop, say)
        return None
    with runners(task.resolved, say) as runner_at:
        contract, runner = task.deployment.manifest.contract, runner_at(task.clip.size)
        work = Work(task.clip, task.encoding, contract, runner, options.segment_frames, unfinished)
        return make_segments(work, damage, shown, stop)


def _join(options: ClipOptions, task: Task, unfinished: Unfinished, tail: Optional[Path], early: bool) -> None:
    """Write the result from the segments; of a clip that was not finished, with the sound up to its end."""
    files: List[Path] = unfinished.files + ([tail] if tail is not None else [])
    until = _end_of(files[-1]) if early else None
    with atomic_file(options.out) as temporary:
        join(files, task.encoding, temporary, options.sound, until)
    if tail is not None:
        tail.unlink()


def _end_of(path: Path) -> float:
    """Seconds at which the last picture of a segment ends."""
    with opened(path) as container:
        packets = [one for one in container.demux(container.streams.video[0]) if one.size]
        return float(max((one.pts + (one.duration or 0)) * one.time_base for one in packets))
