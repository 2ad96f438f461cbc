"""Times that NVIDIA's trtexec wrote, as a result of this house: ``--exportTimes`` and ``--exportProfile``, 8.5 to 11.

The layout is that of samples/common/sampleReporting.cpp in NVIDIA/TensorRT. From 8.5 to 11 the keys are the same and
the warm-up is left out of the file. Up to 8.4 each entry had ``endToEndMs`` too, and the warm-up was in the file: such
files are refused, because nothing in them says where the warm-up ends.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from sr_deploy.bench.interval import effective_sample_size, median_interval
from sr_deploy.bench.measure import STABLE_WITHIN, is_launch_bound, summary
from sr_deploy.bench.result import EnqueueFacts, Point, Result, description_of, now_utc
from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.contract import Size
from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.core.names import check_name

#: What one entry of --exportTimes holds, all in ms: times since the start of the run, then durations.
TIME_KEYS = (
    *("startEnqMs", "endEnqMs", "startH2dMs", "endH2dMs", "startComputeMs", "endComputeMs", "startD2hMs", "endD2hMs"),
    *("h2dMs", "computeMs", "d2hMs", "latencyMs"),
)
DURATION_KEYS = TIME_KEYS[-4:]
#: What one layer of --exportProfile holds.
LAYER_KEYS = ("name", "timeMs", "averageMs", "medianMs", "percentage")
#: Which duration is a sample of which scope. The first is the time between device events, without the launch.
SCOPE_KEYS = {"compute": "computeMs", "end-to-end": "latencyMs"}
UNKNOWN = "unknown"
#: Of the interval of the median.
CONFIDENCE = 0.95
#: Files have six significant figures; latencyMs must be the sum of its parts to within this part of itself.
SUM_WITHIN = 1e-3


@dataclass(frozen=True)
class TrtexecRun:
    """What the person who ran trtexec knows and no file stores.

    Attributes:
        size: input (height, width), pixels.
        device: name of the GPU.
        scope: "compute" or "end-to-end".
        version: of trtexec, such as "8.5.2" or "11.0"; None when it is not known.
        scale: output size over input size; None when it is not known.
        precision: such as "fp16"; None when it is not known.
        deployment: what was timed, for the record.
    """

    size: Size
    device: str
    scope: str = "compute"
    version: Optional[str] = None
    scale: Optional[int] = None
    precision: Optional[str] = None
    deployment: str = UNKNOWN

    def __post_init__(self) -> None:
        """Refuse what cannot be recorded.

        Raises:
            UsageError: another scope, no device name, a scale below 1, or a version that is not 8.5 or newer.
        """
        check_name("timing scope of trtexec called", self.scope, SCOPE_KEYS)
        if not self.device.strip():
            raise UsageError("the device has no name", "the GPU that trtexec ran on, such as --device 'Xavier NX'")
        if self.scale is not None and self.scale < 1:
            raise UsageError(f"a scale of {self.scale}", "output size over input size, such as 4")
        if self.version is not None and _number_of(self.version) < (8, 5):
            raise UsageError(
                f"times of trtexec {self.version} cannot be imported: up to 8.4 the file holds the warm-up too",
                "trtexec 8.5 to 11",
                "time again with a newer trtexec, or with srdeploy bench",
            )


@dataclass(frozen=True)
class Times:
    """The content of an --exportTimes file. Seconds, in the order taken, the warm-up left out.

    Attributes:
        compute_s: between the device events around the network.
        latency_s: upload, compute and download added up.
        transfers: whether uploads and downloads were timed; without them ``latency_s`` equals ``compute_s``.
        enqueue_s: how long the host took to queue each run.
    """

    compute_s: Tuple[float, ...]
    latency_s: Tuple[float, ...]
    transfers: bool
    enqueue_s: Tuple[float, ...]


@dataclass(frozen=True)
class Layer:
    """One layer of a profile: its name, mean time a run in seconds, and its share of the whole, 0…1."""

    name: str
    mean_s: float
    share: float


def result_from_trtexec(times: Path, run: TrtexecRun, profile: Optional[Path] = None) -> Result:
    """Read what trtexec wrote and make a result of one point.

    Args:
        times: the file of --exportTimes.
        run: what no file stores.
        profile: the file of --exportProfile; its layers go into the point's description.

    Raises:
        BadInput: a file is not what it was given for; see ``read_times`` and ``read_profile``.
        UsageError: "end-to-end" was asked of a file that was timed without transfers.
    """
    read = read_times(times)
    if run.scope == "end-to-end" and not read.transfers:
        raise UsageError(
            f"{times} was timed without transfers, so it has no end-to-end latency",
            "--scope compute",
            "or time again: trtexec --includeDataTransfers (from 11 on), without --noDataTransfers (up to 10)",
        )
    samples = read.compute_s if run.scope == "compute" else read.latency_s
    description: Dict[str, Any] = {
        "runtime": "trtexec",
        "version": run.version or UNKNOWN,
        "precision": run.precision or UNKNOWN,
        "transfers": read.transfers,
    }
    if profile is not None:
        count, layers = read_profile(profile)
        description["profile_runs"] = count
        description["layers"] = [{"name": x.name, "mean_s": x.mean_s, "share": x.share} for x in layers]
    effective = effective_sample_size(samples)
    interval = median_interval(samples, CONFIDENCE, effective)
    point = Point(
        size=run.size,
        scope=run.scope,
        runtime="trtexec",
        device=run.device,
        description=description_of(description),
        output_pixels=run.size[0] * run.size[1] * (run.scale or 0) ** 2,
        warmup_stable=settled(samples),
        samples_s=samples,
        timer="events",
        settings=settings_of(run.version),
        median_low_s=interval[0] if interval else None,
        median_high_s=interval[1] if interval else None,
        effective_samples=round(effective, 1),
        **_queueing(read, run.scope, samples),
        **summary(samples),
    )
    environment = {
        "gpus": [{"name": run.device}],
        "packages": {"tensorrt": run.version} if run.version else {},
        "imported": {"file": Path(times).name, "sha256": sha256_of(times), "by": "trtexec --exportTimes"},
    }
    return Result(run.deployment, environment, {"scope": run.scope, "confidence": CONFIDENCE}, (point,), now_utc())


def _queueing(read: Times, scope: str, samples: Sequence[float]) -> EnqueueFacts:
    """``enqueue_s`` and ``launch_bound`` of the point; how many runs were in flight no file tells."""
    if scope != "compute":
        return {}
    enqueue = statistics.median(read.enqueue_s)
    return {"enqueue_s": enqueue, "launch_bound": is_launch_bound(enqueue, statistics.median(samples))}


def settings_of(version: Optional[str]) -> Dict[str, str]:
    """CUDA graph, wait and streams, which no file stores: unknown, with the default of the version where it is known.

    The defaults turned round in 11.0 (samples/common/sampleOptions.cpp of 10.16 and 11.0): CUDA graphs and spin-wait
    are on, and were off before.
    """
    if version is None:
        return {"cuda_graph": UNKNOWN, "wait": UNKNOWN, "streams": UNKNOWN}
    new = _number_of(version) >= (11,)
    words = {"cuda_graph": "on" if new else "off", "wait": "spin" if new else "block", "streams": "1"}
    return {name: f"{UNKNOWN}; {word} by default in trtexec {version}" for name, word in words.items()}


def settled(samples: Sequence[float]) -> bool:
    """Whether the first quarter of the samples has the median of the rest, within STABLE_WITHIN.

    trtexec warms up for a fixed time, so whether it was enough is judged from what came after.
    """
    quarter = len(samples) // 4
    if quarter < 1:
        return False
    first, rest = statistics.median(samples[:quarter]), statistics.median(samples[quarter:])
    return abs(first - rest) <= STABLE_WITHIN * min(first, rest)


def read_times(path: Path) -> Times:
    """Read a file of --exportTimes.

    Raises:
        BadInput: not JSON, another layout, no entry, a key missing, a time that is negative or not a number, or the
            layout of 8.4 and older.
    """
    entries = _list_from(path, "times", "--exportTimes")
    if isinstance(entries[0], dict) and "count" in entries[0]:
        raise BadInput(
            f"{path} is a profile (--exportProfile), not times", "a file of trtexec --exportTimes", "--profile takes it"
        )
    columns: Dict[str, List[float]] = {key: [] for key in DURATION_KEYS}
    enqueue: List[float] = []
    for index, entry in enumerate(entries):
        where = f"entry {index + 1} of {path}"
        _check_keys(entry, TIME_KEYS, where, "--exportTimes")
        if "endToEndMs" in entry:
            raise BadInput(
                f"{path} was written by trtexec 8.4 or older (it has endToEndMs), and holds the warm-up too",
                "times of trtexec 8.5 to 11",
                "time again with a newer trtexec, or with srdeploy bench",
            )
        for key in DURATION_KEYS:
            columns[key].append(_time(entry[key], key, where))
        begin, end = (_time(entry[key], key, where) for key in ("startEnqMs", "endEnqMs"))
        enqueue.append((end - begin) / 1e3)
        parts = entry["h2dMs"] + entry["computeMs"] + entry["d2hMs"]
        if entry["computeMs"] == 0 or abs(entry["latencyMs"] - parts) > SUM_WITHIN * parts:
            raise BadInput(
                f"{where}: computeMs is {entry['computeMs']}, latencyMs {entry['latencyMs']}, and its parts {parts:g}",
                "computeMs above 0, and latencyMs the sum of h2dMs, computeMs and d2hMs",
                "use the file as trtexec wrote it",
            )
    return Times(
        compute_s=tuple(ms / 1e3 for ms in columns["computeMs"]),
        latency_s=tuple(ms / 1e3 for ms in columns["latencyMs"]),
        # Without transfers trtexec takes the compute events for both ends of each, so that they last exactly 0.
        transfers=any(columns["h2dMs"]) or any(columns["d2hMs"]),
        enqueue_s=tuple(enqueue),
    )


def read_profile(path: Path) -> Tuple[int, Tuple[Layer, ...]]:
    """Read a file of --exportProfile: (runs, layers in the engine's order).

    Raises:
        BadInput: not JSON, another layout, no layer, a key missing, or a time that is negative or not a number.
    """
    head, *layers = _list_from(path, "profile", "--exportProfile")
    count = head.get("count") if isinstance(head, dict) else None
    if isinstance(count, bool) or not isinstance(count, int) or count < 1 or not layers:
        raise BadInput(
            f"{path} is not a profile of trtexec: it does not begin with the number of runs, or has no layer",
            '[{"count": N}, {"name": …, "averageMs": …}, …], the file of trtexec --exportProfile',
            "give the file of --exportTimes without --profile",
        )
    rows = []
    for index, entry in enumerate(layers):
        where = f"layer {index + 1} of {path}"
        _check_keys(entry, LAYER_KEYS, where, "--exportProfile")
        for key in LAYER_KEYS[1:]:
            _time(entry[key], key, where)
        rows.append(Layer(str(entry["name"]), entry["averageMs"] / 1e3, entry["percentage"] / 100))
    return count, tuple(rows)


def _list_from(path: Path, what: str, flag: str) -> List[Any]:
    """The list in a file; never empty."""
    wanted = f"the file of trtexec {flag}"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise BadInput(f"cannot read the {what} {path}: {reason}", wanted, "check the path") from error
    # C++ streams write a time that is not a number as nan or inf, which is no JSON; say that, not "line 7 column 12".
    sick = re.search(r":\s*-?(nan|inf)\s*[,}]", text, re.IGNORECASE)
    if sick:
        raise BadInput(f"{path} holds a time that is {sick.group(1)}", "finite times", "time again")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        todo = "export it again; the run may have been cut off"
        raise BadInput(f"{path} is not JSON: {error}", wanted, todo) from error
    if not isinstance(found, list):
        raise BadInput(f"{path} holds {_kind(found)}", f"a list: {wanted}", "check which file this is")
    if not found:
        raise BadInput(f"{path} is an empty list", f"at least one entry: {wanted}", "run trtexec for longer")
    return found


def _check_keys(entry: Any, keys: Sequence[str], where: str, flag: str) -> None:
    missing = [key for key in keys if key not in entry] if isinstance(entry, dict) else list(keys)
    if missing:
        found = f"has no {', '.join(missing)}" if isinstance(entry, dict) else f"is {_kind(entry)}"
        raise BadInput(f"{where} {found}", f"the layout of trtexec {flag}, 8.5 to 11", "check which file this is")


def _time(value: Any, key: str, where: str) -> float:
    """A duration in ms, or a share in percent: finite and not negative."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    if not good:
        raise BadInput(f"{where}: {key} is {value!r}", "a number that is not negative", "time again")
    return float(value)


def _kind(value: Any) -> str:
    names = {dict: "an object", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a list" if isinstance(value, list) else "a number")


def _number_of(version: str) -> Tuple[int, ...]:
    """ "8.5.2" as (8, 5, 2).

    Raises:
        UsageError: not of that form.
    """
    if not re.fullmatch(r"\d+\.\d+(\.\d+)*", version):
        raise UsageError(f"{version!r} is not a version of trtexec", "such as 8.5.2, 10.3 or 11.0")
    return tuple(int(part) for part in version.split("."))
