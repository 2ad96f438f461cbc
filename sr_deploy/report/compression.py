"""Compression in words and as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Sequence

from sr_deploy.core.deployment.records import CompressRecord

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = ("cost", "MACs a pixel", "parameters", "channels", "predicted dB")
CAPTION = (
    "cost: the share that is left of the modelled time, or with --macs of the MACs; MACs: multiply-accumulates for a "
    "low-resolution pixel; predicted: PSNR to the whole network's output after least squares and before distillation, "
    "from single channels' errors added up"
)


def said(record: CompressRecord) -> str:
    """A step of compression in a sentence."""
    macs, parameters = record["macs"], record["parameters"]
    text = (
        f"compressed ({record['asked']}, {record['importance']}): {macs[0]:,.0f} to {macs[1]:,.0f} "
        f"multiply-accumulates for a pixel, {parameters[0]:,} to {parameters[1]:,} parameters, "
        f"{record['fidelity_db']:.2f} dB to the whole network"
    )
    share = record.get("time_share")
    if share is not None:
        text += f", {share:.2f} of its time ({record['time_kind']})"
    return text + (f", after {record['steps']} steps of distillation" if record["steps"] else "")


def pareto_table(rows: Sequence[Dict[str, Any]]) -> Table:
    """What budgets would leave, for the terminal."""
    from sr_deploy.report.table import plain_table

    texts = [
        [
            f"{row['cost']:.2f}",
            f"{row['macs']:,}",
            f"{row['parameters']:,}",
            f"{row['channels']:,}",
            "" if row["predicted_db"] is None else f"{row['predicted_db']:.1f}",
        ]
        for row in rows
    ]
    return plain_table("What budgets would leave", CAPTION, HEADINGS, texts)
