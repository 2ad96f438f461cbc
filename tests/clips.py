"""Small clips made with PyAV, whose frames, clock, tags and sound are known."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Optional, Sequence, Tuple

import av
import numpy as np

#: Times of ten frames of variable rate, milliseconds.
UNEVEN = (0, 40, 45, 100, 160, 161, 240, 300, 420, 460)


@dataclass(frozen=True)
class Spec:
    """What to make; the tags are numbers of ITU-T H.273, FFmpeg's for the range."""

    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    size: Tuple[int, int] = (48, 64)
    frames: int = 10
    base: Fraction = Fraction(1, 12800)
    times: Optional[Sequence[int]] = None
    matrix: int = 1
    range: int = 1
    primaries: int = 1
    transfer: int = 1
    siting: Optional[str] = None
    aspect: Optional[Fraction] = None
    rotation: int = 0
    audio: bool = False
    subtitle: bool = False
    options: Tuple[Tuple[str, str], ...] = ()


def picture(number: int, size: Tuple[int, int]) -> np.ndarray:
    """A smooth frame that differs from its neighbours: uint8 (H, W, 3), saturated nowhere."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    waves = [np.sin(rows / 9 + number), np.cos(columns / 7 - number), np.sin((rows + columns) / 11 + number / 2)]
    return np.stack([128 + 70 * wave for wave in waves], axis=2).astype(np.uint8)


def make_clip(path: Path, spec: Spec = Spec()) -> Path:
    """Write a clip; its container is named by the suffix."""
    options = {"crf": "10"} if spec.codec.startswith("libx26") else {}
    if spec.codec == "libx265":
        options["x265-params"] = "log-level=none"
    if spec.siting:
        options["chroma_sample_location"] = spec.siting
    with av.open(str(path), "w", options=dict(spec.options)) as container:
        stream = container.add_stream(spec.codec, rate=25, options=options)
        stream.height, stream.width = spec.size
        stream.pix_fmt = spec.pixel_format
        stream.time_base = stream.codec_context.time_base = spec.base
        context = stream.codec_context
        context.colorspace, context.color_range = spec.matrix, spec.range
        context.color_primaries, context.color_trc = spec.primaries, spec.transfer
        if spec.aspect:
            context.sample_aspect_ratio = spec.aspect
        if spec.rotation:
            stream.set_display_rotation(spec.rotation)
        sound = container.add_stream("aac", rate=16000, layout="mono") if spec.audio else None
        words = container.add_mux_stream("mov_text") if spec.subtitle else None
        for number in range(spec.frames):
            frame = av.VideoFrame.from_ndarray(picture(number, spec.size), format="rgb24")
            frame = frame.reformat(format=spec.pixel_format)
            frame.time_base = spec.base
            frame.pts = spec.times[number] if spec.times else round(number / spec.base / 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for one in range(6) if sound else ():
            wave = np.sin(np.arange(1024) * (one + 1) / 20).astype(np.float32)[None]
            block = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = 16000, one * 1024, Fraction(1, 16000)
            container.mux(sound.encode(block))
        if sound:
            container.mux(sound.encode(None))
        if words:
            text = av.Packet(b"\x00\x05hello")
            text.pts = text.dts = 0
            text.duration, text.time_base, text.stream = 200, Fraction(1, 1000), words
            container.mux(text)
    return path


def packets(path: Path, kind: str):
    """(time, bytes) of every packet of a kind of stream."""
    with av.open(str(path)) as container:
        streams = [one for one in container.streams if one.type == kind]
        if not streams:  # which would be all of them
            return []
        return [
            (float(packet.pts * packet.time_base), bytes(packet)) for packet in container.demux(streams) if packet.size
        ]
