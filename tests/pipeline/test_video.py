"""Clips through ``run``: every frame, its time, its tags and its sound; killed anywhere and gone on with."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")

from sr_deploy.core.errors import BadInput, UsageError  # noqa: E402
from sr_deploy.core.media.video.clip import Assumed, Damage, read_clip, read_frames  # noqa: E402
from sr_deploy.core.media.video.encode import decoding_times  # noqa: E402
from sr_deploy.core.media.video.pixels import planes_of_frame  # noqa: E402
from sr_deploy.pipeline.video.clip import upscale_clip  # noqa: E402
from sr_deploy.pipeline.video.request import ClipOptions  # noqa: E402
from tests.clips import UNEVEN, Spec, make_clip, packets  # noqa: E402
from tests.nearest_network import SCALE, deployed  # noqa: E402


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return deployed(tmp_path_factory.mktemp("nearest"))


def frames_of(path):
    """(clip, [(start, duration, planes)]) of a file."""
    clip = read_clip(path)
    return clip, [(t.start, t.duration, planes_of_frame(t.frame, clip.form)) for t in read_frames(clip, Damage())]


def enlarged(plane):
    return plane.repeat(SCALE, 0).repeat(SCALE, 1)


KINDS = {
    "constant rate with sound and subtitles": ("mp4", Spec(audio=True, subtitle=True), {}),
    "variable rate": ("mkv", Spec(base=Fraction(1, 1000), times=UNEVEN, audio=True), {}),
    "rotated, with tall pixels": ("mp4", Spec(rotation=90, aspect=Fraction(4, 3), siting="topleft"), {}),
    "10 bits of BT.2020 and PQ": (
        "mp4",
        Spec("libx265", "yuv420p10le", matrix=9, primaries=9, transfer=16, siting="topleft"),
        {},
    ),
    "full range": ("mp4", Spec(matrix=6, primaries=6, transfer=6, range=2), {}),
    "odd size": ("mkv", Spec("ffv1", size=(49, 65), base=Fraction(1, 1000)), {"codec": "ffv1"}),
    "4:2:2 in 10 bits": ("mkv", Spec("ffv1", "yuv422p10le", base=Fraction(1, 1000)), {"codec": "ffv1"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_frames_times_tags_and_sound_are_those_of_the_clip(tmp_path, net, kind):
    suffix, spec, asked = KINDS[kind]
    source, out = make_clip(tmp_path / f"a.{suffix}", spec), tmp_path / f"b.{suffix}"
    done = upscale_clip(ClipOptions(net, source, out, segment_frames=4, crf=None, **asked))
    (before, old), (after, new) = frames_of(source), frames_of(out)
    assert done.frames == len(old) == len(new) == spec.frames
    assert [(start * before.time_base, length * before.time_base) for start, length, _ in old] == [
        (start * after.time_base, length * after.time_base) for start, length, _ in new
    ]
    assert after.size == (SCALE * spec.size[0], SCALE * spec.size[1])
    for tag in ("colour", "matrix_tag", "range_tag", "primaries", "transfer", "pixel_aspect", "display_matrix",
                "pixel_format", "rate"):  # fmt: skip
        assert getattr(after, tag) == getattr(before, tag), tag
    for sort in ("audio", "subtitle"):
        assert packets(out, sort) == packets(source, sort)
    assert bool(packets(source, "audio")) == spec.audio and bool(packets(source, "subtitle")) == spec.subtitle
    assert not (tmp_path / f"b.{suffix}.unfinished").exists()
    # The network repeats pixels: luma must, to rounding, where nothing is lost; x264 and x265 lose a little.
    lossless = asked.get("codec") == "ffv1"
    for (_, _, low), (_, _, high) in zip(old, new):
        difference = np.abs(enlarged(low.luma).astype(int) - high.luma.astype(int))
        assert difference.max() <= 1 if lossless else difference.mean() < 2 * 2 ** (before.form.depth - 8)


def test_a_cut_file_gives_the_frames_that_are_left(tmp_path, net, srdeploy):
    whole = make_clip(tmp_path / "a.mkv", Spec("ffv1", base=Fraction(1, 1000), size=(96, 128)))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    _, old = frames_of(cut)
    assert 2 < len(old) < 10
    done = srdeploy("run", net, "-i", cut, "-o", tmp_path / "b.mkv", "--codec", "ffv1")
    assert done.code == 1 and "cut off" in done.err
    _, new = frames_of(tmp_path / "b.mkv")
    assert [start for start, _, _ in new] == [start for start, _, _ in old]


def test_a_damaged_packet_is_counted(tmp_path, net, srdeploy):
    source = make_clip(tmp_path / "a.mkv", Spec("ffv1", base=Fraction(1, 1000), size=(96, 128)))
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    source.write_bytes(data)
    done = srdeploy("run", net, "-i", source, "-o", tmp_path / "b.mkv", "--codec", "ffv1")
    assert done.code == 1 and "CRC mismatch" in done.err


# What is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"no clip at all"), "cannot be read as a clip"),
        (lambda path: path.write_bytes(b""), "cannot be read as a clip"),
        (lambda path: make_clip(path).write_bytes(path.read_bytes()[:300]), "cannot be read as a clip"),
        (lambda path: make_clip(path, Spec("prores_ks", "yuva444p10le")), "yuva444p"),
        (lambda path: make_clip(path, Spec(matrix=8)), "colour matrix 8"),
    ],
)
def test_what_cannot_be_read_is_bad_input(tmp_path, net, srdeploy, make, message):
    make(tmp_path / "a.mov")
    done = srdeploy("run", net, "-i", tmp_path / "a.mov", "-o", tmp_path / "b.mov")
    assert done.code == 4 and message in done.err and "wanted:" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mov"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip") / "a.mp4", Spec(audio=True, subtitle=True))


@pytest.mark.parametrize(
    ("arguments", "out", "message"),
    [
        (("--codec", "h265"), "b.mp4", "there is no --codec 'h265'"),
        (("--crf", "60"), "b.mp4", "--crf 60"),
        (("--codec", "prores"), "b.mov", "does not store yuv420p"),
        (("--codec", "h264"), "b.webm", "does not hold h264"),
        (("--pixel-format", "rgb24"), "b.mp4", "--pixel-format rgb24"),
        (("--pixel-format", "gray"), "b.mp4", "lose the colours"),
        (("--format", "png"), "b.mp4", "--format has no meaning for frames"),
        (("--raw", "rgb24", "64x48"), "b.mp4", "--raw has no meaning for a clip"),
        ((), "b.webm", "does not hold"),
        ((), "b.gif", "unknown suffix"),
    ],
)
def test_what_would_be_lost_or_ignored_is_a_usage_error(tmp_path, net, clip, srdeploy, arguments, out, message):
    done = srdeploy("run", net, "-i", clip, "-o", tmp_path / out, *arguments)
    assert done.code == 2 and message in done.err
    assert not list(tmp_path.iterdir())


def test_options_of_clips_are_refused_for_pictures(tmp_path, net, srdeploy):
    done = srdeploy("run", net, "-i", tmp_path / "a.png", "-o", tmp_path / "out", "--crf", "1")
    assert done.code == 2 and "--crf has no meaning for pictures" in done.err


def test_an_odd_result_needs_another_form(tmp_path, net):
    from sr_deploy.core.media.video.encode import settle

    read = read_clip(make_clip(tmp_path / "a.mkv", Spec("ffv1", size=(49, 65))))
    with pytest.raises(UsageError, match="195x147"):
        settle(read, tmp_path / "b.mkv", 3, "ffv1", None, None)
    assert settle(read, tmp_path / "b.mkv", 3, "ffv1", None, "yuv444p").size == (147, 195)


def test_an_unsaid_matrix_is_assumed_said_and_written(tmp_path, net, srdeploy):
    source = make_clip(tmp_path / "a.mp4", Spec(matrix=2, primaries=2, transfer=2, range=0))
    done = srdeploy("run", net, "-i", source, "-o", tmp_path / "b.mp4")
    assert done.code == 0 and "bt601 is assumed" in done.err
    assert read_clip(tmp_path / "b.mp4").matrix_tag == 6
    done = srdeploy("run", net, "-i", source, "-o", tmp_path / "c.mp4", "--matrix", "bt709")
    assert done.code == 0 and "assumed" not in done.err
    assert read_clip(tmp_path / "c.mp4").colour == read_clip(source, Assumed(matrix="bt709")).colour


# Ended and gone on with


def same(one, other):
    (first, old), (second, new) = frames_of(one), frames_of(other)
    assert dataclasses.replace(first, path=Path()) == dataclasses.replace(second, path=Path())
    assert [(start, length) for start, length, _ in old] == [(start, length) for start, length, _ in new]
    for (_, _, a), (_, _, b) in zip(old, new):
        assert all(np.array_equal(x, y) for x, y in zip((a.luma, *a.chroma), (b.luma, *b.chroma)))
    assert packets(one, "audio") == packets(other, "audio")


RUN = """
import sys, time
from pathlib import Path
import sr_deploy.pipeline.video.clip as clip
import sr_deploy.pipeline.video.segments as segments
from sr_deploy.core.media.video import clip as source
net, path, out, resume = sys.argv[1:]
if not resume:
    read = source.read_frames
    def slow(*arguments):
        for timed in read(*arguments):
            time.sleep(0.1)
            yield timed
    segments.read_frames = slow
