"""Where the chroma samples of a clip lie: what its stream says, which PyAV does not hand on.

FFmpeg's bitstream filter ``trace_headers`` lists the fields of a stream's headers in its log. For H.264 and H.265 the
field is chroma_sample_loc_type_top_field (ITU-T H.264 and H.265, annex E), for AV1 chroma_sample_position (AV1
specification, 6.4.2). Other codecs have no such field; by H.273, 4:2:0 then is as MPEG-2 has it, left, and as
JPEG has it, centre, for motion JPEG.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Optional

from sr_deploy.core.errors import BadInput
from sr_deploy.core.media.video.package import import_av
from sr_deploy.core.yuv import Siting

#: Codec → the field, and what its values mean. A value that is not here is refused.
_FIELDS: Dict[str, Any] = {
    "h264": ("chroma_sample_loc_type_top_field", {0: "left", 1: "center", 2: "topleft"}),
    "hevc": ("chroma_sample_loc_type_top_field", {0: "left", 1: "center", 2: "topleft"}),
    "av1": ("chroma_sample_position", {0: None, 1: "left", 2: "topleft"}),
}
_CENTRED = ("mjpeg",)


def siting_of(stream: Any, packet: Any, origin: str) -> Optional[Siting]:
    """What a stream says.

    Args:
        stream: an av.VideoStream.
        packet: its first packet, which may hold the headers; it is used up.
        origin: the clip, for errors.

    Returns:
        None: it says nothing.

    Raises:
        BadInput: a place that is not known here.
    """
    codec = stream.codec_context.name
    if codec in _CENTRED:
        return "center"
    known = {"libdav1d": "av1", "libaom-av1": "av1"}.get(codec, codec)
    if known not in _FIELDS:
        return None
    field, meanings = _FIELDS[known]
    found = re.search(rf"\b{field}\b\s+\S+ = (\d+)", _headers(stream, packet))
    if found is None:
        return None
    value = int(found.group(1))
    if value not in meanings:
        raise BadInput(
            f"{origin} says that its chroma samples lie at place {value} of ITU-T H.273",
            "0 (left), 1 (center) or 2 (top left)",
            "say where they lie with --siting, if the clip is wrong about it",
        )
    siting: Optional[Siting] = meanings[value]
    return siting


def _headers(stream: Any, packet: Any) -> str:
    """The log of trace_headers; empty where the headers cannot be read."""
    av = import_av()
    before = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        with av.logging.Capture() as lines:
            trace = av.bitstream.BitStreamFilterContext("trace_headers", stream)
            trace.filter(packet)
    except av.FFmpegError:
        return ""
    finally:
        av.logging.set_level(before)
    return "".join(line[2] for line in lines)
