"""The part of a report about a deployment's precision plans."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

from sr_deploy.core.number_formats import FORMATS
from sr_deploy.report import html
from sr_deploy.report.numbers import NONE

#: So many layers that were given back, or that do not fuse, are named.
MOST_NAMED = 12


def precision_section(plans: Sequence[Dict[str, Any]]) -> str:
    """Each plan: shares, loss, islands, what does not fuse, what was given up.

    Args:
        plans: from pipeline/precision/plan_facts.py.
    """
    if not plans:
        return html.paragraph("No plan has been made: srdeploy build --precision makes one.", "note")
    shares = [f"{one.label} %" for one in FORMATS]
    headings = ["plan", *shares, "dB lost", "in the worst picture", "pictures", "colour shift", "reformats", "casts"]
    rows = [_row(plan) for plan in plans]
    caption = "Plans: share of the multiply-accumulates in each type; PSNR-Y lost against FP32 and the mean shift "
    caption += "of a colour, of 255, on the pictures that the plan was judged on; counts of the lint"
    parts = [html.table(caption, headings, rows)]
    for plan in plans:
        parts.append(html.items(plan_lines(plan), "small"))
        if plan.get("problem"):
            parts.append(html.paragraph(f"{plan['name']}: {plan['problem']}", "warn"))
    return "".join(parts)


def _row(plan: Dict[str, Any]) -> List[str]:
    shares = plan.get("macs_share") or {}
    percent = [f"{100 * shares[one.name]:.1f}" if one.name in shares else NONE for one in FORMATS]
    loss = plan.get("loss_db")
    worst = plan.get("worst_loss_db")
    shift = plan.get("mean_shift")
    return [
        plan["name"],
        *percent,
        NONE if loss is None else f"{loss:+.4f}",
        NONE if worst is None else f"{worst:+.4f} ({plan.get('worst_picture', NONE)})",
        str(plan.get("pictures", NONE)),
        NONE if shift is None else f"{shift:.3f}",
        str(plan.get("reformats", NONE)),
        str(plan.get("casts", NONE)),
    ]


def plan_lines(plan: Dict[str, Any]) -> List[str]:
    """What the table has no room for, in sentences."""
    name, lines = plan["name"], []
    if plan.get("islands"):
        islands = ", ".join(f"{count} × {why}" for why, count in plan["islands"].items())
        lines.append(f"{name}, wider than asked for: {islands}.")
    if plan.get("gave_up"):
        lines.append(f"{name}, given back for the budget: {_named(list(plan['gave_up']))}.")
    if plan.get("not_fusing"):
        lines.append(f"{name}, will not fuse: {_named(plan['not_fusing'])}.")
    if plan.get("not_for_tensorrt_8"):
        lines.append(f"{name} has no graph for TensorRT 8: {plan['not_for_tensorrt_8']}")
    lines += [f"{name}: {note}." for note in plan.get("notes", ())]
    return lines


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