clip.upscale_clip(clip.ClipOptions(Path(net), Path(path), Path(out), resume=bool(resume), segment_frames=3), print)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_is_gone_on_with(tmp_path, net, number):
    source = make_clip(tmp_path / "a.mp4", Spec(frames=24, audio=True))
    upscale_clip(ClipOptions(net, source, tmp_path / "whole.mp4", segment_frames=3))
    out, left = tmp_path / "b.mp4", tmp_path / "b.mp4.unfinished"
    process = subprocess.Popen([sys.executable, "-c", RUN, str(net), str(source), str(out), ""], stderr=-1, text=True)
    while not (left / "000001.mp4").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    os.kill(process.pid, number)
    process.communicate()
    assert process.returncode != 0
    if number == signal.SIGKILL:
        assert not out.exists()
    else:  # a file that plays, and holds what was done
        _, part = frames_of(out)
        assert 6 <= len(part) < 24
        assert 0 < len(packets(out, "audio")) < len(packets(source, "audio")) or len(part) > 9
    with pytest.raises(UsageError, match="--resume|unfinished"):
        upscale_clip(ClipOptions(net, source, out, segment_frames=3))
    with pytest.raises(UsageError, match="another segment"):
        upscale_clip(ClipOptions(net, source, out, resume=True, segment_frames=4))
    told = []
    upscale_clip(ClipOptions(net, source, out, resume=True, segment_frames=3), told.append)
    assert any("goes on at frame" in line for line in told)
    same(tmp_path / "whole.mp4", out)
    assert not left.exists()


