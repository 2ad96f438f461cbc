"""The calibration cache: the text file from which TensorRT 8 and 10 take INT8 scales without pictures.

    TRT-8502-EntropyCalibration2
    lr: 3c010204
    features: 3d8b1f40

The number in the first line is the version of TensorRT; each other line holds a tensor of the graph and its scale, the
eight hexadecimal digits of an IEEE 754 float32, most significant first. A value x is then held as round(x / scale).
Sources: caches printed in NVIDIA/TensorRT issue 2958, the reader in trtexec's sampleEngines.cpp.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Tuple

from sr_deploy.core.errors import BadInput

#: Algorithm, as the first line names it → the class of TensorRT that reads such a cache.
CALIBRATORS: Dict[str, str] = {
    "EntropyCalibration2": "IInt8EntropyCalibrator2",
    "MinMaxCalibration": "IInt8MinMaxCalibrator",
}
Version = Tuple[int, int, int]
_HEADER = re.compile(r"TRT-(\d{4,6})-(\w+)")
_LINE = re.compile(r"(\S.*): ([0-9a-f]{8})")


@dataclass(frozen=True)
class CalibrationCache:
    """What such a file holds.

    Attributes:
        version: of TensorRT: major, minor, patch.
        algorithm: a key of CALIBRATORS.
        scales: tensor name → scale; each is a number that float32 holds exactly.
    """

    version: Version
    algorithm: str
    scales: Dict[str, float]


def parsed_version(text: str) -> Version:
    """The first three numbers of a version such as "8.5.2.2".

    Raises:
        BadInput: there are fewer.
    """
    parts = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    if parts is None:
        raise BadInput(
            f"{text!r} is not a version of TensorRT",
            "one such as 8.5.2",
            "build with srdeploy, which writes the cache for the version that is here",
        )
    return int(parts.group(1)), int(parts.group(2)), int(parts.group(3))


def version_number(version: Version) -> int:
    """A version as the first line writes it: 8.5.2 is 8502, 10.3.0 is 100300 (NV_TENSORRT_VERSION of NvInferVersion.h).

    Raises:
        BadInput: a part does not fit its digits.
    """
    major, minor, patch = version
    if not (4 <= major < 100 and 0 <= minor < (10 if major < 10 else 100) and 0 <= patch < 100):
        raise BadInput(
            f"TensorRT {major}.{minor}.{patch} has no number for a calibration cache",
            "such as 8.5.2",
            "give it as TensorRT says it",
        )
    return major * (1000 if major < 10 else 10000) + minor * 100 + patch


def cache_text(cache: CalibrationCache) -> str:
    """The file's text.

    Raises:
        BadInput: an algorithm or version that does not exist, no scales, a scale that is not a finite float32 above
            0, or a name that the format cannot hold.
    """
    _check_algorithm(cache.algorithm, "the calibration cache")
    lines = [f"TRT-{version_number(cache.version)}-{cache.algorithm}"]
    for name, scale in cache.scales.items():
        if not name or name != name.strip() or "\n" in name or "\r" in name:
            raise BadInput(
                f"the calibration cache cannot hold a tensor named {name!r}",
                "a name of one line",
                "export the network again, without line breaks in the names of its layers",
            )
        try:
            packed = struct.pack(">f", scale)
        except OverflowError:
            packed = struct.pack(">f", math.inf)
        (stored,) = struct.unpack(">f", packed)
        if not (math.isfinite(stored) and stored > 0):
            raise BadInput(
                f"the scale of {name!r} is {scale}",
                "a finite float32 above 0",
                "calibrate again: srdeploy calibrate DIR --images D --force",
            )
        lines.append(f"{name}: {packed.hex()}")
    if len(lines) == 1:
        raise BadInput(
            "the calibration cache would hold no scales",
            "a scale for each tensor to run in INT8",
            "calibrate again: srdeploy calibrate DIR --images D --force",
        )
    return "\n".join(lines) + "\n"


def parse_cache(text: str, origin: str) -> CalibrationCache:
    """Read the file's text.

    Args:
        text: the whole file.
        origin: the file's name, for messages.

    Raises:
        BadInput: naming the line: no such header, garbage, a scale that is not a finite number above 0, a tensor named
            twice, or no scales at all.
    """
    again = "write it again with srdeploy build DIR --precision int8"
    # Not splitlines: names may hold characters that it takes for ends of lines.
    lines = [line.rstrip("\r") for line in text.split("\n")]
    header = _HEADER.fullmatch(lines[0])
    if header is None:
        raise BadInput(f"{origin} begins with {lines[0][:60]!r}", "TRT-8502-EntropyCalibration2 or such", again)
    _check_algorithm(header.group(2), origin)
    number = int(header.group(1))
    split = 1000 if number < 10000 else 10000
    version = (number // split, number % split // 100, number % 100)
    scales: Dict[str, float] = {}
    for index, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise BadInput(f"line {index} of {origin} is {line[:80]!r}", '"tensor: " and 8 hexadecimal digits', again)
        name, (scale,) = found.group(1), struct.unpack(">f", bytes.fromhex(found.group(2)))
        if not (math.isfinite(scale) and scale > 0):
            raise BadInput(f"line {index} of {origin} gives {name!r} the scale {scale}", "a finite one above 0", again)
        if name in scales:
            raise BadInput(f"line {index} of {origin} names {name!r} for a second time", "each tensor once", again)
        scales[name] = scale
    if not scales:
        raise BadInput(f"{origin} holds no scales", "a scale for each tensor to run in INT8", again)
    return CalibrationCache(version, header.group(2), scales)


def read_cache(path: Path) -> CalibrationCache:
    """Read a calibration cache.

    Raises:
        BadInput: missing, not text, or as ``parse_cache`` says.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise BadInput(
            f"cannot read the calibration cache {path}: {reason}",
            "a calibration cache",
            "make the plan again: srdeploy build DIR --precision int8 --images D --remake-plan",
        ) from error
    return parse_cache(text, str(path))


def _check_algorithm(algorithm: str, origin: str) -> None:
    if algorithm not in CALIBRATORS:
        raise BadInput(
            f"{origin} is for the calibrator {algorithm!r}",
            "one of " + ", ".join(CALIBRATORS),
            "trtexec --calib takes EntropyCalibration2 only",
        )
