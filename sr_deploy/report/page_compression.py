"""The part of a report about compression: what each step did, and what of the network is left for the time."""

from __future__ import annotations

from pathlib import Path
from typing import List, Sequence

from sr_deploy.core.deployment.records import CompressRecord
from sr_deploy.core.quality.metrics import CRITERION
from sr_deploy.core.text import counted
from sr_deploy.report import html
from sr_deploy.report.content import Comparison, Deployed
from sr_deploy.report.numbers import NONE, figures
from sr_deploy.report.page_deployment import drawing
from sr_deploy.report.pareto import pareto_front
from sr_deploy.report.plots_bench import Candidate, pareto_plot

_HEADINGS = (
    *("", "budget", "channels", "MACs a pixel", "parameters", "time", "dB fitted", "steps", "dB after", "dB lost"),
)
_CAPTION = (
    "Steps of compression, each from the network before it. Channels that went, in so many of the groups. MACs: "
    "multiply-accumulates for a low-resolution pixel of the plain graph. Time: of the one after as a share of the one "
    "before. dB fitted: PSNR of its output to the whole network's after least squares, dB after: after so many steps "
    "of distillation. dB lost: of PSNR-Y, on photographs that were shrunk"
)


def compression_section(deployments: Sequence[Deployed]) -> str:
    """A row for every step of every deployment; nothing where none was compressed."""
    rows: List[List[html.Cell]] = []
    seen = []
    for deployed in deployments:
        for step in deployed.manifest.compression:
            rows.append([deployed.name, *_cells(step)])
            seen.append(f"{deployed.name}, {step['asked']}: {_how(step)}")
    if not rows:
        return ""
    table = html.table(_CAPTION, _HEADINGS, rows, 1)
    return html.section("Compression", table + html.items(seen, "small"), "compression")


def _cells(step: CompressRecord) -> List[html.Cell]:
    share, lost = step.get("time_share"), step.get("lost_db")
    gone = sum(before - after for before, after in step["widths"].values())
    return [
        step["asked"],
        f"−{gone:,} in {len(step['widths'])} of {step['groups']}",
        " → ".join(f"{count:,.0f}" for count in step["macs"]),
        " → ".join(f"{count:,}" for count in step["parameters"]),
        NONE if share is None else f"{share:.2f}",
        f"{step['fitted_db']:.2f}",
        f"{step['steps']:,}",
        f"{step['fidelity_db']:.2f}",
        NONE if lost is None else f"{lost:+.3f}",
    ]


def _how(step: CompressRecord) -> str:
    """What of a step is no number."""
    fitted = "fitted" if step["refitted"] else "not fitted"
    time = "" if step.get("time_share") is None else f"; time: {step['time_kind']}"
    return f"channels by {step['importance']}, {fitted}, on {counted(step['pictures'], 'photograph')}{time}"


def fidelity_drawing(comparison: Comparison, shared: str) -> str:
    """Fidelity against latency of the compressed networks of a comparison, where there are two."""
    drawn = [entry for entry in comparison.entries if entry.fidelity is not None]
    if len(drawn) < 2:
        return ""
    candidates = [Candidate(entry.name, entry.point.median_s or 0.0, entry.fidelity or 0.0) for entry in drawn]
    front = pareto_front([(candidate.latency_s, candidate.quality) for candidate in candidates])
    words = "; ".join(
        f"{c.name}: {c.quality:.2f} {CRITERION.unit} at {figures(1e3 * c.latency_s)} ms" for c in candidates
    )

    def draw(path: Path) -> None:
        pareto_plot(candidates, front, shared, path, "PSNR to the network before")

    return drawing(
        draw,
        f"Fidelity against median latency. {words}",
        "How much of the network they were made from the compressed ones keep, on photographs without originals.",
        ".svg",
    )
