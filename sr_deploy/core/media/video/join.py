"""Segments of pictures and the sound of the clip, joined to the file that was asked for; nothing is encoded again."""

from __future__ import annotations

import contextlib
import heapq
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.core.media.video.clip import Clip, not_readable, opened, video_stream
from sr_deploy.core.media.video.encode import Encoding, decoding_times, muxer_of, write_error
from sr_deploy.core.media.video.package import import_av
from sr_deploy.core.text import plain

#: Facts of the old file that are not true of the new one.
_NOT_KEPT = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration", "number_of_frames")
_COPIED = ("audio", "subtitle")


def check_copies(clip: Clip, out: Path, sound: bool) -> Tuple[str, ...]:
    """Refuse a container that does not hold the clip's sound and subtitles, before any work.

    Args:
        clip: the source.
        out: the file to be written.
        sound: audio and subtitles shall be copied.

    Returns:
        What is left out, for the user.

    Raises:
        UsageError: a stream that the container does not hold.
    """
    import io

    av = import_av()
    lost: List[str] = []
    with opened(clip.path) as source, av.open(io.BytesIO(), "w", format=muxer_of(out.suffix)) as target:
        copied = _copied_streams(source, clip) if sound else []
        for stream in source.streams:
            if stream.index in {one.index for one in copied}:
                try:
                    target.add_mux_stream(_codec_name(stream))
                except ValueError as error:
                    raise UsageError(
                        f"stream {stream.index} of {clip.path} is {stream.type} of the codec {_codec_name(stream)}, "
                        f"which a file ending in {out.suffix} does not hold",
                        "a container that holds it",
                        "name the output ….mkv, or leave sound and subtitles out with --no-sound",
                    ) from error
            elif stream.index != video_stream(source, clip.path).index:
                lost.append(f"{stream.type} stream {stream.index}")
    return (f"{clip.path.name}: not copied: {', '.join(lost)}",) if lost else ()


def _codec_name(stream: Any) -> str:
    context = stream.codec_context
    return "unknown" if context is None else str(context.codec.canonical_name)


def _copied_streams(source: Any, clip: Clip) -> List[Any]:
    """Sound, subtitles and cover pictures."""
    main = video_stream(source, clip.path).index
    kinds = [one for one in source.streams if one.type in _COPIED and one.codec_context is not None]
    return kinds + [one for one in source.streams.video if one.index != main]


def join(segments: Sequence[Path], encoding: Encoding, target: Path, sound: bool, until: Optional[float]) -> None:
    """Write the whole file.

    Args:
        segments: files of ``ClipWriter`` in order, at least one.
        encoding: of all of them.
        target: the file to write, of the encoding's container; overwritten.
        sound: copy audio, subtitles, cover pictures and chapters of the clip.
        until: seconds at which the sound ends too, for a clip that was not finished; None: all of it.

    Raises:
        BadInput: a segment that does not fit the others.
        OSError: the file cannot be written.
    """
    av = import_av()
    clip = encoding.clip
    try:
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(opened(clip.path))
            first = stack.enter_context(opened(segments[0]))
            options = {"movflags": "faststart"} if encoding.suffix in (".mp4", ".m4v", ".mov") else {}
            out = stack.enter_context(av.open(str(target), "w", format=muxer_of(encoding.suffix), options=options))
            picture = _picture_stream(out, first, encoding)
            copied = {one.index: _copied_stream(out, one) for one in (_copied_streams(source, clip) if sound else [])}
            out.metadata.update({key: text for key, text in source.metadata.items() if key not in _NOT_KEPT})
            if sound and until is None:
                out.set_chapters(source.chapters())
            packets = heapq.merge(
                _pictures(segments, picture, encoding), _sound(source, copied, until), key=lambda timed: timed[0]
            )
            for _, packet in packets:
                out.mux_one(packet)
    except av.FFmpegError as error:
        raise write_error(error) or not_readable(clip.path, error) from error


def _picture_stream(out: Any, first: Any, encoding: Encoding) -> Any:
    clip, template = encoding.clip, first.streams.video[0]
    stream = out.add_stream_from_template(template)
    stream.time_base = clip.time_base
    if clip.rate is not None:
        stream.codec_context.framerate = clip.rate
    if encoding.codec.tag and encoding.suffix in (".mp4", ".m4v", ".mov"):
        stream.codec_context.codec_tag = encoding.codec.tag
    if clip.display_matrix is not None:
        stream.set_display_matrix(clip.display_matrix)
    with opened(clip.path) as source:
        old = video_stream(source, clip.path)
        _copy_words(old, stream)
    return stream


def _copied_stream(out: Any, stream: Any) -> Any:
    new = out.add_stream_from_template(stream)
    new.time_base = stream.time_base
    _copy_words(stream, new)
    return new


def _copy_words(old: Any, new: Any) -> None:
    new.metadata.update({key: text for key, text in old.metadata.items() if key.lower() not in _NOT_KEPT})
    new.disposition = old.disposition


def _pictures(segments: Sequence[Path], stream: Any, encoding: Encoding) -> Iterator[Tuple[float, Any]]:
    """The packets of all segments with decoding times that grow over the joints: (seconds, packet)."""
    shown: List[int] = []
    headers: Optional[bytes] = None
    for path in segments:
        with opened(path) as container:
            one = container.streams.video[0]
            extradata = bytes(one.codec_context.extradata or b"")
            if headers is not None and extradata != headers:
                raise BadInput(
                    f"{plain(str(path))} was encoded with other settings than the segments before it",
                    "segments of one encoder",
                    "begin anew with --force",
                )
            headers = extradata
            shown += [_ticks(packet, encoding) for packet in container.demux(one) if packet.size]
    decoded = iter(decoding_times(shown))
    for path in segments:
        with opened(path) as container:
            for packet in container.demux(container.streams.video[0]):
                if not packet.size:
                    continue
                start, base = _ticks(packet, encoding), encoding.clip.time_base
                packet.duration = round((packet.duration or 0) * packet.time_base / base)
                packet.pts, packet.dts, packet.time_base = start, next(decoded), base
                packet.stream = stream
                yield float(packet.dts * base), packet


def _ticks(packet: Any, encoding: Encoding) -> int:
    return int(round(packet.pts * packet.time_base / encoding.clip.time_base))


def _sound(source: Any, copied: Dict[int, Any], until: Optional[float]) -> Iterator[Tuple[float, Any]]:
    """The packets that are copied: (seconds, packet)."""
    if not copied:
        return
    av = import_av()
    last = 0.0
    try:
        for packet in source.demux([source.streams[index] for index in copied]):
            if packet.dts is None and packet.pts is None:
                continue
            seconds = float((packet.dts if packet.dts is not None else packet.pts) * packet.time_base)
            if until is not None and seconds >= until:
                continue
            last = max(last, seconds)
            packet.stream = copied[packet.stream.index]
            yield last, packet
    except av.error.InvalidDataError:
        return
