"""What a clip is: its size, its clock and its tags, read from its headers and its first frame."""

from __future__ import annotations

import contextlib
import dataclasses
import struct
import threading
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from sr_deploy.core.contract import Size
from sr_deploy.core.errors import BadInput, EnvironmentFault
from sr_deploy.core.media.video.package import import_av
from sr_deploy.core.media.video.pixels import PixelFormat, format_named
from sr_deploy.core.media.video.siting import siting_of
from sr_deploy.core.text import plain
from sr_deploy.core.yuv import Matrix, Siting, YuvColour

#: Suffixes by which ``run`` knows a clip.
CLIP_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mpg", ".mpeg", ".flv", ".wmv")
#: MatrixCoefficients of ITU-T H.273, table 4, that are known here, and what is written for each.
MATRICES: Dict[int, Matrix] = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
MATRIX_TAGS: Dict[Matrix, int] = {"bt709": 1, "fcc": 4, "bt601": 6, "smpte240m": 7, "bt2020": 9}
#: FFmpeg's numbers of ranges.
_LIMITED, _FULL = 1, 2
#: What H.273 calls "unspecified".
_UNSAID = 2
#: Rows from which players take an unsaid matrix to be BT.709's.
HIGH_DEFINITION = 720
#: Messages of a damaged clip that are kept.
_MOST_MESSAGES = 5
#: FFmpeg's log has one level for the whole process: the first reader's, which the last one restores.
_LOGGING = threading.Lock()
_readers: List[Tuple[Any, Any]] = []
#: The display matrix that turns nothing.
_UPRIGHT = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


@dataclass(frozen=True)
class Assumed:
    """What a user says of a clip whose stream does not say it, or says it wrong; None: the stream decides."""

    matrix: Optional[Matrix] = None
    siting: Optional[Siting] = None


@dataclass(frozen=True)
class Clip:
    """A clip's one picture stream.

    Attributes:
        path: the file.
        size: (height, width) as stored, before rotation.
        pixel_format: FFmpeg's name, and its row.
        colour: what the samples mean.
        matrix_tag, range_tag, primaries, transfer: numbers of H.273 (FFmpeg's for the range) to be written again.
        pixel_aspect: width over height of a pixel; None: unsaid.
        display_matrix: FFmpeg's nine numbers, or None for an upright clip.
        time_base: seconds of one tick of its clock.
        rate: frames a second on average; None: unsaid.
        frames: how many there are by its header or by duration times rate; None: unknown.
        seconds: its duration; None: unknown.
        notes: what was assumed, for the user.
    """

    path: Path
    size: Size
    pixel_format: str
    form: PixelFormat
    colour: YuvColour
    matrix_tag: int
    range_tag: int
    primaries: int
    transfer: int
    pixel_aspect: Optional[Fraction]
    display_matrix: Optional[Tuple[int, ...]]
    time_base: Fraction
    rate: Optional[Fraction]
    frames: Optional[int]
    seconds: Optional[float]
    notes: Tuple[str, ...] = ()


