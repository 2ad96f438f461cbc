"""What a deployment's manifest keeps of how it was made: tables of JSON, described so that reading checks them.

They stay dicts and not dataclasses: an entry may lack what its step did not find, and people read them as they are.
"""

from __future__ import annotations

from typing import Dict, List, Optional

from typing_extensions import Required, TypedDict

from sr_deploy.core.schema import Amount, Count, Scale, Sha256, ShortText, SizePair, described


@described
class LoadRecord(TypedDict, total=False):
    """The fields of LoadOptions, see pipeline/load.py."""

    arch: Optional[ShortText]
    factory: Optional[ShortText]
    scale: Optional[Scale]
    value_range: Optional[Amount]
    lora_alpha: Optional[ShortText]
    res_scale: Optional[float]
    key: Optional[ShortText]


@described
class SourceRecord(TypedDict, total=False):
    """The checkpoint: its name, the path it had, its hash, and how its tensors were found and loaded."""

    file: Required[str]
    path: Required[str]
    sha256: Required[Sha256]
    container: str
    found_under: Optional[str]
    stripped_prefix: Optional[str]
    load_options: Required[LoadRecord]


@described
class FoldedRecord(TypedDict, total=False):
    """One block that was folded; the fields of FoldedBlock in fold/result.py."""

    name: Required[str]
    was: Required[str]
    became: Required[str]
    macs_before: Count
    macs_after: Count
    error_float64: Optional[Amount]
    error_float32: Optional[Amount]
    error_original_float32: Optional[Amount]


@described
class KeptRecord(TypedDict):
    """One block that was left as it was, and why."""

    name: str
    was: str
    reason: str


@described
class FoldRecord(TypedDict, total=False):
    """What was folded; the fields of FoldReport in fold/result.py."""

    blocks: List[FoldedRecord]
    kept: List[KeptRecord]
    network_error: Optional[Amount]
    network_error_before: Optional[Amount]
    network_error_float64: Optional[Amount]
    sizes: List[SizePair]


@described
class CountsRecord(TypedDict, total=False):
    """Counts of a graph."""

    nodes: Count
    macs: Count
    moved_bytes: Count
    peak_activation_bytes: Count


@described
class PassRecord(CountsRecord, total=False):
    """What one pass of the rewriting changed, and the counts after it."""

    places: Required[Count]
    notes: List[str]


@described
class RewriteRecord(TypedDict, total=False):
    """What the rewriting did to one graph; empty where it did nothing."""

    counted_at: str
    before: CountsRecord
    passes: Dict[str, PassRecord]
    # By srdeploy tune: "variant", "backend" and "from", the graph that it began with.
    tuned: Dict[str, str]