def test_an_altered_segment_is_not_used(tmp_path, net, clip):
    from sr_deploy.pipeline.video.unfinished import begun

    unfinished = begun(tmp_path / "b.mp4", {"a": "b"}, False, False)
    path = unfinished.next_file(".mp4")
    path.write_bytes(b"one")
    unfinished.add(path, 3)
    assert begun(tmp_path / "b.mp4", {"a": "b"}, False, True).frames == 3
    path.write_bytes(b"two")
    with pytest.raises(BadInput, match="altered"):
        begun(tmp_path / "b.mp4", {"a": "b"}, False, True)


def test_decoding_times_grow_and_are_never_late():
    for shown in ([0, 4, 2, 1, 3, 5, 9, 7, 6, 8], [0, 1, 2], [5], [3, 0, 1, 2], list(range(0, 90, 7))):
        times = decoding_times(shown)
        assert all(one < other for one, other in zip(times, times[1:]))
        assert all(decoded <= when for decoded, when in zip(times, shown))


def test_frames_in_tiles_are_those_of_whole_ones_and_python_does_the_same(tmp_path, net):
    """A graph of one fixed size, smaller than the frames; and a clip through ``sr_deploy.open``."""
    import sr_deploy

    (tmp_path / "fixed").mkdir()
    fixed = deployed(tmp_path / "fixed", sizes=((24, 32),))
    source = make_clip(tmp_path / "a.mkv", Spec("ffv1", base=Fraction(1, 1000), frames=3))
    for folder, name in ((net, "whole"), (fixed, "tiles")):
        with sr_deploy.open(folder) as opened:
            assert opened.upscale_clip(source, tmp_path / f"{name}.mkv", codec="ffv1").frames == 3
            with pytest.raises(UsageError, match="upscale_clip has no option quality"):
                opened.upscale_clip(source, tmp_path / "b.mkv", quality=3)
    same(tmp_path / "whole.mkv", tmp_path / "tiles.mkv")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_changed_bytes_are_bad_input_or_a_clip(tmp_path, suffix):
    """No other error, whatever a file holds."""
    data = make_clip(tmp_path / f"a.{suffix}", Spec(frames=4, audio=True)).read_bytes()
    random = np.random.default_rng(3)
    refused = 0
    for _ in range(30):
        changed = bytearray(data)
        for place in random.integers(0, len(data), 6):
            changed[place] = random.integers(256)
        (tmp_path / f"b.{suffix}").write_bytes(changed)
        try:
            clip = read_clip(tmp_path / f"b.{suffix}")
            assert sum(1 for _ in read_frames(clip, Damage())) <= 8
        except BadInput as error:
            refused += 1
            assert error.wanted and error.todo
    assert refused


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed", reason="dask is not installed (the extra scale)")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, resources={"device": 1}
    ) as running:
        yield running.scheduler_address


