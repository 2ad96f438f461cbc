"""What ``run`` does with a clip or a pipe of raw frames, and the options that are for these alone."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, cast

import typer
from typing_extensions import get_args

from sr_deploy.cli.shared import print_json, print_line, say
from sr_deploy.core.errors import CheckFailed, UsageError
from sr_deploy.core.names import check_name
from sr_deploy.core.yuv import Matrix, Range, Siting, YuvColour

#: What ``-i`` and ``-o`` are called where frames come and go through a pipe.
PIPE = Path("-")

CODEC = typer.Option(
    None,
    "--codec",
    help="Clips: h264 (default for 8 bits), hevc (for more), av1, vp9, ffv1, prores, h264_nvenc or hevc_nvenc.",
)
CRF = typer.Option(None, "--crf", help="Clips: the encoder's quality, 0 is best. Default: hardly to be told apart.")
PIXEL_FORMAT = typer.Option(
    None, "--pixel-format", help="Clips: FFmpeg's name, such as yuv444p10le. Default: the clip's."
)
MATRIX = typer.Option(
    None, "--matrix", help="The Y'CbCr matrix of frames that do not say it: bt601, bt709, bt2020, fcc or smpte240m."
)
SITING = typer.Option(None, "--siting", help="Where chroma lies in frames that do not say it: left, center, topleft.")
SOUND = typer.Option(True, "--sound/--no-sound", help="Clips: copy audio, subtitles and chapters.")
RAW = typer.Option(
    None, "--raw", metavar="FORM WIDTHxHEIGHT",
    help="With -i - -o -: frames without headers, such as rgb24 1280x720; also nv12, p010le, yuv420p, with --matrix.",
)  # fmt: skip
Y4M = typer.Option(False, "--y4m", help="With -i - -o -: YUV4MPEG2, as ffmpeg -f yuv4mpegpipe and vspipe write it.")
CLUSTER = typer.Option(
    None, "--cluster", help="Let the workers of this Dask scheduler do it, such as tcp://host:8786; one job a device."
)
FULL = typer.Option(False, "--full", help="With --raw: Y'CbCr of full range.")


IO = typer.Option(
    "float32", "--io", help="float32; uint8: pixels (1, H, W, 3) in and out; nv12, p010: a video decoder's planes."
)
_PLANES = "With --io nv12 or p010: "
MATRIX_OF_PLANES = typer.Option(None, "--matrix", help=_PLANES + "bt601, bt709, bt2020, fcc or smpte240m.")
RANGE_OF_PLANES = typer.Option(None, "--range", help=_PLANES + "limited (default) or full.")
SITING_OF_PLANES = typer.Option(None, "--siting", help=_PLANES + "where chroma lies: left (default), center, topleft.")


@dataclass(frozen=True)
class VideoAsked:
    """The options of ``run`` that are for clips and pipes, as they were given."""

    codec: Optional[str] = None
    crf: Optional[int] = None
    pixel_format: Optional[str] = None
    matrix: Optional[str] = None
    siting: Optional[str] = None
    sound: bool = True
    raw: Optional[Tuple[str, str]] = None
    y4m: bool = False
    full: bool = False

    def given(self, *names: str) -> List[str]:
        """Of these fields, those that are not at their default, as options."""
        default = VideoAsked()
        spelled = {"sound": "--no-sound"}
        return [
            spelled.get(name, "--" + name.replace("_", "-"))
            for name in names
            if getattr(self, name) != getattr(default, name)
        ]


@dataclass(frozen=True)
class Common:
    """The options of ``run`` that every kind of input has."""

    deployment: Path
    out: Path
    backend: Optional[str]
    engine: Optional[Path]
    precision: Optional[str]
    force: bool
    resume: bool
    as_json: bool
    memory: Optional[int]
    inexact: bool
    cluster: Optional[str]


def handled(inputs: List[Path], common: Common, asked: VideoAsked, picture_options: List[str]) -> bool:
    """Do what was asked where the input is a clip or a pipe.

    Args:
        inputs: of ``-i``.
        common, asked: the options.
        picture_options: options that were given and are for pictures alone.

    Returns:
        False: the input is pictures, and no option of clips was given.

    Raises:
        UsageError: inputs of several kinds, or an option that has no meaning for this one.
    """
    from sr_deploy.core.media.video.clip import is_clip

    clips = [path for path in inputs if is_clip(path)]
    piped = PIPE in inputs
    if not clips and not piped:
        _refuse(asked.given(*VideoAsked.__dataclass_fields__), "pictures")
        return False
    if len(inputs) > 1:
        raise UsageError(
            f"{len(inputs)} inputs, of which {'one is a pipe' if piped else f'{clips[0]} is a clip'}",
            "one clip or one pipe at a time, or pictures",
            "run them one after the other",
        )
    _refuse(picture_options, "frames")
    if piped:
        _pipe(common, asked)
    else:
        _clip(clips[0], common, asked)
    return True


def _refuse(given: List[str], kind: str) -> None:
    if given:
        raise UsageError(f"{', '.join(given)} has no meaning for {kind}", "options of that kind of input")


def _assumed(asked: VideoAsked) -> Any:
    from sr_deploy.core.media.video.clip import Assumed

    words: Dict[str, Tuple[str, ...]] = {"matrix": get_args(Matrix), "siting": get_args(Siting)}
    for name, known in words.items():
        value = getattr(asked, name)
        if value is not None:
            check_name(f"--{name}", value, known)
    return Assumed(cast(Any, asked.matrix), cast(Any, asked.siting))


def yuv_colour(matrix: Optional[str], levels: Optional[str], siting: Optional[str]) -> Optional[YuvColour]:
    """What ``export --matrix --range --siting`` name; None where none is given.

    Raises:
        UsageError: a name that does not exist, or no matrix beside the others.
    """
    if matrix is None and (levels is not None or siting is not None):
        raise UsageError("--range and --siting belong to a matrix", "--matrix bt601, bt709 or bt2020 besides")
    if matrix is None:
        return None
    given = {"matrix": matrix, "range": levels or "limited", "siting": siting or "left"}
    for name, kind in (("matrix", Matrix), ("range", Range), ("siting", Siting)):
        check_name(f"--{name}", given[name], get_args(kind))
    return YuvColour(**cast(Any, given))


def _clip(clip: Path, common: Common, asked: VideoAsked) -> None:
    from sr_deploy.pipeline.video.clip import upscale_clip
    from sr_deploy.pipeline.video.request import ClipOptions

    _refuse(asked.given("raw", "y4m", "full"), "a clip")
    done = upscale_clip(
        ClipOptions(
            common.deployment, clip, common.out, common.backend, common.engine, common.precision, asked.codec,
            asked.crf, asked.pixel_format, _assumed(asked), asked.sound, common.force, common.resume,
            memory=common.memory, allow_inexact=common.inexact, cluster=common.cluster,
        ),
        say,
    )  # fmt: skip
    if common.as_json:
        print_json(done.to_dict())
    else:
        print_line(done.written)
    if done.seconds:
        say(f"{done.frames} frames, {done.made / done.seconds:.2f} a second")
    for line in done.damage:
        say(line)
    if done.damage:
        raise typer.Exit(CheckFailed.exit_code)


def _pipe(common: Common, asked: VideoAsked) -> None:
    from sr_deploy.pipeline.video.pipe import PipeOptions, upscale_pipe

    _refuse(asked.given("codec", "crf", "pixel_format", "sound"), "a pipe")
    also = (("--force", common.force), ("--resume", common.resume), ("--cluster", common.cluster))
    _refuse([name for name, given in also if given], "a pipe")
    if common.out != PIPE or common.as_json:
        raise UsageError(
            "the frames of a pipe go to a pipe" + (", where --json would be among them" if common.as_json else ""),
            "-i - -o -",
            "srdeploy run DIR -i - -o - --y4m | ffmpeg -i - result.mkv",
        )
    if asked.y4m == (asked.raw is not None):
        raise UsageError("-i - does not say what comes", "--y4m, or --raw FORM WIDTHxHEIGHT", "give one of the two")
    if asked.full and asked.y4m:
        _refuse(["--full"], "YUV4MPEG2, which says its range")
    options = PipeOptions(
        common.deployment, asked.raw, _assumed(asked), asked.full, common.backend, common.engine, common.precision,
        common.memory, common.inexact,
    )  # fmt: skip
    frames = upscale_pipe(options, sys.stdin.buffer, sys.stdout.buffer, say)
    say(f"{frames} frames")
