"""A clip decoded, computed and encoded at the same time, against one step after the other, in one run.

    python -m tests.benchmarks.video_overlap [--frames 120] [--rounds 3]

The network runs on a stand-in for a device, which takes a given time and no processor, as a GPU does. Each round runs
both, in turn; the table has the best of each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Tuple

from sr_deploy.core.contract import IOContract
from sr_deploy.core.media.video.clip import Damage, read_clip, read_frames
from sr_deploy.core.media.video.encode import ClipWriter, settle
from sr_deploy.core.media.video.pixels import planes_of_frame
from sr_deploy.core.media.video.tensor import planes_of_tensor, tensor_of_planes
from sr_deploy.core.overlap import ahead, behind
from sr_deploy.run.base import upscale
from sr_deploy.run.fake import FakeRunner
from tests.clips import Spec, make_clip

CONTRACT, SCALE, SIZE = IOContract(1.0), 2, (90, 160)


class Steps:
    """The three steps of one clip."""

    def __init__(self, folder: Path, frames: int) -> None:
        self.clip = read_clip(make_clip(folder / "clip.mp4", Spec(size=SIZE, frames=frames)))
        self.target = folder / "out.mp4"
        self.encoding = settle(self.clip, self.target, SCALE, "h264", None, None)
        self.seconds = 0.0
        self.runner = FakeRunner(SCALE, lambda size, count: self.seconds, time.sleep)

    def read(self):
        """Frames as the network takes them."""
        for timed in read_frames(self.clip, Damage()):
            planes = planes_of_frame(timed.frame, self.clip.form)
            yield timed, tensor_of_planes(planes, self.clip.colour, CONTRACT)

    def write(self, writer, timed, sr):
        """One result to the encoder."""
        writer.write(planes_of_tensor(sr, CONTRACT, self.clip.colour, self.encoding.form), timed.start, timed.duration)

    def in_turn(self) -> Tuple[float, float, float]:
        """Seconds of reading all frames, of computing all, and of writing all, one after the other."""
        times = [time.perf_counter()]
        frames = list(self.read())
        times.append(time.perf_counter())
        made = [(timed, upscale(self.runner, lr)) for timed, lr in frames]
        times.append(time.perf_counter())
        writer = ClipWriter(self.target, self.encoding)
        for timed, sr in made:
            self.write(writer, timed, sr)
        writer.close()
        times.append(time.perf_counter())
        return times[1] - times[0], times[2] - times[1], times[3] - times[2]

    def at_once(self) -> float:
        """Seconds of the three at the same time, as ``run`` does it."""
        began, writer = time.perf_counter(), ClipWriter(self.target, self.encoding)
        with ahead(self.read()) as frames, behind(lambda item: self.write(writer, *item)) as hand:
            for timed, lr in frames:
                hand((timed, upscale(self.runner, lr)))
        writer.close()
        return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        steps = Steps(Path(folder), asked.frames)
        reading, _, writing = steps.in_turn()
        print("| device, ms a frame | decode and encode | in turn, s | at once, s | ratio |")
        print("|---|---|---|---|---|")
        for part in (0.5, 1.0, 1.8):
            steps.seconds = part * (reading + writing) / asked.frames
            turns, onces = zip(*((steps.in_turn(), steps.at_once()) for _ in range(asked.rounds)))
            best, once = min(turns, key=sum), min(onces)
            ends, whole = (best[0] + best[2]) / sum(best), sum(best)
            print(
                f"| {1e3 * steps.seconds:.0f} | {ends:.0%} | {whole:.2f} | {once:.2f} | {whole / once:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