def test_segments_of_a_cluster_are_those_of_one_machine(tmp_path, net, clip, srdeploy, cluster):
    upscale_clip(ClipOptions(net, clip, tmp_path / "one.mp4", segment_frames=4))
    upscale_clip(ClipOptions(net, clip, tmp_path / "many.mp4", segment_frames=4, cluster=cluster))
    same(tmp_path / "one.mp4", tmp_path / "many.mp4")
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "many.mp4").read_bytes()
    done = srdeploy("run", net, "-i", clip, "-o", tmp_path / "c.mp4", "--cluster", "tcp://127.0.0.1:9")
    assert done.code == 3 and "no Dask scheduler answers" in done.err
    done = srdeploy("run", net, "-i", clip, "-o", tmp_path / "c.mp4", "--resume", "--cluster", cluster)
    assert done.code == 0, done.err


def test_pictures_of_a_cluster_are_those_of_one_machine(tmp_path, net, srdeploy, cluster):
    from sr_deploy.core.media.image import Picture, write_picture

    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 14, 3), np.uint8)
        write_picture(Picture(pixels), tmp_path / "in" / f"{number}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    one = srdeploy("run", net, "-i", tmp_path / "in", "-o", tmp_path / "one")
    many = srdeploy("run", net, "-i", tmp_path / "in", "-o", tmp_path / "many", "--cluster", cluster)
    assert (one.code, many.code) == (1, 1), many.err
    assert "bad.png is not a picture" in many.err and "1 of 4 pictures were skipped" in many.err
    for number in range(3):
        name = f"{number}.png"
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()
    again = srdeploy("run", net, "-i", tmp_path / "in", "-o", tmp_path / "many", "--cluster", cluster, "--resume")
    assert "3 results were there already" in again.err
    here = srdeploy("run", net, "-i", tmp_path / "in", "-o", tmp_path / "many", "--resume")
    assert "3 results were there already" in here.err
