"""Frames to a file: which encoder, with what quality and pixels, decided once and refused before any work."""

from __future__ import annotations

import errno
import io
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from sr_deploy.core.contract import Size
from sr_deploy.core.errors import EnvironmentFault, UsageError
from sr_deploy.core.media.colour import Planes
from sr_deploy.core.media.video.clip import Clip
from sr_deploy.core.media.video.package import import_av
from sr_deploy.core.media.video.pixels import PIXEL_FORMATS, PixelFormat, fill_frame
from sr_deploy.core.names import check_name
from sr_deploy.core.text import plain


@dataclass(frozen=True)
class Codec:
    """A row of the table of codecs.

    Attributes:
        encoder: FFmpeg's name.
        quality: the encoder's option that --crf sets; "": it has none.
        crf: its value without --crf: hardly to be told from the frames at twice the size.
        most: the largest --crf.
        options: what it is always given.
        tag: the codec's name in MP4 and MOV where players want another than FFmpeg's.
    """

    encoder: str
    quality: str = "crf"
    crf: int = 16
    most: int = 51
    options: Tuple[Tuple[str, str], ...] = ()
    tag: str = ""


#: --codec → encoder. The first is taken for 8 bits, "hevc" for more, which more players show.
CODECS: Dict[str, Codec] = {
    "h264": Codec("libx264"),
    "hevc": Codec("libx265", crf=18, options=(("x265-params", "log-level=none"),), tag="hvc1"),
    "av1": Codec("libsvtav1", crf=20, most=63),
    "vp9": Codec("libvpx-vp9", crf=18, most=63, options=(("b", "0"),)),
    "ffv1": Codec("ffv1", quality=""),
    "prores": Codec("prores_ks", quality=""),
    "h264_nvenc": Codec("h264_nvenc", quality="cq", crf=19, options=(("rc", "vbr"), ("b", "0"))),
    "hevc_nvenc": Codec("hevc_nvenc", quality="cq", crf=21, options=(("rc", "vbr"), ("b", "0")), tag="hvc1"),
}
#: Containers that are written.
CONTAINERS = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
_FILE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EIO, errno.EROFS)


@dataclass(frozen=True)
class Encoding:
    """All that an encoder is told, complete.

    Attributes:
        clip: where the frames come from: its clock and its tags are written again.
        codec: a row of CODECS, and its name.
        crf: the quality; None: the codec has none.
        pixel_format: FFmpeg's name, and its row.
        size: (height, width) of a frame.
        suffix: of the file, with the dot; it names the container.
    """

    clip: Clip
    name: str
    codec: Codec
    crf: Optional[int]
    pixel_format: str
    form: PixelFormat
    size: Size
    suffix: str

    @property
    def options(self) -> Dict[str, str]:
        """What the encoder is given by name."""
        options = dict(self.codec.options)
        if self.crf is not None:
            options[self.codec.quality] = str(self.crf)
        if self.form.subsampling != (1, 1):
            options["chroma_sample_location"] = self.clip.colour.siting
        return options

    def described(self) -> Dict[str, str]:
        """What of it decides the bytes, for a request that may be resumed."""
        av = import_av()
        return {
            "codec": self.codec.encoder,
            "crf": str(self.crf),
            "pixel format": self.pixel_format,
            "container": self.suffix,
            "size": f"{self.size[0]}x{self.size[1]}",
            "colour": f"{self.clip.colour.matrix} {self.clip.colour.range} {self.clip.colour.siting}",
            "av": av.__version__,
        }


