"""What was folded, as a module and on the graph: one account in the manifest, and what is said of it."""

from __future__ import annotations

from typing import Callable, Dict, List, Optional, Tuple

from sr_deploy.core.deployment.records import FoldRecord, KeptRecord, PassRecord, RewriteRecord

#: The pass of graph/rewrite that folds.
_PASS = "fold"
#: Places that ``export`` names one by one.
_NAMED = 5


def say_folds(record: RewriteRecord, say: Callable[[str], None]) -> None:
    """Say what the pass over one graph folded."""
    one = _of_pass(record)
    folded = one.get("folded", []) if one is not None else []
    if folded:
        before, after = sum(x["macs_before"] for x in folded), sum(x["macs_after"] for x in folded)
        what = f"{len(folded)} parts of the graph became one convolution each"
        say(f"  {what}, {before:,} to {after:,} multiply-accumulates a pixel in them")


def with_graph_folds(report: FoldRecord, rewrites: Dict[str, RewriteRecord]) -> Tuple[FoldRecord, Tuple[str, ...]]:
    """Move what the graphs' pass folded and left into the account of folding.

    Args:
        report: what was folded as modules.
        rewrites: graph file → what was done to it; what moves is taken out of it. All are graphs of one network: the
            first one's folds stand for all.

    Returns:
        The whole account, and notes for the user: where parallel branches remain, and why.
    """
    whole, kept = FoldRecord(**report), []
    for number, record in enumerate(rewrites.values()):
        one = _of_pass(record)
        if one is None:
            continue
        folded, left = one.pop("folded", []), one.pop("kept", [])
        if number == 0:
            kept = left
            whole["blocks"] = [*report.get("blocks", []), *folded]
            whole["kept"] = [*report.get("kept", []), *left]
    return whole, _warnings(kept)


def _of_pass(record: RewriteRecord) -> Optional[PassRecord]:
    return record.get("passes", {}).get(_PASS)


def _warnings(kept: List[KeptRecord]) -> Tuple[str, ...]:
    if not kept:
        return ()
    named = [f"parallel branches stay at {one['name']} ({one['was']}): {one['reason']}" for one in kept[:_NAMED]]
    more = len(kept) - len(named)
    return (*named, *([f"parallel branches stay at {more} more places: fold.kept in the manifest"] if more else []))
