"""From what a tensor holds to the scale of its 8-bit form: five methods, in numpy alone.

A value x is stored as clip(round(x / scale), -127, 127), so a scale says where the tensor is cut off: at 127 scales.

    ranges = ranges_of(graph, pictures)                   # precision/calibrate/collect.py
    scale = scale_of(ranges.tensors["/conv/Conv_output_0"], "sqnr")
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Tuple

import numpy as np

from sr_deploy.core.artifact import atomic_file
from sr_deploy.core.deployment.plan import INT8_MAX
from sr_deploy.core.errors import BadInput, CheckFailed, UsageError
from sr_deploy.core.names import check_name
from sr_deploy.core.schema import Amount, Count, Sha256, described, read_described
from sr_deploy.precision.calibrate.noise_curve import CUTS, quietest, rounding_integral

#: What ``--method`` may be.
METHODS: Tuple[str, ...] = ("minmax", "entropy", "percentile", "mse", "sqnr")
#: The method without ``--method``.
METHOD = "sqnr"
#: The share of values, in per cent, that "percentile" keeps inside the range.
PERCENTILE = 99.99
#: Bins of a histogram. At least half of them lie below the largest value, so a step of 8 bits spans 16 bins or more.
BINS = 4096
#: The scale of a tensor that is always zero: the smallest number that is normal in float16 and thus everywhere.
DEAD_SCALE = 2.0**-14
SCHEMA = 3

#: Bins taken as one in the first round of "mse".
_COARSE_MERGE = 4
#: Levels of magnitude that TensorRT's calibrator compares with, and the finest histogram it is given.
_LEVELS, _ENTROPY_BINS, _ENTROPY_STRIDE = 128, 2048, 8


@dataclass(frozen=True, eq=False)
class TensorStats:
    """What one tensor held over all pictures. Figures are of its finite values.

    Attributes:
        minimum, maximum: the extremes; 0 when there was no finite value.
        histogram: int64 (BINS,), how many magnitudes |x| fell between i and i + 1 times ``top`` / BINS. Of large
            tensors only a part is counted, evenly spread, so the sum may be less than ``count``; the extremes are
            always of all values.
        top: upper end of the histogram, a power of 2 above every magnitude; 0 when all values are zero.
        zeros: how many of the values in the histogram are exactly zero.
        channel_mean: float64 (C,), mean over batch and pixels; empty where axis 1 is not the channels of (N, C, H, W).
        channel_amax: float64 (C,), largest magnitude in each channel; empty likewise.
        count: values seen, the non-finite ones included.
        non_finite: NaN and infinite values.
        noise: float64, what each cut of noise_curve.CUTS costs in dB, the mean over the pictures; empty where no
            picture had a finite value.
    """

    minimum: float
    maximum: float
    histogram: np.ndarray
    top: float
    zeros: int
    channel_mean: np.ndarray
    channel_amax: np.ndarray
    count: int
    non_finite: int = 0
    noise: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def amax(self) -> float:
        """The largest magnitude."""
        return max(abs(self.minimum), abs(self.maximum))


@dataclass(frozen=True, eq=False)
class Ranges:
    """Statistics of a graph's tensors.

    Attributes:
        tensors: tensor name → what it held, in the graph's order.
        graph_sha256: of the graph that ran: of its file, or of the serialised model.
        inputs: arrays that went through it.
    """

    tensors: Dict[str, TensorStats]
    graph_sha256: str
    inputs: int


@described
@dataclass(frozen=True)
class TensorRecord:
    """One tensor in the file; the fields of TensorStats, the histogram as base64 of zlib of little-endian int64, the
    noise as that of little-endian float32, or "" without."""

    minimum: float
    maximum: float
    count: Count
    non_finite: Count
    zeros: Count
    top: Amount
    histogram: str
    noise: str
    channel_mean: Tuple[float, ...]
    channel_amax: Tuple[Amount, ...]


@described
@dataclass(frozen=True)
class RangesFile:
    """What ``save_ranges`` writes.

    Attributes:
        graph_sha256: the graph whose tensors these are.
        inputs: how many squares of pictures went through it.
        provenance: pictures by hash, places of the squares, method and versions.
        tensors: by the tensor's name.
        schema: version of this layout.
    """

    graph_sha256: Sha256
    inputs: Count
    provenance: Dict[str, Any]
    tensors: Dict[str, TensorRecord]
    schema: int = SCHEMA


def scale_of(stats: TensorStats, method: str = "minmax", percentile: float = PERCENTILE) -> float:
    """The scale of a tensor's 8-bit form.

    Args:
        stats: of the tensor.
        method: "minmax": the largest magnitude is kept. "percentile": so many per cent of the values are kept.
            "entropy": the cut whose 128 levels lose the least information (Kullback-Leibler divergence), as TensorRT's
            calibrator chooses it: S. Migacz, "8-bit inference with TensorRT", GTC 2017. "mse": the cut with the least
            mean squared error of rounding and clipping, from the histogram of all pictures together. "sqnr": the one
            with the best ratio of signal to that error in dB, the mean over the pictures, see noise_curve.py.
        percentile: for that method, in (0, 100].

    Returns:
        A positive, normal float32 number, as a float; DEAD_SCALE for a tensor that is always zero.

    Raises:
        UsageError: an unknown method, or a percentile outside (0, 100].
        BadInput: no value was seen.
        CheckFailed: NaN or infinite values were seen.
    """
    check_name("calibration method", method, METHODS)
    if not 0 < percentile <= 100:
        raise UsageError(f"a percentile of {percentile:g} does not exist", "a number above 0, at most 100")
    if stats.count == 0:
        raise BadInput(
            "a scale was asked of a tensor that no picture went through", "at least one picture", "give pictures"
        )
    if stats.non_finite:
        raise CheckFailed(
            f"{stats.non_finite} of {stats.count} values of a tensor are NaN or infinite, so it has no scale",
            "finite values in the float32 graph",
            "check the checkpoint and the pictures: the network itself is broken for them",
        )
    if stats.amax == 0.0:
        return DEAD_SCALE
    if method == "minmax":
        cut = stats.amax
    elif method == "percentile":
        cut = _percentile_cut(stats, percentile)
    elif method == "entropy":
        cut = _entropy_cut(stats)
    elif method == "sqnr":
        cut = quietest(stats.noise)
    else:
        cut = _mse_cut(stats)
    return float(max(np.float32(min(cut, stats.amax) / INT8_MAX), np.finfo(np.float32).tiny))


def quantisation_error(stats: TensorStats, scale: float) -> float:
    """Mean squared error of storing the tensor in 8 bits with this scale.

    Values are taken as even within each bin of the histogram, and the integral over it is exact: of rounding up to
    127.5 scales, of clipping to 127 scales beyond. Zeros are stored exactly.
    """
    return float(_errors(stats, np.asarray([scale]))[0])


def _errors(stats: TensorStats, scales: np.ndarray, merge: int = 1) -> np.ndarray:
    """``quantisation_error`` of several scales, float64 (S,), from a histogram with ``merge`` bins taken as one."""
    counts = stats.histogram.reshape(-1, merge).sum(axis=1).astype(np.float64)
    total = counts.sum()
    if total == 0 or stats.top == 0.0:
        return np.zeros(len(scales))
    counts[0] = max(counts[0] - stats.zeros, 0.0)
    counts = counts[: int(np.flatnonzero(stats.histogram)[-1]) // merge + 1]
    edges = np.arange(len(counts) + 1) * (stats.top / BINS * merge) / scales[:, None]
    means = np.diff(rounding_integral(edges), axis=1) / edges[:, 1:2]
    return means @ counts / total * scales**2


def _percentile_cut(stats: TensorStats, percentile: float) -> float:
    """The magnitude below which so many per cent of the values lie, linear within a bin, at least one bin."""
    below = np.concatenate([[0], np.cumsum(stats.histogram)]).astype(np.float64)
    wanted = below[-1] * percentile / 100.0
    if wanted >= below[-1]:
        return stats.amax
    position = float(np.interp(wanted, below, np.arange(BINS + 1)))
    return max(position, 1.0) * stats.top / BINS


def _mse_cut(stats: TensorStats) -> float:
    """The best of a coarse grid of cuts, then of a fine one around it; the largest magnitude is among them."""
    coarse = stats.amax * np.concatenate([np.geomspace(0.01, 0.3, 16, endpoint=False), np.linspace(0.3, 1.0, 24)])
    best = coarse[int(np.argmin(_errors(stats, coarse / INT8_MAX, _COARSE_MERGE)))]
    step = max(0.04 * stats.amax, 0.2 * best)
    fine = np.clip(np.linspace(best - step, best + step, 15), 0.005 * stats.amax, stats.amax)
    fine = np.append(fine, stats.amax)
    return float(fine[int(np.argmin(_errors(stats, fine / INT8_MAX)))])


def _entropy_cut(stats: TensorStats) -> float:
    """The cut of least divergence between the clipped histogram and its form in 128 levels."""
    merged = stats.histogram.reshape(_ENTROPY_BINS, -1).sum(axis=1).astype(np.float64)
    # Zeros need no level; counted, they would decide alone for every tensor behind a ReLU.
    merged[0] = merged[1]
    used = np.flatnonzero(merged)
    if len(used) == 0:
        return stats.amax
    width = stats.top / _ENTROPY_BINS
    last = min(int(used[-1]) + 1, _ENTROPY_BINS)
    best, best_cut = np.inf, stats.amax
    for stop in sorted({*range(_LEVELS, last, _ENTROPY_STRIDE), last}, reverse=True):
        divergence = _divergence(merged, stop)
        if divergence < best:
            best, best_cut = divergence, stop * width
    return best_cut


def _divergence(histogram: np.ndarray, stop: int) -> float:
    """KL divergence of the first ``stop`` bins, with all that lies above in the last, from their 128 levels."""
    inside = histogram[:stop]
    reference = inside.copy()
    reference[-1] += histogram[stop:].sum()
    level = np.minimum(np.arange(stop) * _LEVELS // stop, _LEVELS - 1)
    filled = inside > 0
    sums = np.bincount(level, inside, _LEVELS)
    sizes = np.bincount(level, filled, _LEVELS)
    levelled = np.where(filled, (sums / np.maximum(sizes, 1.0))[level], 0.0)
    p, q = reference / reference.sum(), levelled / max(levelled.sum(), 1.0)
    seen = p > 0
    # A bin that holds clipped values only has no level: a little mass stands for it, as in the published method.
    return float(np.sum(p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))))


def save_ranges(path: Path, ranges: Ranges, provenance: Dict[str, Any]) -> None:
    """Write ranges as JSON, whole or not at all: one line a tensor, its histogram packed.

    Args:
        path: the file.
        ranges: what to write.
        provenance: JSON-able; kept under that name, for whoever opens the file.
    """
    head = {"schema": SCHEMA, "graph_sha256": ranges.graph_sha256, "inputs": ranges.inputs, "provenance": provenance}
    lines = [json.dumps(head, allow_nan=False)[:-1] + ', "tensors": {']
    rows = [
        f"{json.dumps(name)}: {json.dumps(_packed(stats), allow_nan=False)}" for name, stats in ranges.tensors.items()
    ]
    with atomic_file(Path(path)) as temporary:
        temporary.write_text("\n".join([*lines, ",\n".join(rows), "}}"]) + "\n", encoding="utf-8")


def open_ranges(path: Path) -> Tuple[Ranges, Dict[str, Any]]:
    """Read what ``save_ranges`` wrote: the ranges and their provenance.

    Raises:
        BadInput: missing, or not as described.
    """
    read = read_described(RangesFile, path, "calibration", "calibrate again")
    try:
        tensors = {name: _unpacked(value) for name, value in read.tensors.items()}
    except (ValueError, zlib.error) as error:
        raise BadInput(f"{path} is no calibration: a histogram in it is {error}", "", "calibrate again") from error
    return Ranges(tensors, read.graph_sha256, read.inputs), read.provenance


def _packed(stats: TensorStats) -> Dict[str, Any]:
    return {
        "minimum": stats.minimum,
        "maximum": stats.maximum,
        "count": stats.count,
        "non_finite": stats.non_finite,
        "zeros": stats.zeros,
        "top": stats.top,
        "histogram": _text_of(stats.histogram.astype("<i8")),
        "noise": _text_of(stats.noise.astype("<f4")),
        "channel_mean": stats.channel_mean.tolist(),
        "channel_amax": stats.channel_amax.tolist(),
    }


def _text_of(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(), 1)).decode("ascii") if array.size else ""


def _array_of(text: str, kind: str, size: int) -> np.ndarray:
    """What ``_text_of`` packed. No more is unpacked than ``size`` values, whatever the file says."""
    width = np.dtype(kind).itemsize
    raw = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size * width + 1)
    if len(raw) != size * width:
        raise ValueError(f"of {len(raw) // width} bins")
    return np.frombuffer(raw, kind)


def _unpacked(value: TensorRecord) -> TensorStats:
    histogram = _array_of(value.histogram, "<i8", BINS).astype(np.int64)
    noise = _array_of(value.noise, "<f4", len(CUTS)).astype(np.float64) if value.noise else np.zeros(0)
    if histogram.min() < 0:
        raise ValueError("negative")
    if not np.isfinite(noise).all():
        raise ValueError("beside noise that is not finite")
    return TensorStats(
        value.minimum,
        value.maximum,
        histogram,
        value.top,
        value.zeros,
        np.asarray(value.channel_mean, np.float64),
        np.asarray(value.channel_amax, np.float64),
        value.count,
        value.non_finite,
        noise,
    )