def settle(clip: Clip, out: Path, scale: int, codec: Optional[str], crf: Optional[int],
           pixel_format: Optional[str]) -> Encoding:  # fmt: skip
    """What to encode with, from what was asked for and what the clip is.

    Raises:
        UsageError: a name that does not exist, a container or encoder that does not take it, or a size that its
            chroma does not divide.
        EnvironmentFault: this build of FFmpeg has no such encoder.
    """
    suffix = out.suffix.lower()
    if suffix not in CONTAINERS:
        raise UsageError(f"cannot write {out}: unknown suffix {suffix!r}", "one of " + ", ".join(CONTAINERS))
    name = codec or ("vp9" if suffix == ".webm" else "h264" if clip.form.depth == 8 else "hevc")
    check_name("--codec", name, CODECS)
    row = CODECS[name]
    if crf is not None and (not row.quality or not 0 <= crf <= row.most):
        wanted = f"0 (best) to {row.most}" if row.quality else "no --crf: the codec has none"
        raise UsageError(f"--crf {crf} with --codec {name}", wanted)
    pixels = pixel_format or _like(clip.pixel_format)
    if pixels not in PIXEL_FORMATS or PIXEL_FORMATS[pixels].full:
        known = ", ".join(key for key, form in PIXEL_FORMATS.items() if not form.full)
        raise UsageError(f"--pixel-format {pixels} is not written here", f"one of {known}")
    form = PIXEL_FORMATS[pixels]
    _check_encoder(name, row, pixels)
    _check_container(out, name, row)
    if form.grey and not clip.form.grey:
        raise UsageError(f"--pixel-format {pixels} would lose the colours of {clip.path}", "a form with colours")
    size = (clip.size[0] * scale, clip.size[1] * scale)
    if size[0] % form.subsampling[0] or size[1] % form.subsampling[1]:
        raise UsageError(
            f"frames of {size[1]}x{size[0]} pixels cannot be stored as {pixels}, which players take in even sizes only",
            "a form whose chroma is not subsampled",
            "--pixel-format " + ("yuv444p" if form.depth == 8 else f"yuv444p{form.depth}le"),
        )
    return Encoding(clip, name, row, (row.crf if crf is None else crf) if row.quality else None, pixels, form, size,
                    suffix)  # fmt: skip


def _like(name: str) -> str:
    """The form to write for a clip's own: the same, planar, and full range in the tag instead of the name."""
    return {"nv12": "yuv420p", "p010le": "yuv420p10le"}.get(name, name.replace("yuvj", "yuv"))


def _check_encoder(name: str, row: Codec, pixels: str) -> None:
    av = import_av()
    try:
        encoder = av.Codec(row.encoder, "w")
    except av.codec.codec.UnknownCodecError as error:
        raise EnvironmentFault(
            f"this FFmpeg has no encoder {row.encoder}",
            "another --codec",
            "--codec h264 or ffv1, which FFmpeg mostly has, or another package of PyAV",
        ) from error
    takes = [form.name for form in encoder.video_formats or ()]
    if takes and pixels not in takes:
        known = [one for one in takes if one in PIXEL_FORMATS and not PIXEL_FORMATS[one].full]
        raise UsageError(
            f"--codec {name} does not store {pixels}", f"one of {', '.join(known)}", "name one with --pixel-format, "
            "or another --codec: hevc stores 8, 10 and 12 bits",
        )  # fmt: skip


def _check_container(out: Path, name: str, row: Codec) -> None:
    av = import_av()
    with av.open(io.BytesIO(), "w", format=muxer_of(out.suffix)) as container:
        try:
            container.add_mux_stream(row.encoder)
        except ValueError as error:
            raise UsageError(
                f"a file ending in {out.suffix} does not hold {name}", "a container that does", "name the output ….mkv"
            ) from error


def muxer_of(suffix: str) -> str:
    """FFmpeg's name of the container that a suffix of CONTAINERS stands for."""
    return {".mkv": "matroska", ".m4v": "mp4"}.get(suffix.lower(), suffix.lower()[1:])


def write_error(error: Any) -> Optional[OSError]:
    """What FFmpeg met at the file system, as Python has it; None for an error of another kind."""
    number = abs(getattr(error, "errno", None) or 0)
    return OSError(number, os.strerror(number)) if number in _FILE_ERRORS else None