def is_clip(path: Path) -> bool:
    """Whether a path is to be read as a clip: by its suffix."""
    return path.suffix.lower() in CLIP_SUFFIXES


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An av.InputContainer.

    Raises:
        BadInput: missing, or nothing that FFmpeg reads.
    """
    av = import_av()
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise not_readable(path, error) from error
    with container:
        yield container


def not_readable(path: Path, error: Exception) -> BadInput:
    """The error of a file that FFmpeg does not read, in its words."""
    reason = getattr(error, "strerror", None) or str(error)
    return BadInput(
        f"{path} cannot be read as a clip: {plain(str(reason), 200)}",
        "a whole file of a video format",
        "check the path, copy or download it again; an MP4 that was cut off while it was recorded has no index",
    )


def video_stream(container: Any, path: Path) -> Any:
    """The picture stream of an open clip; cover pictures do not count.

    Raises:
        BadInput: there is none, or several, or one that no decoder here reads.
    """
    attached = container.streams.video and container.streams.video[0].disposition.__class__.attached_pic
    streams = [one for one in container.streams.video if not one.disposition & attached]
    if len(streams) != 1 or streams[0].codec_context is None:
        raise BadInput(
            f"{path} has {len(streams)} picture streams" if len(streams) != 1 else f"{path} has an unknown codec",
            "one, of a codec that FFmpeg decodes",
            "keep one: ffmpeg -i CLIP -map 0:v:0 -map 0:a? -c copy one.mkv",
        )
    return streams[0]


def read_clip(path: Path, assumed: Assumed = Assumed()) -> Clip:
    """What a clip is; its first frame is decoded for it.

    Raises:
        BadInput: it cannot be read, is interlaced, or has pixels or a matrix that are not known here.
        MissingPackage: see ``import_av``.
    """
    av = import_av()
    with opened(path) as container:
        stream = video_stream(container, path)
        try:
            said = None
            for packet in container.demux(stream):
                if said is None and packet.size:
                    said = siting_of(stream, _copy(av, packet), str(path))
                frames = packet.decode()
                if frames:
                    return _clip(path, container, stream, frames[0], assumed, said)
        except (av.FFmpegError, OSError) as error:
            raise not_readable(path, error) from error
    raise BadInput(f"{path} has no frame that can be decoded", "a clip with frames", "copy or download it again")


def _copy(av: Any, packet: Any) -> Any:
    other = av.Packet(bytes(packet))
    other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
    return other


def _clip(path: Path, container: Any, stream: Any, frame: Any, assumed: Assumed, said: Optional[Siting]) -> Clip:
    if frame.interlaced_frame:
        raise BadInput(
            f"{path} is interlaced: each frame holds two pictures in turn",
            "a progressive clip",
            "ffmpeg -i CLIP -vf bwdif -c:v ffv1 -c:a copy progressive.mkv",
        )
    name = frame.format.name
    form = format_named(name, str(path))
    colour, matrix_tag, notes = _colour(path, frame, form, assumed, said)
    seconds = _seconds(container, stream)
    rate = stream.average_rate
    frames = stream.frames or (round(seconds * rate) if seconds and rate else None)
    return Clip(
        path=Path(path),
        size=(frame.height, frame.width),
        pixel_format=name,
        form=form,
        colour=colour,
        matrix_tag=matrix_tag,
        range_tag=_FULL if form.full else int(frame.color_range),
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        pixel_aspect=stream.sample_aspect_ratio or None,
        display_matrix=_display_matrix(frame),
        time_base=stream.time_base,
        rate=rate,
        frames=frames,
        seconds=seconds,
        notes=notes,
    )


def _seconds(container: Any, stream: Any) -> Optional[float]:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def _colour(path: Path, frame: Any, form: PixelFormat, assumed: Assumed,
            said: Optional[Siting]) -> Tuple[YuvColour, int, Tuple[str, ...]]:  # fmt: skip
    """What the samples mean, the matrix tag to write, and what had to be assumed."""
    notes = []
    tag = int(frame.colorspace)
    if assumed.matrix is not None:
        matrix, tag = assumed.matrix, MATRIX_TAGS[assumed.matrix]
    elif tag in MATRICES:
        matrix = MATRICES[tag]
    elif form.grey:
        matrix = "bt709"
    elif tag == _UNSAID:
        matrix = "bt709" if frame.height >= HIGH_DEFINITION else "bt601"
        tag = MATRIX_TAGS[matrix]
        notes.append(
            f"{path.name} does not say its colour matrix: {matrix} is assumed, as players do for {frame.height} rows, "
            "and written; --matrix says another"
        )
    else:
        raise BadInput(
            f"{path} has the colour matrix {tag} of ITU-T H.273",
            "one of " + ", ".join(f"{number} ({name})" for number, name in MATRICES.items()),
            "convert it first, or say what it is with --matrix",
        )
    full = form.full or int(frame.color_range) == _FULL
    siting: Siting = assumed.siting or said or "left"
    return YuvColour(matrix, "full" if full else "limited", siting), tag, tuple(notes)


def _display_matrix(frame: Any) -> Optional[Tuple[int, ...]]:
    for one in frame.side_data:
        if one.type.name == "DISPLAYMATRIX":
            numbers = struct.unpack("=9i", bytes(one)[:36])
            return None if numbers == _UPRIGHT else numbers
    return None


@dataclass
class Damage:
    """What is wrong with a clip, found while it is read. Decoders conceal damage; their log tells of it.

    Attributes:
        packets: that gave no frame.
        messages: what FFmpeg logged as errors, each once, the first few.
    """

    packets: int = 0
    messages: List[str] = dataclasses.field(default_factory=list)

    def take(self, log: List[Any]) -> None:
        """Keep what is new in a log of ``av.logging.Capture``, and empty it."""
        for _, origin, text in log:
            message = plain(f"{origin}: {text.strip()}", 200)
            if message not in self.messages and len(self.messages) < _MOST_MESSAGES:
                self.messages.append(message)
        del log[:]

    def lines(self, clip: Clip) -> Tuple[str, ...]:
        """What to tell the user; nothing for a clip without damage."""
        told = [f"{clip.path}: {self.packets} packets could not be decoded, their frames are missing"]
        about = [f"{clip.path} is damaged or cut off: {'; '.join(self.messages)}"]
        return tuple((told if self.packets else []) + (about if self.messages else []))


@dataclass(frozen=True)
class Timed:
    """A decoded frame (av.VideoFrame), and when it is shown and for how long, in ticks of the clip."""

    frame: Any
    start: int
    duration: int


def read_frames(clip: Clip, damage: Damage) -> Iterator[Timed]:
    """Every frame of a clip in the order of showing.

    Args:
        clip: of ``read_clip``.
        damage: is counted up.

    Raises:
        BadInput: a frame of another size or form than the first, or timestamps that do not grow.
    """
    av = import_av()
    last = None
    with _errors_logged(av) as log, opened(clip.path) as container:
        stream = video_stream(container, clip.path)
        # One thread: a decoder's own threads would wait for Python's lock to log, and Python for them.
        stream.thread_count = 1
        for count, frame in enumerate(_decoded(av, container, stream, damage)):
            if (frame.height, frame.width) != clip.size or frame.format.name != clip.pixel_format:
                raise BadInput(
                    f"frame {count} of {clip.path} is {frame.width}x{frame.height} {frame.format.name}",
                    f"all of {clip.size[1]}x{clip.size[0]} {clip.pixel_format}, as the first",
                    "split the clip where its format changes",
                )
            start = frame.pts if frame.pts is not None else _by_rate(clip, count)
            if last is not None and start <= last:
                raise BadInput(
                    f"frame {count} of {clip.path} is not later than the one before ({start} after {last} ticks)",
                    "timestamps that grow",
                    "write them anew: ffmpeg -i CLIP -c copy -fflags +genpts mended.mkv",
                )
            last = start
            damage.take(log)
            yield Timed(frame, start, frame.duration or 0)
        damage.take(log)


@contextlib.contextmanager
def _errors_logged(av: Any) -> Iterator[List[Any]]:
    """What FFmpeg logs as errors meanwhile in this thread."""
    with _LOGGING:
        _readers.append((av.logging.get_level(), av.logging.get_skip_repeated()))
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)  # a second clip may have the fault of the first
    try:
        with av.logging.Capture() as log:
            yield log
    finally:
        with _LOGGING:
            level, skip = _readers.pop()
            if not _readers:
                av.logging.set_level(level)
                av.logging.set_skip_repeated(skip)


def _decoded(av: Any, container: Any, stream: Any, damage: Damage) -> Iterator[Any]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError) as error:
            damage.messages.append(plain(str(getattr(error, "strerror", error)), 200))
            packet = None
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            damage.packets += 1
            continue
        except av.error.MemoryError as error:
            raise EnvironmentFault(
                "not enough memory to decode a frame", "more free memory", "free memory, or make a smaller clip"
            ) from error
        yield from frames


def _by_rate(clip: Clip, count: int) -> int:
    """When a frame without a timestamp is shown, by the clip's rate."""
    if not clip.rate:
        raise BadInput(
            f"{clip.path} has neither timestamps nor a frame rate",
            "one of them",
            "ffmpeg -r 25 -i CLIP -c copy timed.mkv",
        )
    return round(count / clip.rate / clip.time_base)
