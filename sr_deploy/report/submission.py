"""An entry of a public table: a measurement with all its conditions, sealed; ``srdeploy bench --submit`` writes it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping

from sr_deploy.bench.result import Result
from sr_deploy.core.artifact import write_json
from sr_deploy.core.errors import UsageError
from sr_deploy.core.schema import Amount, Positive, Scale, Sha256, ShortText, described, read_described, value_from
from sr_deploy.report.quality_file import QualityFile

#: How the files' names end: a folder may hold other results too.
SUFFIX = ".entry.json"
_TODO = "make it again with srdeploy bench --submit"


@described
@dataclass(frozen=True)
class NetworkFacts:
    """What was measured.

    Attributes:
        name, architecture, scale: for people, and output size over input size.
        parameters: weights of the graph.
        macs_per_pixel: multiply-accumulates of the graph for one pixel of the input.
        graph_sha256, checkpoint_sha256: of the graph, and of the file that it was exported from.
    """

    name: ShortText
    architecture: ShortText
    scale: Scale
    parameters: Positive
    macs_per_pixel: Amount
    graph_sha256: Sha256
    checkpoint_sha256: Sha256


@described
@dataclass(frozen=True)
class Submission:
    """One entry.

    Attributes:
        srdeploy: the version that measured.
        network: what was measured.
        result: the sweep: device, clocks, power, versions, every sample, p50, p90, p99, interval, and loads.
        quality: what verify kept of the same precision.
        seal: SHA-256 of all the rest, see ``seal_of``. It shows that a file was altered, not who made it.
        schema: version of this layout.
    """

    srdeploy: ShortText
    network: NetworkFacts
    result: Result
    quality: QualityFile
    seal: Sha256
    schema: int = 1


def seal_of(content: Mapping[str, Any]) -> str:
    """The seal of an entry's dict form: SHA-256 of its JSON with sorted keys and without spaces, ``seal`` left out."""
    rest = {key: value for key, value in content.items() if key != "seal"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def sealed(srdeploy: str, network: NetworkFacts, result: Result, quality: QualityFile) -> Submission:
    """An entry of its parts, as it reads when it comes back from a file."""
    entry = Submission(srdeploy, network, result, quality, "0" * 64)
    content: Dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(entry)))
    content["seal"] = seal_of(content)
    return value_from(Submission, json.dumps(content), "the entry", _TODO, said_as="entry")


def check_name(path: Path) -> None:
    """Raise UsageError for a file that no catalogue would read."""
    if not path.name.endswith(SUFFIX):
        raise UsageError(f"{path} is no name of an entry", f"a name that ends in {SUFFIX}", f"--submit {path}{SUFFIX}")


def save_submission(path: Path, entry: Submission) -> None:
    """Write an entry, whole or not at all; raises DiskFull or EnvironmentFault."""
    write_json(path, dataclasses.asdict(entry))


def read_submission(path: Path) -> Submission:
    """Read an entry; whether it can be true, submission_checks.py tells.

    Raises:
        BadInput: not a file, or not as described.
    """
    return read_described(Submission, path, "entry", _TODO)