def decoding_times(shown: Sequence[int]) -> List[int]:
    """Decoding times for packets in the order of decoding, from the times at which they are shown.

    The n-th packet is decoded when the (n − d)-th picture is shown, with the least d for which none is decoded after it
    is shown; before the first picture the clock goes on at the pace of the first two. The times grow strictly.

    Args:
        shown: presentation times, all different.
    """
    order = sorted(shown)
    place = {time: index for index, time in enumerate(order)}
    delay = max((index - place[time] for index, time in enumerate(shown)), default=0)
    step = max(1, order[1] - order[0]) if len(order) > 1 else 1
    return [order[0] + (index - delay) * step if index < delay else order[index - delay] for index in range(len(shown))]


class ClipWriter:
    """Frames in order to one file; made for one segment, closed once.

    Its packets are kept in memory until it is closed: libx265 gives no usable decoding times for a few frames.
    """

    def __init__(self, path: Path, encoding: Encoding) -> None:
        av = import_av()
        self._av, self._encoding = av, encoding
        self._packets: List[Any] = []
        clip = encoding.clip
        self._container = av.open(str(path), "w", format=muxer_of(encoding.suffix))
        try:
            rate = clip.rate or Fraction(25)
            stream = self._container.add_stream(encoding.codec.encoder, rate=rate, options=encoding.options)
            stream.height, stream.width = encoding.size
            stream.pix_fmt = encoding.pixel_format
            stream.time_base = clip.time_base
            context = stream.codec_context
            context.time_base = clip.time_base
            context.colorspace, context.color_range = clip.matrix_tag, clip.range_tag
            context.color_primaries, context.color_trc = clip.primaries, clip.transfer
            if clip.pixel_aspect is not None:
                context.sample_aspect_ratio = clip.pixel_aspect
            if encoding.codec.tag and encoding.suffix in (".mp4", ".m4v", ".mov"):
                context.codec_tag = encoding.codec.tag
            self._stream: Any = stream
        except BaseException:
            self._container.close()
            raise

    def write(self, planes: Planes, start: int, duration: int) -> None:
        """Encode a frame.

        Args:
            planes: of the encoding's size and form.
            start, duration: ticks of the clip's clock.

        Raises:
            EnvironmentFault: the encoder does not start or fails.
            OSError: the file cannot be written.
        """
        height, width = self._encoding.size
        frame = self._av.VideoFrame(width, height, self._encoding.pixel_format)
        fill_frame(frame, planes, self._encoding.form)
        clip = self._encoding.clip
        frame.pts, frame.time_base, frame.duration = start, clip.time_base, duration
        frame.colorspace, frame.color_range = clip.matrix_tag, clip.range_tag
        frame.color_primaries, frame.color_trc = clip.primaries, clip.transfer
        self._encode(frame)

    def close(self) -> None:
        """Finish the file."""
        try:
            self._encode(None)
            base = self._encoding.clip.time_base
            shown = [int(round(packet.pts * packet.time_base / base)) for packet in self._packets]
            for packet, start, decoded in zip(self._packets, shown, decoding_times(shown)):
                packet.duration = round((packet.duration or 0) * packet.time_base / base)
                packet.pts, packet.dts, packet.time_base = start, decoded, base
                self._container.mux_one(packet)
            self._container.close()
        except self._av.FFmpegError as error:
            raise write_error(error) or self._refused(error) from error
        finally:
            self._container.close()

    def abandon(self) -> None:
        """Close the file unfinished."""
        self._container.close()

    def _encode(self, frame: Any) -> None:
        try:
            self._packets += self._stream.encode(frame)
        except (self._av.FFmpegError, ValueError) as error:
            raise write_error(error) or self._refused(error) from error

    def _refused(self, error: Exception) -> EnvironmentFault:
        encoder, (height, width) = self._encoding.codec.encoder, self._encoding.size
        return EnvironmentFault(
            f"{encoder} does not encode {width}x{height} {self._encoding.pixel_format}: {plain(str(error), 200)}",
            "an encoder that runs on this machine",
            "another --codec, such as h264",
        )
